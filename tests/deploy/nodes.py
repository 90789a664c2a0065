"""Ingest nodes on one PostgreSQL database, as ``postbackd-ingest@.service`` starts them."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands import run_here
from tests.deploy.recorder import Address
from tests.postgres_server import VERSIONS, new_database
from tests.trust.server import Catalog, clean_environment, free_port, make_catalog, wait_until

DEADLINE_S = 30.0


class Node:
    """``postbackd ingest``, alone."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self.address: Address = ("127.0.0.1", free_port())
        self._directory = directory
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it can store."""
        command = [sys.executable, "-m", "postbackd", "ingest", "--data", str(self._directory)]
        command += ["--listen", f"127.0.0.1:{self.address[1]}"]
        with self._directory.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=clean_environment(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: self.ask("/readyz") == 200, DEADLINE_S, "a node that is ready")

    def ask(self, target: str) -> int:
        """The status of a request to the node itself, 0 without an answer."""
        connection = http.client.HTTPConnection(*self.address, timeout=5)
        try:
            connection.request("GET", target)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(DEADLINE_S)
            self._process = None


@dataclass(frozen=True)
class Cluster:
    """Two nodes and what is in their database."""

    nodes: tuple[Node, Node]
    catalog: Catalog
    environment: dict[str, str]
    directory: Path

    @property
    def addresses(self) -> list[Address]:
        return [node.address for node in self.nodes]


@contextmanager
def cluster(directory: Path) -> Iterator[Cluster]:
    """Two nodes that know one campaign."""
    if not VERSIONS:
        pytest.skip("no PostgreSQL 15 or newer was found (apt install postgresql)")
    environment = {"POSTBACKD_STORE": new_database(VERSIONS[-1])}
    nodes = (Node(directory / "node1", environment), Node(directory / "node2", environment))
    try:
        for node in nodes:
            node.start()
        catalog = make_catalog(directory / "unused", env=environment, run=run_here)
        last = f"/c/{catalog.slug}"  # made last, so that whoever knows it knows all
        for node in nodes:
            wait_until(lambda node=node: node.ask(last) == 302, DEADLINE_S, "the catalog")  # type: ignore[misc]
        yield Cluster(nodes, catalog, environment, directory)
    finally:
        for node in nodes:
            node.stop()
