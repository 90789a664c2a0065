"""``postbackd apply``: make the catalog match a file."""

from __future__ import annotations

from pathlib import Path

import click

from postbackd.cli.catalog_file import CatalogFile, FileError, read_file
from postbackd.cli.options import as_json, takes_data
from postbackd.cli.plan import Plan, describe_plan, format_plan, make_plan
from postbackd.cli.session import Session, print_json, visit
from postbackd.settings import Settings


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--yes", is_flag=True, help="Do it; without this only show the plan.")
@as_json
@takes_data
def apply(file: Path, yes: bool, settings: Settings, json_wanted: bool) -> None:
    """Make the catalog match a file; shows the plan, and changes something only with --yes.

    What the file does not name is removed. All changes happen together or not at all.
    """
    try:
        plan = visit(settings, lambda session: _apply(session, read_file(file), yes), create=True)
    except FileError as error:
        raise click.ClickException(str(error)) from error
    if json_wanted:
        print_json({"changes": describe_plan(plan), "applied": yes and bool(plan.changes)})
    elif not plan.changes:
        click.echo("nothing to change: the catalog matches the file")
    else:
        click.echo(format_plan(plan))
        click.echo(
            f"{len(plan.changes)} changes applied" if yes else "nothing changed yet; run it again with --yes"
        )


async def _apply(session: Session, file: CatalogFile, yes: bool) -> Plan:
    slugs_ever = {campaign.slug for campaign in (await session.load(removed=True)).campaigns}
    plan = make_plan(file, await session.load(), slugs_ever)
    if yes and plan.changes:
        await session.change(plan.saves, plan.removals)
    return plan
