"""Which bucket a row of a partner's export, or a conversion of ours, falls into, and by how much two clocks differ.

Every row of the file is in exactly one bucket, and so is every conversion of the network in the file's period:

    agrees            the same here and there
    value_differs     amount or currency is another one
    status_differs    the money is the same, the status is not
    other_day         agrees, but their clock puts it on another day than ours
    missing_here      in the file, not counted here
    missing_there     counted here, in the file's period, not in the file
    duplicate         a further row about the same conversion
    outside_window    a row outside of the period that was asked for; a conversion just outside of the file's period
    unusable          a row from which nothing follows, and why

*Money* is the value of what is pending or approved: what was rejected or reversed is nobody's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from enum import IntEnum

from msgspec import Struct

from postbackd.core.click_id import stamp_ms
from postbackd.core.export_rows import Problem
from postbackd.core.export_values import DAY_MS
from postbackd.core.model import Channel
from postbackd.core.statuses import TAKEN_BACK

MINUTE_MS = 60_000
QUARTER_MS = 15 * MINUTE_MS


class Bucket(IntEnum):
    """The number is kept in a file for a day, the word is what people see."""

    AGREES = 1
    VALUE_DIFFERS = 2
    STATUS_DIFFERS = 3
    OTHER_DAY = 4
    MISSING_HERE = 5
    MISSING_THERE = 6
    DUPLICATE = 7
    OUTSIDE_WINDOW = 8
    UNUSABLE = 9

    @property
    def word(self) -> str:
        """What people see, and what commands and the API take."""
        return self.name.lower()


SENTENCES = {
    Bucket.AGREES: "The same here and there.",
    Bucket.VALUE_DIFFERS: "The amount or the currency is another one.",
    Bucket.STATUS_DIFFERS: "The money is the same, the status is not.",
    Bucket.OTHER_DAY: "Agrees, but their clock puts it on another day than ours.",
    Bucket.MISSING_HERE: "In the file, and not counted here.",
    Bucket.MISSING_THERE: "Counted here in the file's period, and not in the file.",
    Bucket.DUPLICATE: "A further row about the same conversion.",
    Bucket.OUTSIDE_WINDOW: "Outside of the period that is compared.",
    Bucket.UNUSABLE: "A row that could not be used.",
}


def is_money(status: int | None) -> bool:
    """Whether a value with this status is earned, or may be; ``None``: nothing was said."""
    return status not in TAKEN_BACK


class Side(Struct, frozen=True, gc=False):
    """What one side says of a conversion; ``None`` where it says nothing."""

    value_micros: int | None
    currency: str
    status: int | None


def compare(theirs: Side, ours: Side, decimals: int) -> Bucket:
    """``VALUE_DIFFERS``, ``STATUS_DIFFERS`` or ``AGREES``.

    ``decimals``: how many the export's amounts have at most.  A finer value of ours agrees with the amount to which it
    is rounded.  Where both sides took the conversion back, no money is left to differ.
    """
    both_back = theirs.status in TAKEN_BACK and ours.status in TAKEN_BACK
    if theirs.value_micros is not None and not both_back:
        assert ours.value_micros is not None
        if theirs.currency != ours.currency or not _same_value(
            theirs.value_micros, ours.value_micros, decimals
        ):
            return Bucket.VALUE_DIFFERS
    if theirs.status is not None and theirs.status != ours.status:
        return Bucket.STATUS_DIFFERS
    return Bucket.AGREES


def _same_value(theirs: int, ours: int, decimals: int) -> bool:
    if theirs == ours:
        return True
    unit = int(10 ** (6 - min(max(decimals, 2), 6)))
    return ours % unit != 0 and abs(theirs - ours) * 2 <= unit


def counted_ms(conversion_id: int, channels: int, status_time_ms: int) -> int:
    """When a conversion of ours happened: when it was counted, or, if it was only imported, the time in the export."""
    if channels == Channel.IMPORT and status_time_ms:
        return status_time_ms
    return stamp_ms(conversion_id)


# --- which conversion a row speaks of --------------------------------------------------------------------------------


class Wanted(Struct, frozen=True, gc=False):
    """By what a row can be matched."""

    transaction_id: str
    """Empty when it has none."""
    click: int | None
    own_id: str | None
    type: str | None
    """``None`` when it names none that is known here."""


class Candidate(Struct, frozen=True, gc=False):
    """A conversion of ours that may be the one."""

    n: int
    click: int
    type: str
    transaction_id: str
    value_micros: int
    currency: str
    status: int
    time_ms: int
    own_id: str | None


class Chosen(Struct, frozen=True, gc=False):
    """The conversion that a row speaks of, or why there is none."""

    ours: Candidate | None = None
    problem: int = 0
    other: int | None = None
    """Number of a conversion of the same click and type that is counted under another transaction id."""


def choose(
    wanted: Wanted, same: Sequence[Candidate], of_click: Callable[[Wanted], Sequence[Candidate]]
) -> Chosen:
    """``same``: our conversions with the row's transaction id.  ``of_click`` finds those of its click."""
    candidates = _of_type(same, wanted.type)
    if wanted.click is not None and candidates:
        candidates = [ours for ours in candidates if ours.click == wanted.click]
        if not candidates:
            return Chosen(problem=Problem.ANOTHER_CLICK)
    elif wanted.own_id is not None and len(candidates) > 1:
        candidates = [ours for ours in candidates if ours.own_id == wanted.own_id] or candidates
    if candidates:
        return _only(candidates)
    if wanted.click is None and wanted.own_id is None:
        return _NONE
    candidates = _of_type(of_click(wanted), wanted.type)
    if not wanted.transaction_id:
        return _only(candidates)
    unnamed = [ours for ours in candidates if _has_no_transaction(ours)]
    if unnamed:
        return _only(unnamed)
    return Chosen(other=candidates[0].n) if candidates else _NONE


_NONE = Chosen()


def _of_type(candidates: Sequence[Candidate], type_: str | None) -> Sequence[Candidate]:
    return candidates if type_ is None else [ours for ours in candidates if ours.type == type_]


def _only(candidates: Sequence[Candidate]) -> Chosen:
    if len(candidates) > 1:
        return Chosen(problem=Problem.SEVERAL_CONVERSIONS)
    return Chosen(candidates[0]) if candidates else _NONE


def _has_no_transaction(ours: Candidate) -> bool:
    """Its postback named none: the id is empty, or one that ``add`` mode made."""
    return not ours.transaction_id or ours.transaction_id.startswith("#")


# --- two clocks ------------------------------------------------------------------------------------------------------

_MOST_QUARTERS = 14 * 4 + 2
_FEWEST_PAIRS = 3
_ENOUGH = 0.5
_ODD_ZONES = frozenset({5 * 4 + 3, 8 * 4 + 3, 12 * 4 + 3})
"""Quarters of an hour that are zones (Nepal, Eucla, Chatham) and no delay."""


class Shift(Struct, frozen=True):
    """By how many minutes the clock of an export is ahead of ours (UTC)."""

    minutes: int = 0
    share: float = 0.0
    """Of the matched rows that show it."""
    pairs: int = 0
    later: int | None = None
    """Minutes from ``switch_ms`` on, where their clocks were changed in between."""
    switch_ms: int = 0
    """In UTC."""

    def at(self, utc_ms: int) -> int:
        """Minutes ahead at a moment of ours."""
        return self.minutes if self.later is None or utc_ms < self.switch_ms else self.later

    def to_utc(self, shown_ms: int) -> int:
        """The moment at which their clock showed this."""
        utc = shown_ms - self.minutes * MINUTE_MS
        if self.later is None or utc < self.switch_ms:
            return utc
        return shown_ms - self.later * MINUTE_MS


def find_shift(pairs: Sequence[tuple[int, int]], clocks: bool) -> Shift | None:
    """The shift that matched rows show; ``None`` when they show none that is constant, or are too few.

    ``pairs``: (their time, our time) in milliseconds, theirs as its clock shows it.  ``clocks``: whether theirs says
    more than the day.  Ours may be later by the time that a postback takes to arrive.
    """
    if len(pairs) < _FEWEST_PAIRS:
        return None
    if not clocks:
        return _find_shift_of_days(pairs)
    quarters = Counter(round((theirs - ours) / QUARTER_MS) for theirs, ours in pairs)
    best = _best_zone(quarters)
    share = _around(quarters, best) / len(pairs)
    twin = max((best - 4, best + 4), key=lambda other: _around(quarters, other))
    together = share + _around(quarters, twin) / len(pairs)
    if together < _ENOUGH or abs(best) > _MOST_QUARTERS:
        return None
    if share < 0.97 and _around(quarters, twin) >= max(2, 0.03 * len(pairs)):
        changed = _find_switch(pairs, best, twin)
        if changed is not None:
            return changed
    return Shift(best * 15, round(share, 4), len(pairs)) if share >= _ENOUGH else None


def _around(quarters: Counter[int], zone: int) -> int:
    return quarters[zone - 1] + quarters[zone]


def _best_zone(quarters: Counter[int]) -> int:
    """Of the half hours the one that most rows are at or just below: a postback arrives after the conversion."""
    zones = {up for quarter in quarters for up in (quarter, quarter + 1) if up % 2 == 0 or up in _ODD_ZONES}
    return max(zones, key=lambda zone: (_around(quarters, zone) + quarters[zone], -abs(zone)), default=0)


def _find_switch(pairs: Sequence[tuple[int, int]], one: int, other: int) -> Shift | None:
    """Their clocks were changed by an hour once: the moment that divides the rows best."""
    marked = []
    for theirs, ours in pairs:
        quarter = round((theirs - ours) / QUARTER_MS)
        if quarter in (one, one - 1):
            marked.append((ours, 1))
        elif quarter in (other, other - 1):
            marked.append((ours, 0))
    marked.sort()
    ones = sum(mark for _, mark in marked)
    seen_ones, best = 0, (len(marked) + 1, 0, one, other)
    for position, (_, mark) in enumerate(marked):
        seen_others = position - seen_ones
        first_one = seen_others + (ones - seen_ones)
        """Wrong, if ``one`` holds before this position and ``other`` from it on."""
        first_other = seen_ones + (len(marked) - position - (ones - seen_ones))
        best = min(best, (first_one, position, one, other), (first_other, position, other, one))
        seen_ones += mark
    wrong, position, before, after = best
    if position == 0 or wrong > 0.02 * len(marked):
        return None
    right = (len(marked) - wrong) / len(pairs)
    return Shift(before * 15, round(right, 4), len(pairs), after * 15, marked[position][0])


def _find_shift_of_days(pairs: Sequence[tuple[int, int]]) -> Shift | None:
    """Where the file says days only: the whole hour with which most of our times fall on their days."""
    hits = {
        hours: sum((ours + hours * 3_600_000) // DAY_MS == theirs // DAY_MS for theirs, ours in pairs)
        for hours in range(-12, 15)
    }
    best = max(hits, key=lambda hours: (hits[hours], -abs(hours)))
    if hits[best] < _ENOUGH * len(pairs):
        return None
    if hits[best] - hits[0] < max(1, 0.002 * len(pairs)):
        best = 0
    return Shift(best * 60, round(hits[best] / len(pairs), 4), len(pairs))


def is_other_day(day: int, ours_ms: int, shift_min: int) -> bool:
    """Whether a row is on another day than our conversion only because its clock is ahead or behind."""
    return day != ours_ms // DAY_MS and day == (ours_ms + shift_min * MINUTE_MS) // DAY_MS


class Period(Struct, frozen=True):
    """What the file covers, in milliseconds since 1970 UTC: from ``since_ms``, not including ``until_ms``."""

    since_ms: int
    until_ms: int

    def holds(self, ms: int) -> bool:
        """Whether a moment lies in it."""
        return self.since_ms <= ms < self.until_ms


def cover(first_ms: int, last_ms: int, shift: Shift, now_ms: int) -> Period:
    """The period of a file whose first and last row show these times: whole days of its own clock.

    A last day that is not over yet ends with the last row: the partner cannot have known more.
    """
    since = shift.to_utc(first_ms // DAY_MS * DAY_MS)
    until = shift.to_utc((last_ms // DAY_MS + 1) * DAY_MS)
    if until > now_ms:
        until = min(until, shift.to_utc(last_ms) + 1)
    return Period(since, max(until, since))
