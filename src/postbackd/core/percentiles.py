"""Percentiles of measured times, by the nearest rank; and how many tries one needs to mean anything.

A percentile of too few tries is the largest of them by another name.  It is not shown: p95 needs 20 tries, p99 needs
100, so that at least one of them may lie beyond.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

from msgspec import Struct

FEWEST: Mapping[int, int] = {50: 3, 95: 20, 99: 100}
"""Percentile -> the fewest tries of which it is shown."""


class Spread(Struct, frozen=True, kw_only=True):
    """Times in milliseconds, put together."""

    tries: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    least: float | None = None
    most: float | None = None


def spread_of(times_ms: Sequence[float]) -> Spread:
    """The percentiles that so many times allow."""
    if not times_ms:
        return Spread()
    ordered = sorted(times_ms)
    found = {
        percent: round(_nearest_rank(ordered, percent), 3)
        for percent, fewest in FEWEST.items()
        if len(ordered) >= fewest
    }
    return Spread(
        tries=len(ordered), p50=found.get(50), p95=found.get(95), p99=found.get(99),
        least=round(ordered[0], 3), most=round(ordered[-1], 3),
    )  # fmt: skip


def _nearest_rank(ordered: Sequence[float], percent: int) -> float:
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


def write_ms(value: float | None, tries: int = 1, percent: int = 50) -> str:
    """A time for a table, three digits of it; why there is none where too few tries were made."""
    if value is None:
        return "-" if not tries else f"<{FEWEST[percent]} tries"
    return write_figure(value)


def write_figure(value: float) -> str:
    """Three digits, or all of those before the point."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
