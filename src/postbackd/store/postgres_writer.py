"""One session that writes batches to a PostgreSQL database, each in one transaction.

Where two sessions meet, the database decides: the unique key of the conversions waits for whoever was first, a
conversion that a repeat may change is locked, and a batch with pixel postbacks runs alone, because what it decides
depends on conversions that are not there (``BEGIN_ALONE``).

A batch is tried again when the server says that two transactions got in each other's way, when a partition is missing,
and when the connection breaks.  In the last case the old session is ended first, and the log is asked whether it had
committed: the request ids tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

import asyncpg

from postbackd.core.model import Channel
from postbackd.core.rulebook import Rulebook
from postbackd.core.verdicts import Verdict
from postbackd.store.base import Batch, Outcome, StoreAway, StoreRefused, Written
from postbackd.store.failpoints import pass_failpoint
from postbackd.store.postgres_connection import (
    AWAY,
    WRITING,
    WRITING_TO_SHARDS,
    connect_durably,
    disconnect,
    is_cut_short,
    unavailable,
)
from postbackd.store.postgres_insert import PartitionMissing
from postbackd.store.postgres_partitions import Partition
from postbackd.store.postgres_write import MustRunAlone, PostgresTransaction
from postbackd.store.rollups import late_before
from postbackd.store.split import write_in_parts
from postbackd.store.write import settle

ALONE = "SELECT pg_advisory_xact_lock(8101004)"
"""From here to its end nobody else writes beside this transaction."""

BESIDE = "SELECT pg_advisory_xact_lock_shared(8101004)"
"""From here to its end this transaction runs beside others, and waits for one that has to run alone."""

BEGIN = f"BEGIN; {BESIDE}"
"""Begin a transaction that runs beside others; waits for one that has to run alone."""

BEGIN_ALONE = f"BEGIN; {ALONE}"
"""Begin a transaction that nobody else writes beside."""

SESSION = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
"""Who we are, so that we can be ended."""

END_SESSION = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2
"""
"""End a session that we have lost, and wait until it has ended: what it was doing is done or undone then."""

FIND_OUTCOMES = """
SELECT request_id, verdict, reason, conversion_id FROM postbacks
WHERE request_id = ANY ($1::bigint[]) AND request_id BETWEEN $2 AND $3
"""
"""What became of postbacks, by the log."""

TOUCH = """
INSERT INTO settings (name, value) VALUES ('opened', 1) ON CONFLICT (name) DO UPDATE SET value = settings.value + 1
"""
"""A small write, to prove that writing works."""

POISONED = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    OverflowError,
    TypeError,
    ValueError,  # what asyncpg cannot encode
)
"""What a row that cannot be stored raises; everything else concerns the database itself."""

IN_THE_WAY = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
"""What a transaction raises that others got in the way of: it has done nothing, and is tried again."""

_MOST_TRIES = 8

_REHEARSAL_TIMEOUT_S = 30.0
"""Everybody who writes waits for it."""

_BROKEN = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    ConnectionError,
)


class Writer:
    """A connection that is opened when it is needed, and what is written on it."""

    def __init__(
        self,
        dsn: str,
        timeout_s: float,
        transaction: type[PostgresTransaction],
        make_partitions: Callable[[set[Partition]], Awaitable[None]],
    ) -> None:
        """``timeout_s``: how long a batch may take.  ``make_partitions``: makes those that are missing."""
        self.left_waiting = False
        """Whether a batch left postbacks waiting whose click is there."""
        self.timeout_s = timeout_s
        self._dsn = dsn
        self._transaction = transaction
        self._make_partitions = make_partitions
        self._db: asyncpg.Connection | None = None
        self._session: tuple[int, Any] | None = None
        """The session of the connection, or of the one that was lost last."""
        self._turn = asyncio.Lock()

    async def write(self, batch: Batch, rulebook: Rulebook, patience_s: float = 0) -> Written:
        """See ``store.base.Store.write``.  ``patience_s``: how long at least it may take.  Raises ``StoreAway``."""
        timeout_s = max(self.timeout_s, patience_s)
        async with self._turn:
            return await write_in_parts(
                lambda part: self._write_whole(part, rulebook, timeout_s), batch, POISONED
            )

    async def rehearse(self, batch: Batch, rulebook: Rulebook) -> Written:
        """See ``store.base.Store.rehearse``.  Raises ``StoreAway``."""
        async with self._turn:
            for _ in range(_MOST_TRIES):
                try:
                    async with asyncio.timeout(_REHEARSAL_TIMEOUT_S):
                        return await self._rehearse_once(await self.open(), batch, rulebook)
                except PartitionMissing as error:
                    await self._make_partitions(error.partitions)
                except (StoreRefused, asyncpg.PostgresError, *AWAY) as error:
                    self._drop()
                    raise unavailable(error) from error
            raise StoreAway("other nodes got in the way too often")

    async def _rehearse_once(self, db: asyncpg.Connection, batch: Batch, rulebook: Rulebook) -> Written:
        await db.execute(BEGIN_ALONE)
        try:
            return await settle(self._transaction(db, alone=True), batch, rulebook)
        except BaseException:
            self._drop()
            raise
        finally:
            if not db.is_closed():
                await db.execute("ROLLBACK")

    async def prove(self) -> None:
        """Prove that a write reaches the disk of the server.  Raises ``StoreAway`` while it does not."""
        async with self._turn:
            try:
                async with asyncio.timeout(self.timeout_s):
                    db = await self.open()
                    await db.execute(TOUCH)
            except (StoreRefused, asyncpg.PostgresError, *AWAY) as error:
                self._drop()
                raise unavailable(error) from error

    async def open(self) -> asyncpg.Connection:
        """The connection; a new one has ended the session of the one that was lost before it."""
        if self._db is None or self._db.is_closed():
            settings = WRITING_TO_SHARDS if self._transaction.distributed else WRITING
            db = await connect_durably(self._dsn, settings)
            try:
                await self._end_lost_session(db)
                session = await db.fetchrow(SESSION)
                assert session is not None
                self._session = tuple(session)
            except BaseException:
                db.terminate()
                raise
            self._db = db
        return self._db

    async def _end_lost_session(self, db: asyncpg.Connection) -> None:
        if self._session is not None and await db.fetchval(END_SESSION, *self._session) is False:
            raise ConnectionAbortedError("the session that was lost has not ended yet")

    async def close(self) -> None:
        db, self._db = self._db, None
        await disconnect(db)

    def _drop(self) -> None:
        if self._db is not None:
            self._db.terminate()
            self._db = None

    async def _write_whole(self, batch: Batch, rulebook: Rulebook, timeout_s: float) -> Written:
        deadline = monotonic() + timeout_s
        lost, alone = False, _has_to_run_alone(batch)
        for _ in range(_MOST_TRIES):
            try:
                async with asyncio.timeout(deadline - monotonic()):
                    db = await self.open()
                    if lost and (written := await self._find_written(db, batch)):
                        return written
                    return await self._write_once(db, batch, rulebook, alone=alone)
            except IN_THE_WAY:
                continue
            except MustRunAlone:
                alone = True
            except PartitionMissing as error:
                await self._make_partitions(error.partitions)
                deadline = monotonic() + timeout_s
            except asyncpg.UniqueViolationError as error:
                if not (error.table_name or "").startswith("postbacks"):
                    raise
                lost = True  # the same requests are in the log: this batch, from a session that was lost
            except (*POISONED, *_BROKEN) as error:
                if isinstance(error, POISONED) and not is_cut_short(error):
                    raise  # what asyncpg cannot encode is an interface error of it, too
                self._drop()
                if lost:
                    raise unavailable(error) from error
                lost = True
            except (StoreRefused, asyncpg.PostgresError, *AWAY) as error:
                self._drop()
                raise unavailable(error) from error
        raise StoreAway("other nodes got in the way too often")

    async def _write_once(
        self, db: asyncpg.Connection, batch: Batch, rulebook: Rulebook, *, alone: bool
    ) -> Written:
        await db.execute(BEGIN_ALONE if alone else BEGIN)
        try:
            tx = self._transaction(db, alone=alone)
            written = await settle(tx, batch, rulebook, late_before())
            if batch.flow:
                await tx.add_flow(batch.flow)
            pass_failpoint("before_commit")
            await db.execute("COMMIT")
            pass_failpoint("after_commit")
        except BaseException as error:
            await self._roll_back(error)
            raise
        self.left_waiting |= tx.left_waiting
        return written

    async def _roll_back(self, error: BaseException) -> None:
        """Leave the connection as if nothing had happened, or leave the connection."""
        db = self._db
        if db is None or db.is_closed():
            return
        try:
            if not isinstance(error, (PartitionMissing, MustRunAlone, asyncpg.PostgresError, *POISONED)):
                raise ConnectionAbortedError  # nobody knows what it is waiting for
            await db.execute("ROLLBACK")
        except AWAY:
            self._drop()

    async def _find_written(self, db: asyncpg.Connection, batch: Batch) -> Written | None:
        """The answers to a batch that was committed although nobody heard of it; ``None`` when it was not.

        A batch of clicks alone can be written again in any case.
        """
        if not batch.postbacks:
            return None
        requests = [postback.request.request_id for postback in batch.postbacks]
        new = {postback.request.request_id for postback in batch.postbacks if not postback.replay}
        rows = await db.fetch(FIND_OUTCOMES, requests, min(requests), max(requests))
        found = {row[0]: Outcome(Verdict(row[1]), row[2], row[3]) for row in rows}
        if not new or not new <= found.keys():
            return None
        own_ids = [click.own_id for click in batch.clicks if click.own_id]
        holders = await self._transaction(db).find_own_ids(own_ids) if own_ids else {}
        stored = [holders[click.own_id] if click.own_id else click.stamp for click in batch.clicks]
        return Written(stored, [found[request_id] for request_id in requests])


def _has_to_run_alone(batch: Batch) -> bool:
    """A pixel without transaction id is another view of a conversion that S2S may be bringing at this moment.

    Among the postbacks that wait for clicks which are there, there may be such pixels.
    """
    return bool(batch.arrived) or any(
        postback.request.channel == Channel.PIXEL and not postback.transaction_id
        for postback in batch.postbacks
    )
