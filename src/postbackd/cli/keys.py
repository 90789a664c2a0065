"""``postbackd keys``: the keys that sign click ids.  Secrets are never printed."""

from __future__ import annotations

from collections.abc import Sequence

import click

from postbackd.cli.catalog import load_or_empty
from postbackd.cli.main import Family
from postbackd.cli.options import as_json, now_ms, takes_data
from postbackd.cli.session import Session, print_json, visit
from postbackd.core.model import SigningKey
from postbackd.operations.keys import describe_keys, rotate_keys
from postbackd.reports.table import format_table
from postbackd.settings import Settings


@click.group(cls=Family)
def keys() -> None:
    """Keys that sign click ids."""


@keys.command("list")
@as_json
@takes_data
def list_keys(settings: Settings, json_wanted: bool) -> None:
    """All signing keys, oldest first; secrets are not shown."""
    _print_keys(load_or_empty(settings).signing_keys, json_wanted)


@keys.command("rotate")
@click.option(
    "--keep",
    type=click.IntRange(2, 1000),
    default=3,
    show_default=True,
    help="How many of the newest keys go on verifying; ids of older keys are refused from then on.",
)
@as_json
@takes_data
def rotate_key(keep: int, settings: Settings, json_wanted: bool) -> None:
    """Let a new random key sign from now on."""

    async def work(session: Session) -> Sequence[SigningKey]:
        return await rotate_keys(session.store, now_ms(), keep)

    _print_keys(visit(settings, work), json_wanted)


def _print_keys(stored: Sequence[SigningKey], json_wanted: bool) -> None:
    documents = describe_keys(stored, now_ms())
    if json_wanted:
        print_json(documents)
    elif not documents:
        click.echo("no key yet; the first start of the server makes one", err=True)
    else:
        rows = [
            (str(row["id"]), str(row["signs_from"] or "the beginning"), row["state"]) for row in documents
        ]
        click.echo(format_table(("id", "signs from", "state"), rows))
