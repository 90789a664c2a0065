"""Runs commands as a user would, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from postbackd.cli.main import main


class Ran:
    """What a command left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def json(self) -> Any:
        """The document on standard output."""
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory of its own, made known through the environment."""
    directory = tmp_path / "data"
    monkeypatch.setenv("POSTBACKD_DATA", str(directory))
    monkeypatch.setenv("POSTBACKD_ADMIN_LISTEN", "off")  # its port is one
    for name in ("LISTEN", "PUBLIC_URL", "NODE"):
        monkeypatch.delenv(f"POSTBACKD_{name}", raising=False)
    return directory


@pytest.fixture
def run(data: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """``run("network", "list")``: exit code, output and errors of a command; ``code=None``: whatever the code is."""

    def running(*arguments: str, code: int | None = 0) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main(arguments)
        out, err = capsys.readouterr()
        left = leaving.value.code
        assert isinstance(left, int)
        assert code in (None, left), (arguments, out, err)
        return Ran(left, out, err)

    return running


@pytest.fixture
def filled(run: Run) -> Run:
    """``run`` over a catalog with one of each."""
    run("network", "add", "TUNE", "--preset", "tune")
    run("source", "add", "Propeller", "--preset", "propellerads")
    run("offer", "add", "Shop", "--network", "TUNE", "--url", "https://shop.example/?sub1={click_id}")
    run("campaign", "add", "Summer Sale", "--source", "Propeller", "--offer", "Shop:3")
    return run
