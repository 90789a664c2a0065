"""What the roll-ups hold and how they add up: levels, slots, tallies, and the ladder of times to convert.

A *slot* is a quarter of an hour since 1970 (``core.zones``).  Its tallies are computed from raw rows as a whole, never
by counting as rows arrive; what changed of them is added to the coarser levels in the same transaction, so that a level
is always the exact sum of the one below it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, TypeVar

from msgspec import Struct

from postbackd.core.click_id import EPOCH_MS, first_stamp_at
from postbackd.core.diagnosis import Reason
from postbackd.core.histogram import holding
from postbackd.core.verdicts import Verdict
from postbackd.core.zones import QUARTER_MS

_K = TypeVar("_K")

ClickKey = tuple[int, int, str]
"""(campaign, offer, country); an unknown country is empty."""

PostbackKey = tuple[int, int]
"""(network, campaign); 0: of no known campaign."""

SubKey = tuple[int, str, int]
"""(campaign, value, 1 for the rest that is put together)."""

Tally = tuple[int, int, int, int]
"""Of clicks: (clicks, those with a cost, whole units of cost, millionths of cost).
Of postbacks: (postbacks, those that carried a click id, those that were matched, duplicates)."""

NOTHING: Tally = (0, 0, 0, 0)


class Level(IntEnum):
    """What a row of a roll-up is a sum over.  The number is stored."""

    QUARTER = 1
    """All dimensions."""
    QUARTER_LINKS = 2
    """Clicks without their country: small enough to be read by the month."""
    QUARTER_COUNTRIES = 3
    """Clicks by country alone."""
    HOUR_LINKS = 4
    DAY = 5
    """All dimensions, by the day of the report zone."""
    HOUR_SUBS = 6
    """Values of a sub id, while their day is not over."""


class Kind(IntEnum):
    """Of which raw rows a slot is to be computed again.  The number is stored."""

    CLICKS = 1
    POSTBACKS = 2
    """Also the conversions that they speak of."""


class MinuteRow(Struct, frozen=True):
    """One figure of one minute, for live charts."""

    minute: int
    """Since 1970."""
    kind: str
    """``clicks``, ``postbacks`` or ``conversions``."""
    network: int
    word: str
    """Of postbacks the verdict, of conversions the currency."""
    count: int
    units: int = 0
    micros: int = 0


class Slot(Struct, frozen=True):
    """One quarter of an hour as its raw rows say it; ``None``: not looked at, what is there stays."""

    slot: int
    day: int
    """The slot at which its day begins in the report zone."""
    clicks: Mapping[ClickKey, Tally] | None = None
    postbacks: Mapping[PostbackKey, Tally] | None = None
    minutes: Sequence[MinuteRow] | None = None


class SubSpan(Struct, frozen=True):
    """What changed of the values of one sub id in an hour or a day."""

    level: Level
    """``HOUR_SUBS`` or ``DAY``."""
    slot: int
    """At which it begins."""
    sub: int
    """1 to 10."""
    values: Mapping[SubKey, Tally]
    """As they are now; a value that nothing is left of goes."""


class OldHours(Struct, frozen=True):
    """Values of one sub id by hours whose days are over: those from the oldest up to one that was read."""

    sub: int
    last: tuple[int, int, str, int]
    """Slot, campaign, value, 1 for the rest: the last row that goes."""


class Fact(Struct, frozen=True):
    """A conversion with what its click says."""

    columns: tuple[Any, ...]
    """conversion_id, click_id, network, campaign, offer, type, status, value_micros, currency, channels."""
    click_known: bool
    """Otherwise the click has been purged, and what was known of it stays."""
    of_click: tuple[str | None, ...]
    """Country and sub1 to sub10."""


class Put(Struct, frozen=True, kw_only=True):
    """One step of the keeper, committed together."""

    holder: int
    """Who takes it; nothing happens when somebody else has taken over."""
    now_ms: int
    slots: Sequence[Slot] = ()
    subs: Sequence[SubSpan] = ()
    old_hours: Sequence[OldHours] = ()
    subs_after: int = 0
    """Values of sub ids that go: those of spans that begin behind this slot."""
    minutes_before: int = 0
    """Minutes that no chart shows any more: those before this one."""
    slots_before: int = 0
    """Slots that are older than any conversion that is kept."""
    relevel: Sequence[tuple[Level, int, int]] = ()
    """(level, first slot, end): to be made anew from the quarters; for ``DAY`` one whole day each."""
    facts_gone: Sequence[int] = ()
    """Conversions that are not there any more."""
    done: Sequence[int] = ()
    """Marks that were looked at."""
    state: Mapping[str, int] = {}
    """How far the keeper has come, by the words of ``upkeep.rollups``."""


class Mark(Struct, frozen=True):
    """A slot whose raw rows changed after it was computed."""

    id: int
    kind: Kind
    slot: int


LATE_MS = 5_000
"""A row that is written so long after its stamp leaves a mark; the keeper looks again at what is younger anyway."""


def slot_of(stamp: int) -> int:
    """The slot of a click or request.  In SQL: ``((stamp >> 22) + 1577836800000) / 900000``."""
    return ((stamp >> 22) + EPOCH_MS) // QUARTER_MS


def first_stamp_of(slot: int) -> int:
    """The smallest stamp in a slot."""
    return first_stamp_at(slot * QUARTER_MS)


def tally_of(row: Mapping[str, Any]) -> Tally:
    """Clicks, and what those cost that had a price, of a row of a statement."""
    return row["clicks"], row["costed"], row["units"], row["micros"]


def add(one: Tally, other: Tally) -> Tally:
    """Both together."""
    return one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3]


def changes(old: Mapping[_K, Tally], new: Mapping[_K, Tally]) -> dict[_K, Tally]:
    """What has to be added to the old tallies to make the new ones."""
    found: dict[_K, Tally] = {}
    for key in {**old, **new}:
        before, after = old.get(key, NOTHING), new.get(key, NOTHING)
        if before != after:
            found[key] = (
                after[0] - before[0], after[1] - before[1], after[2] - before[2], after[3] - before[3],
            )  # fmt: skip
    return found


def spread_clicks(
    slot: int, day: int, changed: Mapping[ClickKey, Tally]
) -> dict[tuple[int, int, int, int, str], Tally]:
    """The same changes for every level of clicks: (level, slot, campaign, offer, country) -> what to add."""
    made: dict[tuple[int, int, int, int, str], Tally] = {}
    for (campaign, offer, country), tally in changed.items():
        for key in (
            (Level.QUARTER.value, slot, campaign, offer, country),
            (Level.QUARTER_LINKS.value, slot, campaign, offer, ""),
            (Level.QUARTER_COUNTRIES.value, slot, 0, 0, country),
            (Level.HOUR_LINKS.value, slot - slot % 4, campaign, offer, ""),
            (Level.DAY.value, day, campaign, offer, country),
        ):
            made[key] = add(made.get(key, NOTHING), tally)
    return {key: tally for key, tally in made.items() if tally != NOTHING}


def spread_postbacks(
    slot: int, day: int, changed: Mapping[PostbackKey, Tally]
) -> dict[tuple[int, int, int, int], Tally]:
    """The same changes for every level of postbacks: (level, slot, network, campaign) -> what to add."""
    made: dict[tuple[int, int, int, int], Tally] = {}
    for (network, campaign), tally in changed.items():
        made[Level.QUARTER.value, slot, network, campaign] = tally
        made[Level.DAY.value, day, network, campaign] = tally
    return made


# --- postbacks ----------------------------------------------------------------------------------------------------

WITHOUT_CLICK_ID = frozenset(
    {Reason.CLICK_ID_MISSING, Reason.CLICK_ID_EMPTY, Reason.TEST_EVENT, Reason.BODY_MALFORMED}
)
"""Reasons of postbacks that carried no click id, and so say nothing about matching."""

HEALTHY_MATCH_RATE = 0.90
"""Below this share of matched postbacks something is broken in the set-up."""


def tally_postbacks(verdict: int, reason: int, count: int, with_click: int) -> Tally:
    """The tally of log rows that agree on verdict and reason; ``with_click``: how many have a known click id."""
    return (
        count,
        with_click if reason in WITHOUT_CLICK_ID else count,
        with_click if verdict != Verdict.UNMATCHED else 0,
        count if verdict == Verdict.DUPLICATE else 0,
    )


# --- time to convert ----------------------------------------------------------------------------------------------

_LADDER_S = (
    *(1, 2, 3, 5, 7, 10, 15, 20, 30, 45),
    *(n * 60 for n in (1, 2, 3, 5, 7, 10, 15, 20, 30, 45)),
    *(n * 3600 for n in (1, 2, 3, 4, 6, 9, 12, 18)),
    *(n * 86_400 for n in (1, 2, 3, 5, 7, 10, 14, 21, 30, 45, 60, 90)),
)
"""Upper bounds of the rungs; the last one has none.  Both databases can join rungs to a text, neither has the other's
percentiles."""

_FIRST_RUNG = ord("A")


def rung_of(click_id: int, conversion_id: int) -> str:
    """The letter of the rung that the time from a click to its conversion is on."""
    seconds = (conversion_id - click_id) / (1 << 22) / 1000
    number = sum(1 for bound in _LADDER_S if seconds >= bound)
    return chr(_FIRST_RUNG + number)


def percentile_s(rungs: Mapping[str, int], share: float) -> int | None:
    """The upper bound of the rung that holds the ``share`` (0..1) quickest, in seconds; ``None`` without any.

    What is on the last rung is told as its lower bound.
    """
    rung = holding(rungs, share)
    return None if rung is None else _LADDER_S[min(ord(rung) - _FIRST_RUNG, len(_LADDER_S) - 1)]
