"""Account values of targets: how they come in and are sealed.  They never go out again.

Nothing here puts a value into a message, not even the text of an option that could not be read: it may be a secret.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import click

from postbackd.catalog.accounts import Seal
from postbackd.sealing import KEY_NAME, SealError, find_sealer
from postbackd.settings import Settings
from postbackd.store.sealed import TARGET


def split_values(texts: Sequence[str], option: str = "--account", form: str = "NAME=VALUE") -> dict[str, str]:
    """``NAME=VALUE`` arguments; a value that is ``-`` is asked for, or read from standard input, one a line."""
    values = {}
    for number, text in enumerate(texts, 1):
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise click.UsageError(
                f"{option} number {number} is not usable; write it as {form} (not shown here)"
            )
        values[name.strip()] = read_value(name.strip()) if value == "-" else value
    return values


def read_value(name: str) -> str:
    """A value from the terminal, without echo, or a line of standard input."""
    if sys.stdin.isatty():
        value = str(click.prompt(name, hide_input=True, err=True))
    else:
        value = sys.stdin.readline().rstrip("\r\n")
    if not value:
        raise click.UsageError(
            f"there was no value for {name} on standard input; give each on a line of its own"
        )
    return value


def ask_values(needed: Iterable[str], option: str, *, hidden: bool) -> dict[str, str]:
    """Values that are missing, from the terminal; elsewhere a usage error that names the options."""
    missing = list(needed)
    if not missing:
        return {}
    if sys.stdin.isatty():
        return {name: str(click.prompt(name, hide_input=hidden, err=True)) for name in missing}
    given = " ".join(f"{option} {name}=..." for name in missing)
    raise click.UsageError(f"{', '.join(missing)} must be given: add {given}")


def seal_values(values: Mapping[str, str], settings: Settings, purpose: str = TARGET) -> dict[str, str]:
    """The values as they are stored.  The key is made when there is none.  Raises ``ClickException``."""
    if not values:
        return {}
    try:
        sealer = find_sealer(settings.secret_key, Path(settings.data), create=True)
        sealed = {name: sealer.seal(value, purpose) for name, value in values.items()}
    except SealError as error:
        raise click.ClickException(str(error)) from error
    if settings.store is not None and settings.secret_key is None:
        click.echo(
            f"postbackd: the key of the secrets is {Path(settings.data) / KEY_NAME}, on this machine alone; copy it to "
            "every machine that delivers, or give all of them POSTBACKD_SECRET_KEY.",
            err=True,
        )
    return sealed


def sealing(settings: Settings) -> Seal:
    """What seals with the key of these settings."""
    return lambda values, purpose: seal_values(values, settings, purpose)
