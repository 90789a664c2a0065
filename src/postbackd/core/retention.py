"""How long each class of rows is kept, and when a purge must not go on by itself.

A delivery tells what a source knows, so it goes with its conversion and not before.  A conversion outlives its click,
always: once both are gone the same postback finds no click, and while the click is there the conversion's key
refuses it.  So what was counted is never counted twice.

The brake asks two things of every purge that nobody stands beside: has the clock jumped, and would it delete far more
than the last ones did?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from msgspec import Struct


class Class(StrEnum):
    """What is kept for the same time.  The word is stored."""

    CLICKS = "clicks"
    POSTBACKS = "postbacks"
    """The postback log."""
    ATTEMPTS = "attempts"
    """Of deliveries, with what targets answered."""
    CONVERSIONS = "conversions"
    """With their history and deliveries."""
    COUNTS = "counts"
    """Refusals, response times and finds of personal data, by minute."""


DAY_MS = 86_400_000

OFF_MS = 2 * DAY_MS
"""So far a clock may go on while no purge looks: a server that was off over a weekend.  What is more asks a person."""

BACK_MS = 3_600_000
"""So far it may go back."""

USUAL_ROWS = 100_000
"""So many rows are never far more than usual."""

USUAL_FACTOR = 3
"""So many times the largest of the last purges is."""


class Keep(Struct, frozen=True):
    """Days for each class; 0: for ever."""

    days: Mapping[Class, int]

    def problem(self) -> str | None:
        """What is wrong with it, in words."""
        clicks, conversions = self.days[Class.CLICKS], self.days[Class.CONVERSIONS]
        if conversions and (not clicks or conversions < clicks):
            return (
                "keep_conversions_days must be 0 or at least keep_clicks_days: a conversion that goes before its click "
                "could be counted again"
            )
        return None

    def before_ms(self, class_: Class, now_ms: int) -> int | None:
        """What is older goes; ``None``: nothing does."""
        days = self.days[class_]
        return now_ms - days * DAY_MS if days else None


class Due(Struct, frozen=True):
    """What a purge would delete of one class."""

    class_: Class
    before_ms: int
    rows: int
    exact: bool


class Seen(Struct, frozen=True):
    """What is known of the clock and of the purges before."""

    clock_ms: int | None
    """The latest time at which a purge has looked, as it is stored; ``None``: none has."""
    largest: Mapping[Class, int]
    """Class -> most rows that one of the last purges deleted."""
    drift_ms: int = 0
    """How far the clock has gone beyond what has really passed since this process began; what a clock that nobody can
    set says."""


def brake(due: Sequence[Due], seen: Seen, now_ms: int) -> str | None:
    """Why the purge must not go on by itself, in words; ``None``: it may.  One that has nothing to do always may."""
    if not any(one.rows for one in due):
        return None
    return jumped(seen, now_ms) or _too_much(due, seen)


def jumped(seen: Seen, now_ms: int) -> str | None:
    """Why the clock is not to be trusted, in words."""
    if abs(seen.drift_ms) > BACK_MS:
        return f"the clock jumped by {_span(seen.drift_ms)} while the server ran"
    if seen.clock_ms is None:
        return "nothing was ever purged from this database by itself; look at what would go first"
    if now_ms < seen.clock_ms - BACK_MS:
        return f"the clock stands {_span(seen.clock_ms - now_ms)} before the last purge"
    if now_ms > seen.clock_ms + OFF_MS:
        return f"the clock stands {_span(now_ms - seen.clock_ms)} after the last purge: it jumped, or nothing ran"
    return None


def _too_much(due: Sequence[Due], seen: Seen) -> str | None:
    for one in due:
        usual = max(USUAL_ROWS, USUAL_FACTOR * seen.largest.get(one.class_, 0))
        if one.rows > usual:
            return f"{one.rows:,} rows of {one.class_} would go, and {usual:,} are the most that is usual"
    return None


def _span(ms: int) -> str:
    days = abs(ms) / DAY_MS
    return f"{days:,.1f} days" if days >= 1 else f"{abs(ms) / 3_600_000:.1f} hours"
