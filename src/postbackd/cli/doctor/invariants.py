"""What must add up: requests by what became of them, deliveries by what became of them, and log rows and money rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from postbackd.cli.session import Session
from postbackd.core.click_id import first_stamp_at, write_stamp
from postbackd.core.deliveries import DeliveryState
from postbackd.core.finding import Finding
from postbackd.core.moments import write_moment
from postbackd.core.verdicts import FINAL

_DAY_MS = 86_400_000


async def look_at_invariants(session: Session, now_ms: int) -> list[Finding]:
    """Of the last day; ``postbackd verify`` reads everything."""
    store, since = session.store, first_stamp_at(now_ms - _DAY_MS)
    received = {row["verdict"]: row["count"] for row in await store.query("log_by_verdict", since=since)}
    queued = {row["state"]: row["count"] for row in await store.query("deliveries_by_state", since=since)}
    # What a replay counted may lie on another machine of a distributed database: left to "verify".
    lost = await store.query("accepted_without_conversion", since=since, replayed=0)
    changes = await store.query("updated_without_history", since=since, replayed=0)
    accepted = await store.query("accepted_rows")
    return [
        check_received(received),
        check_counted(lost, changes),
        check_queued(queued),
        *check_accepted(accepted),
    ]


def check_received(by_verdict: Mapping[int, int]) -> Finding:
    """received = accepted + duplicate + updated + held + unmatched + rejected."""
    return _check_sum("received", "postbacks", by_verdict, {verdict.value: verdict.word for verdict in FINAL})


def check_queued(by_state: Mapping[int, int]) -> Finding:
    """queued = delivered + waiting + dead + cancelled."""
    return _check_sum("queued", "deliveries", by_state, {state.value: state.word for state in DeliveryState})


def _check_sum(check: str, what: str, counts: Mapping[int, int], words: Mapping[int, str]) -> Finding:
    total, unknown = sum(counts.values()), sum(n for kind, n in counts.items() if kind not in words)
    parts = " + ".join(f"{counts.get(kind, 0)} {word}" for kind, word in words.items())
    return Finding(
        check=check,
        ok=not unknown,
        detail=f"{total} {what} in the last day = {parts}"
        + (f", and {unknown} of no kind" if unknown else ""),
        fix="Rows are damaged: run 'postbackd verify' for the others, and restore a backup."
        if unknown
        else None,
    )


def check_counted(lost: Sequence[Mapping[str, Any]], changes: Sequence[Mapping[str, Any]]) -> Finding:
    """Every accepted postback has its conversion, every update its change."""
    if not lost and not changes:
        return Finding(
            check="counted", ok=True, detail="what was accepted or updated in the last day is there"
        )
    first = write_stamp((*lost, *changes)[0]["request_id"])
    return Finding(
        check="counted",
        ok=False,
        detail=f"{len(lost)} accepted postbacks have no conversion, {len(changes)} updates no change, "
        f"such as request {first}",
        fix="Run 'postbackd verify', and restore a backup.",
    )


def check_accepted(rows: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Damage that an operator has accepted is no damage any more, and is not forgotten."""
    if not rows:
        return []
    last = rows[-1]
    detail = (
        f"damaged rows of {len(rows)} conversions were accepted as they are, the last of {last['conversion']} "
        f"at {write_moment(last['at_ms'])}"
    )
    fix = "'postbackd audit' says who did and why."
    return [Finding(check="accepted damage", ok=True, detail=detail, fix=fix)]
