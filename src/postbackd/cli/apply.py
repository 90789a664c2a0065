"""``postbackd apply``: make the catalog match a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from postbackd.catalog.applying import apply_file, seal_accounts, seal_secrets
from postbackd.catalog.file import FileError, read_file
from postbackd.catalog.plan import Plan, describe_plan, find_warnings, format_plan
from postbackd.cli.account_values import sealing, split_values
from postbackd.cli.catalog import print_warnings
from postbackd.cli.options import as_json, now_ms, takes_data
from postbackd.cli.session import Session, print_json, visit
from postbackd.settings import Settings


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--yes", is_flag=True, help="Do it; without this only show the plan.")
@click.option(
    "--account",
    "accounts",
    multiple=True,
    metavar="TARGET:NAME=VALUE",
    help="An account value of a target, which no file holds. Others on this machine can read a command line: write "
    "TARGET:NAME=- to be asked for it, or to have a line of standard input read.",
)
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NETWORK=SECRET",
    help="The signing secret of a network, which no file holds; NETWORK=- reads it like an account value.",
)
@as_json
@takes_data
def apply(
    file: Path,
    yes: bool,
    accounts: Sequence[str],
    secrets: Sequence[str],
    settings: Settings,
    json_wanted: bool,
) -> None:
    """Make the catalog match a file; shows the plan, and changes something only with --yes.

    What the file does not name is removed. All changes happen together or not at all. Account values of targets and
    signing secrets of networks stay.
    """
    given = split_values(accounts, form="TARGET:NAME=VALUE")
    of_networks = split_values(secrets, "--secret", "NETWORK=SECRET")

    async def work(session: Session) -> Plan:
        rows = read_file(file)
        seal = sealing(settings) if yes else None
        accounts, secrets = seal_accounts(rows, _split(given), seal), seal_secrets(rows, of_networks, seal)
        return await apply_file(session.store, rows, now_ms(), accounts, secrets, dry_run=not yes)

    try:
        plan = visit(settings, work, create=True)
    except FileError as error:
        raise click.ClickException(str(error)) from error
    print_warnings(find_warnings(plan))
    if json_wanted:
        print_json({"changes": describe_plan(plan), "applied": yes and bool(plan.changes)})
    elif not plan.changes:
        click.echo("nothing to change: the catalog matches the file")
    else:
        click.echo(format_plan(plan))
        click.echo(
            f"{len(plan.changes)} changes applied" if yes else "nothing changed yet; run it again with --yes"
        )


def _split(given: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """``TARGET:NAME`` -> value, by target."""
    values: dict[str, dict[str, str]] = {}
    for where, value in given.items():
        target, _, name = where.rpartition(":")
        if not name or not target:
            raise click.UsageError(
                f"--account: the file has no target {target!r}; write TARGET:NAME=VALUE with the name of a target in it"
            )
        values.setdefault(target, {})[name] = value
    return values
