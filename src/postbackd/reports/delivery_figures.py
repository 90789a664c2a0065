"""The deliveries of a report: how many came through, how often they were tried, how long they took.

- ``success_rate``: delivered, divided by delivered and dead; what waits or was cancelled says nothing yet;
- ``attempts_each``: attempts, divided by deliveries, of those that were delivered or died;
- ``seconds``: from the moment of the postback that a delivery follows from until it was delivered, a delay of its rule
  and all failed attempts included.  Percentiles come from a ladder of times and are interpolated between its rungs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from postbackd.core.deliveries import DeliveryState
from postbackd.store.queries import DELIVERY_LADDER_MS

_ENDED = (DeliveryState.DELIVERED, DeliveryState.DEAD)

Rows = Sequence[Mapping[str, Any]]


def sum_up_deliveries(rows: Rows, names: Mapping[tuple[str, int], str]) -> dict[str, Any]:
    """The figures of all, ``by_source`` and ``by_target``; ``rows``: of the statement ``deliveries_by_outcome``."""
    return {
        **_figures(rows),
        "by_source": _group(rows, "source", lambda row: row["source"], names),
        "by_target": _group(rows, "target", lambda row: row["target"], names),
    }


def _group(
    rows: Rows,
    kind: str,
    key_of: Callable[[Mapping[str, Any]], int | None],
    names: Mapping[tuple[str, int], str],
) -> list[dict[str, Any]]:
    groups: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(key_of(row) or 0, []).append(row)
    return [{kind: names.get((kind, key)), **_figures(groups[key])} for key in sorted(groups)]


def _figures(rows: Rows) -> dict[str, Any]:
    counts: Counter[int] = Counter()
    rungs: Counter[int] = Counter()
    for row in rows:
        counts[row["state"]] += row["count"]
        if row["state"] == DeliveryState.DELIVERED:
            rungs[row["rung"]] += row["count"]
    ended = sum(counts[state] for state in _ENDED)
    attempts = sum(row["attempts"] for row in rows if row["state"] in _ENDED)
    return {
        "total": sum(counts.values()),
        "by_state": {state.word: counts[state] for state in DeliveryState},
        "success_rate": share(counts[DeliveryState.DELIVERED], ended),
        "attempts_each": round(attempts / ended, 2) if ended else None,
        "seconds": {f"p{percent}": percentile_s(rungs, percent / 100) for percent in (50, 95)},
    }


def share(part: int, whole: int) -> float | None:
    """``part / whole`` to four decimals, ``None`` when there is no whole."""
    return round(part / whole, 4) if whole else None


def percentile_s(rungs: Mapping[int, int], part: float) -> float | None:
    """Seconds that the ``part`` (0..1) fastest stay below; ``rungs``: rung of ``DELIVERY_LADDER_MS`` -> count.

    Times on a rung are taken as spread evenly over it.  What is beyond the ladder counts as its end.  ``None`` without
    any times.
    """
    total = sum(rungs.values())
    wanted, seen = part * total, 0
    for rung in sorted(rungs):
        count = rungs[rung]
        if count and seen + count >= wanted:
            lower = DELIVERY_LADDER_MS[rung - 1] if rung else 0
            upper = DELIVERY_LADDER_MS[min(rung, len(DELIVERY_LADDER_MS) - 1)]
            return round(lower + (upper - lower) * (wanted - seen) / count) / 1000
        seen += count
    return None
