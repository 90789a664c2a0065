"""While the database is away: requests go into the spool, and from there into the database, in order, when it is back.

As long as the spool is not empty everything goes through it, so that no request overtakes an earlier one.  What was on
its way when the database went away may have been committed: before a batch is written the log is asked for its
requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from postbackd.core.click_id import MAX_STAMP, stamp_ms
from postbackd.core.model import Click, Postback
from postbackd.core.rulebook import Rulebook
from postbackd.ingest.spool import Spool
from postbackd.store.base import Batch, Store, StoreUnavailable

log = logging.getLogger("postbackd.ingest")

_PAUSE_S = 0.25
"""Between two tries to reach the database."""

_PATIENCE_S = 30.0
"""How long a batch of the spool may take: nobody waits for its answer."""

_CLOCKS_MS = 60_000
"""How far the clocks of nodes may differ."""

_LONGEST_WAIT_S = 1.5
"""How long senders are held up while the spool is being emptied and nothing moves."""


class Overflow:
    """The spool and the task that empties it."""

    def __init__(
        self, spool: Spool, store: Store, rulebook: Callable[[], Rulebook], batch_limit: int
    ) -> None:
        self._spool = spool
        self._store = store
        self._rulebook = rulebook
        self._batch_limit = self._limit = batch_limit
        self._written = 0
        self._emptying = False
        """Whether the database answers, and what is in the spool goes into it."""
        self._moved = asyncio.Event()
        self._oldest = MAX_STAMP
        """The oldest stamp that was written since waiting postbacks were matched."""
        self._draining: asyncio.Task[None] | None = None
        if not spool.empty:
            log.warning(
                "%d bytes were left in the spool; writing them to the database first", spool.kept_bytes
            )
            self._draining = asyncio.get_running_loop().create_task(self._drain())

    @property
    def active(self) -> bool:
        """Whether requests have to go through the spool."""
        return self._draining is not None

    def begin(self, error: Exception) -> None:
        """From now on, until the spool is empty again."""
        if self._draining is None:
            log.error("the database is away (%s); keeping requests in the spool", error)
            self._draining = asyncio.get_running_loop().create_task(self._drain())

    def keep(self, clicks: Sequence[Click], postbacks: Sequence[Postback]) -> None:
        """Synced to the disk when this returns.  Raises ``SpoolFull`` or ``OSError``."""
        self._spool.keep(clicks, postbacks)

    async def keep_pace(self, count: int) -> None:
        """Whoever has put ``count`` requests into the spool waits until twice as many have left it.

        Senders that wait for their answers would otherwise be served faster than the database takes what they send, and
        the spool would never become empty.  While the database is away nobody waits.
        """
        aim = self._written + 2 * count
        try:
            async with asyncio.timeout(_LONGEST_WAIT_S):
                while self._emptying and self._written < aim:
                    await self._moved.wait()
        except TimeoutError:
            self._emptying = False  # until something moves again

    def _tell_moved(self) -> None:
        self._moved.set()
        self._moved.clear()

    async def stop(self) -> None:
        """What is left is written after the next start."""
        if self._draining is not None:
            self._draining.cancel()
            await asyncio.wait([self._draining])
        self._spool.close()

    async def _drain(self) -> None:
        """Until the spool is empty.  Nothing is awaited between finding it so and letting requests past it."""
        said = ""
        try:
            while True:
                try:
                    await self._store.recover()
                    self._emptying = True
                    while await self._write_all():
                        continue
                except Exception as error:  # noqa: BLE001 - whatever it is, the spool must not be given up
                    said = _say_once(error, said)
                    self._emptying = False
                    self._tell_moved()
                    self._limit = max(self._limit // 2, 1)  # a slow database gets on with less
                else:
                    log.warning(
                        "the database is back; %d requests have gone from the spool into it", self._written
                    )
                    return
                await asyncio.sleep(_PAUSE_S)
        finally:
            self._draining = None
            self._emptying = False
            self._tell_moved()
            self._limit, self._written = self._batch_limit, 0

    async def _write_all(self) -> bool:
        """Write what is in the spool; returns whether there was anything to do."""
        while (batch := self._spool.read(self._limit)) is not None:
            await self._write(batch)
            self._spool.drop()
            self._written += len(batch.clicks) + len(batch.postbacks)
            self._emptying = True
            self._tell_moved()
            self._oldest = min(self._oldest, *_stamps(batch))
            self._limit = min(self._limit * 2, self._batch_limit)
        if self._oldest == MAX_STAMP:
            return False
        # Another node may have brought the other half of a click and its postback at the same moment.
        await self._store.match_waiting(self._rulebook(), stamp_ms(self._oldest) - _CLOCKS_MS)
        self._oldest = MAX_STAMP
        return True

    async def _write(self, batch: Batch) -> None:
        """Write what is not in the database yet."""
        missing = await self._store.find_missing([p.request.request_id for p in batch.postbacks])
        postbacks = [p for p in batch.postbacks if p.request.request_id in missing]
        await self._store.write(replace(batch, postbacks=postbacks), self._rulebook(), patience_s=_PATIENCE_S)


def _stamps(batch: Batch) -> list[int]:
    return [click.stamp for click in batch.clicks] + [p.request.request_id for p in batch.postbacks]


def _say_once(error: Exception, said: str) -> str:
    """Log a lasting failure when it begins or changes; a fault of ours with its place."""
    text = str(error)
    if text != said:
        expected = isinstance(error, StoreUnavailable)
        log.log(
            logging.WARNING if expected else logging.ERROR,
            "the spool cannot be written to the database yet (%s)",
            error,
            exc_info=not expected,
        )
    return text
