"""Sends the rows of a file: so many at a time, so many a second, each noted before and after (``exchanges.journal``).

It stops by itself when nothing is settled any more (an endpoint that is away, a key that is wrong): the rows that are
left are for the next run.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter

import msgspec

from postbackd.core.became import Became, judge
from postbackd.core.exchange import ODD
from postbackd.exchanges.journal import Journal
from postbackd.exchanges.postback import Endpoint, OddPostback, Postback, mark_as_test, write_postback
from postbackd.exchanges.rows import Row
from postbackd.exchanges.timed import Timer

GIVE_UP_AFTER = 20
"""Rows in a row that were not settled."""

_FIRST_PAUSE_S = 0.5


class Totals:
    """What a run did."""

    def __init__(self) -> None:
        self.settled_before = 0
        self.sent = 0
        self.times_ms: list[float] = []
        self.stopped = ""
        """Why the run ended before its rows."""
        self.took_s = 0.0


class Batch:
    """One run."""

    def __init__(
        self,
        endpoint: Endpoint,
        journal: Journal,
        timer: Timer,
        now_ms: Callable[[], int],
        *,
        rate: float = 0,
        parallel: int = 4,
        tries: int = 3,
        test: bool = False,
        success: Sequence[str] = (),
        failure: Sequence[str] = (),
    ) -> None:
        """``rate``: rows a second at most, 0: as fast as they are answered."""
        self._endpoint = endpoint
        self._journal = journal
        self._timer = timer
        self._now_ms = now_ms
        self._every_s = 1 / rate if rate else 0.0
        self._slots = asyncio.Semaphore(parallel)
        self._tries = tries
        self._test = test
        self._success = success
        self._failure = failure
        self._next = 0.0
        self._unsettled_in_a_row = 0
        self._error: OSError | None = None
        self.totals = Totals()
        self.stopping = asyncio.Event()
        """Set it, and no further row is begun."""

    async def run(self, rows: Iterator[Row], done: Callable[[Row, Became | None], None]) -> Totals:
        """Send what is not settled; ``done`` hears of every row, ``None`` where it was settled before.

        Raises ``OSError`` when the journal can no longer be written, and what ``rows`` raises.
        """
        began = perf_counter()
        flying: set[asyncio.Task[None]] = set()
        try:
            for row in rows:
                if self.stopping.is_set() or self._error or self.totals.stopped:
                    break
                if row.error:
                    done(row, Became(word="bad row", settled=False, good=False, reason=row.error))
                elif self._journal.is_settled(row.key):
                    self.totals.settled_before += 1
                    done(row, None)
                else:
                    await self._slots.acquire()
                    task = asyncio.create_task(self._send_row(row, done))
                    flying.add(task)
                    task.add_done_callback(flying.discard)
        finally:
            if flying:
                await asyncio.gather(*flying)
            self.totals.took_s = perf_counter() - began
        if self._error:
            raise self._error
        if self.stopping.is_set():
            self.totals.stopped = "interrupted"
        return self.totals

    def postback_of(self, row: Row) -> Postback:
        """What is sent for a row: always with a transaction id."""
        postback = row.postback
        if not postback.transaction_id:
            made = self._journal.transaction_id(row.key)
            postback = msgspec.structs.replace(postback, transaction_id=made)
        return mark_as_test(postback) if self._test else postback

    async def _send_row(self, row: Row, done: Callable[[Row, Became | None], None]) -> None:
        try:
            await self._pace()
            if self.stopping.is_set() or self._error or self.totals.stopped:
                return
            became = await self._send(row)
            await self._journal.note_answer(row.key, became)
            self._count(became)
            done(row, became)
        except OSError as error:
            self._error = error
        finally:
            self._slots.release()

    async def _send(self, row: Row) -> Became:
        try:
            postback = self.postback_of(row)
            write_postback(self._endpoint, postback, self._now_ms())
        except OddPostback as error:
            return Became(word=ODD, settled=False, good=False, reason=f"{ODD}: {error}")
        await self._journal.note_sending(row.key)
        for attempt in range(1, self._tries + 1):
            # Written anew each time: a signed time grows old.
            request = write_postback(self._endpoint, postback, self._now_ms())
            made = await self._timer.exchange(request, keep=True)
            self.totals.sent += 1
            became = judge(made, self._success, self._failure, self._now_ms())
            if made.status:
                self.totals.times_ms.append(made.total_ms)
            if became.settled or not became.again or attempt == self._tries or self.stopping.is_set():
                break
            pause_s = max(became.pause_ms / 1000, _FIRST_PAUSE_S * 2 ** (attempt - 1))
            await self._wait(pause_s * random.uniform(1, 1.2))  # noqa: S311 - nobody has to guess it
        return became

    def _count(self, became: Became) -> None:
        self._unsettled_in_a_row = 0 if became.settled else self._unsettled_in_a_row + 1
        if self._unsettled_in_a_row >= GIVE_UP_AFTER:
            self.totals.stopped = (
                f"{GIVE_UP_AFTER} rows one after the other were not taken, the last: {became.reason}"
            )

    async def _pace(self) -> None:
        if self._every_s:
            now = perf_counter()
            at = max(self._next, now)
            self._next = at + self._every_s
            await self._wait(at - now)

    async def _wait(self, seconds: float) -> None:
        """So long, or until it is stopped."""
        if seconds > 0:
            try:
                await asyncio.wait_for(self.stopping.wait(), seconds)
            except TimeoutError:
                return
