"""Several nodes (``postbackd ingest``) on one PostgreSQL database, each over a link that can be cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.trust.corpus.stage import Stage
from tests.trust.link import Link
from tests.trust.postgres import NAME, USER, Database
from tests.trust.server import Catalog, Server, make_catalog


@dataclass(frozen=True)
class Cluster:
    """A database and the nodes that share it."""

    database: Database
    nodes: list[Server]
    links: list[Link]
    """Of each node, the one between it and the database."""
    catalog: Catalog

    @property
    def tracebacks(self) -> int:
        """Stack traces on the standard errors of the nodes."""
        return sum(NodeStage(node, self.catalog, self.database).tracebacks for node in self.nodes)

    def stages(self) -> list[NodeStage]:
        """Each node, for tests that speak to it from outside."""
        return [NodeStage(node, self.catalog, self.database) for node in self.nodes]

    def wait_drained(self, deadline_s: float = 60) -> float:
        """Wait until no node has anything left in its spool; returns the seconds."""
        return sum(node.wait_drained(deadline_s) for node in self.nodes)


@dataclass(frozen=True)
class NodeStage(Stage):
    """One node; its rows are the database's."""

    database: Database

    def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """What the database says now, every value as text."""
        assert not parameters
        return [tuple(row) for row in self.database.rows(sql)]


@contextmanager
def cluster(
    work_dir: Path,
    database: Database,
    count: int,
    env: Mapping[str, str] | None = None,
    *,
    linked: bool = False,
    role: str = "ingest",
) -> Iterator[Cluster]:
    """A catalog in the database and so many nodes, killed at the end; ``linked``: over links that can be cut."""
    work_dir.mkdir(parents=True, exist_ok=True)
    straight = {**(env or {}), "POSTBACKD_STORE": database.address}
    catalog = make_catalog(work_dir / "catalog", env=straight)
    with ExitStack() as stack:
        links = [stack.enter_context(Link(database.socket)) for _ in range(count if linked else 0)]
        addresses = [link.address(USER, NAME) for link in links] or [database.address] * count
        nodes = [
            stack.enter_context(
                Server(work_dir / f"node{number}", env={**straight, "POSTBACKD_STORE": address}, role=role)
            )
            for number, address in enumerate(addresses)
        ]
        yield Cluster(database, nodes, links, catalog)
