"""A network's own rhythm: how many postbacks it usually sends in each hour of the week, and what silence means for it.

The rate of an hour is the network's level (the mean of its days, recent ones weighing more) times the share of the
weekday times the share of the hour of the day; weekday and hour are learned apart, because eight weeks of a network
with three conversions a day say nothing about each of 168 hours.  Both are drawn towards "no rhythm" where little is
known.  Hours and weekdays are those of UTC: what counts is that they repeat.

Silence is measured in postbacks that should have come since the last one (the expected number, by the rhythm).  For
independent postbacks that number is exponentially distributed, so the line follows from how many gaps there are in a
month; networks whose postbacks are not independent (batches, bursts) draw the line themselves by their longest gaps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import log

from msgspec import Struct

HOUR_MS = 3_600_000
_WEEK = 168

WEEKS = 8
"""So far back counts say something of today."""

HALF_LIFE_DAYS = 7.0
"""Days after which a day weighs half as much for the level."""

LEAST_DAYS = 7
"""A week has to be seen before a weekday is known."""

LEAST_POSTBACKS = 25
"""Fewer in eight weeks are no rhythm."""

LEAST_PER_DAY = 0.5
"""A network that sends less often is silent for days as a rule."""

SHORTEST_MS = 15 * 60_000
"""Shorter silences are restarts, deployments and hiccups of a queue."""

CAUTION = 3.0
"""Natural logarithm of how many months of one network may pass before chance alone makes an alarm: e^3, 20 months."""

LOWEST_LINE = 7.0
"""Postbacks that have to be missing at least."""

GAPS = 3
"""Which of the longest gaps counts: the longest two may have been faults themselves."""

GAP_FACTOR = 1.5
"""Times that gap, for networks that send in batches."""

_DAY_PRIOR, _HOUR_PRIOR = 5.0, 24.0
"""Postbacks by which weekdays and hours are drawn towards each other."""

_SMOOTHED_BELOW = 500
"""With fewer postbacks an hour also learns from its neighbours."""


class HourCount(Struct, frozen=True, kw_only=True):
    """What was counted of a network or a campaign in one hour."""

    scope: str
    subject: int
    hour: int
    """Hours since 1970."""
    clicks: int = 0
    postbacks: int = 0
    """Without those that did not show that they come from the network, and tests."""
    carried: int = 0
    """With a click id."""
    matched: int = 0
    duplicates: int = 0
    first_ms: int = 0
    last_ms: int = 0
    """Of postbacks; 0: there was none."""
    gap_from_ms: int = 0
    gap_until_ms: int = 0
    """The longest time without a postback that ended in this hour."""


class Rhythm:
    """Rates by hour of the week."""

    __slots__ = ("_rates", "_summed", "_week", "days", "gap", "per_day", "total")

    def __init__(self, rates: Sequence[float], per_day: float, total: float, days: float) -> None:
        """Use ``learn``."""
        self._rates = rates
        summed = [0.0]
        for rate in rates:
            summed.append(summed[-1] + rate)
        self._summed = summed
        self._week = summed[-1]
        self.per_day = per_day
        self.total = total
        """Counted in all."""
        self.days = days
        self.gap = 0.0
        """The gap that counts (``GAPS``), in expected postbacks."""

    def _until(self, ms: float) -> float:
        hours = ms / HOUR_MS
        whole = int(hours)
        place = whole % _WEEK
        return (whole // _WEEK) * self._week + self._summed[place] + (hours - whole) * self._rates[place]

    def expected(self, from_ms: int, until_ms: int) -> float:
        """How many should come between two moments."""
        return self._until(until_ms) - self._until(from_ms)

    @property
    def line(self) -> float:
        """Expected postbacks after which silence is an alarm."""
        return max(LOWEST_LINE, log(max(self.per_day * 30, 1.0)) + CAUTION, GAP_FACTOR * self.gap)

    @property
    def is_known(self) -> bool:
        """Whether it says enough to judge silence by."""
        return self.days >= LEAST_DAYS and self.total >= LEAST_POSTBACKS and self.per_day >= LEAST_PER_DAY


def learn(counts: Mapping[int, int], first_hour: int, now_hour: int) -> Rhythm:
    """The rhythm of what was counted by hour (of those before ``now_hour``); ``first_hour``: when counting began."""
    begin = max(first_hour, now_hour - WEEKS * _WEEK)
    days = max(now_hour - begin, 0) / 24
    by_day, by_hour = [0.0] * 7, [0.0] * 24
    weighted = total = 0.0
    for hour, count in counts.items():
        if begin <= hour < now_hour and count:
            by_day[hour // 24 % 7] += count
            by_hour[hour % 24] += count
            total += count
            weighted += count * _WEIGHTS[now_hour - hour]
    if not days or not total:
        return Rhythm([0.0] * _WEEK, 0.0, total, days)
    lasted, weighing = [0.0] * 7, [0.0] * 7
    for hour in range(begin, now_hour, _STEP):
        lasted[hour // 24 % 7] += min(_STEP, now_hour - hour)
        weighing[hour // 24 % 7] += min(_STEP, now_hour - hour) * _WEIGHTS[now_hour - hour]
    day_shares = _shares_of_days(by_day, total, lasted)
    # Each day counts as much of a mean day as its weekday: the level of a Monday is not that of the weekend before.
    level = weighted / sum(share * hours / 24 for share, hours in zip(day_shares, weighing, strict=True))
    hour_shares = _shares_of_hours(by_hour, total)
    rates = [level * day_shares[hour // 24 % 7] * hour_shares[hour % 24] for hour in range(_WEEK)]
    return Rhythm(rates, level, total, days)


def learn_with_gaps(hours: Iterable[HourCount], first_hour: int, now_hour: int) -> Rhythm:
    """The rhythm of a network's postbacks, and its gaps."""
    known = [count for count in hours if count.postbacks]
    rhythm = learn({count.hour: count.postbacks for count in known}, first_hour, now_hour)
    begin_ms = (now_hour - WEEKS * _WEEK) * HOUR_MS
    gaps = sorted(
        (
            rhythm.expected(count.gap_from_ms, count.gap_until_ms)
            for count in known
            if count.gap_until_ms and count.gap_from_ms >= begin_ms
        ),
        reverse=True,
    )
    rhythm.gap = gaps[GAPS - 1] if len(gaps) >= GAPS else 0.0
    return rhythm


def _weight(age_days: float) -> float:
    return float(0.5 ** (age_days / HALF_LIFE_DAYS))


_WEIGHTS = tuple(_weight(hours / 24) for hours in range(WEEKS * _WEEK + 1))
"""By age in hours."""


_STEP = 6
"""Hours by which weekdays are measured: fine enough, and six times cheaper."""


def _shares_of_days(by_day: Sequence[float], total: float, lasted: Sequence[float]) -> Sequence[float]:
    """Weekday -> times the mean of all days.  ``lasted``: hours of each weekday."""
    whole = sum(lasted)
    expected = [total * hours / whole for hours in lasted]
    return [
        (count + _DAY_PRIOR) / (usual + _DAY_PRIOR) for count, usual in zip(by_day, expected, strict=True)
    ]


def _shares_of_hours(by_hour: Sequence[float], total: float) -> Sequence[float]:
    """Hour of the day -> part of a day's postbacks."""
    shares = [(count + _HOUR_PRIOR / 24) / (total + _HOUR_PRIOR) for count in by_hour]
    if total >= _SMOOTHED_BELOW:
        return shares
    return [shares[hour - 1] / 4 + shares[hour] / 2 + shares[(hour + 1) % 24] / 4 for hour in range(24)]


def attendance(clicks: Rhythm, counted: Mapping[int, HourCount], now_ms: int) -> float:
    """Which part of the usual visitors came lately, from 0 to 1: where there are none, nothing is missing.

    The least of the last hour, three hours and day, so that a campaign that has just ended explains itself.
    ``counted``: by hour; the hour that is not over counts as far as it has gone.
    """
    if not clicks.total:
        return 1.0
    now_hour = now_ms // HOUR_MS
    parts = []
    for hours in (1, 3, 24):
        begin = now_hour - hours
        usual = clicks.expected(begin * HOUR_MS, now_ms)
        if usual < _ENOUGH_CLICKS and hours < 24:
            continue
        came = sum(counted[hour].clicks for hour in range(begin, now_hour + 1) if hour in counted)
        parts.append((came + _FEW_CLICKS) / (usual + _FEW_CLICKS))
    return min(1.0, *parts)


_ENOUGH_CLICKS = 20.0
"""Fewer in a window say nothing."""

_FEW_CLICKS = 3.0
"""Added to both, so that a handful of clicks more or less says little."""
