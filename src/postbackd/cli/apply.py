"""``postbackd apply``: make the catalog match a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from postbackd.catalog.accounts import check_values
from postbackd.catalog.entries import STAND_IN
from postbackd.catalog.file import CatalogFile, FileError, read_file
from postbackd.catalog.plan import (
    Accounts,
    Plan,
    Secrets,
    describe_plan,
    find_warnings,
    format_plan,
    make_plan,
)
from postbackd.catalog.senders import seal_sender_secret
from postbackd.cli.account_values import seal_values, sealing, split_values
from postbackd.cli.catalog import print_warnings
from postbackd.cli.options import as_json, takes_data
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
        sealing = settings if yes else None
        sealed = _seal(rows, given, sealing), _seal_secrets(rows, of_networks, sealing)
        return await _apply(session, rows, yes, *sealed)

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


def _seal(file: CatalogFile, given: Mapping[str, str], settings: Settings | None) -> Accounts:
    """``TARGET:NAME`` -> value as the sealed values of each target; without settings only their names are real."""
    kinds = {row.name: row.kind or "" for row in file.targets}
    values: dict[str, dict[str, str]] = {}
    for where, value in given.items():
        target, _, name = where.rpartition(":")
        if target not in kinds or not name:
            raise click.UsageError(
                f"--account: the file has no target {target!r}; write TARGET:NAME=VALUE with the name of a target in it"
            )
        values.setdefault(target, {})[name] = value
    for target, named in values.items():
        check_values(named, kinds[target])
    if settings is None:
        return {target: dict.fromkeys(named, STAND_IN) for target, named in values.items()}
    return {target: seal_values(named, settings) for target, named in values.items()}


def _seal_secrets(file: CatalogFile, given: Mapping[str, str], settings: Settings | None) -> Secrets:
    names = {row.name for row in file.networks}
    for name in given:
        if name not in names:
            raise click.UsageError(
                f"--secret: the file has no network {name!r}; write NETWORK=SECRET with the name of a network in it"
            )
    if settings is None:
        return dict.fromkeys(given, STAND_IN)
    return {name: seal_sender_secret(secret, sealing(settings)) for name, secret in given.items()}


async def _apply(
    session: Session, file: CatalogFile, yes: bool, accounts: Accounts, secrets: Secrets
) -> Plan:
    slugs_ever = {campaign.slug for campaign in (await session.load(removed=True)).campaigns}
    plan = make_plan(file, await session.load(), slugs_ever, accounts, secrets)
    if yes and plan.changes:
        await session.change(plan.saves, plan.removals)
    return plan
