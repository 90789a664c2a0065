"""Plays a market against a server: every visitor and network in turn, each request written down before it is sent.

What belongs to one visit is sent in its order; different visits do not wait for each other.  Pauses (of visitors, of
networks that try again) pass on the market's clock, which runs ``speed`` times as fast as ours, or as fast as the
server answers; how long a network waits for an answer is real time.  A visitor who gets no answer does not buy.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from msgspec import Struct

from postbackd.core.exchange import Exchange
from postbackd.core.model import Channel
from postbackd.exchanges.timed import Timer
from postbackd.market.cast import NETWORKS
from postbackd.market.faults import Fault
from postbackd.market.habits import HABITS, Habit, Heard, Urls, make_deaf, next_pause
from postbackd.market.misconfigurations import DEAF, DOUBLES
from postbackd.market.records import Sale as SaleEvent
from postbackd.market.records import Visit
from postbackd.simulating.agenda import Agenda, Step, Try
from postbackd.simulating.catalog import Book
from postbackd.simulating.plan import START_MS, Plan, events_of
from postbackd.simulating.truth_file import (
    BadTruth,
    Click,
    ClickEnd,
    GivenUp,
    Postback,
    PostbackEnd,
    Sale,
    TruthWriter,
)
from postbackd.simulating.wording import read_landing, word_call, word_visit

MOST_RATE, MOST_SPEED = 10_000, 10_000_000

MOST_AT_ONCE = 32
"""Requests under way at the same time."""

_VISITOR_MS = 10_000
"""How long a visitor, or a browser with a pixel, waits."""

_ROLES = {role.name: role for role in NETWORKS}


class NotOurs(Exception):
    """The server does not know the market's catalog; says what to do."""


class Pace(Struct, frozen=True, kw_only=True):
    """How fast it goes."""

    speed: float | None = None
    """Market seconds a second, until the last visitor has come; ``None``: as fast as the server answers.

    What follows of the visits may take weeks of the market's time, and is always told as fast as the server answers."""
    rate: int = 500
    """Requests a second at most."""


class _Clock:
    """When the next request may go out."""

    def __init__(self, pace: Pace, last_visit_ms: int) -> None:
        self._pace = pace
        self._last_visit_ms = last_visit_ms
        self._began_s = self._free_s = asyncio.get_running_loop().time()
        self.market_ms = START_MS

    async def wait(self, at_ms: int, stop: asyncio.Event) -> None:
        """Until the market's time has come and the rate allows one more; not longer than until ``stop``."""
        loop = asyncio.get_running_loop()
        due_s = self._free_s
        if self._pace.speed is not None and at_ms < self._last_visit_ms:
            due_s = max(due_s, self._began_s + (at_ms - START_MS) / 1000 / self._pace.speed)
        if due_s - loop.time() > 0.001:
            with suppress(TimeoutError):  # that nobody has stopped it is the usual case
                async with asyncio.timeout_at(due_s):
                    await stop.wait()
        self._free_s = max(self._free_s, loop.time() - 0.1) + 1 / self._pace.rate
        self.market_ms = max(self.market_ms, at_ms)


class Player:
    """Plays one plan; to be used once."""

    def __init__(
        self,
        plan: Plan,
        book: Book,
        server: str,
        timer: Timer,
        truth: TruthWriter,
        now_ms: Callable[[], int],
    ) -> None:
        """``server``: as in ``http://127.0.0.1:8080``.  ``timer``: one that sends nothing a second time by itself."""
        self._last_visit_ms = plan.last_visit_ms
        self._book = book
        self._server = server
        self._timer = timer
        self._truth = truth
        self._now_ms = now_ms
        self._agenda = Agenda(events_of(plan))
        self._planted: Mapping[str, Fault] = {fault.where: fault for fault in plan.faults}
        self._urls = Urls()
        self._click_ids: dict[int, str] = {}
        """Visit -> click id of those that buy."""
        self._tails: dict[int, asyncio.Task[None]] = {}
        """Visit -> what is sent last of it."""
        self._under_way: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)
        self._failure: Exception | None = None
        self._known: set[str] = set()
        self._clock: _Clock

    async def play(self, pace: Pace, stop: asyncio.Event, told: Callable[[int], None]) -> None:
        """To the end, or until ``stop``.  ``told`` hears of every visit.

        Raises ``NotOurs``, ``BadTruth``; what is under way then is heard to its end first.
        """
        self._clock = _Clock(pace, self._last_visit_ms)
        while not stop.is_set() and self._failure is None:
            step = self._agenda.pop()
            if step is None:
                if not self._under_way:
                    break
                await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
                continue
            if not isinstance(step, SaleEvent):
                await self._clock.wait(step.at_ms, stop)
            if stop.is_set():
                break
            await self._slots.acquire()
            self._begin(step)
            told(isinstance(step, Visit))
        if self._under_way:
            await asyncio.wait(self._under_way)
        if self._failure is not None:
            raise self._failure

    @property
    def was_known(self) -> bool:
        """Whether the server has known anything of this market, so that something may be stored there."""
        return bool(self._known)

    def _begin(self, step: Step) -> None:
        if isinstance(step, Visit):
            visit, work = step.number, self._visit(step)
        elif isinstance(step, SaleEvent):
            visit, work = step.visit, self._sell(step)
        else:
            visit, work = step.call.visit, self._call(step)
        before = self._tails.get(visit) if visit >= 0 else None
        task = asyncio.create_task(self._follow(before, work))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        if visit >= 0:
            self._tails[visit] = task

    async def _follow(self, before: asyncio.Task[None] | None, work: Coroutine[Any, Any, None]) -> None:
        try:
            if before is not None and not before.done():
                await asyncio.wait([before])
            await work
        except (NotOurs, BadTruth) as error:
            self._failure = self._failure or error
        finally:
            self._slots.release()

    # --- visitors ------------------------------------------------------------------------------------------------

    async def _visit(self, visit: Visit) -> None:
        link = self._book.links[visit.campaign, visit.offer]
        self._truth.write(
            Click(
                visit=visit.number, at_ms=self._now_ms(), market_ms=self._clock.market_ms, campaign=link.name,
                kind=visit.kind.name.lower(),
            )
        )  # fmt: skip
        request = word_visit(visit, link, self._server)
        heard = await self._timer.exchange(request, keep=True, total_ms=_VISITOR_MS)
        if not visit.converts:
            self._tails.pop(visit.number, None)
        if heard.error:
            self._truth.write(ClickEnd(visit=visit.number, sent=heard.sent, error=heard.error))
            return
        self._look_for_strangers(heard, f"the campaign {link.slug}", link.slug)
        click_id = read_landing(heard.headers.get("location", ""), link) or "" if heard.status == 302 else ""
        if click_id and visit.converts:
            self._click_ids[visit.number] = click_id
        self._truth.write(
            ClickEnd(visit=visit.number, status=heard.status, click_id=click_id, took_us=_took_us(heard))
        )

    async def _sell(self, sale: SaleEvent) -> None:
        if sale.visit not in self._click_ids:
            return  # the visitor never got there
        link = self._book.links[sale.campaign, sale.offer]
        self._truth.write(
            Sale(
                sale=sale.number, visit=sale.visit, market_ms=sale.at_ms, network=sale.network, campaign=link.name,
                type=sale.type, value_micros=sale.value_micros, currency=sale.currency, lost_by=sale.lost_by,
                no_pixel=sale.no_pixel,
            )
        )  # fmt: skip

    # --- networks and pixels -------------------------------------------------------------------------------------

    async def _call(self, try_: Try) -> None:
        call = try_.call
        if call.visit >= 0 and call.visit not in self._click_ids:
            return
        pixel = call.channel is Channel.PIXEL
        if call.network in self._urls.off and not pixel:
            self._truth.write(GivenUp(postback=try_.number, network=call.network, turns=try_.turn - 1))
            return
        if self._shows(DOUBLES, try_) and try_.turn == 1:
            heard, _ = await asyncio.gather(self._send(try_), self._send(try_, twin=1))
        else:
            heard = await self._send(try_)
        if pixel:
            return
        habit = self._habit(try_)
        pause_s = next_pause(habit, heard, try_.turn)
        off = self._urls.note(call.network, habit, heard, tired=pause_s is None)
        if pause_s is None and heard.status // 100 != 2:
            self._truth.write(
                GivenUp(postback=try_.number, network=call.network, turns=try_.turn, switched_off=off)
            )
        if pause_s is not None:
            at_ms = max(try_.at_ms, self._clock.market_ms) + int(pause_s * 1000)
            self._agenda.add(Try(at_ms, call, try_.number, try_.turn + 1))

    def _habit(self, try_: Try) -> Habit:
        habit = HABITS[_ROLES[try_.call.network].habit]
        return make_deaf(habit) if self._shows(DEAF, try_) else habit

    def _shows(self, name: str, try_: Try) -> bool:
        """Whether a fault of the network is at work; a pixel is not the network's."""
        fault = self._planted.get(try_.call.network)
        if fault is None or fault.name != name or try_.call.channel is Channel.PIXEL:
            return False
        return try_.call.at_ms >= fault.since_ms

    async def _send(self, try_: Try, twin: int = 0) -> Heard:
        call, role = try_.call, _ROLES[try_.call.network]
        self._truth.write(
            Postback(
                postback=try_.number, turn=try_.turn, twin=twin, at_ms=self._now_ms(),
                market_ms=self._clock.market_ms, network=call.network, channel=call.channel, sale=call.sale,
                query=call.query, spelling=call.spelling, fault=call.fault, says=call.says,
                holds_repeats=role.dedup == "hold" and not role.names_transactions,
            )
        )  # fmt: skip
        request = word_call(call, self._click_ids.get(call.visit, ""), self._book, self._server)
        pixel = call.channel is Channel.PIXEL
        waits_ms = _VISITOR_MS if pixel else int(self._habit(try_).timeout_s * 1000)
        heard = await self._timer.exchange(request, keep=True, total_ms=waits_ms)
        if heard.error:
            self._truth.write(
                PostbackEnd(
                    postback=try_.number, turn=try_.turn, twin=twin, sent=heard.sent, error=heard.error
                )
            )
            return Heard()
        self._look_for_strangers(heard, f"the key of {call.network}", call.network)
        self._truth.write(
            PostbackEnd(
                postback=try_.number, turn=try_.turn, twin=twin, status=heard.status,
                verdict=heard.headers.get("postbackd-verdict", ""),
                reason=heard.headers.get("postbackd-reason", ""),
                conversion=_read_conversion(heard),
                request=heard.headers.get("x-request-id", ""),
                took_us=_took_us(heard),
            )
        )  # fmt: skip
        return Heard(heard.status, heard.body.startswith(b"OK"))

    def _look_for_strangers(self, heard: Exchange, what: str, key: str) -> None:
        """Stop at a server that is not set up for this market, before everything is refused one by one."""
        if heard.status != 404:
            self._known.add(key)
        elif key not in self._known:
            raise NotOurs(
                f"the server at {self._server} does not know {what}: give it the market's catalog with 'postbackd "
                "apply market.toml --yes --data DIR', the directory that it serves, and this command the same file"
            )


def _took_us(heard: Exchange) -> int:
    return int(heard.total_ms * 1000)


def _read_conversion(heard: Exchange) -> str:
    if not heard.headers.get("content-type", "").startswith("application/json"):
        return ""
    try:
        document = json.loads(heard.body)
    except ValueError:
        return ""
    return str(document.get("conversion", "")) if isinstance(document, dict) else ""
