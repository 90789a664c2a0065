"""Which roll-ups answer a question: the coarsest level that is exact for it, span by span."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import tzinfo

from msgspec import Struct

from postbackd.core.grouping import SUB_COLUMNS, TIME_COLUMNS, Part
from postbackd.core.rollups import Level
from postbackd.core.zones import day_start, next_day_start, shifts_of


class Span(Struct, frozen=True):
    """From slot ``first`` to ``end``, read from one level of one part."""

    part: Part
    level: Level
    first: int
    end: int


class Days(Struct, frozen=True):
    """How far the days of the report zone can be used."""

    zone: tzinfo
    known: bool
    """Whether the days are those of this zone; not for some seconds after another one was set."""
    subs_to: int = 0
    """Values of sub ids are rolled up by day before this slot."""
    sub_hours_to: int = 0
    """By hour before this one."""


def spans_of_clicks(
    uses: Collection[str], filters: Collection[str], first: int, end: int, zone: tzinfo, days: Days
) -> list[Span]:
    """For clicks; ``uses``: all columns of the question, ``filters``: those it filters by."""
    subs = [column for column in uses if column in SUB_COLUMNS]
    if subs:
        # What is put together as the rest of a day may hold the value that is asked for.
        rolled = len(subs) == 1 and not set(filters) & set(subs)
        if rolled and set(uses) <= {"campaign", "day", "weekday", *subs}:
            return _spans_of_subs(uses, first, end, zone, days)
        return [Span(Part.CLICK_ROWS, Level.QUARTER, first, end)]
    wide = "country" in uses and bool({"campaign", "offer"} & set(uses))
    if not wide:
        if "country" in uses:
            return [Span(Part.CLICKS, Level.QUARTER_COUNTRIES, first, end)]
        return _by_hour(first, end, zone, timed=bool(set(uses) & set(TIME_COLUMNS)))
    return _by_day(Part.CLICKS, uses, first, end, zone, days)


def spans_of_postbacks(uses: Collection[str], first: int, end: int, zone: tzinfo, days: Days) -> list[Span]:
    """For postbacks."""
    return _by_day(Part.POSTBACKS, uses, first, end, zone, days)


def _by_hour(first: int, end: int, zone: tzinfo, *, timed: bool) -> list[Span]:
    """Whole hours, and quarters at the edges; quarters alone where the viewer's hours are not those of UTC."""
    if timed and any(shift.quarters % 4 for shift in shifts_of(zone, first, end)):
        return [Span(Part.CLICKS, Level.QUARTER_LINKS, first, end)]
    inner, outer = -(-first // 4) * 4, end // 4 * 4
    return _cut(Part.CLICKS, Level.QUARTER_LINKS, first, end, Level.HOUR_LINKS, inner, outer)


def _by_day(part: Part, uses: Collection[str], first: int, end: int, zone: tzinfo, days: Days) -> list[Span]:
    """Whole days of the report zone, and quarters at the edges."""
    if not _days_fit(uses, first, end, zone, days):
        return [Span(part, Level.QUARTER, first, end)]
    inner, outer = _whole_days(first, end, days.zone)
    return _cut(part, Level.QUARTER, first, end, Level.DAY, inner, outer)


def _days_fit(uses: Collection[str], first: int, end: int, zone: tzinfo, days: Days) -> bool:
    if not days.known or "hour" in uses:
        return False
    timed = bool(set(uses) & {"day", "weekday"})
    return not timed or shifts_of(zone, first, end) == shifts_of(days.zone, first, end)


def _whole_days(first: int, end: int, zone: tzinfo) -> tuple[int, int]:
    start = day_start(zone, first)
    return start if start == first else next_day_start(zone, start), day_start(zone, end)


def _cut(part: Part, fine: Level, first: int, end: int, coarse: Level, inner: int, outer: int) -> list[Span]:
    if inner >= outer:
        return [Span(part, fine, first, end)]
    cut = [
        Span(part, fine, first, inner), Span(part, coarse, inner, outer), Span(part, fine, outer, end),
    ]  # fmt: skip
    return [span for span in cut if span.first < span.end]


def _spans_of_subs(uses: Collection[str], first: int, end: int, zone: tzinfo, days: Days) -> list[Span]:
    if not _days_fit(uses, first, end, zone, days):
        return [Span(Part.CLICK_ROWS, Level.QUARTER, first, end)]
    inner, outer = _whole_days(first, end, days.zone)
    outer = min(outer, days.subs_to)
    if inner >= outer:
        inner = outer = first
    return [span for span in _sub_spans(first, end, inner, outer, days) if span.first < span.end]


def _sub_spans(first: int, end: int, inner: int, outer: int, days: Days) -> Iterator[Span]:
    yield Span(Part.CLICK_ROWS, Level.QUARTER, first, inner)
    yield Span(Part.SUBS, Level.DAY, inner, outer)
    hours_to = max(outer, min(days.sub_hours_to, end - (end - days.subs_to) % 4))
    if outer == days.subs_to and first <= outer:
        yield Span(Part.SUBS, Level.HOUR_SUBS, outer, hours_to)
        outer = hours_to
    yield Span(Part.CLICK_ROWS, Level.QUARTER, outer, end)
