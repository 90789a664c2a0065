"""Several nodes on one PostgreSQL database: one order, one certificate, and whichever node is asked answers."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from postbackd.https import open_shelf
from postbackd.settings import Settings
from postbackd.store.postgres import PostgresStore
from tests.postgres_server import VERSIONS, new_database
from tests.tls.pebble import Pebble, missing_programs
from tests.tls.site import Site
from tests.trust.server import free_port

NAME = "a.example"
SECRET_KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


@contextmanager
def spread(ports: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """A port whose connections go to the others in turn, as a balancer does; and which were used."""
    used: list[int] = []
    ends: list[socket.socket] = []
    turns = itertools.cycle(ports)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def copy(here: socket.socket, there: socket.socket) -> None:
            with suppress(OSError):
                while some := here.recv(65536):
                    there.sendall(some)
                there.shutdown(socket.SHUT_WR)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    here, _ = listening.accept()
                    port = next(turns)
                    used.append(port)
                    there = socket.create_connection(("127.0.0.1", port))
                    ends.extend((here, there))
                    for way in ((here, there), (there, here)):
                        threading.Thread(target=copy, args=way, daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listening.getsockname()[1], used
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    for end in ends:
        end.close()


@pytest.mark.skipif(bool(missing_programs()), reason="needs pebble (apt-get install pebble)")
@pytest.mark.skipif(not VERSIONS, reason="no PostgreSQL 15 or newer was found (apt install postgresql)")
def test_nodes_make_one_order_answer_for_each_other_and_show_one_certificate(tmp_path: Path) -> None:
    env = {"POSTBACKD_STORE": new_database(max(VERSIONS)), "POSTBACKD_SECRET_KEY": SECRET_KEY}
    ports = [free_port() for _ in range(3)]
    with spread(ports) as (http_port, used), Pebble(tmp_path / "pebble", http_port) as pebble:
        options = ["--domain", NAME, *pebble.options]
        nodes = [
            Site(tmp_path / f"node{port}", options, env=env, role="ingest", http_port=port) for port in ports
        ]
        try:
            pebble.stop()  # so that all of them are there before one of them gets through
            for node in nodes:
                node.start()
            pebble.start()
            shown = {node.wait_shown(deadline_s=60) for node in nodes}
            assert len(shown) == 1
            assert len(set(used)) > 1
            assert pebble.orders == 1
            late = Site(tmp_path / "late", options, env=env, role="ingest")
            nodes.append(late)
            late.start()
            assert {late.wait_shown()} == shown
            assert pebble.orders == 1
        finally:
            for node in nodes:
                node.kill()


@pytest.mark.skipif(not VERSIONS, reason="no PostgreSQL 15 or newer was found (apt install postgresql)")
def test_a_node_with_another_secret_key_says_what_is_wrong(tmp_path: Path) -> None:
    address = new_database(max(VERSIONS))

    async def put() -> None:
        await (await PostgresStore.open(address, create=True)).close()
        shelf = open_shelf(Settings(store=address, secret_key=SECRET_KEY))
        assert await shelf.hold()
        await shelf.save("certificate.pem", b"x")
        await shelf.close()

    asyncio.run(put())
    env = {"POSTBACKD_STORE": address, "POSTBACKD_SECRET_KEY": SECRET_KEY[4:] + "MDE="}
    options = ["--domain", NAME, "--acme-directory", "https://localhost:1/dir"]
    other = Site(tmp_path / "two", options, env=env, role="ingest")
    with other:
        other.wait_said("give every node the same POSTBACKD_SECRET_KEY")
