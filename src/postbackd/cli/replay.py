"""``postbackd replay``: postbacks that were not counted, through today's settings again.

Each page of rows is first tried in a transaction that is rolled back; only rows whose verdict or reason would change
are then written, through the same path and the same unique key as a fresh postback.  So a replay counts nothing twice
and may be stopped and run again at any time.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import click
import msgspec
from msgspec import Struct

from postbackd.cli.options import as_json, since_option, takes_data
from postbackd.cli.session import Session, print_json, showing, visit
from postbackd.core.diagnosis import Reason
from postbackd.core.rulebook import Rulebook
from postbackd.operations.replays import find_replayable, replay_part
from postbackd.reports.period import Period
from postbackd.reports.replaying import PAGE, Replayed
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
        asked = {**asked, "network": await find_replayable(session.store, catalog, network)}
    (expected,) = await session.store.query("replayable_count", **asked)
    changed: list[Replayed] = []
    tried = 0
    after: int | None = -1
    with showing(expected["count"], "replaying") as watch:
        while after is not None:
            part = await replay_part(session.store, rulebook, asked, after, PAGE, dry_run=dry_run)
            changed += part.changed
            tried, after = tried + part.tried, part.after
            watch(part.tried)
    return Summary(tried=tried, changed=tuple(changed))
