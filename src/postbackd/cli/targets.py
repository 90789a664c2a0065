"""``postbackd target``: where sources are told of conversions, and how."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import click
from msgspec.structs import replace

from postbackd.catalog.documents import Describer, find_entry
from postbackd.catalog.target_rows import TargetRow
from postbackd.catalog.targets import change_target, missing_accounts, new_target, read_stored
from postbackd.cli.account_values import ask_values, sealing, split_values
from postbackd.cli.catalog import is_fresh, print_entries, print_entry, remove_entry
from postbackd.cli.main import Family
from postbackd.cli.options import as_json, now_ms, takes_data
from postbackd.cli.session import Session, print_json, visit
from postbackd.cli.target_options import ask_fill, change_row, target_options
from postbackd.core.deliveries import DeliveryState
from postbackd.core.model import Catalog, Target
from postbackd.core.moments import write_moment
from postbackd.core.shipping import KINDS
from postbackd.operations.target_states import resume, turn
from postbackd.settings import Settings

COLUMNS = ("name", "kind", "preset", "state", "reason", "url")


@click.group(cls=Family)
def target() -> None:
    """Where traffic sources are told of conversions, and how."""


@target.command("add")
@click.argument("name")
@click.option(
    "--preset", metavar="P", help="How a known source is told; see 'postbackd presets list --role target'."
)
@click.option("--kind", type=click.Choice(KINDS), help="[default: the preset's, or postback]")
@click.option(
    "--fill",
    "fills",
    multiple=True,
    metavar="NAME=TEXT",
    help="What stands for <NAME> in the URL of a preset.",
)
@target_options
@as_json
@takes_data
def add_target(
    name: str,
    preset: str | None,
    kind: str | None,
    fills: Sequence[str],
    accounts: Sequence[str],
    settings: Settings,
    json_wanted: bool,
    **options: Any,
) -> None:
    """Add a target: a URL of a traffic source, a webhook or a platform.

    A webhook signs with an account value SECRET; one is made, and shown this once, unless it is given.
    """
    row = ask_fill(change_row(TargetRow(name=name.strip(), preset=preset, kind=kind), options), fills)
    values = split_values(accounts)
    values |= ask_values(missing_accounts(row, values), "--account", hidden=True)
    entry, made = new_target(row, values, sealing(settings))

    async def work(session: Session) -> None:
        await session.change([entry])

    visit(settings, work, create=True)
    _print_saved(entry, made, json_wanted)


@target.command("list")
@click.option(
    "--counts", is_flag=True, help="Also how many deliveries wait and are dead; reads all deliveries."
)
@as_json
@takes_data
def list_targets(counts: bool, settings: Settings, json_wanted: bool) -> None:
    """All targets, and whether each is served."""

    async def work(session: Session) -> list[dict[str, Any]]:
        return [await _describe(session, entry, counts) for entry in (await session.load()).targets]

    documents = [] if is_fresh(settings) else visit(settings, work)
    columns = (*COLUMNS[:5], "waiting", "dead", *COLUMNS[5:]) if counts else COLUMNS
    print_entries(documents, columns, "target", json_wanted)


@target.command("show")
@click.argument("name")
@as_json
@takes_data
def show_target(name: str, settings: Settings, json_wanted: bool) -> None:
    """One target, with everything that is set for it except its secrets."""

    async def work(session: Session) -> dict[str, Any]:
        entry = find_entry((await session.load()).targets, name, "target")
        return await _describe(session, entry, counts=False)

    print_entry(visit(settings, work), json_wanted)


@target.command("set")
@click.argument("name")
@click.option("--name", "new_name", metavar="NAME", help="A new name.")
@click.option(
    "--new-secret",
    is_flag=True,
    help="Sign a webhook with a new secret too, shown this once; when the receiver has it, take the old one away with "
    "--account OLD_SECRET=.",
)
@target_options
@as_json
@takes_data
def set_target(
    name: str,
    new_name: str | None,
    new_secret: bool,
    accounts: Sequence[str],
    settings: Settings,
    json_wanted: bool,
    **options: Any,
) -> None:
    """Change a target; what is not named stays. --account NAME= takes a secret away."""
    values = split_values(accounts)

    async def work(session: Session) -> tuple[Target, str]:
        catalog = await session.load()
        stored = find_entry(catalog.targets, name, "target")
        row = read_stored(stored)
        row = replace(row, name=row.name if new_name is None else new_name.strip())
        row = change_row(row, options)
        entry, made = change_target(catalog, stored, row, values, sealing(settings), new_secret=new_secret)
        await session.change([entry])
        return entry, made

    _print_saved(*visit(settings, work), json_wanted)


@target.command("remove")
@click.argument("name")
@as_json
@takes_data
def remove_target(name: str, settings: Settings, json_wanted: bool) -> None:
    """Take a target out of the catalog; what was delivered to it stays in the log."""
    remove_entry(settings, "target", name, json_wanted)


@target.command("pause")
@click.argument("name")
@click.option("--reason", metavar="TEXT", default="paused by an operator", help="Why, for whoever looks.")
@as_json
@takes_data
def pause_target(name: str, reason: str, settings: Settings, json_wanted: bool) -> None:
    """Send nothing to a target until it is resumed; what is owed to it waits."""
    entry = _turn(settings, name, "paused", reason)
    if json_wanted:
        print_json({"name": entry.name, "state": "paused"})
    else:
        click.echo(
            f"target {entry.name!r} paused; go on with 'postbackd target resume {shlex.quote(entry.name)}'"
        )


@target.command("resume")
@click.argument("name")
@as_json
@takes_data
def resume_target(name: str, settings: Settings, json_wanted: bool) -> None:
    """Send to a paused target again; one that fails is tried again by itself."""

    async def work(session: Session) -> tuple[Target, Any]:
        entry = find_entry((await session.load()).targets, name, "target")
        return entry, await resume(session.store, entry, now_ms())

    entry, held = visit(settings, work)
    if json_wanted:
        print_json({"name": entry.name, "state": held["state"] if held else "active"})
    elif held:
        until = write_moment(held["until_ms"])
        click.echo(
            f"target {entry.name!r} is not paused: it is {held['state']} ({held['reason']}) and is tried again by "
            f"itself at {until}"
        )
    else:
        click.echo(f"target {entry.name!r} resumed; what waits for it is sent when it is due")


def _turn(settings: Settings, name: str, state: str, reason: str) -> Target:
    async def work(session: Session) -> Target:
        entry = find_entry((await session.load()).targets, name, "target")
        await turn(session.store, entry, state, reason, now_ms())
        return entry

    return visit(settings, work)


# --- printing ----------------------------------------------------------------------------------------------------


async def _describe(session: Session, entry: Target, counts: bool) -> dict[str, Any]:
    document = Describer(Catalog(generation=0), "").describe(entry)
    document |= {"state": "active", "since": None, "until": None, "reason": None}
    for row in await session.store.query("target_states"):
        if row["target"] == entry.id and row["state"]:
            until = write_moment(row["until_ms"]) if row["until_ms"] else None
            document |= {"state": row["state"], "since": write_moment(row["since_ms"]), "until": until}
            document["reason"] = row["reason"]
    if counts:
        for state in (DeliveryState.WAITING, DeliveryState.DEAD):
            (row,) = await session.store.query("delivery_count", target=entry.id, state=int(state))
            document[state.word] = row["count"]
    return document if "url" in document else {**document, "url": None}


def _print_saved(entry: Target, made: str, json_wanted: bool) -> None:
    document = Describer(Catalog(generation=0), "").describe(entry)
    if json_wanted and made:
        document["signing_secret"] = made
    print_entry(document, json_wanted)
    if made and not json_wanted:
        click.echo(
            f"\nThe receiver checks signatures with this secret, which is not shown again:\n\n  {made}\n"
        )
