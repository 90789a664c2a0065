"""A time zone as the few shifts that matter in a period.

Everything is counted in *quarters*: quarters of an hour since 1970-01-01 UTC.  Every zone in use since 2020 is a whole
number of quarters away from UTC and changes its clock on a quarter, so that a day, an hour and a weekday of any viewer
are sums of quarters.  The ``tzinfo`` is an argument; where it comes from is the caller's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from zlib import crc32

from msgspec import Struct

QUARTER_MS = 900_000
QUARTERS_A_DAY = 96
_QUARTER_S = 900
_STEP = QUARTERS_A_DAY


class Shift(Struct, frozen=True):
    """From this quarter on the zone is so far ahead of UTC."""

    since: int
    quarters: int


def shifts_of(zone: tzinfo, first: int, end: int) -> Sequence[Shift]:
    """The shifts of a zone from quarter ``first`` to ``end``, oldest first; the first one holds from ``first`` on."""
    shifts = [Shift(first, shift_at(zone, first))]
    known = first
    while known < end:
        step = min(known + _STEP, end)
        if shift_at(zone, step) != shifts[-1].quarters:
            change = _find_change(zone, known, step)
            shifts.append(Shift(change, shift_at(zone, change)))
            step = change
        known = step
    return shifts


def _find_change(zone: tzinfo, before: int, after: int) -> int:
    """The first quarter whose shift differs from that of ``before``; that of ``after`` does."""
    shift = shift_at(zone, before)
    while after - before > 1:
        middle = (before + after) // 2
        if shift_at(zone, middle) == shift:
            before = middle
        else:
            after = middle
    return after


def shift_at(zone: tzinfo, quarter: int) -> int:
    """How many quarters the zone is ahead of UTC at the beginning of a quarter."""
    offset = datetime.fromtimestamp(quarter * _QUARTER_S, zone).utcoffset()
    return 0 if offset is None else round(offset / timedelta(seconds=_QUARTER_S))


def day_start(zone: tzinfo, quarter: int) -> int:
    """The quarter at which the day of the zone begins that holds ``quarter``."""
    local = datetime.fromtimestamp(quarter * _QUARTER_S, zone)
    start = quarter_of(local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0))
    # Where clocks are set forward at midnight the day begins with what 00:00 would have been: the change itself.
    return min(start, quarter)


def next_day_start(zone: tzinfo, start: int) -> int:
    """The beginning of the day after the one that begins at ``start``."""
    return day_start(zone, start + QUARTERS_A_DAY + QUARTERS_A_DAY // 2)


def quarter_of(moment: datetime) -> int:
    """The quarter that holds a moment; one without a zone is in UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() // _QUARTER_S)


def zone_number(zone: tzinfo) -> int:
    """Tells the zone by whose days the roll-ups were made from another one."""
    return crc32(str(zone).encode())
