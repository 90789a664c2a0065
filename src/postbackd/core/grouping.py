"""A question to the roll-ups as a store answers it: what is grouped by what, over which spans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from postbackd.core.rollups import Level
from postbackd.core.zones import Shift


class Part(StrEnum):
    """What is added up."""

    CLICKS = "clicks"
    """Roll-ups of clicks."""
    CLICK_ROWS = "click_rows"
    """The clicks themselves."""
    SUBS = "subs"
    """Roll-ups of clicks by the value of one sub id."""
    POSTBACKS = "postbacks"
    CONVERSIONS = "conversions"
    """By the time at which they were counted."""
    CONVERSIONS_OF_CLICKS = "conversions_of_clicks"
    """By the time of their clicks."""


TIME_COLUMNS = ("day", "hour", "weekday")
"""Days since 1970, hours of the day, days of the week from 1 (Monday), all in the viewer's zone."""

SUB_COLUMNS = tuple(f"sub{number}" for number in range(1, 11))

COLUMNS: Mapping[Part, frozenset[str]] = {
    Part.CLICKS: frozenset({"campaign", "offer", "country", *TIME_COLUMNS}),
    Part.CLICK_ROWS: frozenset({"campaign", "offer", "country", *TIME_COLUMNS, *SUB_COLUMNS}),
    Part.SUBS: frozenset({"campaign", *TIME_COLUMNS, *SUB_COLUMNS}),
    Part.POSTBACKS: frozenset({"network", "campaign", *TIME_COLUMNS}),
    **{
        part: frozenset(
            {"campaign", "offer", "network", "type", "status", "country", *TIME_COLUMNS, *SUB_COLUMNS}
        )
        for part in (Part.CONVERSIONS, Part.CONVERSIONS_OF_CLICKS)
    },
}
"""What each part can be grouped by, and filtered by."""


class Grouping(Struct, frozen=True, kw_only=True):
    """One aggregate.  Unknown texts are empty, unknown numbers 0."""

    part: Part
    level: Level = Level.QUARTER
    """Of roll-ups."""
    first: int
    """The first slot."""
    end: int
    """The first one that is not asked for."""
    by: tuple[str, ...]
    where: Mapping[str, tuple[str | int, ...]] = {}
    """Column -> the values that are asked for, any of them."""
    shifts: Sequence[Shift] = ()
    """Of the viewer's zone, over the span."""
    most: int | None = None
    """So many rows are enough; ``None``: all."""


OTHER = "\t(other)"
"""Among values of a sub id: the rare ones of a day and campaign, put together.  No sender's text begins with a tab."""
