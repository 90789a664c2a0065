"""The live log: what is stored, told to whoever listens, within half a second.

One poller reads for all listeners of a process, and only while somebody listens: an event costs the database the
same for one listener as for fifty, and nothing for none.  A listener's filter is applied to every row; what it is shown
of them is limited (``RATE`` a second, evenly spread), and each second says how many there were.  The stored log never
samples.  A listener that does not keep up loses what it has waited for longest, and is told how much.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from math import ceil
from operator import itemgetter
from typing import Any

from msgspec import Struct

from postbackd.core.click_id import KeyRing, write_stamp
from postbackd.core.moments import write_moment
from postbackd.reports.deliveries import DeliveryDescriber, describe_attempt, log_entry
from postbackd.reports.live_tail import PAGE, AttemptTail, Tail
from postbackd.reports.log import describe_row
from postbackd.reports.why import describe_click
from postbackd.store.base import Store, StoreUnavailable

log = logging.getLogger("postbackd.live")

POLL_S = 0.1
"""How often the poller looks; with the time to read and write, well within the half second that is promised."""

LATE_EVERY_S = 0.25
"""How often it looks for rows that were committed late."""

RATE = 50
"""Rows a second that a listener is shown: more than anybody reads."""

WAITING = 500
"""Events that wait for a slow listener."""

RESUMED = 200
"""Rows that a listener is given of what it missed."""

_RESUMED_PAGES = 25
_AWAY_S = 1.0
"""How long to wait when the database did not answer."""

Row = Mapping[str, Any]


class Kind(StrEnum):
    """What is followed."""

    POSTBACKS = "postbacks"
    CLICKS = "clicks"
    DELIVERIES = "deliveries"
    """Attempts, as they end."""


class Filter(Struct, frozen=True):
    """Which rows a listener wants; ``None``: whatever it is."""

    network: int | None = None
    campaign: int | None = None
    verdict: int | None = None
    reason: int | None = None
    click_id: int | None = None
    """The stamp of a click."""
    click_text: str | None = None
    """A click id as it was received."""
    failed: bool | None = None
    """Attempts: whether they failed."""

    def wanted(self) -> tuple[tuple[str, Any], ...]:
        """Columns and what must stand in them."""
        names = self.__struct_fields__
        return tuple((name, getattr(self, name)) for name in names if getattr(self, name) is not None)


class Event(Struct, frozen=True):
    """Something a listener is told."""

    word: str
    """``postback``, ``click`` or ``delivery``; ``rate``: what one second brought; ``lost``: this listener was too slow;
    ``resumed``: what was missed; ``away`` and ``back``: the database."""
    document: dict[str, Any]
    id: str = ""
    """Of a row: where to go on from."""


class Listener:
    """One who listens."""

    def __init__(self, kind: Kind, wanted: Filter, rate: int = RATE) -> None:
        self.kind = kind
        self.known: set[int] = set()
        """Rows that it was given as missed."""
        self._wanted = wanted.wanted()
        self._rate = rate
        self._events: deque[Event] = deque()
        self._lost = 0
        self._failure: Exception | None = None
        self._arrived = asyncio.Event()
        self._second = 0
        self._matched = self._shown = 0
        self._busy = False
        """Whether the second before was above the rate: then this one's share is spread over it."""

    def filter(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Those of the rows that it wants."""
        for name, value in self._wanted:
            rows = [row for row in rows if row.get(name) == value]
        return rows

    def choose(self, rows: Sequence[Row], now_ms: int) -> list[Row]:
        """Those of the rows that it shall be shown; all are counted."""
        self.turn(now_ms)
        rows = self.filter(rows)
        if not rows:
            return []
        self._matched += len(rows)
        room = self._rate - self._shown
        if self._busy:
            room = min(room, ceil(self._rate * min(1.0, now_ms % 1000 / 1000 + POLL_S)) - self._shown)
        room = max(room, 0)
        chosen = list(rows) if len(rows) <= room else [rows[i * len(rows) // room] for i in range(room)]
        self._shown += len(chosen)
        return chosen

    def turn(self, now_ms: int) -> None:
        """Say what the last second brought, once it is over."""
        second = now_ms // 1000
        if second == self._second:
            return
        if self._matched:
            self.push(
                Event(
                    "rate",
                    {
                        "second": write_moment(self._second * 1000),
                        "shown": self._shown,
                        "matched": self._matched,
                    },
                )
            )
        self._busy = self._matched > self._rate and second == self._second + 1
        self._second, self._matched, self._shown = second, 0, 0

    def push(self, event: Event) -> None:
        """Tell it; the oldest event goes where there are too many."""
        if len(self._events) >= WAITING:
            self._events.popleft()
            self._lost += 1
        self._events.append(event)
        self._arrived.set()

    def fail(self, error: Exception) -> None:
        """Nothing more will come."""
        self._failure = error
        self._arrived.set()

    async def take(self, patience_s: float) -> list[Event]:
        """What there is to tell, at the latest after this time; then it may be nothing.

        Raises what ended the feed.
        """
        try:
            await asyncio.wait_for(self._arrived.wait(), patience_s)
        except TimeoutError:
            return []
        if self._failure is not None:
            raise self._failure
        self._arrived.clear()
        events = list(self._events)
        self._events.clear()
        if self._lost:
            events.insert(0, Event("lost", {"count": self._lost}))
            self._lost = 0
        return events


class Feed:
    """All listeners of one database in this process."""

    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms
        self._listeners: dict[Kind, set[Listener]] = {kind: set() for kind in Kind}
        self._tails = {
            Kind.POSTBACKS: Tail(store, "live_postbacks", ("postback", "request_id")),
            Kind.CLICKS: Tail(store, "live_clicks", ("click", "click_id")),
            Kind.DELIVERIES: AttemptTail(store),
        }
        self._keys: tuple[int, KeyRing] | None = None
        """Generation of the catalog, and its keys."""
        self._polling: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        """Held while rows are read, so that a new listener begins at a known row."""

    @asynccontextmanager
    async def listen(
        self, kind: Kind, wanted: Filter, *, rate: int = RATE, after: int | None = None
    ) -> AsyncIterator[Listener]:
        """Listen until the block is left.  ``after``: also tell what came behind this row."""
        listener = Listener(kind, wanted, rate)
        async with self._turn:
            tail = self._tails[kind]
            if not self._listeners[kind]:
                await tail.start()
            begins = tail.newest
            self._listeners[kind].add(listener)
        try:
            if after is not None:
                await self._resume(listener, after, begins)
            if self._polling is None or self._polling.done():
                self._polling = asyncio.create_task(self._poll())
            yield listener
        finally:
            self._listeners[kind].discard(listener)

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return sum(map(len, self._listeners.values()))

    async def rest(self) -> None:
        """Wait until nothing is read any more, once nobody listens."""
        if self._polling is not None:
            await asyncio.wait([self._polling])

    async def _resume(self, listener: Listener, after: int, until: int) -> None:
        """The last rows between two that the listener wants, and how many there were."""
        kind, matched, complete = listener.kind, 0, False
        found: deque[Row] = deque(maxlen=RESUMED)
        for _ in range(_RESUMED_PAGES):
            rows = await self._store.query(f"live_{kind}_from", after=after, limit=PAGE)
            rows = [row for row in rows if row["id"] <= until]
            wanted = listener.filter(rows)
            found += wanted
            matched += len(wanted)
            if len(rows) < PAGE:
                complete = True
                break
            after = rows[-1]["id"]
        keys = await self._load_keys()
        for row in found:
            event = self._describe(kind, row["id"], await self._tails[kind].read_whole(row["id"]), keys)
            if event is not None:
                listener.known.add(row["id"])
                listener.push(event)
        listener.push(Event("resumed", {"shown": len(found), "matched": matched, "complete": complete}))

    async def _poll(self) -> None:
        """Read until nobody listens.  What ends it before its time ends every listener, too: none waits in vain."""
        try:
            await self._read_on()
        except Exception as error:
            for listeners in self._listeners.values():
                for listener in listeners:
                    listener.fail(error)
            log.exception("the live log ended")

    async def _read_on(self) -> None:
        loop = asyncio.get_running_loop()
        late_at, away = 0.0, False
        while any(self._listeners.values()):
            began = loop.time()
            try:
                async with self._turn:
                    for kind in Kind:
                        await self._look(kind, late=began >= late_at)
                if began >= late_at:
                    late_at = began + LATE_EVERY_S
                if away:
                    away = False
                    self._tell_all(Event("back", {}))
            except StoreUnavailable as error:
                if not away:
                    away = True
                    log.warning("the live log waits for the database: %s", error)
                    self._tell_all(Event("away", {}))
                await asyncio.sleep(_AWAY_S)
            await asyncio.sleep(max(0.0, began + POLL_S - loop.time()))

    def _tell_all(self, event: Event) -> None:
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.push(event)

    async def _look(self, kind: Kind, *, late: bool) -> None:
        """Read what is new of one kind and tell it."""
        listeners = tuple(self._listeners[kind])
        if not listeners:
            return
        tail = self._tails[kind]
        rows: list[Row] = [*await tail.read_new()]
        whole: dict[int, Row] = {}
        if late:
            whole = {row["id"]: row for row in await tail.read_late()}
            rows += whole.values()
        now_ms = self._now_ms()
        wanted: dict[int, list[Listener]] = {}
        for listener in listeners:
            for row in listener.choose(rows, now_ms):
                if row["id"] not in listener.known:
                    wanted.setdefault(row["id"], []).append(listener)
        if not wanted:
            return
        keys = await self._load_keys()
        for id_, who in sorted(wanted.items(), key=itemgetter(0)):
            event = self._describe(kind, id_, whole.get(id_) or await tail.read_whole(id_), keys)
            if event is not None:
                for listener in who:
                    listener.push(event)

    def _describe(self, kind: Kind, id_: int, row: Row | None, keys: KeyRing) -> Event | None:
        """What is told of a row; ``None``: it was purged or erased since."""
        if row is None:
            return None
        if kind is Kind.POSTBACKS:
            return Event("postback", describe_row(row, keys), write_stamp(id_))
        if kind is Kind.CLICKS:
            return Event("click", describe_click(row, keys), write_stamp(id_))
        delivery = DeliveryDescriber(keys, (), self._now_ms()).describe(row)
        return Event("delivery", log_entry(delivery, describe_attempt(row)), write_stamp(id_))

    async def _load_keys(self) -> KeyRing:
        """The keys of the catalog as it is now; they are read again only when it has changed."""
        generation = await self._store.catalog_generation()
        if self._keys is None or self._keys[0] != generation:
            self._keys = generation, KeyRing((await self._store.load_catalog()).signing_keys)
        return self._keys[1]
