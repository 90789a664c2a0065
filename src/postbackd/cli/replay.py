"""``postbackd replay``: postbacks that were not counted, through today's settings again.

Each page of rows is first tried in a transaction that is rolled back; only rows whose verdict or reason would change
are then written, through the same path and the same unique key as a fresh postback.  So a replay counts nothing twice
and may be stopped and run again at any time.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import click
import msgspec
from msgspec import Struct

from postbackd.catalog.documents import find_network_ever
from postbackd.cli.options import as_json, since_option, takes_data
from postbackd.cli.session import Session, print_json, visit
from postbackd.core.diagnosis import Reason
from postbackd.core.model import Catalog
from postbackd.core.rulebook import Rulebook
from postbackd.reports.period import Period
from postbackd.reports.replaying import PAGE, Replayed, replay_page
from postbackd.reports.table import format_table
from postbackd.settings import Settings


class Summary(Struct, frozen=True, kw_only=True):
    """What a replay came to."""

    tried: int
    changed: tuple[Replayed, ...]


@click.command()
@click.option("--network", metavar="N", help="Only this network.")
@click.option(
    "--reason",
    type=click.Choice([reason.word for reason in Reason if reason]),
    help="Only this reason. What was refused for its sender may be forged, and is only tried when its reason is named.",
)
@since_option
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@as_json
@takes_data
def replay(
    network: str | None,
    reason: str | None,
    since_ms: int | None,
    dry_run: bool,
    settings: Settings,
    json_wanted: bool,
) -> None:
    """Run held, unmatched and rejected postbacks through today's settings again, and show what changes.

    What it was first stays in the log.
    """
    asked: dict[str, Any] = Period(since_ms, None).stamps()
    asked["reason"] = None if reason is None else Reason[reason.upper()].value
    summary = visit(settings, lambda session: _replay(session, network, asked, dry_run))
    if json_wanted:
        print_json({**msgspec.to_builtins(summary), "dry_run": dry_run})
        return
    moves = Counter((row.before, row.after) for row in summary.changed)
    if moves:
        rows = [(before, after, str(count)) for (before, after), count in moves.most_common()]
        click.echo(format_table(("was", "is now" if not dry_run else "would be", "count"), rows))
    verb = "would change" if dry_run else "changed"
    click.echo(f"{len(summary.changed)} of {summary.tried} postbacks {verb}")


async def _replay(session: Session, network: str | None, asked: dict[str, Any], dry_run: bool) -> Summary:
    catalog = await session.load()
    rulebook = Rulebook(catalog)
    if network is not None:
        asked = {**asked, "network": await _find_network(session, catalog, network)}
    (expected,) = await session.store.query("replayable_count", **asked)
    changed: list[Replayed] = []
    tried, after = 0, -1
    quiet = not sys.stderr.isatty()
    with click.progressbar(length=expected["count"], label="replaying", file=sys.stderr, hidden=quiet) as bar:
        while rows := await session.store.query("replayable", **asked, after=after, limit=PAGE):
            after = rows[-1]["request_id"]
            changed += await replay_page(session.store, rows, rulebook, dry_run=dry_run)
            tried += len(rows)
            bar.update(len(rows))
    return Summary(tried=tried, changed=tuple(changed))


async def _find_network(session: Session, catalog: Catalog, name: str) -> int:
    """The id of a network whose postbacks can be judged again: a removed one has no settings to judge by."""
    network = find_network_ever(catalog, await session.load(removed=True), name)
    if network not in catalog.networks:
        raise click.ClickException(
            f"network {name!r} was removed; its postbacks stay in the log but cannot be replayed"
        )
    return network.id
