"""Group commit: gather the requests that are waiting, write them in one transaction, answer them all.

While one batch is being written the next one gathers, so the batch grows by itself under load.  What is answered
before the commit has returned is nothing.  When the store fails, everybody in the batch is told that
nothing is known (503), and nobody is let in until the store has proved that it can write again.  When only the database
is away, requests are kept in the spool instead, and answered ``queued``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from time import perf_counter, time
from typing import Protocol, TypeVar

from postbackd.core.model import Click, Postback
from postbackd.core.rulebook import Rulebook
from postbackd.core.verdicts import Verdict
from postbackd.ingest.flow import Flow
from postbackd.ingest.overflow import Overflow
from postbackd.ingest.spool import Spool, SpoolFull
from postbackd.store.base import Batch, Outcome, Store, StoreAway, StoreUnavailable
from postbackd.store.failpoints import pass_failpoint

log = logging.getLogger("postbackd.ingest")

_T = TypeVar("_T")

_RECOVERY_PAUSE_S = 0.25
_FLOW_EVERY_S = 1.0


_QUEUED = Outcome(Verdict.QUEUED)


class Waiting(Protocol):
    """Whoever waits for a commit."""

    def failed(self) -> None:
        """The store failed; nothing is known."""
        ...


class PostbackSink(Waiting, Protocol):
    """Whoever waits to hear what became of a postback."""

    def settled(self, postback: Postback, outcome: Outcome) -> None: ...


class ClickSink(Waiting, Protocol):
    """Whoever waits for a click to be stored."""

    def stored(self, stamp: int) -> None: ...


class Batcher:
    """The queue in front of the store and the one task that empties it."""

    def __init__(
        self,
        store: Store,
        rulebook: Callable[[], Rulebook],
        flow: Flow,
        queue_limit: int,
        batch_limit: int,
        spool: Spool | None = None,
    ) -> None:
        """``spool``: where requests are kept while the database is away; without one they are refused then."""
        self._store = store
        self._rulebook = rulebook
        self._flow = flow
        self._queue_limit = queue_limit
        self._batch_limit = batch_limit
        self._postbacks: deque[tuple[Postback, PostbackSink]] = deque()
        self._clicks: deque[tuple[Click, ClickSink]] = deque()
        self._loop = asyncio.get_running_loop()
        self._writing: asyncio.Task[None] | None = None
        self._recovering: asyncio.Task[None] | None = None
        self._flow_written = perf_counter()
        self._overflow = None if spool is None else Overflow(spool, store, rulebook, batch_limit)
        self._spool_failed = False
        self.available = True

    @property
    def away(self) -> bool:
        """Whether the database is away and requests are kept in the spool."""
        return self._overflow is not None and self._overflow.active

    @property
    def ready(self) -> bool:
        """Whether requests are kept, in the store or in the spool; front ends go elsewhere while they are not."""
        return self.available and not (self.away and self._spool_failed)

    @property
    def full(self) -> bool:
        """Whether a newcomer has to be told to come back later."""
        return len(self._postbacks) + len(self._clicks) >= self._queue_limit

    def add_postback(self, postback: Postback, sink: PostbackSink) -> None:
        self._postbacks.append((postback, sink))
        if self._writing is None:
            self._writing = self._loop.create_task(self._write())

    def add_click(self, click: Click, sink: ClickSink) -> None:
        self._clicks.append((click, sink))
        if self._writing is None:
            self._writing = self._loop.create_task(self._write())

    async def _write(self) -> None:
        """Write batches until nobody waits."""
        try:
            while self._postbacks or self._clicks:
                await self._write_one()
                await asyncio.sleep(0)  # let the sockets fill the next batch
        finally:
            self._writing = None

    async def _write_one(self) -> None:
        postbacks, self._postbacks = _take(self._postbacks, self._batch_limit)
        clicks, self._clicks = _take(self._clicks, self._batch_limit)
        flow = self._due_flow()
        batch = Batch([click for click, _ in clicks], [postback for postback, _ in postbacks], flow)
        pass_failpoint("after_parse")
        if self._overflow is not None and self._overflow.active:
            self._flow.put_back(flow)
            self._set_aside(self._overflow, clicks, postbacks)
            await self._overflow.keep_pace(len(clicks) + len(postbacks))
            return
        try:
            written = await self._store.write(batch, self._rulebook())
        except Exception as error:  # noqa: BLE001 - a fault of ours is no reason to leave senders without an answer
            self._flow.put_back(flow)
            if self._overflow is not None and isinstance(error, StoreAway):
                self._overflow.begin(error)
                self._set_aside(self._overflow, clicks, postbacks)
                return
            _tell_all(waiting.failed for _, waiting in (*clicks, *postbacks))
            self._stop_accepting(error)
            return
        _tell_all(
            partial(sink.stored, stamp) for (_, sink), stamp in zip(clicks, written.clicks, strict=True)
        )
        for (postback, sink), outcome in zip(postbacks, written.outcomes, strict=True):
            try:
                sink.settled(postback, outcome)
            except Exception:
                log.exception("an answer could not be given")

    def _set_aside(
        self,
        overflow: Overflow,
        clicks: Iterable[tuple[Click, ClickSink]],
        postbacks: Iterable[tuple[Postback, PostbackSink]],
    ) -> None:
        """Keep requests in the spool.  Only the database knows which click has an own id, so those are refused."""
        kept = [(click, sink) for click, sink in clicks if click.own_id is None]
        _tell_all(sink.failed for click, sink in clicks if click.own_id is not None)
        try:
            overflow.keep([click for click, _ in kept], [postback for postback, _ in postbacks])
        except Exception as error:
            if not self._spool_failed:
                expected = isinstance(error, (SpoolFull, OSError))
                level = logging.WARNING if expected else logging.ERROR
                log.log(level, "the spool cannot take more (%s); answering 503", error, exc_info=not expected)
            self._spool_failed = True
            _tell_all(sink.failed for _, sink in (*kept, *postbacks))
            return
        self._spool_failed = False
        _tell_all(partial(sink.stored, click.stamp) for click, sink in kept)
        _tell_all(partial(sink.settled, postback, _QUEUED) for postback, sink in postbacks)

    def _due_flow(self) -> list:  # type: ignore[type-arg]
        now = perf_counter()
        if now - self._flow_written < _FLOW_EVERY_S:
            return []
        self._flow_written = now
        return self._flow.take()

    async def write_flow(self) -> None:
        """Write the counts even when no request comes along to carry them."""
        if not self.available or self.away or perf_counter() - self._flow_written < _FLOW_EVERY_S:
            return
        flow = self._due_flow()
        if not flow:
            return
        try:
            await self._store.write(Batch(flow=flow), self._rulebook())
        except StoreUnavailable as error:
            self._flow.put_back(flow)
            self.report_failure(error)

    def _stop_accepting(self, error: Exception) -> None:
        """Nothing may be written behind a write that failed: a sync that succeeds later would not cover it."""
        if self.available:
            unexpected = not isinstance(error, StoreUnavailable)
            log.error(
                "the store failed (%s); answering 503 until it can be written again",
                error,
                exc_info=unexpected,
            )
        self.available = False
        queued = (*self._clicks, *self._postbacks)
        self._clicks.clear()
        self._postbacks.clear()
        _tell_all(waiting.failed for _, waiting in queued)
        if self._recovering is None:
            self._recovering = self._loop.create_task(self._recover())

    def report_failure(self, error: StoreUnavailable) -> None:
        """Another part of ingest met a failing store."""
        if self._overflow is not None and isinstance(error, StoreAway):
            self._overflow.begin(error)
        else:
            self._stop_accepting(error)

    async def _recover(self) -> None:
        """Try until the store has proved that a write reaches the disk."""
        said = ""
        try:
            while not self.available:
                await asyncio.sleep(_RECOVERY_PAUSE_S)
                try:
                    await self._store.recover()
                except StoreUnavailable as error:
                    level = logging.DEBUG if str(error) == said else logging.WARNING
                    log.log(level, "the store still fails: %s", error)
                    said = str(error)
                else:
                    self.available = True
                    log.warning("the store can be written again; accepting requests")
        finally:
            self._recovering = None

    async def drain(self) -> None:
        """Wait until everybody who waits has been answered, and write the last counts."""
        while self._writing is not None:
            await asyncio.wait([self._writing])
        if self._recovering is not None:
            self._recovering.cancel()
        self._flow_written = 0.0
        await self.write_flow()
        if self._overflow is not None:
            await self._overflow.stop()


def _tell_all(answers: Iterable[Callable[[], None]]) -> None:
    """Give each who waits its answer; a fault at one must not keep the others waiting."""
    for answer in answers:
        try:
            answer()
        except Exception:
            log.exception("an answer could not be given")


def _take(queue: deque[_T], limit: int) -> tuple[deque[_T], deque[_T]]:
    """``(what goes into the next batch, what stays)``."""
    if len(queue) <= limit:
        return queue, deque()
    return deque(queue.popleft() for _ in range(limit)), queue


def now_ms() -> int:
    """The wall clock in milliseconds since 1970."""
    return int(time() * 1000)
