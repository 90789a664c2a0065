"""``postbackd purge``: delete old clicks and log rows; conversions stay for ever."""

from __future__ import annotations

import sys

import click
import msgspec

from postbackd.cli.options import as_json, as_moment, now_ms, takes_data
from postbackd.cli.session import Session, print_json, visit
from postbackd.reports.period import write_moment
from postbackd.settings import Settings
from postbackd.store.base import Purgeable
from postbackd.upkeep import retention


@click.command()
@click.option(
    "--before",
    "before_ms",
    required=True,
    callback=as_moment,
    metavar="TIME",
    help="Delete what is older: a date, a date and time (UTC), or an age such as 90d.",
)
@click.option("--yes", is_flag=True, help="Do it; without this only say what would go.")
@as_json
@takes_data
def purge(before_ms: int, yes: bool, settings: Settings, json_wanted: bool) -> None:
    """Delete old clicks and log rows; conversions stay.

    A postback for a deleted click is answered unmatched, reason click_purged.
    """

    if before_ms > now_ms():
        raise click.UsageError("--before lies in the future; name a time that has passed, such as 90d")

    async def work(session: Session) -> Purgeable:
        found = await session.store.count_purgeable(before_ms)
        if yes:
            await _delete(session, before_ms, found.clicks + found.postbacks)
        return found

    found = visit(settings, work)
    if json_wanted:
        print_json({"before": write_moment(before_ms), **msgspec.structs.asdict(found), "deleted": yes})
    else:
        about = "" if found.exact else "about "
        what = f"{about}{found.clicks} clicks and {found.postbacks} log rows before {write_moment(before_ms)}"
        click.echo(f"deleted {what}" if yes else f"would delete {what}; run it again with --yes")


async def _delete(session: Session, before_ms: int, expected: int) -> None:
    bar = click.progressbar(length=expected, label="purging", file=sys.stderr, hidden=not sys.stderr.isatty())
    with bar:
        async for purged in retention.purge(session.store, before_ms):
            bar.update(purged)
