"""Counts by hour of each network and campaign, added to as the postback log is followed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from postbackd.core.alarm_rates import usual_duplicates
from postbackd.core.alarms import DAY_MS, Scope
from postbackd.core.click_id import EPOCH_MS
from postbackd.core.rhythm import HOUR_MS, WEEKS, HourCount, Rhythm, learn, learn_with_gaps

_MINUTE_MS = 60_000

KEEP_HOURS = WEEKS * 168 + 96
"""Hours for which counts of networks are kept: what the rhythm is learned from, and a little."""

KEEP_CAMPAIGN_HOURS = 8 * 24
"""The longest window of the match rate; nothing is learned from campaigns."""

Subject = tuple[str, int]
Row = Mapping[str, Any]


LEARN_EVERY_H = 24
"""What is usual does not change within a day."""


class Learned(NamedTuple):
    """What is usual of one network."""

    sent: Rhythm
    visited: Rhythm
    """Of its clicks."""
    duplicates: tuple[float, float] | None
    """See ``alarm_rates.usual_duplicates``."""


class Counts:
    """What has been counted.  ``take_changed`` gives what has to be stored."""

    def __init__(self, hours: Iterable[HourCount] = ()) -> None:
        self._hours: dict[Subject, dict[int, HourCount]] = {}
        self._last_ms: dict[Subject, int] = {}
        self._changed: set[tuple[str, int, int]] = set()
        self._learned: dict[int, tuple[int, Learned]] = {}
        for count in hours:
            self._put(count)

    def _put(self, count: HourCount) -> None:
        subject = (count.scope, count.subject)
        self._hours.setdefault(subject, {})[count.hour] = count
        self._last_ms[subject] = max(count.last_ms, self._last_ms.get(subject, 0))

    def of(self, scope: Scope, subject: int) -> Mapping[int, HourCount]:
        """By hour since 1970."""
        return self._hours.get((str(scope), subject), {})

    def last_ms(self, network: int) -> int:
        """When a network sent last, to the minute; 0: it never has."""
        return self._last_ms.get((str(Scope.NETWORK), network), 0)

    def add_postbacks(self, rows: Iterable[Row]) -> None:
        """Rows of the statement ``alarm_log`` (network, campaign, minute), of minutes after those added before.

        Raises nothing for rows that come late: they are counted, and say nothing of gaps.
        """
        for row in sorted(rows, key=lambda row: int(row["minute"])):
            at_ms = EPOCH_MS + row["minute"] * _MINUTE_MS
            self._add(Scope.NETWORK, row["network"], row, at_ms)
            if row["campaign"] is not None:
                self._add(Scope.CAMPAIGN, row["campaign"], row, at_ms)

    def _add(self, scope: Scope, subject: int, row: Row, at_ms: int) -> None:
        if not (row["postbacks"] or row["duplicates"]):
            return
        count = self._hour(scope, subject, at_ms // HOUR_MS)
        last_ms = self._last_ms.get((str(scope), subject), 0)
        until_ms = at_ms + _MINUTE_MS - 1  # the last moment of its minute: nobody is called silent too early
        gap = (count.gap_from_ms, count.gap_until_ms)
        if last_ms and at_ms - last_ms > gap[1] - gap[0]:
            gap = (last_ms, at_ms)
        self._set(
            replace(
                count,
                postbacks=count.postbacks + row["postbacks"],
                carried=count.carried + row["carried"],
                matched=count.matched + row["matched"],
                duplicates=count.duplicates + row["duplicates"],
                first_ms=count.first_ms or at_ms,
                last_ms=max(count.last_ms, until_ms),
                gap_from_ms=gap[0],
                gap_until_ms=gap[1],
            )
        )

    def add_clicks(self, rows: Iterable[Row]) -> None:
        """Rows of the statement ``alarm_clicks``: network, hour, clicks."""
        for row in rows:
            if row["network"] is not None:
                hour = EPOCH_MS // HOUR_MS + row["hour"]
                count = self._hour(Scope.NETWORK, row["network"], hour)
                self._set(replace(count, clicks=count.clicks + row["clicks"]))

    def _hour(self, scope: Scope, subject: int, hour: int) -> HourCount:
        known = self._hours.get((str(scope), subject), {}).get(hour)
        return known or HourCount(scope=str(scope), subject=subject, hour=hour)

    def _set(self, count: HourCount) -> None:
        self._put(count)
        self._changed.add((count.scope, count.subject, count.hour))

    def take_changed(self) -> Sequence[HourCount]:
        changed, self._changed = self._changed, set()
        return [self._hours[scope, subject][hour] for scope, subject, hour in sorted(changed)]

    def learned(self, network: int, now_ms: int) -> Learned:
        """What is usual of a network, as far as whole hours say; learned anew every day."""
        now_hour = now_ms // HOUR_MS
        known = self._learned.get(network)
        if known is None or known[0] != now_hour // LEARN_EVERY_H:
            known = (now_hour // LEARN_EVERY_H, learn_of(self.of(Scope.NETWORK, network), now_hour))
            self._learned[network] = known
        return known[1]

    def forget(self, now_ms: int) -> tuple[int, int]:
        """Drop what is old; returns the first hours of networks and campaigns that are kept."""
        hour = now_ms // HOUR_MS
        since = {str(Scope.NETWORK): hour - KEEP_HOURS, str(Scope.CAMPAIGN): hour - KEEP_CAMPAIGN_HOURS}
        for (scope, subject), hours in self._hours.items():
            self._hours[scope, subject] = {h: count for h, count in hours.items() if h >= since[scope]}
        return since[str(Scope.NETWORK)], since[str(Scope.CAMPAIGN)]


def learn_of(hours: Mapping[int, HourCount], now_hour: int) -> Learned:
    """What the counts of a network say."""
    first = min((count.hour for count in hours.values() if count.postbacks), default=now_hour)
    clicks = {count.hour: count.clicks for count in hours.values()}
    return Learned(
        learn_with_gaps(hours.values(), first, now_hour),
        learn(clicks, first, now_hour),
        usual_duplicates(hours, now_hour),
    )


def look_back_ms(now_ms: int) -> int:
    """Where a database that was never counted begins to be."""
    return (now_ms - WEEKS * 7 * DAY_MS) // HOUR_MS * HOUR_MS
