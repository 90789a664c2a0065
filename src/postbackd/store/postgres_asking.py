"""A connection to PostgreSQL on which one question is asked after another; opened when it is needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import asyncpg

from postbackd.store.base import StoreAway, StoreRefused
from postbackd.store.failpoints import pass_failpoint
from postbackd.store.postgres_connection import AWAY, disconnect, is_cut_short, unavailable
from postbackd.store.postgres_insert import PartitionMissing
from postbackd.store.postgres_partitions import make_partitions
from postbackd.store.postgres_writer import IN_THE_WAY

_T = TypeVar("_T")

_MOST_TRIES = 8


class Asking:
    """One connection; whoever asks waits until the one before has been answered."""

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]], timeout_s: float | None) -> None:
        """``timeout_s``: how long a question may take that does not say so itself; ``None``: as long as it takes."""
        self._connect = connect
        self.timeout_s = timeout_s
        self._db: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()

    async def open(self) -> asyncpg.Connection:
        """The connection.  Raises what ``connect`` does."""
        if self._db is None or self._db.is_closed():
            self._db = await self._connect()
        return self._db

    async def ask(
        self, question: Callable[[asyncpg.Connection], Awaitable[_T]], timeout_s: float | None = None
    ) -> _T:
        """The answer of the database.  A connection on which a question takes too long is cut off."""
        timeout_s = timeout_s or self.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._turn.acquire()
        except TimeoutError as error:
            raise StoreAway("an earlier question has not been answered yet") from error
        timer: asyncio.TimerHandle | None = None
        try:
            db = await self._open_to_ask()
            if timeout_s is not None:  # a timer, because a cancelled transaction would wait for its ROLLBACK
                timer = asyncio.get_running_loop().call_later(timeout_s, db.terminate)
            return await question(db)
        except (asyncpg.PostgresError, *AWAY) as error:
            raise unavailable(error) from error
        except TypeError as error:
            if not is_cut_short(error):
                raise
            if self._db is not None:
                self._db.terminate()
            raise unavailable(error) from error
        finally:
            if timer is not None:
                timer.cancel()
            self._turn.release()

    async def change(
        self, work: Callable[[asyncpg.Connection], Awaitable[_T]], timeout_s: float, begin: str = "BEGIN"
    ) -> _T:
        """Do the work in one transaction; again where others got in its way or a partition was missing."""

        async def change(db: asyncpg.Connection) -> _T:
            for _ in range(_MOST_TRIES):
                try:
                    async with _transaction(db, begin):
                        return await work(db)
                except PartitionMissing as error:
                    await make_partitions(db, error.partitions)
                except IN_THE_WAY:
                    continue
            raise StoreAway("others got in the way too often")

        return await self.ask(change, timeout_s)

    async def close(self) -> None:
        db, self._db = self._db, None
        await disconnect(db)

    async def _open_to_ask(self) -> asyncpg.Connection:
        try:
            return await self.open()
        except StoreRefused as error:
            raise StoreAway(str(error)) from error


@asynccontextmanager
async def _transaction(db: asyncpg.Connection, begin: str) -> AsyncIterator[None]:
    """As ``db.transaction()``, which cannot be begun together with a lock."""
    try:
        await db.execute(begin)
        yield
        pass_failpoint("before_commit")
        await db.execute("COMMIT")
    except BaseException:
        if not db.is_closed():
            with suppress(*AWAY):
                await db.execute("ROLLBACK")
        raise
    pass_failpoint("after_commit")
