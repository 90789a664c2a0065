"""The options that say which deliveries a command speaks of, and the bar that shows how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from postbackd.operations.deliveries import STATES

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
