"""A server with the catalog of a simulated market, and commands run in this process."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import pytest

from postbackd.cli.main import main
from tests.trust.server import Server, free_port


@dataclass
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def command(*arguments: str, code: int = 0) -> Ran:
    """Run a command as a user would, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == code, (arguments, out.getvalue(), err.getvalue())
    return Ran(code, out.getvalue(), err.getvalue())


@dataclass
class Market:
    """One server; every run against it has a truth of its own."""

    home: Path
    server: Server
    runs: int = field(default=0)

    @property
    def url(self) -> str:
        return f"http://{self.server.host}:{self.server.port}"

    @property
    def data(self) -> Path:
        return self.server.data_dir

    @property
    def catalog(self) -> Path:
        return self.home / "market.toml"

    def new_truth(self) -> Path:
        self.runs += 1
        return self.home / f"truth{self.runs}.ndjson"

    def options(self, truth: Path) -> list[str]:
        """Of a run."""
        return [self.url, "--catalog", str(self.catalog), "--truth", str(truth), "--rate", "10000"]

    def play(self, *options: str, code: int = 0) -> Path:
        """A run to its end; returns its truth."""
        truth = self.new_truth()
        command("simulate", "run", *self.options(truth), *options, code=code)
        return truth

    def check(self, truth: Path, *options: str, differences: bool = False) -> Any:
        """What ``simulate check`` finds."""
        arguments = ["simulate", "check", str(truth), "--data", str(self.data), "--json", *options]
        return command(*arguments, code=int(differences)).json

    @contextmanager
    def database(self) -> Iterator[apsw.Connection]:
        """The database below the server."""
        connection = apsw.Connection(str(self.data / "postbackd.db"))
        connection.set_busy_timeout(10_000)
        try:
            yield connection
        finally:
            connection.close()


def open_market(home: Path, *, env: dict[str, str] | None = None) -> Market:
    """A server that is set up and not started."""
    server = Server(home / "data", port=free_port(), env=env)
    market = Market(home, server)
    market.catalog.write_text(command("simulate", "catalog").out)
    command("apply", str(market.catalog), "--yes", "--data", str(market.data))
    return market
