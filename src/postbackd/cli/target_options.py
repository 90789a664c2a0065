"""The options of ``postbackd target add`` and ``set``, and the row of a catalog file that they fill."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from msgspec.structs import replace

from postbackd.catalog.entries import FRESH_FROM, need_preset
from postbackd.catalog.target_rows import TargetRow
from postbackd.catalog.targets import fill_url, placeholders
from postbackd.cli.account_values import ask_values
from postbackd.cli.catalog import read_pairs
from postbackd.core.outgoing import METHODS, ON_EMPTY

_ACCOUNT_HELP = (
    "A secret for {account.NAME} in the URL, body or headers, or one that a platform asks for; sealed at once and "
    "never shown again. Others on this machine can read a command line: write NAME=- to be asked for it, or to have a "
    "line of standard input read. With --store the key that seals it is still in the data directory, unless "
    "POSTBACKD_SECRET_KEY is set."
)


_REQUEST_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option("--url", metavar="URL", help="Where it is told, with macros such as {source_click_id}."),
    click.option(
        "--method",
        type=click.Choice(METHODS, case_sensitive=False),
        help="[default: GET, with a body POST]",
    ),
    click.option("--body", metavar="TEXT", help="Body of the request, with macros; empty for none."),
    click.option("--body-type", type=click.Choice(["form", "json"]), help="What the body is."),
    click.option(
        "--header",
        "headers",
        multiple=True,
        metavar="NAME: VALUE",
        help="A header, with macros, such as 'Authorization: Bearer {account.TOKEN}'; 'NAME:' takes it away.",
    ),
    click.option(
        "--on-empty",
        type=click.Choice(ON_EMPTY),
        help="What becomes of a parameter whose macro has no value.  [default: drop]",
    ),
    click.option(
        "--adjust-url",
        metavar="URL",
        help="Where it is told of a changed value, if it can be; empty for none.",
    ),
    click.option(
        "--retract-url",
        metavar="URL",
        help="Where it is told of a reversal, if it can be; empty for none.",
    ),
    click.option("--account", "accounts", multiple=True, metavar="NAME=VALUE", help=_ACCOUNT_HELP),
)
_OTHER_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option(
        "--option",
        "platform_options",
        multiple=True,
        metavar="NAME=VALUE",
        help="What a platform wants to know, such as pixel_id; nothing secret. NAME= takes it away.",
    ),
    click.option(
        "--type",
        "types",
        multiple=True,
        metavar="OURS=THEIRS",
        help="Its word for a conversion type, macro {goal}, such as sale=Purchase; OURS= to forget it.",
    ),
    click.option(
        "--status",
        "statuses",
        multiple=True,
        metavar="OURS=THEIRS",
        help="Its word for a status, macro {status}, such as pending=hold; OURS= to forget it.",
    ),
    click.option(
        "--success",
        multiple=True,
        metavar="REGEX",
        help="A 2xx answer is a success only if one of these is found in its body; empty for none.",
    ),
    click.option(
        "--failure",
        multiple=True,
        metavar="REGEX",
        help="A 2xx answer in whose body this is found is a failure; empty for none.",
    ),
    click.option(
        "--final",
        multiple=True,
        metavar="STATUS",
        help="An HTTP status after which trying again is useless, such as 400; empty for none.",
    ),
    click.option("--fresh", metavar="TIME", help="What is older is not sent, such as 48h; 0s for any age."),
    click.option(
        "--fresh-from",
        type=click.Choice(FRESH_FROM),
        help="What the age counts from.  [default: conversion]",
    ),
    click.option(
        "--schedule",
        metavar="TIME,TIME",
        help="Pauses before each attempt, such as 0s,5s,30s,5m; empty for the usual ones (over 72 hours).",
    ),
    click.option("--connect-timeout", metavar="TIME", help="Time-out of the connection.  [default: 2s]"),
    click.option("--timeout", metavar="TIME", help="Time-out of the whole attempt.  [default: 5s]"),
    click.option("--concurrency", type=int, metavar="N", help="Requests at the same time.  [default: 32]"),
)


def target_options(command: Any) -> Any:
    """The options that ``add`` and ``set`` share; ``None`` and an empty list are not given."""
    for option in reversed((*_REQUEST_OPTIONS, *_OTHER_OPTIONS)):
        command = option(command)
    return command


# --- from options to a target ------------------------------------------------------------------------------------


_PLAIN = (
    *("url", "method", "body", "body_type", "on_empty", "adjust_url", "retract_url"),
    *("fresh", "fresh_from", "connect_timeout", "timeout", "concurrency"),
)
"""Options that are fields of the row as they are."""


def change_row(row: TargetRow, options: Mapping[str, Any]) -> TargetRow:
    """The row with the given options in it."""
    changes: dict[str, Any] = {name: options[name] for name in _PLAIN if options[name] is not None}
    if changes.get("body") == "":
        changes["body_type"] = ""
    if options["headers"]:
        changes["headers"] = _change_headers(row.headers, options["headers"])
    for field, option, form in (
        ("platform_options", "--option", "NAME=VALUE"),
        ("types", "--type", "OURS=THEIRS"),
        ("statuses", "--status", "OURS=THEIRS"),
    ):
        if options[field]:
            into = "options" if field == "platform_options" else field
            changes[into] = _change_pairs(_words_of(row, into), options[field], option, form)
    for field in ("success", "failure"):
        if options[field]:
            changes[field] = [pattern for pattern in options[field] if pattern]
    if options["final"]:
        changes["final"] = [_read_status(text) for text in options["final"] if text.strip()]
    if options["schedule"] is not None:
        changes["schedule"] = [pause.strip() for pause in options["schedule"].split(",") if pause.strip()]
    return replace(row, **changes)


def _words_of(row: TargetRow, field: str) -> Mapping[str, str]:
    """What the options change: the preset's status words, as long as there are no others."""
    stored: Mapping[str, str] | None = getattr(row, field)
    if stored is not None:
        return stored
    return need_preset("target", row.preset).target.statuses if row.preset else {}


def _change_pairs(stored: Mapping[str, str], texts: Sequence[str], option: str, form: str) -> dict[str, str]:
    changed = {**stored, **read_pairs(texts, option, form)}
    return {name: value for name, value in changed.items() if value}


def _change_headers(stored: Mapping[str, str], texts: Sequence[str]) -> dict[str, str]:
    headers = dict(stored)
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise click.UsageError(f"--header {text!r} is not usable; write it as 'NAME: VALUE'")
        for known in [known for known in headers if known.lower() == name.strip().lower()]:
            del headers[known]
        if value.strip():
            headers[name.strip()] = value.strip()
    return headers


def _read_status(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) == 3):
        raise click.UsageError(f"--final {text!r} is no HTTP status; write a number such as 400")
    return int(text)


def ask_fill(row: TargetRow, fills: Sequence[str]) -> TargetRow:
    """The row with the URL of its preset, filled; what is still missing is asked for."""
    given = read_pairs(fills, "--fill", "NAME=TEXT")
    left = [name for name in placeholders(row) if not given.get(name)]
    return fill_url(row, given | ask_values(left, "--fill", hidden=False))
