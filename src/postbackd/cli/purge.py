"""``postbackd purge``: delete what is older than it has to be kept."""

from __future__ import annotations

import sys
from typing import Any

import click
import msgspec

from postbackd.cli.options import as_json, as_moment, now_ms, takes_settings
from postbackd.cli.session import Session, print_json, visit
from postbackd.core.moments import write_moment
from postbackd.core.retention import Class
from postbackd.settings import Settings
from postbackd.store.base import Purgeable
from postbackd.upkeep import retention


@click.command()
@click.option(
    "--before",
    "before_ms",
    callback=as_moment,
    metavar="TIME",
    help="Delete clicks and log rows that are older: a date, a date and time (UTC), or an age such as 90d. "
    "Without it every class goes by its own setting.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would go; so does leaving out --yes.")
@click.option("--yes", is_flag=True, help="Do it, unless the clock jumped or far more than usual would go.")
@click.option(
    "--yes-delete",
    type=click.IntRange(min=0),
    metavar="N",
    help="Do it whatever the brake says, if not more than N rows would go.",
)
@as_json
@takes_settings("data", "store", *(f"keep_{class_}_days" for class_ in Class))
def purge(
    before_ms: int | None,
    dry_run: bool,
    yes: bool,
    yes_delete: int | None,
    settings: Settings,
    json_wanted: bool,
) -> None:
    """Delete what is older than it has to be kept; a server does the same every hour.

    A postback for a deleted click is answered unmatched, reason click_purged. With --before conversions stay.
    """
    if before_ms is None:
        _purge_by_settings(
            settings, json_wanted, yes=yes and not dry_run, most=None if dry_run else yes_delete
        )
        return
    if before_ms > now_ms():
        raise click.UsageError("--before lies in the future; name a time that has passed, such as 90d")
    if yes_delete is not None:
        raise click.UsageError("--yes-delete goes without --before; with it, use --yes")
    doing = yes and not dry_run

    async def work(session: Session) -> Purgeable:
        found = await session.store.count_purgeable(before_ms)
        if doing:
            await _delete(session, before_ms, found.clicks + found.postbacks)
        return found

    found = visit(settings, work)
    if json_wanted:
        print_json({"before": write_moment(before_ms), **msgspec.structs.asdict(found), "deleted": doing})
    else:
        about = "" if found.exact else "about "
        what = f"{about}{found.clicks} clicks and {found.postbacks} log rows before {write_moment(before_ms)}"
        click.echo(f"deleted {what}" if doing else f"would delete {what}; run it again with --yes")


async def _delete(session: Session, before_ms: int, expected: int) -> None:
    bar = click.progressbar(length=expected, label="purging", file=sys.stderr, hidden=not sys.stderr.isatty())
    with bar:
        async for purged in retention.purge(session.store, before_ms):
            bar.update(purged)


def _purge_by_settings(settings: Settings, json_wanted: bool, *, yes: bool, most: int | None) -> None:
    async def work(session: Session) -> tuple[retention.Plan, bool]:
        now = now_ms()
        planned = await retention.plan(session.store, settings.keep, now)
        doing = (yes and planned.held is None) or (most is not None and planned.rows <= most)
        if doing:
            await retention.carry_out(session.store, planned, now)
        return planned, doing

    planned, done = visit(settings, work)
    if json_wanted:
        print_json(_document(planned, done))
    else:
        _print(planned, done)
    if most is not None and not done:
        raise click.ClickException(
            f"{planned.rows} rows would go, more than {most}; look with --dry-run, then name at least that many"
        )
    if yes and not done:
        raise click.ClickException(
            f"nothing was deleted: {planned.held}; if that is right, run: postbackd purge --yes-delete {planned.rows}"
        )


def _document(planned: retention.Plan, done: bool) -> dict[str, Any]:
    classes = {
        str(due.class_): {"before": write_moment(due.before_ms), "rows": due.rows, "exact": due.exact}
        for due in planned.due
    }
    return {"classes": classes, "rows": planned.rows, "held": planned.held, "deleted": done}


def _print(planned: retention.Plan, done: bool) -> None:
    for due in planned.due:
        about = "" if due.exact else "about "
        verb = "deleted" if done else "would delete"
        click.echo(f"{verb} {about}{due.rows} rows of {due.class_} before {write_moment(due.before_ms)}")
    for class_ in set(Class) - {due.class_ for due in planned.due}:
        click.echo(f"{class_} are kept for ever")
    if planned.held is not None and not done:
        click.echo(f"held: {planned.held}")
    elif not done:
        click.echo("run it again with --yes")
