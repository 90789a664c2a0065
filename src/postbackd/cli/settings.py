"""``postbackd settings``: what is set, where, and a file to start from.  Secrets are never printed."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any

import click

from postbackd.cli.options import as_json, takes_loaded
from postbackd.cli.session import print_json
from postbackd.reports.table import format_table
from postbackd.settings import Setting, list_settings
from postbackd.settings_sources import CONFIG_NAME, Loaded

_WIDTH = 110


def _print_example(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted:  # before anything is loaded: what is set may be what is wrong
        click.echo("\n".join(_write_example()))
        ctx.exit()


@click.command()
@click.option(
    "--example",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_example,
    help=f"Print a {CONFIG_NAME} with every setting, commented out.",
)
@as_json
@takes_loaded(*(setting.name for setting in list_settings()))
def settings(loaded: Loaded, json_wanted: bool) -> None:
    """Each setting, its value, and where it comes from.

    The command line wins over the environment, the environment over postbackd.toml, the file over the default. Of a
    secret only whether it is set is shown.
    """
    rows = [_describe(setting, loaded) for setting in list_settings()]
    if json_wanted:
        print_json({"file": None if loaded.file is None else str(loaded.file), "settings": rows})
        return
    cells = [(row["name"], _show(row), row["from"]) for row in rows]
    click.echo(format_table(("setting", "value", "from"), cells))


def _describe(setting: Setting, loaded: Loaded) -> dict[str, Any]:
    value = getattr(loaded.settings, setting.name)
    return {
        "name": setting.name,
        "value": None if setting.secret else value,
        "set": value is not None,
        "secret": setting.secret,
        "from": loaded.origins.get(setting.name, "default"),
    }


def _show(row: dict[str, Any]) -> str:
    if not row["set"]:
        return "-"
    if row["secret"]:
        return "set (hidden)"
    return str(row["value"]).lower() if isinstance(row["value"], bool) else str(row["value"])


def _write_example() -> Iterator[str]:
    yield f"# {CONFIG_NAME}: settings of postbackd. What is commented out has its default."
    yield "# It is looked for in the working directory, then in the data directory, or named with --config."
    yield "# The command line and the environment win over it. Paths are relative to the working directory."
    yield "# 'postbackd settings' shows what counts. Servers read it when they start."
    for setting in list_settings():
        yield ""
        words = f"{setting.help} {_describe_value(setting)}"
        yield from textwrap.wrap(
            words,
            _WIDTH,
            initial_indent="# ",
            subsequent_indent="# ",
            break_on_hyphens=False,
            break_long_words=False,
        )
        yield f"#{setting.name} = {_write_value(setting)}"


def _describe_value(setting: Setting) -> str:
    more = " (a list of them is accepted too)" if setting.is_list else ""
    secret = f" Secret: better in the file that {setting.file_variable} names." if setting.secret else ""
    return f"Value: {setting.type}{more}.{secret}"


def _write_value(setting: Setting) -> str:
    """The default as TOML; an empty text is not set."""
    return '""' if setting.default is None else json.dumps(setting.default)
