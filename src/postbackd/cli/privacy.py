"""``postbackd privacy``: what is kept, whether that is true, and what is held about one click."""

from __future__ import annotations

import sys

import click
import msgspec

from postbackd.cli.options import as_json, is_left_to_another, takes_data, takes_settings
from postbackd.cli.session import Session, print_json, visit
from postbackd.core.kept import NEVER, POLICY
from postbackd.core.privacy import Masker
from postbackd.core.retention import Class
from postbackd.operations.privacy import describe, export_click, hash_identity, table_rows
from postbackd.reports.checking import Found, check_rows
from postbackd.reports.table import format_table
from postbackd.settings import Settings

_MOST_SHOWN = 1000


@click.group(invoke_without_command=True)
@click.option("--policy", is_flag=True, help="Only the paragraph for a privacy policy.")
@as_json
@takes_settings("data", "store", *(f"keep_{class_}_days" for class_ in Class))
@click.pass_context
def privacy(context: click.Context, settings: Settings, json_wanted: bool, policy: bool) -> None:
    """What is kept of people and requests: field, purpose, form, how long, and what an erasure leaves."""
    if is_left_to_another(context):
        return
    if policy:
        click.echo(POLICY)
    elif json_wanted:
        print_json(describe(settings.keep))
    else:
        click.echo(
            format_table(
                ("table", "column", "form", "kept", "after an erasure", "purpose"), table_rows(settings.keep)
            )
        )
        click.echo("\nnever kept:")
        for what, why in NEVER.items():
            click.echo(f"  {what}: {why}")
        click.echo(f"\nfor a privacy policy:\n\n{POLICY}")


@privacy.command()
@as_json
@takes_data
def check(settings: Settings, json_wanted: bool) -> None:
    """Look through everything that is stored for personal data that should not be there.

    Names table, column and id of what it finds, never the value. Exit code 1 when it finds any.
    """

    async def work(session: Session) -> tuple[list[Found], int]:
        masker = Masker((await session.load()).privacy_key)
        found: list[Found] = []
        looked = 0
        async for one in check_rows(session.store, masker):
            if isinstance(one, int):
                looked += one
            elif len(found) < _MOST_SHOWN:
                found.append(one)
        return found, looked

    found, looked = visit(settings, work)
    if json_wanted:
        print_json({"rows": looked, "found": [msgspec.structs.asdict(one) for one in found]})
    else:
        for one in found:
            click.echo(f"{one.table}.{one.column}: {one.kind}, row {one.id}")
        click.echo(f"looked at {looked} rows")
    if found:
        raise click.ClickException(
            f"{len(found)} values are personal data; erase their clicks with 'postbackd erase'"
        )


@privacy.command("hash")
@click.argument("value", required=False)
@as_json
@takes_data
def hash_value(value: str | None, settings: Settings, json_wanted: bool) -> None:
    """Print the keyed hash under which a value such as an e-mail address is kept, for 'postbackd erase --identity'.

    Without VALUE it is read from standard input, which keeps it out of the shell's history.
    """
    text = (value if value is not None else sys.stdin.readline()).strip()
    if not text:
        raise click.UsageError("the value is empty")

    hashed = visit(settings, lambda session: hash_identity(session.store, text))
    if json_wanted:
        print_json({"identity": hashed})
    else:
        click.echo(hashed)


@privacy.command()
@click.option("--click-id", required=True, metavar="ID", help="An id of ours, or a caller's own.")
@takes_data
def export(click_id: str, settings: Settings) -> None:
    """Everything that is held about one click, as JSON, with the purpose of each field."""

    print_json(visit(settings, lambda session: export_click(session.store, click_id)))
