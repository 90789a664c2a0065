"""The loop of the deliver role: from the outbox to the targets.

One turn looks what there is to do, plans what follows from new events, and commits together: what became of deliveries
since the last turn, new ones, and the claim of those that can be sent now.  Only what is claimed is sent; only what is
committed counts as settled.  So a deliverer may be killed at any moment: what it had is claimed again when its lease
ends, and sent again under the same id.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from secrets import token_hex
from time import monotonic, time
from typing import Any, Protocol

from msgspec.structs import replace

from postbackd.core.deliveries import (
    BROKEN,
    PAUSED,
    SLOWED,
    Answer,
    Attempt,
    Delivery,
    DeliveryState,
    Happened,
    Outgoing,
    Owed,
    Settled,
)
from postbackd.core.model import Catalog, Target
from postbackd.core.planning import Planner
from postbackd.core.platforms.base import TokenRefused
from postbackd.core.privacy import Masker
from postbackd.core.replies import EXCERPT_CHARACTERS, Judged, Outcome, excerpt
from postbackd.core.shipping import Names, ShippingError
from postbackd.delivery.breaker import BreakerChange, BreakerState
from postbackd.delivery.lanes import Host, Lane, make_lane
from postbackd.delivery.ledger import Ledger
from postbackd.delivery.settling import CHANGED, cancelled, settle_attempt, settle_unsent, was_delayed
from postbackd.delivery.turns import SHORTEST_TURN_S, TurnPace
from postbackd.store.base import Look, Store, StoreRefused, StoreUnavailable, Turn
from postbackd.store.failpoints import pass_failpoint
from postbackd.store.outbox import happened_now

log = logging.getLogger("postbackd.delivery")

LEASE_MS = 60_000
"""What is claimed is ours so long: much longer than it takes to send all that a lane holds."""

_WORTH_A_NOTE_MS = 60_000
"""A pause that a target asked for is noted when it is so long."""

_REASON_CHARACTERS = 300
_REFRESH_S = 0.3
_FIRST_RETRY_S, _RETRY_S, _LONGEST_RETRY_S = 0.01, 0.64, 1.28
"""Pauses between tries while the database does not answer, each twice as long; from the middle one on it is said."""
_STOP_S = 6.0
_LOOK_AGAIN_S = 2.0  # at a target that cannot be served: the key of its secrets may be back


class Send(Protocol):
    """What sends a request; see ``delivery.client.Client.send``."""

    def __call__(
        self, request: Outgoing, *, connect_ms: int, total_ms: int, answer_bytes: int
    ) -> Coroutine[Any, Any, Answer]: ...


class Deliverer:
    """Serves the targets of one database."""

    def __init__(
        self,
        store: Store,
        send: Send,
        open_secret: Callable[[str], str],
        random: Callable[[], float],
    ) -> None:
        """``open_secret``: raises ``ValueError`` with what to do.  ``random``: from 0 to 1, for jitter."""
        self._store = store
        self._send = send
        self._open_secret = open_secret
        self._random = random
        self._holder = token_hex(8)
        self._catalog = Catalog(generation=-1)
        self._planner = Planner(self._catalog)
        self._masker = Masker(b"until there is a catalog")
        self._hosts: dict[str, Host] = {}
        self._lanes: dict[int, Lane] = {}
        self._until: dict[int, int] = {}
        """Until when what waits in a lane may be begun: its lease outlasts that by a token and an attempt."""
        self._ledger = Ledger(store, lambda text: self._masker.mask_words(excerpt(text, _REASON_CHARACTERS)))
        self._pace = TurnPace()
        self._began_s = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._stopping = False
        self._refreshed = self._looked_again = 0.0
        self._unserved: dict[int, str] = {}
        """Targets that cannot be served, and why."""

    # --- the loop --------------------------------------------------------------------------------------------------

    async def run(self, *, alone: bool) -> None:
        """Deliver until ``stop`` is called.  ``alone``: nobody else does, so that what anybody had claimed is free."""
        await self._patiently(lambda: self._begin(alone))
        while not self._stopping:
            if await self._patiently(self._turn):
                await asyncio.sleep(self._pace.pause_s)  # what is on its way goes on meanwhile
            else:
                self._pace.rested()
                await self._pause(self._pace.pause_s)
        await self._end()

    def stop(self) -> None:
        """Claim nothing more; ``run`` returns when what is on its way has been answered, and is settled."""
        self._stopping = True
        self._wake.set()

    async def _begin(self, alone: bool) -> bool:
        if alone:
            await self._store.release(None)
        await self._refresh()
        return True

    async def _pause(self, seconds: float) -> None:
        """Until something is to be done, but not for less than the shortest turn."""
        self._wake.clear()
        await asyncio.sleep(SHORTEST_TURN_S)
        timer = asyncio.get_running_loop().call_later(seconds - SHORTEST_TURN_S, self._wake.set)
        await self._wake.wait()
        timer.cancel()

    async def _patiently(self, work: Callable[[], Coroutine[Any, Any, bool]]) -> bool:
        """Do the work; while the database does not answer, again and again: nothing that was answered is forgotten."""
        pause_s = _FIRST_RETRY_S
        while True:
            try:
                return await work()
            except StoreUnavailable as error:
                if pause_s == _RETRY_S:
                    log.warning("the database does not answer (%s); trying again", error)
            if self._stopping:
                return False
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_RETRY_S)
            if pause_s >= _RETRY_S:  # no other writer is in the way for so long
                with suppress(StoreUnavailable):
                    await self._store.recover()

    async def _end(self) -> None:
        """Hear what is on its way, settle it, and let others have the rest."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_STOP_S)
        for task in self._tasks:
            task.cancel()
        for lane in self._lanes.values():
            self._give_back(lane, _now_ms())
        try:
            await self._commit()
            await self._store.release(self._holder)
        except StoreUnavailable as error:
            log.warning(
                "the database does not answer (%s); deliveries that were claimed wait for their leases", error
            )

    async def _turn(self) -> bool:
        """Whether there was anything to do."""
        if asyncio.get_running_loop().time() - self._refreshed > _REFRESH_S:
            await self._refresh()
        now_ms = _now_ms()
        for lane in self._lanes.values():
            if lane.waiting and not lane.open(now_ms):
                self._give_back(lane, now_ms)
        rooms = {target: room for target, lane in self._lanes.items() if (room := lane.room(now_ms))}
        hungry = not self._lanes or any(not lane.full for lane in self._lanes.values())
        left = self._ledger.left
        look = await self._store.look(list(rooms), now_ms, self._pace.events + len(left) if hungry else 0)
        events = [event for event in look.events if event.event not in left]
        owed = await self._plan(events, look, now_ms)
        due = {one.target for one in owed} | set(look.due)
        rooms = self._pace.share(
            {id_: room for id_, room in rooms.items() if id_ in due and id_ in self._lanes}
        )
        if not (events or rooms) and self._ledger.empty:
            return False
        began_s = monotonic()
        await self._commit(planned=events, owed=owed, rooms=rooms, due=look.due)
        self._pace.worked(len(events), monotonic() - began_s, self._store.waited_s, began_s - self._began_s)
        self._began_s = began_s
        for lane in self._lanes.values():
            self._go_on(lane)
        return True

    async def _plan(self, events: Sequence[Happened], look: Look, now_ms: int) -> Sequence[Owed]:
        if any(not self._planner.knows(event.campaign) for event in events):
            await self._refresh()  # younger than the catalog that we have
        return self._planner.plan(events, look.told, now_ms) if events else ()

    async def _commit(self, **what: Any) -> None:
        """One turn of the database; ``what``: fields of ``Turn``.  What is claimed goes to its lane."""
        now_ms = _now_ms()
        longest_ms = max((one.target.how.total_ms for one in self._lanes.values()), default=0)
        turn = Turn(holder=self._holder, now_ms=now_ms, lease_ms=LEASE_MS + 2 * longest_ms, **what)

        def take(claimed: Sequence[Delivery]) -> None:
            for delivery in claimed:
                self._until[delivery.number] = now_ms + LEASE_MS
                self._lanes[delivery.owed.target].waiting.append(delivery)

        await self._ledger.commit(turn, take)

    # --- catalog -----------------------------------------------------------------------------------------------------

    async def _refresh(self) -> None:
        """Look whether the catalog has changed, and whether an operator has paused or resumed a target."""
        self._refreshed = asyncio.get_running_loop().time()
        if await self._store.catalog_generation() != self._catalog.generation:
            self._take_catalog(await self._load_catalog())
        elif self._unserved and self._refreshed - self._looked_again > _LOOK_AGAIN_S:
            self._look_again()
        self._ledger.states.read(await self._store.query("target_states"))
        for target, lane in self._lanes.items():
            paused = self._ledger.states.is_paused(target)
            if paused is not lane.paused:
                log.info("target %r is %s", lane.target.name, "paused" if paused else "served again")
            lane.paused = paused

    async def _load_catalog(self) -> Catalog:
        try:
            return await self._store.load_catalog()
        except StoreRefused as error:  # somebody has changed the key, and we do not have it yet
            if self._catalog.generation < 0:
                raise
            raise StoreUnavailable(str(error)) from error

    def _look_again(self) -> None:
        self._looked_again = self._refreshed
        names = Names(self._catalog)
        if any(self._make_lane(one, names) for one in self._catalog.targets if one.id in self._unserved):
            self._take_catalog(self._catalog)

    def _take_catalog(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._unserved.clear()
        self._masker = Masker(catalog.privacy_key)
        names = Names(catalog)
        lanes = {target.id: self._make_lane(target, names) for target in catalog.targets}
        macros = {id_: lane.shipper.macros for id_, lane in lanes.items() if lane is not None}
        self._planner = Planner(catalog, {id_: names for id_, names in macros.items() if names is not None})
        for problem in self._planner.problems:
            log.warning("%s", problem)
        for target, lane in self._lanes.items():
            new = lanes.get(target)
            if new is None:
                self._give_back(lane, _now_ms())
            else:
                lane.follow(new)
                lanes[target] = lane
        self._lanes = {target: lane for target, lane in lanes.items() if lane is not None}

    def _make_lane(self, target: Target, names: Names) -> Lane | None:
        """``None`` when the target cannot be served: its deliveries wait, and the operator is told."""
        try:
            lane = make_lane(target, names, self._open_secret, self._hosts)
        except (ShippingError, ValueError) as error:
            if self._unserved.get(target.id) != str(error):
                log.warning("target %r cannot be served: %s", target.name, error)
                self._note_state(target.id, BROKEN, 0, str(error))
            self._unserved[target.id] = str(error)
            return None
        self._unserved.pop(target.id, None)
        if self._ledger.states.cannot_be_served(target.id):
            self._note_state(target.id, "", 0, "")
        return lane

    # --- sending -----------------------------------------------------------------------------------------------------

    def _go_on(self, lane: Lane) -> None:
        """Send what may be sent now."""
        now_ms = _now_ms()
        while not self._stopping and (taken := lane.take(now_ms)):
            # We may have been stopped, or the database away: what is not ours any more somebody else has sent by now.
            batch = [one for one in taken if self._until.pop(one.number, 0) > now_ms]
            unsent = [settle_unsent(delivery, lane.shipper, now_ms) for delivery in batch]
            self._ledger.settled += [settled for settled in unsent if settled is not None]
            sendable = [d for d, settled in zip(batch, unsent, strict=True) if settled is None]
            if not sendable:
                continue
            host = lane.host
            lane.sending += len(sendable)
            host.sending += 1
            self._note_change(lane, host.breaker.start(now_ms))
            task = asyncio.get_running_loop().create_task(self._ship(lane, host, sendable))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _ship(self, lane: Lane, host: Host, batch: Sequence[Delivery]) -> None:
        try:
            if was_delayed(batch[0]) and not await self._holds_still(batch[0]):
                self._ledger.settled.append(cancelled(batch[0], CHANGED))
            else:
                await self._attempt(lane, batch)
        except StoreUnavailable:
            now_ms = _now_ms()  # not asked, not sent
            self._ledger.settled += [Settled(delivery, DeliveryState.WAITING, now_ms) for delivery in batch]
        except Exception as error:
            log.exception("a request to target %r could not be made", lane.target.name)
            said = lane.hide(self._masker, f"{type(error).__name__}: {error}", _REASON_CHARACTERS)
            attempt = Attempt(batch[0].attempts + 1, _now_ms(), 0, 0, "", said)
            self._hear_each(lane, batch, attempt, [Judged(Outcome.FAILED, attempt.error)] * len(batch))
        finally:
            lane.sending -= len(batch)
            host.sending -= 1
        self._wake.set()
        self._go_on(lane)

    async def _attempt(self, lane: Lane, batch: Sequence[Delivery]) -> None:
        began_ms = _now_ms()
        pass_failpoint("before_send")
        answer, judged = await self._ask(lane, batch, began_ms)
        pass_failpoint("after_send")
        # Where nothing was heard, an address in the reason is one that we called, and helps who reads it.
        hide = partial(lane.hide, self._masker, longest=_REASON_CHARACTERS, addresses=not answer.status)
        judged = [replace(one, reason=hide(one.reason)) for one in judged]
        answer = replace(answer, error=hide(answer.error))
        self._hear(lane, answer, judged)
        text = lane.hide(self._masker, answer.body.decode("utf-8", "replace"), EXCERPT_CHARACTERS)
        attempt = Attempt(0, began_ms, _now_ms() - began_ms, answer.status, text, answer.error)
        self._hear_each(lane, batch, attempt, judged)

    def _hear_each(
        self, lane: Lane, batch: Sequence[Delivery], attempt: Attempt, judged: Sequence[Judged]
    ) -> None:
        now_ms = _now_ms()
        for delivery, verdict in zip(batch, judged, strict=True):
            own = replace(attempt, attempt=delivery.attempts + 1, error=verdict.reason or attempt.error)
            self._ledger.settled.append(
                settle_attempt(delivery, own, verdict, lane.target.how, now_ms, self._random())
            )

    async def _holds_still(self, delivery: Delivery) -> bool:
        """Whether its rule still says that the source is to be told: it was delayed, and much may have happened."""
        owed = delivery.owed
        counted = await self._store.query("conversions_of_click", click_id=owed.click_id)
        row = next((row for row in counted if row["conversion_id"] == owed.conversion_id), None)
        if row is None:
            return False
        explained = self._planner.explain(happened_now(row, counted, owed.facts), ())
        asked = [told.fires for told in explained if told.rule.id == owed.rule]
        return not asked or any(asked)  # what follows from a rule that was removed is still delivered

    async def _ask(
        self, lane: Lane, batch: Sequence[Delivery], now_ms: int
    ) -> tuple[Answer, Sequence[Judged]]:
        shipper = lane.shipper
        ask = shipper.ask_token()
        if ask is not None and lane.token.expires_ms <= now_ms:
            answer = await self._send_for(lane, ask)
            try:
                lane.use_token(shipper.read_token(answer, now_ms))
            except TokenRefused as error:
                return answer, [Judged(Outcome.FAILED, str(error))] * len(batch)
        answer = await self._send_for(lane, lane.make(batch, now_ms))
        return answer, shipper.read(answer, batch, now_ms)

    async def _send_for(self, lane: Lane, request: Outgoing) -> Answer:
        """Send a request within the limits of a lane's target."""
        how = lane.target.how
        return await self._send(
            request,
            connect_ms=how.connect_ms,
            total_ms=how.total_ms,
            answer_bytes=lane.shipper.answer_bytes,
        )

    def _hear(self, lane: Lane, answer: Answer, judged: Sequence[Judged]) -> None:
        """What an answer says about the host and the target."""
        now_ms = _now_ms()
        host = lane.host
        if not answer.status or answer.status >= 500:
            reason = judged[0].reason or answer.error
            self._note_change(lane, host.breaker.failed(now_ms, reason))
        else:
            self._note_change(lane, host.breaker.succeeded(now_ms))
        if any(one.slow_down for one in judged):
            if host.pace.slow_down(now_ms):
                log.info("host %s is overloaded: %d requests at a time", host.name, host.pace.at_once)
            wait_ms = max(one.retry_after_ms for one in judged)
            lane.not_before_ms = now_ms + wait_ms
            if wait_ms >= _WORTH_A_NOTE_MS:
                self._note_state(lane.target.id, SLOWED, lane.not_before_ms, judged[0].reason)
        elif judged[0].outcome is Outcome.DELIVERED:
            host.pace.went_well()
            if self._ledger.states.is_in_trouble(lane.target.id):
                self._note_state(lane.target.id, "", 0, "")
        gone = next((one for one in judged if one.pause_target), None)
        if gone is not None and not lane.paused:
            lane.paused = True
            log.warning("target %r is paused: %s", lane.target.name, gone.reason)
            self._note_state(lane.target.id, PAUSED, 0, f"{gone.reason}: the target says that it is gone")

    def _give_back(self, lane: Lane, now_ms: int) -> None:
        """What is not on its way waits until something may be sent to the target again."""
        due_ms = max(now_ms, lane.host.breaker.until_ms, lane.not_before_ms)
        for delivery in lane.give_back():
            self._until.pop(delivery.number, None)
            self._ledger.settled.append(Settled(delivery, DeliveryState.WAITING, due_ms))

    # --- how targets are served --------------------------------------------------------------------------------------

    def _note_change(self, lane: Lane, change: BreakerChange | None) -> None:
        """A breaker never opens or closes in silence."""
        if change is None or change.state is BreakerState.HALF_OPEN:
            return
        on_host = [other for other in self._lanes.values() if other.host is lane.host]
        if change.state is BreakerState.OPEN:
            pause_s = (change.until_ms - change.at_ms) / 1000
            log.warning("host %s fails (%s): paused for %g s", lane.host.name, change.reason, pause_s)
        else:
            log.info("host %s answers again", lane.host.name)
        for other in on_host:
            if not other.paused:
                state = BROKEN if change.state is BreakerState.OPEN else ""
                self._note_state(other.target.id, state, change.until_ms, change.reason)

    def _note_state(self, target: int, state: str, until_ms: int, reason: str) -> None:
        self._ledger.states.note(target, state, until_ms, reason, _now_ms())


def _now_ms() -> int:
    return int(time() * 1000)
