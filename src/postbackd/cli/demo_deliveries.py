"""Delivers what a simulated market owes its traffic sources, without a network: their answers are simulated too.

Planning, judging an answer and settling are those of the deliver role; only what a target answers, and when, is made
up.  Turns carry the time of the simulation, so that delays and retries look as they would have been.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from msgspec.structs import replace

from postbackd.core.click_id import stamp_ms
from postbackd.core.deliveries import BROKEN, Attempt, Delivery, Owed, Settled, TargetState
from postbackd.core.model import Catalog
from postbackd.core.planning import Planner
from postbackd.core.replies import judge_answer
from postbackd.core.shipping import Names, make_shipper
from postbackd.delivery.settling import settle_attempt, settle_unsent
from postbackd.market.answers import answer
from postbackd.market.faults import TARGET_DOWN
from postbackd.market.simulation import Market
from postbackd.store.base import Store, Turn

_HOLDER = "demo"
_EVENTS, _CLAIMS = 500, 200
_LEASE_MS = 60_000
_LAG_MS = 12
"""From the commit of a conversion to the turn that plans its delivery."""
_TRY_AGAIN_MS = 300_000
"""When a target that is down is tried again."""


class Postman:
    """Plays the deliver role and its targets."""

    def __init__(self, store: Store, catalog: Catalog, market: Market, seed: int) -> None:
        self._store = store
        self._seed = seed
        self._faults = market.faults
        names = Names(catalog)
        self._targets = {target.id: target for target in catalog.targets}
        self._shippers = {target.id: make_shipper(target, {}, names) for target in catalog.targets}
        macros = {id_: shipper.macros for id_, shipper in self._shippers.items()}
        self._planner = Planner(catalog, {id_: names for id_, names in macros.items() if names is not None})
        self._rooms = dict.fromkeys(self._targets, _CLAIMS)

    async def begin(self) -> None:
        """Take back what an earlier run had claimed."""
        await self._store.release(None)

    async def work(self, now_ms: int) -> None:
        """Plan and send everything that is due at a time of the simulation."""
        while await self._plan(now_ms):
            pass
        while claimed := await self._store.take_turn(
            Turn(holder=_HOLDER, now_ms=now_ms, rooms=self._rooms, lease_ms=_LEASE_MS)
        ):
            for delivery in sorted(claimed, key=lambda delivery: delivery.owed.due_ms):
                at_ms, settled = self._attempt(delivery)
                await self._store.take_turn(Turn(holder=_HOLDER, now_ms=at_ms, settled=[settled]))

    async def note_states(self, now_ms: int) -> None:
        """Say of the target that is down that it is."""
        down = self._faults[TARGET_DOWN]
        states = [
            TargetState(id_, BROKEN, down.since_ms, now_ms + _TRY_AGAIN_MS, "connection refused")
            for id_, target in self._targets.items()
            if target.name == down.where and now_ms >= down.since_ms
        ]
        await self._store.take_turn(Turn(holder=_HOLDER, now_ms=now_ms, states=states))

    async def _plan(self, now_ms: int) -> bool:
        look = await self._store.look((), now_ms, _EVENTS)
        if not look.events:
            return False
        owed = self._date(self._planner.plan(look.events, look.told, now_ms))
        await self._store.take_turn(Turn(holder=_HOLDER, now_ms=now_ms, planned=look.events, owed=owed))
        return True

    @staticmethod
    def _date(owed: Sequence[Owed]) -> list[Owed]:
        """As if each had been planned right after its postback."""
        dated = []
        for one in owed:
            created_ms = stamp_ms(one.request_id) + _LAG_MS
            due_ms = created_ms + one.due_ms - one.created_ms
            dated.append(replace(one, created_ms=created_ms, due_ms=due_ms))
        return dated

    def _attempt(self, delivery: Delivery) -> tuple[int, Settled]:
        """What became of one attempt, and when that was known."""
        target, began_ms = self._targets[delivery.owed.target], delivery.owed.due_ms
        unsent = settle_unsent(delivery, self._shippers[target.id], began_ms)
        if unsent is not None:
            return began_ms, unsent
        draw = Random(f"{self._seed}/{delivery.id}/{delivery.attempts}")  # noqa: S311  a simulation
        came = answer(draw, target.name, began_ms, self._faults)
        ended_ms = began_ms + came.took_ms
        judged = judge_answer(came, target.how, ended_ms)
        attempt = Attempt(
            delivery.attempts + 1, began_ms, came.took_ms, came.status, came.body.decode(), judged.reason
        )
        return ended_ms, settle_attempt(delivery, attempt, judged, target.how, ended_ms, draw.random())
