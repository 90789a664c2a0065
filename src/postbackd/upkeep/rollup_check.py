"""Proves that roll-ups equal the raw rows: reads both and names every difference.

What has been purged of the raw rows cannot be compared any more; what may still be on its way (``slots_to``,
``log_to``) is left to the keeper.  Levels are held against the quarters that they are sums of, also where these cannot
be compared any more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any

from msgspec import Struct

from postbackd.core.click_id import EPOCH_MS, MAX_STAMP, write_stamp
from postbackd.core.grouping import SUB_COLUMNS
from postbackd.core.rollups import (
    NOTHING,
    ClickKey,
    Level,
    PostbackKey,
    Tally,
    add,
    first_stamp_of,
    slot_of,
    spread_clicks,
    spread_postbacks,
    tally_of,
    tally_postbacks,
)
from postbackd.core.zones import QUARTER_MS, day_start, next_day_start
from postbackd.store.base import Store

_FACTS = (
    "click_id", "network", "campaign", "offer", "type", "status", "value_micros", "currency", "channels",
)  # fmt: skip
_OF_CLICK = ("country", *SUB_COLUMNS)


class Difference(Struct, frozen=True):
    """One thing on which roll-ups and raw rows do not agree."""

    what: str
    """``clicks``, ``postbacks``, ``conversion``, ``level`` or ``sub``."""
    slot: int
    """The slot; of a level and a sub the beginning of its day; of a conversion 0."""
    key: tuple[str | int, ...]
    rolled: Any
    raw: Any
    id: int = 0
    """Of a conversion."""
    click_id: int = 0

    def text(self) -> str:
        """For people."""
        if self.what == "conversion":
            return f"conversion {write_stamp(self.id)}: rolled up as {self.rolled}, and it is {self.raw}"
        at = datetime.fromtimestamp(self.slot * QUARTER_MS / 1000, UTC).strftime("%Y-%m-%dT%H:%MZ")
        return f"{self.what} {at} {self.key}: rolled up as {self.rolled}, and the rows say {self.raw}"


class RollupCheck:
    """One check over a span of slots."""

    def __init__(self, store: Store, zone: tzinfo) -> None:
        self._store = store
        self._zone = zone
        self._state: Mapping[str, int] = {}
        self._purged: Mapping[str, int] = {}
        self.slots = 0
        """Slots that were compared with their raw rows."""
        self.conversions = 0

    async def differences(self, first: int, end: int) -> AsyncIterator[Difference]:
        """Every difference from slot ``first`` to ``end``."""
        self._state = {row["name"]: row["value"] for row in await self._store.query("rollup_state")}
        self._purged = {row["name"]: row["stamp"] for row in await self._store.query("rollup_horizons")}
        end = min(end, self._state.get("slots_to", 0))
        oldest = await self._oldest()
        day = end if oldest is None else day_start(self._zone, max(first, oldest))
        while day < end:
            following = next_day_start(self._zone, day)
            async for found in self._check_day(day, following, min(following, end)):
                yield found
            day = following

    async def _oldest(self) -> int | None:
        """Before this slot there is nothing to compare; ``None``: nowhere."""
        (rolled,) = await self._store.query_apart("rollup_span")
        (raw,) = await self._store.query_apart("rollup_oldest")
        (converted,) = await self._store.query_apart("rollup_oldest_conversion")
        slots = [slot_of(stamp) for stamp in (*raw.values(), *converted.values()) if stamp is not None]
        return min([*slots, *([] if rolled["first"] is None else [rolled["first"]])], default=None)

    async def _check_day(self, day: int, following: int, end: int) -> AsyncIterator[Difference]:
        span = {"since": day, "until": following}
        clicks = await self._quarters(span)
        postbacks: dict[int, dict[PostbackKey, Tally]] = {}
        for row in await self._store.query_apart("rollup_quarters_postbacks", **span):
            tally = (row["postbacks"], row["carried"], row["matched"], row["duplicates"])
            postbacks.setdefault(row["slot"], {})[row["network"], row["campaign"]] = tally
        async for found in self._check_slots(day, end, clicks, postbacks):
            yield found
        async for found in self._check_levels(day, following, clicks, postbacks):
            yield found
        if following <= self._state.get("subs_to", 0) and self._is_whole(day, "purged_before"):
            async for found in self._check_subs(day, following):
                yield found
        async for found in self._check_conversions(day, following):
            yield found

    async def _quarters(self, span: Mapping[str, int]) -> dict[int, dict[ClickKey, Tally]]:
        clicks: dict[int, dict[ClickKey, Tally]] = {}
        for row in await self._store.query_apart("rollup_quarters_clicks", **span):
            tally = (row["clicks"], row["costed"], row["cost_units"], row["cost_micros"])
            clicks.setdefault(row["slot"], {})[row["campaign"], row["offer"], row["country"]] = tally
        return clicks

    def _is_whole(self, slot: int, horizon: str) -> bool:
        return first_stamp_of(slot) >= self._purged.get(horizon, 0)

    async def _check_slots(
        self,
        first: int,
        end: int,
        clicks: Mapping[int, Mapping[ClickKey, Tally]],
        postbacks: Mapping[int, Mapping[PostbackKey, Tally]],
    ) -> AsyncIterator[Difference]:
        span = {"since": first_stamp_of(first), "until": first_stamp_of(end), "grain": QUARTER_MS}
        raw_clicks: dict[int, dict[ClickKey, Tally]] = {}
        for row in await self._store.query_apart("rollup_clicks", **span):
            slot = row["span"] + EPOCH_MS // QUARTER_MS
            key = (row["campaign"], row["offer"], row["country"])
            raw_clicks.setdefault(slot, {})[key] = (row["clicks"], row["costed"], row["units"], row["micros"])
        raw_postbacks: dict[int, dict[PostbackKey, Tally]] = {}
        for row in await self._store.query_apart("rollup_postbacks", **span):
            here = raw_postbacks.setdefault(row["span"] + EPOCH_MS // QUARTER_MS, {})
            place = (row["network"], row["campaign"])
            tally = tally_postbacks(row["verdict"], row["reason"], row["count"], row["with_click"])
            here[place] = add(here.get(place, NOTHING), tally)
        for slot in range(first, end):
            if self._is_whole(slot, "purged_before"):
                self.slots += 1
                for found in _compare("clicks", slot, clicks.get(slot, {}), raw_clicks.get(slot, {})):
                    yield found
            if self._is_whole(slot, "postbacks_purged_before"):
                for found in _compare(
                    "postbacks", slot, postbacks.get(slot, {}), raw_postbacks.get(slot, {})
                ):
                    yield found

    async def _check_levels(
        self,
        day: int,
        following: int,
        clicks: Mapping[int, Mapping[ClickKey, Tally]],
        postbacks: Mapping[int, Mapping[PostbackKey, Tally]],
    ) -> AsyncIterator[Difference]:
        first, end = day - day % 4, -(-following // 4) * 4  # whole hours, some of them the neighbours'
        if (first, end) != (day, following):
            clicks = await self._quarters({"since": first, "until": end})
        expected: dict[tuple[int, ...] | tuple[int, int, int, int, str], Tally] = {}
        for slot, found in clicks.items():
            for key, tally in spread_clicks(slot, day if day <= slot < following else -1, found).items():
                if key[0] != Level.QUARTER and key[1] >= 0:
                    expected[key] = add(expected.get(key, NOTHING), tally)
        for slot, tallies in postbacks.items():
            for place, tally in spread_postbacks(slot, day, tallies).items():
                if place[0] != Level.QUARTER:
                    expected[place] = add(expected.get(place, NOTHING), tally)
        stored: dict[Any, Tally] = {}
        for row in await self._store.query_apart("rollup_levels_clicks", since=first, until=end):
            if row["level"] != Level.DAY or row["slot"] == day:
                key = (row["level"], row["slot"], row["campaign"], row["offer"], row["country"])
                stored[key] = (row["clicks"], row["costed"], row["cost_units"], row["cost_micros"])
        for row in await self._store.query_apart("rollup_days_postbacks", since=day, until=day + 1):
            place = (row["level"], row["slot"], row["network"], row["campaign"])
            stored[place] = (row["postbacks"], row["carried"], row["matched"], row["duplicates"])
        for difference in _compare("level", day, stored, expected):
            yield difference

    async def _check_subs(self, day: int, following: int) -> AsyncIterator[Difference]:
        for number, name in enumerate(SUB_COLUMNS, 1):
            stored = {
                (row["campaign"], row["value"], row["other"]): tally_of(row)
                for row in await self._store.query_apart("rollup_sub_values", sub=number, slot=day)
            }
            span = {"since": first_stamp_of(day), "until": first_stamp_of(following)}
            raw = {
                (row["campaign"], row["value"], row["rest"]): tally_of(row)
                for row in await self._store.query_apart(f"rollup_day_{name}", **span)
            }
            for found in _compare("sub", day, stored, raw):
                yield found

    async def _check_conversions(self, day: int, following: int) -> AsyncIterator[Difference]:
        """Those of the clicks of a day."""
        span = {"since": first_stamp_of(day), "until": first_stamp_of(following)}
        settled = self._state.get("log_to", 0)
        if self._state.get("facts_after", -1) < MAX_STAMP:
            return
        rolled = {row["conversion_id"]: row for row in await self._store.query_apart("rollup_facts", **span)}
        for row in await self._store.query_apart("rollup_raw_facts", **span):
            fact = rolled.pop(row["conversion_id"], None)
            if row["conversion_id"] >= settled:
                continue
            self.conversions += 1
            columns = _FACTS if row["known"] is None else (*_FACTS, *_OF_CLICK)
            ours = None if fact is None else {name: fact[name] for name in columns}
            theirs = {name: row[name] for name in columns}
            if ours != theirs:
                yield _of_conversion(row, _changed(ours, theirs), _changed(theirs, ours))
        for row in rolled.values():
            yield _of_conversion(row, "there", None)


def _of_conversion(row: Mapping[str, Any], rolled: Any, raw: Any) -> Difference:
    return Difference("conversion", 0, (), rolled, raw, row["conversion_id"], row["click_id"])


def _changed(ours: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if ours is None or theirs is None:
        return ours
    return {name: value for name, value in ours.items() if value != theirs[name]}


def _compare(
    what: str, slot: int, rolled: Mapping[Any, Tally], raw: Mapping[Any, Tally]
) -> Iterator[Difference]:
    for key in sorted({*rolled, *raw}, key=str):
        ours, theirs = rolled.get(key, NOTHING), raw.get(key, NOTHING)
        if ours != theirs:
            yield Difference(what, slot, key, ours, theirs)
