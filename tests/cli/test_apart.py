"""A start is prepared in a process of its own, whose failures are the caller's."""

from __future__ import annotations

import os
import signal
import sys

import click
import pytest

from postbackd.cli.apart import run_apart


def test_the_result_comes_back_and_what_was_imported_does_not() -> None:
    def work() -> int:
        import wave  # noqa: F401 - nobody else imports it

        return os.getpid()

    sys.modules.pop("wave", None)
    assert run_apart(work) != os.getpid()
    assert "wave" not in sys.modules


def test_a_refusal_is_the_callers_refusal() -> None:
    def refuse() -> None:
        raise click.ClickException("the database is elsewhere")

    with pytest.raises(click.ClickException, match="the database is elsewhere"):
        run_apart(refuse)


@pytest.mark.parametrize("end", ["killed", "broken"])
def test_a_start_that_breaks_off_is_an_error_and_no_silence(end: str) -> None:
    def fail() -> None:
        if end == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("a fault of ours")

    with pytest.raises(click.ClickException, match="interrupted"):
        run_apart(fail)
