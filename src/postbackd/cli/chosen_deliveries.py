"""The options that say which deliveries a command speaks of, and the bar that shows how far it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from postbackd.operations.deliveries import STATES, Watch

F = TypeVar("F", bound=Callable[..., Any])


def takes_filter(command: F) -> F:
    """``--state``, ``--target`` and ``--rule``; the arguments ``state``, ``target`` and ``rule``."""
    options = (
        click.option("--state", type=click.Choice(list(STATES)), help="Only what is in this state."),
        click.option("--target", metavar="T", help="Only to this target."),
        click.option("--rule", metavar="R", help="Only by this rule."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@contextmanager
def showing(count: int, label: str) -> Iterator[Watch]:
    """A bar on a terminal."""
    quiet = not sys.stderr.isatty()
    with click.progressbar(length=count, label=label, file=sys.stderr, hidden=quiet) as bar:
        yield bar.update
