"""The doctor on privacy: personal data that somebody sends, what has to go and does not, erasures that did not end."""

from __future__ import annotations

from postbackd.cli.options import now_ms
from postbackd.cli.session import Session
from postbackd.core.finding import Finding
from postbackd.core.model import Catalog
from postbackd.upkeep import retention

_DAY_MINUTES = 1440
_MOST_NAMED = 5


async def look_at_privacy(session: Session, catalog: Catalog) -> list[Finding]:
    """What there is to say."""
    findings = [*await _look_at_finds(session, catalog), await _look_at_retention(session)]
    rows = [row for row in await session.store.query("erasures") if row["done_ms"] is None]
    if rows:
        findings.append(
            Finding(
                check="erasures",
                ok=False,
                detail=f"{len(rows)} not complete, the latest asked by {rows[0]['asked'].replace('_', ' ')}",
                fix="Run the same 'postbackd erase' again; 'postbackd erase list' shows which.",
            )
        )
    return findings


async def _look_at_finds(session: Session, catalog: Catalog) -> list[Finding]:
    """Kind, field and network, never the value.  Nothing of it was stored, so nothing fails."""
    minute = now_ms() // 60_000
    rows = await session.store.query("finds", since=minute - _DAY_MINUTES, until=minute + 1)
    if not rows:
        return []
    names = {network.id: network.name for network in catalog.networks} | {0: "clicks"}
    said = [
        f"{row['count']} {row['kind']} in {row['field']} of {names.get(row['network'], 'a removed network')}"
        for row in rows[:_MOST_NAMED]
    ]
    more = f", and {len(rows) - _MOST_NAMED} more" if len(rows) > _MOST_NAMED else ""
    return [
        Finding(
            check="personal data",
            ok=True,
            detail=f"sent in the last day, not stored: {', '.join(said)}{more}",
            fix="Take the macro out of the URL that brings it, or refuse it: "
            "postbackd network set NAME --personal-data refuse",
        )
    ]


async def _look_at_retention(session: Session) -> Finding:
    planned = await retention.plan(session.store, session.settings.keep, now_ms())
    if planned.held is None:
        return Finding(check="retention", ok=True, detail=f"{planned.rows} rows are due to go")
    return Finding(
        check="retention",
        ok=not await session.store.query("purge_clock"),  # a first purge asks a person, and that is all
        detail=f"{planned.rows} rows should have gone; {planned.held}",
        fix=f"Look: postbackd purge --dry-run. If that is right: postbackd purge --yes-delete {planned.rows}",
    )
