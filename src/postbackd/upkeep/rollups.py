"""Keeps the roll-ups: computes slots from raw rows as time goes on, and again when something of them changed.

Runs beside the requests, never in their way: what it reads it reads apart, what it writes are transactions of a few
milliseconds, and it pauses in proportion to the work it had.  One process at a time is the keeper; each step checks it.

What can change after a slot was computed leaves a mark (``store.rollups``).  What the rows of the last ``MARGIN_MS``
say is looked at again each time, so that rows that were being committed are met.  A clock of another node that is wrong
by more than that is met by the check of each night.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import tzinfo
from secrets import randbits
from time import perf_counter
from typing import Any

from postbackd.core.click_id import EPOCH_MS, MAX_STAMP, first_stamp_at
from postbackd.core.rollups import (
    NOTHING,
    ClickKey,
    Kind,
    Level,
    Mark,
    MinuteRow,
    PostbackKey,
    Put,
    Slot,
    Tally,
    add,
    first_stamp_of,
    slot_of,
    tally_of,
    tally_postbacks,
)
from postbackd.core.zones import QUARTER_MS, QUARTERS_A_DAY, day_start, next_day_start, zone_number
from postbackd.store.base import Store, StoreRefused, StoreUnavailable
from postbackd.upkeep.rollup_check import Difference, RollupCheck
from postbackd.upkeep.rollup_subs import changed_subs, old_hours

log = logging.getLogger("postbackd.upkeep")

MARGIN_MS = 20_000
"""Longer than a request takes from its stamp to its commit, and more than ``core.rollups.LATE_MS``."""

MINUTES_MS = 2 * 86_400_000
"""So long figures by the minute are kept."""

_ROUND_S = 3.0
_PAUSE_SHARE = 10.0
"""Between two rounds it waits so many times as long as the last one took, if that is longer."""

_STEP_SHARE = 0.5
"""Between two steps of a long round: so much of what the step took."""

_PAGE = 200
"""Conversions in one transaction."""

_MARKS = 500
_CHECK_EVERY_MS = 86_400_000
_CHECK_SPAN_MS = 2 * 86_400_000
"""A spool is drained long before."""

_MINUTE_MS = 60_000
_EPOCH_MINUTE = EPOCH_MS // _MINUTE_MS


class LostLease(Exception):
    """Another process keeps the roll-ups now."""


class RollupKeeper:
    """The one that keeps roll-ups, or waits until it can be."""

    def __init__(self, store: Store, zone: tzinfo, now_ms: Callable[[], int]) -> None:
        """``zone``: by whose days the day level is kept.  The store should be one that nobody else asks."""
        self._store = store
        self._zone = zone
        self._now_ms = now_ms
        self._holder = randbits(62)
        self._state: dict[str, int] = {}
        self._purged: Mapping[str, int] = {}
        self._step_share = _STEP_SHARE
        self._ask = store.query_apart

    async def run(self) -> None:
        """Keep them until cancelled."""
        said = ""
        try:
            while True:
                began = perf_counter()
                try:
                    if await self.round():
                        await self._check_nightly()
                    said = ""
                except LostLease:
                    log.info("another process keeps the roll-ups now")
                except (StoreUnavailable, StoreRefused) as error:
                    if str(error) != said:
                        log.warning("reports are not kept up to date (%s); trying again", error)
                    said = str(error)
                await asyncio.sleep(max(_ROUND_S, _PAUSE_SHARE * (perf_counter() - began)))
        finally:
            await self._give_up()

    async def catch_up(self) -> bool:
        """Bring them up to date, once; ``False``: another process keeps them, and is doing that."""
        self._step_share = 0
        self._ask = self._store.query  # nobody is kept waiting by a command
        try:
            return await self.round()
        except LostLease:
            return False
        finally:
            await self._give_up()

    async def mend(self, found: Iterable[Difference]) -> bool:
        """Compute again what differs; ``False`` as above."""
        marks: set[tuple[Kind, int]] = set()
        clicks: set[int] = set()
        gone: set[int] = set()
        days: set[int] = set()
        for one in found:
            if one.what == "conversion":
                (gone if one.raw is None else clicks).add(one.id if one.raw is None else one.click_id)
            elif one.what == "level":
                days.add(one.slot)
            else:
                kind = Kind.POSTBACKS if one.what == "postbacks" else Kind.CLICKS
                marks.add((kind, one.slot))
        state = await self._store.claim_rollups(self._holder, self._now_ms())
        if state is None:
            return False
        self._state = dict(state)
        await self._store.mark_slots(marks)
        await self._put_facts(clicks)
        await self._put(facts_gone=sorted(gone))
        for day in sorted(days):
            await self._relevel(day)
        await self._look_again()
        return True

    async def _relevel(self, day: int) -> None:
        following = self._next_day(day)
        hours = (day - day % 4, -(-following // 4) * 4)
        links = (
            (level, *hours) for level in (Level.QUARTER_LINKS, Level.QUARTER_COUNTRIES, Level.HOUR_LINKS)
        )
        await self._put(relevel=[(Level.DAY, day, following), *links])

    async def _give_up(self) -> None:
        try:
            await self._store.give_up_rollups(self._holder)
        except (StoreUnavailable, StoreRefused) as error:
            log.debug("the roll-ups were not given up (%s); the lease ends by itself", error)

    async def round(self) -> bool:
        """Do all there is to do; ``False``: another process is the keeper.  Raises ``LostLease``."""
        now = self._now_ms()
        state = await self._store.claim_rollups(self._holder, now)
        if state is None:
            return False
        self._state = dict(state)
        await self._read_horizons()
        if "slots_to" not in self._state:
            await self._begin(now)
        await self._follow_zone()
        await self._follow_conversions(now)
        await self._look_again()
        await self._roll_slots(now)
        await self._roll_subs(now)
        await self._tidy(now)
        return True

    async def _put(self, **step: Any) -> None:
        if not await self._store.put_rollups(Put(holder=self._holder, now_ms=self._now_ms(), **step)):
            raise LostLease
        self._state |= step.get("state", {})

    async def _read_horizons(self) -> None:
        self._purged = {row["name"]: row["stamp"] for row in await self._store.query("rollup_horizons")}

    # --- the first time ------------------------------------------------------------------------------------------

    async def _begin(self, now: int) -> None:
        (oldest,) = await self._ask("rollup_oldest")
        stamps = [stamp for stamp in oldest.values() if stamp is not None]
        first = slot_of(min(stamps)) if stamps else now // QUARTER_MS
        purged = self._purged.get("purged_before", 0)
        await self._put(
            state={
                "zone": zone_number(self._zone),
                "slots_to": first,
                "subs_to": day_start(self._zone, first),
                "log_to": first_stamp_at(now - MARGIN_MS),
                "facts_after": -1,
                "clicks_from": slot_of(purged) + 1 if purged else 0,
                "subs_from": self._next_day(slot_of(purged)) if purged else 0,
            }
        )

    def _next_day(self, slot: int) -> int:
        return next_day_start(self._zone, day_start(self._zone, slot))

    async def _follow_zone(self) -> None:
        """Make the days anew when the report zone is another one than before."""
        if self._state.get("zone") == zone_number(self._zone):
            return
        (oldest,) = await self._store.query("rollup_span")
        if oldest["first"] is not None:
            day = day_start(self._zone, oldest["first"])
            while day <= oldest["last"]:
                following = next_day_start(self._zone, day)
                await self._put(relevel=[(Level.DAY, day, following)])
                day = following
        purged = self._purged.get("purged_before", 0)
        subs_from = self._next_day(slot_of(purged)) if purged else 0
        subs_to = max(subs_from, day_start(self._zone, oldest["first"] or self._state["slots_to"]))
        await self._put(
            subs_after=subs_to - QUARTERS_A_DAY,
            state={
                "zone": zone_number(self._zone),
                "subs_to": subs_to,
                "sub_hours_to": subs_to,
                "subs_from": subs_from,
            },
        )

    # --- conversions ---------------------------------------------------------------------------------------------

    async def _follow_conversions(self, now: int) -> None:
        while (after := self._state.get("facts_after", MAX_STAMP)) < MAX_STAMP:
            rows = await self._ask("rollup_converted", after=after, limit=_PAGE)
            clicks = [row["click_id"] for row in rows]
            await self._put_facts(clicks)
            last = clicks[-1] if len(clicks) == _PAGE else MAX_STAMP
            await self._put(state={"facts_after": last})
        await self._follow_log(self._state["log_to"], MAX_STAMP)
        await self._put(state={"log_to": max(self._state["log_to"], first_stamp_at(now - MARGIN_MS))})

    async def _follow_log(self, since: int, until: int) -> None:
        """Roll up the conversions that log rows between two stamps speak of."""
        while True:
            rows = await self._ask("rollup_log", since=since, until=until, limit=_PAGE)
            await self._put_facts({row["click_id"] for row in rows if row["click_id"] is not None})
            if len(rows) < _PAGE:
                return
            since = rows[-1]["request_id"] + 1

    async def _put_facts(self, clicks: Collection[int]) -> None:
        if clicks and not await self._store.put_facts(self._holder, sorted(clicks)):
            raise LostLease

    # --- slots ---------------------------------------------------------------------------------------------------

    async def _roll_slots(self, now: int) -> None:
        last = now // QUARTER_MS
        while self._state["slots_to"] <= last:
            slot = self._state["slots_to"]
            final = (slot + 1) * QUARTER_MS + MARGIN_MS <= now
            used = await self._roll(
                slot, {Kind.CLICKS, Kind.POSTBACKS}, {"slots_to": slot + 1} if final else {}
            )
            if final and not used:
                following = await self._next_used(slot + 1, "click_id", "request_id")
                done = (now - MARGIN_MS) // QUARTER_MS
                await self._put(state={"slots_to": max(slot + 1, min(following, done))})
            if not final:
                await self._roll_rest(slot + 1, last)
                return

    async def _next_used(self, slot: int, *columns: str) -> int:
        """The first slot from ``slot`` on that has any raw rows."""
        (oldest,) = await self._ask("rollup_oldest", since=first_stamp_of(slot))
        stamps = [oldest[column] for column in columns if oldest[column] is not None]
        return slot_of(min(stamps, default=MAX_STAMP))

    async def _roll_rest(self, slot: int, last: int) -> None:
        """The slots behind one that is not final yet: they have begun already."""
        for later in range(slot, last + 1):
            await self._roll(later, {Kind.CLICKS, Kind.POSTBACKS}, {})

    async def _roll(self, slot: int, kinds: Collection[Kind], state: Mapping[str, int]) -> bool:
        """Returns whether there was anything."""
        began = perf_counter()
        computed = await self.compute(slot, kinds)
        if Kind.CLICKS in kinds:
            rolled_to = self._state.get("rolled_to", 0)  # the last ones before they were over
            if computed.clicks is None and state and slot >= rolled_to:
                state = {**state, "clicks_from": slot + 1}  # purged before it was rolled up
            state = {**state, "rolled_to": max(rolled_to, slot + 1)}
        await self._put(slots=[computed], state=state)
        await asyncio.sleep(self._step_share * (perf_counter() - began))
        return bool(computed.clicks or computed.postbacks)

    def _is_live(self, slot: int) -> bool:
        return slot * QUARTER_MS >= self._now_ms() - MINUTES_MS

    async def compute(self, slot: int, kinds: Collection[Kind]) -> Slot:
        """A slot as its raw rows say it; what was purged of them is left as it is."""
        live = self._is_live(slot)
        span = {**_span(slot, slot + 1), "grain": _MINUTE_MS if live else QUARTER_MS}
        clicks: dict[ClickKey, Tally] = {}
        postbacks: dict[PostbackKey, Tally] = {}
        figures: defaultdict[tuple[int, str, int, str], int] = defaultdict(int)
        for row in await self._ask("rollup_clicks", **span):
            key = (row["campaign"], row["offer"], row["country"])
            clicks[key] = add(clicks.get(key, NOTHING), tally_of(row))
            figures[row["span"], "clicks", 0, ""] += row["clicks"]
        for row in await self._ask("rollup_postbacks", **span):
            place = (row["network"], row["campaign"])
            tally = tally_postbacks(row["verdict"], row["reason"], row["count"], row["with_click"])
            postbacks[place] = add(postbacks.get(place, NOTHING), tally)
            figures[row["span"], "postbacks", row["network"], str(row["verdict"])] += row["count"]
        minutes = None
        if live:
            minutes = [
                MinuteRow(_EPOCH_MINUTE + place[0], *place[1:], count) for place, count in figures.items()
            ]
            minutes += await self._read_conversions(span)
        await self._read_horizons()  # what has been purged meanwhile may not have been seen
        return Slot(
            slot,
            day_start(self._zone, slot),
            clicks if Kind.CLICKS in kinds and self._is_whole(slot, "purged_before") else None,
            postbacks
            if Kind.POSTBACKS in kinds and self._is_whole(slot, "postbacks_purged_before")
            else None,
            minutes,
        )

    def _is_whole(self, slot: int, horizon: str) -> bool:
        return first_stamp_of(slot) >= self._purged.get(horizon, 0)

    async def _read_conversions(self, span: Mapping[str, int]) -> Iterator[MinuteRow]:
        return (
            MinuteRow(
                _EPOCH_MINUTE + row["span"], "conversions", row["network"], row["currency"],
                row["count"], row["units"], row["micros"],
            )
            for row in await self._ask("rollup_conversions", **span)
        )  # fmt: skip

    # --- what changed ----------------------------------------------------------------------------------------------

    async def _look_again(self) -> None:
        """At what is marked by now: marks may come all the time, and a round has to end."""
        (waiting,) = await self._store.query("rollup_marks")
        while marks := [m for m in await self._store.rollup_marks(_MARKS) if m.id <= waiting["newest"]]:
            await self._mend(marks)
            await self._put(done=[mark.id for mark in marks])

    async def _mend(self, marks: Sequence[Mark]) -> None:
        by_slot: defaultdict[int, set[Kind]] = defaultdict(set)
        for mark in marks:
            by_slot[mark.slot].add(mark.kind)
        spans: dict[int, tuple[Level, int]] = {}
        for slot, kinds in sorted(by_slot.items()):
            if Kind.POSTBACKS in kinds:
                await self._follow_log(first_stamp_of(slot), first_stamp_of(slot + 1))
            if slot >= self._state["slots_to"]:
                continue  # its turn comes in this round anyway
            await self._roll(slot, kinds, {})
            if Kind.CLICKS in kinds:
                spans |= self._sub_span_of(slot)
        for start, (level, end) in sorted(spans.items()):
            await self._roll_sub_span(level, start, end, {})

    # --- sub ids -------------------------------------------------------------------------------------------------

    def _sub_span_of(self, slot: int) -> dict[int, tuple[Level, int]]:
        """The day or hour that holds a slot, if it has been rolled up: start -> (level, end)."""
        day = day_start(self._zone, slot)
        following = next_day_start(self._zone, day)
        if following <= self._state["subs_to"]:
            return {day: (Level.DAY, following)}
        hour = slot - (slot - day) % 4
        end = min(hour + 4, following)
        return {hour: (Level.HOUR_SUBS, end)} if end <= self._state.get("sub_hours_to", 0) else {}

    async def _roll_subs(self, now: int) -> None:
        done = (now - MARGIN_MS) // QUARTER_MS  # slots before this one are final
        day = self._state["subs_to"]
        while (following := next_day_start(self._zone, day)) <= done:
            await self._roll_sub_span(Level.DAY, day, following, {"subs_to": following})
            used = min(await self._next_used(following, "click_id"), done)
            day = max(following, day_start(self._zone, used))
            await self._put(state={"subs_to": day})
        hour = max(day, self._state.get("sub_hours_to", day))
        while (end := min(hour + 4, following)) <= done:
            await self._roll_sub_span(Level.HOUR_SUBS, hour, end, {"sub_hours_to": end})
            hour = end

    async def _roll_sub_span(self, level: Level, start: int, end: int, state: Mapping[str, int]) -> None:
        steps = await changed_subs(self._store, level, start, end)
        await self._read_horizons()
        for step in steps if self._is_whole(start, "purged_before") else ():
            await self._put_resting(subs=[step])
        if state:
            await self._put(state=state)

    async def _put_resting(self, **step: Any) -> None:
        """One of many steps: whoever waits to write gets a turn after it."""
        began = perf_counter()
        await self._put(**step)
        await asyncio.sleep(self._step_share * (perf_counter() - began))

    async def _check_nightly(self) -> None:
        """Mend what the clock of another node made the marks miss."""
        now = self._now_ms()
        if now - self._state.get("checked_ms", 0) < _CHECK_EVERY_MS:
            return
        if "checked_ms" in self._state:
            found = await self._compare(now)
            if found and await self.round():  # not what changed while it was looked at
                found = await self._compare(now)
            if found:
                log.warning(
                    "%d roll-ups differed from their rows and are mended; the first: %s",
                    len(found),
                    found[0].text(),
                )
                await self.mend(found)
        await self._put(state={"checked_ms": now})

    async def _compare(self, now: int) -> list[Difference]:
        first = (now - _CHECK_SPAN_MS) // QUARTER_MS
        found = RollupCheck(self._store, self._zone).differences(first, now // QUARTER_MS)
        return [one async for one in found]

    # --- what goes -----------------------------------------------------------------------------------------------

    async def _tidy(self, now: int) -> None:
        if now - self._state.get("tidied_ms", 0) < MINUTES_MS // 48:
            return
        gone = self._purged.get("conversions_purged_before", 0)
        before = slot_of(gone) if gone else 0
        await self._put(minutes_before=(now - MINUTES_MS) // 60_000, slots_before=before)
        async for hours in old_hours(self._store, self._state["subs_to"]):
            await self._put_resting(old_hours=[hours])
        await self._put(state={"tidied_ms": now})


def _span(first: int, end: int) -> dict[str, int]:
    return {"since": first_stamp_of(first), "until": first_stamp_of(end)}
