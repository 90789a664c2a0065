"""Deliveries: targets that are not served, deliveries that died, and what nobody sends."""

from __future__ import annotations

import shlex
from itertools import groupby
from typing import Any

from postbackd.cli.session import Session
from postbackd.core.alarm_troubles import BROKEN_MS
from postbackd.core.click_id import stamp_ms
from postbackd.core.finding import Finding
from postbackd.core.model import Catalog
from postbackd.core.moments import write_moment
from postbackd.reports.deliveries import resume_command

LATE_MS = 60_000
"""What should have been done longer ago than this, nobody does."""

_DAY_MS = 86_400_000

_START_DELIVER = (
    "The deliver role is not running or cannot keep up: start 'postbackd serve' or 'postbackd deliver'."
)


async def look_at_deliveries(session: Session, catalog: Catalog, now: int) -> list[Finding]:
    store = session.store
    live = {target.id for target in catalog.targets}
    states = [row for row in await store.query("target_states") if row["target"] in live]
    dead = await store.query("dead_by_reason", from_ms=now - _DAY_MS)
    findings = [check_target(row, now) for row in states]
    findings += [check_dead(list(rows)) for _, rows in groupby(sorted(dead, key=_by_target), key=_by_target)]
    late = {"outbox": await _count_late_events(session, now)}
    unserved = {row["target"] for row in states}
    overdue = await store.query("overdue", before_ms=now - LATE_MS)
    late["deliveries"] = sum(row["count"] for row in overdue if row["target"] not in unserved)
    backlog = ", ".join(text for text in (
        f"rules were not asked about {_count(late['outbox'], 'conversion')}" if late["outbox"] else "",
        f"{_count(late['deliveries'], 'delivery', 'deliveries')} not sent" if late["deliveries"] else "",
    ) if text)  # fmt: skip
    findings.append(Finding(
        check="backlog",
        ok=not backlog,
        detail=f"{backlog}, for more than a minute" if backlog else "nothing waits longer than it should",
        fix=_START_DELIVER if backlog else None,
    ))  # fmt: skip
    return findings


async def _count_late_events(session: Session, now: int) -> int:
    """How many events the outbox holds, if the oldest has been there for a while."""
    (outbox,) = await session.store.query("outbox_count")
    oldest = outbox["request_id"]
    return outbox["count"] if oldest is not None and stamp_ms(oldest) < now - LATE_MS else 0


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def _by_target(row: dict[str, Any]) -> int:
    target: int = row["target"]
    return target


def check_target(state: dict[str, Any], now: int) -> Finding:
    name, paused = state["target_name"], state["state"] == "paused"
    again = f", tried again at {write_moment(state['until_ms'])}" if state["until_ms"] else ""
    reason = f": {state['reason']}" if state["reason"] else ""
    return Finding(
        check=f"target {name}",
        ok=not paused and now - state["since_ms"] < BROKEN_MS,
        detail=f"{state['state']} since {write_moment(state['since_ms'])}{again}{reason}",
        fix=f"Its deliveries wait. When it is as it should be, run: {resume_command(name)}"
        if paused
        else f"Its deliveries wait. Look: postbackd target show {shlex.quote(name)}. Then at the network between.",
    )


def check_dead(rows: list[dict[str, Any]]) -> Finding:
    """Deliveries to one target that died; ``rows``: by reason, most first."""
    name, count = rows[0]["target_name"], sum(row["count"] for row in rows)
    most = f", {rows[0]['count']} of them" if len(rows) > 1 else ""
    options = ["--state", "dead", "--target", name]
    show = shlex.join(["postbackd", "delivery", "list", *options])
    retry = shlex.join(["postbackd", "delivery", "retry", *options, "--yes"])
    return Finding(
        check=f"deliveries to {name}",
        ok=False,
        detail=f"{count} died in the last day{most}: {rows[0]['reason']}",
        fix=f"Look: {show}. When the target takes them: {retry}",
    )
