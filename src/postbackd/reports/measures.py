"""What is measured in a report, from sums to the figures that are shown.

- ``conversions``: those that stand (pending or approved); ``taken_back``: rejected and reversed ones.  Where a question
  names statuses, ``conversions`` are those of the status;
- ``conversion_rate``: conversions divided by clicks; ``epc``: value divided by clicks;
- ``value``: of these conversions, by currency; ``cost``: of the clicks that had one, in the currency that is set;
- ``profit`` and ``roi``: only where all value is in that currency;
- ``match_rate``, ``postbacks``, ``duplicates``: see ``reports.report``; by the time of the postback;
- ``convert_p50_s`` and ``convert_p95_s``: from click to conversion, upper bounds of a ladder;
- ``s2s_only``, ``pixel_only``, ``both_channels``: who told of the conversions.

What does not apply to a question is ``None``, never 0.  Money is decimal text; rates are shares of 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from postbackd.core.model import Channel
from postbackd.core.money import MICROS, write_micros
from postbackd.core.rollups import NOTHING, Tally, add, percentile_s
from postbackd.core.statuses import Status

MEASURES = (
    "clicks", "conversions", "taken_back", "conversion_rate", "value", "cost", "profit", "roi", "epc",
    "postbacks", "match_rate", "duplicates", "convert_p50_s", "convert_p95_s", "s2s_only", "pixel_only",
    "both_channels",
)  # fmt: skip

_STANDING = (Status.PENDING, Status.APPROVED)


class Measures(Struct, frozen=True, kw_only=True):
    """The figures of one group."""

    clicks: int | None
    conversions: int
    taken_back: int | None
    conversion_rate: float | None
    value: Mapping[str, str]
    cost: str | None
    profit: str | None
    roi: float | None
    epc: Mapping[str, str] | None
    postbacks: int | None
    match_rate: float | None
    duplicates: int | None
    convert_p50_s: int | None
    convert_p95_s: int | None
    s2s_only: int
    pixel_only: int
    both_channels: int


class Applies(Struct, frozen=True):
    """Which parts of a question have an answer."""

    by_status: bool
    """Whether the question names statuses itself."""
    cost_currency: str
    clicks: bool = False
    postbacks: bool = False


class Sums(Struct):
    """What is added up of one group."""

    clicks: Tally = NOTHING
    postbacks: Tally = NOTHING
    conversions: int = 0
    taken_back: int = 0
    micros: Counter[str] = field(default_factory=Counter)
    channels: Counter[int] = field(default_factory=Counter)
    rungs: Counter[str] = field(default_factory=Counter)

    def add_conversions(self, row: Sequence[Any], applies: Applies) -> None:
        """``row``: status, currency, channels, count, units, micros, rungs."""
        status, currency, channels, count, units, micros, rungs = row
        if not applies.by_status and status not in _STANDING:
            self.taken_back += count
            return
        self.conversions += count
        self.micros[currency] += units * MICROS + micros
        self.channels[channels & (Channel.S2S | Channel.PIXEL)] += count
        self.rungs.update(rungs)

    def add_all(self, other: Sums) -> None:
        self.clicks = add(self.clicks, other.clicks)
        self.postbacks = add(self.postbacks, other.postbacks)
        self.conversions += other.conversions
        self.taken_back += other.taken_back
        for ours, theirs in (
            (self.micros, other.micros), (self.channels, other.channels), (self.rungs, other.rungs),
        ):  # fmt: skip
            ours.update(theirs)  # type: ignore[arg-type]  # each with its like


def measure(sums: Sums, applies: Applies) -> Measures:
    """The figures of some sums."""
    clicks = sums.clicks[0] if applies.clicks else None
    cost = sums.clicks[2] * MICROS + sums.clicks[3] if applies.clicks and sums.clicks[1] else None
    profit = _profit(sums, cost, applies.cost_currency)
    postbacks, carried, matched, duplicates = sums.postbacks if applies.postbacks else (None, 0, 0, None)
    return Measures(
        clicks=clicks,
        conversions=sums.conversions,
        taken_back=None if applies.by_status else sums.taken_back,
        conversion_rate=_share(sums.conversions, clicks),
        value={currency: write_micros(micros) for currency, micros in sorted(sums.micros.items())},
        cost=None if cost is None else write_micros(cost),
        profit=None if profit is None else write_micros(profit),
        roi=None if profit is None else _share(profit, cost),
        epc=_epc(sums, clicks),
        postbacks=postbacks,
        match_rate=_share(matched, carried),
        duplicates=duplicates,
        convert_p50_s=percentile_s(sums.rungs, 0.50),
        convert_p95_s=percentile_s(sums.rungs, 0.95),
        s2s_only=sums.channels[Channel.S2S],
        pixel_only=sums.channels[Channel.PIXEL],
        both_channels=sums.channels[Channel.S2S | Channel.PIXEL],
    )


def _profit(sums: Sums, cost: int | None, currency: str) -> int | None:
    if cost is None or any(micros for other, micros in sums.micros.items() if other != currency):
        return None
    return sums.micros[currency] - cost


def _epc(sums: Sums, clicks: int | None) -> Mapping[str, str] | None:
    if not clicks:
        return None
    return {
        currency: write_micros((2 * micros + clicks) // (2 * clicks))
        for currency, micros in sorted(sums.micros.items())
    }


def _share(part: int, whole: int | None) -> float | None:
    return round(part / whole, 6) if whole else None


def rank(sums: Sums, applies: Applies, measure_name: str) -> tuple[Any, ...]:
    """By what groups are sorted, the largest last; without an answer first."""
    if measure_name == "value":
        return 1, sums.micros[applies.cost_currency], sums.micros.total()
    if measure_name == "conversions":
        return 1, sums.conversions
    if measure_name == "clicks" and applies.clicks:
        return 1, sums.clicks[0]
    shown = getattr(measure(sums, applies), measure_name)
    if isinstance(shown, Mapping):
        return (
            1,
            _as_number(shown.get(applies.cost_currency)),
            max(map(_as_number, shown.values()), default=0),
        )
    return (0, 0) if shown is None else (1, _as_number(shown))


def _as_number(shown: Any) -> float:
    return float(shown or 0)  # only for the order
