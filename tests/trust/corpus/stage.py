"""A running server with a catalog and clicks, for tests that speak to it from outside."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.trust.corpus.wire import Address
from tests.trust.oracle import DATABASE, open_read_only
from tests.trust.server import Catalog, Server, make_catalog

_CLICK_ID = re.compile(r"[?&]sub1=([0-9a-z]{26})")


@dataclass(frozen=True)
class Stage:
    """One server under test."""

    server: Server
    catalog: Catalog

    @property
    def address(self) -> Address:
        return self.server.host, self.server.port

    @property
    def endpoint(self) -> str:
        """Path of the network's endpoint."""
        return f"/p/{self.catalog.key}"

    def click(self) -> str:
        """The id of a new click."""
        return self.clicks(1)[0]

    def clicks(self, count: int) -> list[str]:
        """The ids of new clicks."""
        return [self._click() for _ in range(count)]

    def _click(self) -> str:
        import http.client

        connection = http.client.HTTPConnection(*self.address, timeout=10)
        try:
            connection.request("GET", f"/c/{self.catalog.slug}")
            location = connection.getresponse().getheader("Location") or ""
        finally:
            connection.close()
        found = _CLICK_ID.search(location)
        if found is None:
            raise AssertionError(f"a click was not redirected to the offer: {location!r}")
        return found[1]

    def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """What the database says now."""
        db = open_read_only(self.server.data_dir / DATABASE)
        try:
            return list(db.execute(sql, parameters))
        finally:
            db.close()

    def transaction_ids(self) -> set[str]:
        """Of every postback in the log."""
        return {row[0] for row in self.rows("SELECT transaction_id FROM postbacks") if row[0]}

    @property
    def tracebacks(self) -> int:
        """Stack traces on the server's standard error."""
        path = self.server.stderr_path
        return path.read_text(errors="replace").count("Traceback") if path.exists() else 0


@contextmanager
def stage(
    work_dir: Path,
    name: str = "data",
    *,
    env: Mapping[str, str] | None = None,
    network_options: Sequence[str] = (),
) -> Iterator[Stage]:
    """A server on an empty data directory, with a catalog, killed at the end."""
    data_dir = work_dir / name
    data_dir.mkdir(parents=True)
    catalog = make_catalog(data_dir, env=env, network_options=network_options)
    with Server(data_dir, env=env) as server:
        yield Stage(server, catalog)
