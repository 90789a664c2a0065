"""Looks at the store once: counts what is new in the log, asks every check, stores what follows in one transaction.

The log is followed, not read again: each look counts what has come since the last one, in slices that are quickly read.
Stamps are a few seconds behind the clock when they are committed, so a look ends ``LAG_MS`` before now.  What comes
later than that (the spool of a node, drained after an outage) is not counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

import msgspec

from postbackd.core.alarm_counts import Counts, look_back_ms
from postbackd.core.alarm_networks import check_networks
from postbackd.core.alarm_notices import Notice, describe, make_notices, write_body
from postbackd.core.alarm_troubles import MachineFacts, TargetFacts, check_machine, check_target
from postbackd.core.alarm_words import Memory, Word, is_learning
from postbackd.core.alarms import Board, Change, Kind, Scope, Sighting
from postbackd.core.click_id import first_stamp_at, stamp_ms
from postbackd.core.diagnosis import Reason
from postbackd.core.model import Catalog
from postbackd.core.rhythm import HOUR_MS, HourCount
from postbackd.reports.alarms import Names, load_names, load_quiets, read_alarm
from postbackd.store.base import Store
from postbackd.store.base_upkeep import AlarmStep

LAG_MS = 15_000
"""A batch is stored within milliseconds, and clocks of nodes differ by less than this."""

_CATCH_UP_S = 20.0
"""The longest a look reads an old log; the next one goes on."""

_MINUTE_MS = 60_000

_QUICK_S, _SLOW_S = 0.05, 0.2
"""An embedded database answers on the event loop of its process: nothing may take long at once."""

_RECENT_MS = 86_400_000
"""What is asked about deliveries."""

_MACROS = {int(Reason.MACRO_LITERAL): "click id", int(Reason.VALUE_MACRO_LITERAL): "value"}


class Overtaken(Exception):
    """Somebody else keeps the alarms by now."""


class Watch:
    """What one keeper knows.  Made anew by whoever becomes the keeper."""

    def __init__(self, store: Store, holder: str, places: Sequence[str], server: str) -> None:
        """Use ``load``.  ``server``: what notices call this installation."""
        self._store = store
        self._holder = holder
        self._places = places
        self._server = server
        self._counts = Counts()
        self._memory = Memory()
        self._board = Board()
        self._counted_ms = 0
        self._names_since_ms = 0
        """Since when names of parameters have been noted; 0: ever."""
        self._slice_ms = _MINUTE_MS
        """How much of the log is read at once."""

    @classmethod
    async def load(cls, store: Store, holder: str, places: Sequence[str], server: str) -> Watch:
        """What an earlier keeper has left."""
        watch = cls(store, holder, places, server)
        counted = await store.query("alarms_counted")
        watch._counted_ms = counted[0]["counted_ms"] if counted else 0
        since = await store.query("alarm_names_since")
        watch._names_since_ms = since[0]["since_ms"] if since else 0
        watch._counts = Counts(HourCount(**row) for row in await store.query("alarm_hours"))
        rows = await store.query("alarm_words")
        watch._memory = Memory(msgspec.convert(row, Word) for row in rows)
        watch._board = Board([read_alarm(row) for row in await store.query("alarms_lasting")])
        return watch

    async def look(self, machine: MachineFacts, now_ms: int) -> Sequence[Change]:
        """One look; returns what has changed.  Raises ``Overtaken``, or what the store raises: then look again."""
        counted_ms = await self._follow(now_ms)
        changes: Sequence[Change] = ()
        notices: Mapping[int, Sequence[Notice]] = {}
        if now_ms - counted_ms < HOUR_MS:  # otherwise an old log is still being counted
            names = await load_names(self._store)
            quiets = await load_quiets(self._store)
            sightings = await self._check(machine, names, now_ms)
            changes = self._board.decide(sightings, quiets, now_ms)
            notices = self._tell(changes, names, now_ms)
        step = AlarmStep(
            holder=self._holder,
            now_ms=now_ms,
            counted_ms=counted_ms,
            hours=self._counts.take_changed(),
            words=self._memory.take_changed(),
            changes=changes,
            notices=notices,
        )
        ids = await self._store.write_alarms(step)
        if ids is None:
            raise Overtaken
        self._counted_ms = counted_ms
        kept = [msgspec.structs.replace(c.alarm, id=id_) for c, id_ in zip(changes, ids, strict=True)]
        self._board.keep(kept)
        return [msgspec.structs.replace(c, alarm=alarm) for c, alarm in zip(changes, kept, strict=True)]

    async def forget(self, ended_before_ms: int, now_ms: int) -> None:
        """Delete what is too old to say anything."""
        networks, campaigns = self._counts.forget(now_ms)
        await self._store.forget_alarms(networks, campaigns, ended_before_ms)

    # --- following the log -------------------------------------------------------------------------------------

    async def _follow(self, now_ms: int) -> int:
        """Count what is new; returns up to when."""
        # Whole minutes, so that each is counted once and the time between two of them is known.
        end_ms = (now_ms - LAG_MS) // _MINUTE_MS * _MINUTE_MS
        begin_ms = self._counted_ms or look_back_ms(now_ms)
        if not self._counted_ms:
            begin_ms = max(begin_ms, await self._first_ms(end_ms))
        stop = monotonic() + _CATCH_UP_S
        while begin_ms < end_ms and monotonic() < stop:
            until_ms = min(end_ms, (begin_ms // HOUR_MS + 1) * HOUR_MS, begin_ms + self._slice_ms)
            began = monotonic()
            await self._count(begin_ms, until_ms)
            self._fit_slice(monotonic() - began)
            begin_ms = until_ms
            await asyncio.sleep(0)  # requests of the dashboard come in between
        return begin_ms

    def _fit_slice(self, took_s: float) -> None:
        if took_s < _QUICK_S:
            self._slice_ms = min(HOUR_MS, self._slice_ms * 2)
        elif took_s > _SLOW_S:
            self._slice_ms = max(_MINUTE_MS, self._slice_ms // 2 // _MINUTE_MS * _MINUTE_MS)

    async def _first_ms(self, end_ms: int) -> int:
        """Where the log begins, so that an empty year before it is not asked for hour by hour."""
        rows = await self._store.query("log_from", limit=1)
        return stamp_ms(rows[0]["request_id"]) // HOUR_MS * HOUR_MS if rows else end_ms

    async def _count(self, begin_ms: int, until_ms: int) -> None:
        stamps = {"since": first_stamp_at(begin_ms), "until": first_stamp_at(until_ms)}
        self._counts.add_postbacks(await self._store.query("alarm_log", **stamps))
        self._counts.add_clicks(await self._store.query("alarm_clicks", **stamps))
        for row in await self._store.query("alarm_parameters", **stamps):
            self._meet_parameters(row)
        minutes = {"since": begin_ms // _MINUTE_MS, "until": until_ms // _MINUTE_MS}
        for row in await self._store.query("alarm_names", **minutes):
            self._meet_name(row)
        for row in await self._store.query("alarm_words_sent", **stamps):
            self._meet_words(row)

    def _meet_parameters(self, row: Mapping[str, Any]) -> None:
        network, at_ms = row["network"], stamp_ms(row["request_id"])
        usual = self._is_learning(network, at_ms)
        self._memory.meet(
            Kind.PARAMETER, network, str(row["parameters"]), at_ms, row["count"], is_usual=usual
        )

    def _meet_name(self, row: Mapping[str, Any]) -> None:
        network, first_ms = row["network"], row["first"] * _MINUTE_MS
        usual = self._is_learning(network, first_ms, self._names_since_ms)
        for at_ms in (first_ms, row["last"] * _MINUTE_MS):
            self._memory.meet(Kind.PARAMETER, network, row["name"], at_ms, 1, is_usual=usual)

    def _is_learning(self, network: int, at_ms: int, since_ms: int = 0) -> bool:
        hours = self._counts.of(Scope.NETWORK, network).values()
        began_ms = min((count.first_ms for count in hours if count.first_ms), default=0)
        sent = sum(count.postbacks for count in hours)
        return is_learning(began_ms and max(began_ms, since_ms), sent, at_ms)

    def _meet_words(self, row: Mapping[str, Any]) -> None:
        network, at_ms, count = row["network"], stamp_ms(row["request_id"]), row["count"]
        if row["sender"]:
            self._memory.meet(Kind.SENDER, network, row["sender"], at_ms, count)
        if row["reason"] == Reason.STATUS_UNKNOWN and row["word"]:
            self._memory.meet(Kind.STATUS, network, row["word"], at_ms, count)
        if field := _MACROS.get(row["reason"]):
            self._memory.meet(Kind.MACRO, network, f"{field} {row['word'] or ''}".strip(), at_ms, count)

    # --- asking the checks ---------------------------------------------------------------------------------------

    async def _check(self, machine: MachineFacts, names: Names, now_ms: int) -> list[Sighting]:
        catalog = await self._store.load_catalog()
        network_of = {offer.id: offer.network for offer in catalog.offers}
        campaigns = {
            campaign.id: {network_of[one.offer] for one in campaign.offers if one.offer in network_of}
            for campaign in catalog.campaigns
        }
        networks = [network.id for network in catalog.networks]
        lasting = self._board.lasting.keys()
        found = list(check_networks(self._counts, self._memory, networks, campaigns, names, lasting, now_ms))
        if catalog.targets:
            targets = await load_targets(self._store, catalog, now_ms)
            found += [check_target(facts, now_ms) for facts in targets]
        return found + list(check_machine(machine, now_ms))

    # --- telling -------------------------------------------------------------------------------------------------

    def _tell(self, changes: Sequence[Change], names: Names, now_ms: int) -> dict[int, Sequence[Notice]]:
        made = {}
        for place, change in enumerate(changes):
            if change.tell is not None and self._places:
                body = write_body(describe(change.alarm, names), change.tell, now_ms, self._server)
                made[place] = make_notices(self._places, change.alarm.id, change.tell, body, now_ms)
        return made


async def load_targets(store: Store, catalog: Catalog, now_ms: int) -> Sequence[TargetFacts]:
    """What is known of every target of the catalog."""
    from_ms = now_ms - _RECENT_MS
    facts: dict[int, dict[str, Any]] = {target.id: {} for target in catalog.targets}

    def note(target: int, **more: Any) -> None:
        if target in facts:
            facts[target] |= more

    for row in await store.query("target_states"):
        note(row["target"], state=row["state"], since_ms=row["since_ms"], reason=row["reason"] or "")
    for row in reversed(
        await store.query("dead_by_reason", from_ms=from_ms)
    ):  # the most frequent reason is left
        dead = facts.get(row["target"], {}).get("dead", 0) + row["count"]
        note(row["target"], dead=dead, dead_reason=row["reason"])
    for row in await store.query("overdue", before_ms=now_ms):
        note(row["target"], overdue=row["count"], overdue_ms=row["due_ms"])
    for row in await store.query("alarm_deliveries", from_ms=from_ms):
        note(row["target"], delivered=row["delivered"], failed=row["failed"])
    return [TargetFacts(id=target.id, name=target.name, **facts[target.id]) for target in catalog.targets]
