"""The store on a PostgreSQL server: any number of nodes write to one database, each a batch in one transaction.

Nothing is kept in a node.  Where two nodes meet, the database decides: the unique key of the conversions waits for
whoever was first, a conversion that a repeat may change is locked, and a batch with pixel postbacks runs alone, because
what it decides depends on conversions that are not there (``BEGIN_ALONE``).

A batch is tried again when the server says that two transactions got in each other's way, when a partition is missing,
and when the connection breaks.  In the last case the old transaction is ended first, and the log is asked whether it
had been committed: the request ids tell.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from secrets import token_hex
from time import monotonic, time
from typing import Any, TypeVar

import asyncpg

from postbackd.core.click_id import MAX_STAMP, first_stamp_at
from postbackd.core.model import Catalog, CatalogEntry, Channel, Postback, SigningKey
from postbackd.core.rulebook import Rulebook
from postbackd.core.verdicts import Verdict
from postbackd.store import catalog, postgres_nodes
from postbackd.store.base import Batch, NodeLease, Outcome, StoreAway, StoreRefused, Written
from postbackd.store.failpoints import pass_failpoint
from postbackd.store.postgres_connection import (
    AWAY,
    CATALOG_CHANNEL,
    WRITING,
    PostgresDatabase,
    ask,
    check_server,
    connect,
    make_durable,
    refusing,
    unavailable,
)
from postbackd.store.postgres_partitions import (
    finish_drops,
    make_partitions,
    partitions_ahead,
    partitions_of,
)
from postbackd.store.postgres_purge import LAST_STAMP, purge
from postbackd.store.postgres_schema import migrate, read_state
from postbackd.store.postgres_write import PostgresTransaction
from postbackd.store.split import write_in_parts
from postbackd.store.write import settle

_T = TypeVar("_T")

BEGIN = "BEGIN; SELECT pg_advisory_xact_lock_shared(8101004)"
"""Begin a transaction that runs beside others; waits for one that has to run alone."""

BEGIN_ALONE = "BEGIN; SELECT pg_advisory_xact_lock(8101004)"
"""Begin a transaction that nobody else writes beside."""

END_SESSION = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2
"""
"""End a session that we have lost, and wait until it has ended: what it was doing is done or undone then."""

SESSION = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
"""Who we are, so that we can be ended."""

FIND_OUTCOMES = """
SELECT request_id, verdict, reason, conversion_id FROM postbacks
WHERE request_id = ANY ($1::bigint[]) AND request_id BETWEEN $2 AND $3
"""
"""What became of postbacks, by the log."""

FIND_ARRIVED = """
SELECT DISTINCT w.click_ref FROM waiting AS w
WHERE w.request_id >= $1
  AND CASE WHEN left(w.click_ref, 1) = '#'
      THEN EXISTS (SELECT 1 FROM clicks AS c
                   WHERE c.click_id = substr(w.click_ref, 2)::bigint AND c.bucket = w.bucket)
      ELSE EXISTS (SELECT 1 FROM own_ids AS o WHERE o.own_id = substr(w.click_ref, 2) AND o.bucket = w.bucket)
      END
LIMIT $2
"""
"""Clicks that are there although postbacks wait for them."""

_MOST_ARRIVED = 1000

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

_IN_THE_WAY = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)

_MOST_TRIES = 8

_QUESTION_TIMEOUT_S = 5.0
"""For small questions on which a server waits."""

_ASK_GENERATION_EVERY_S = 2.0
"""A node that hears of changes asks all the same, in case it did not hear one."""


class PostgresStore:
    """See ``store.base.Store`` for what each verb promises."""

    def __init__(self, dsn: str, write_timeout_s: float) -> None:
        """Use ``PostgresStore.open``."""
        self._dsn = dsn
        self._write_timeout_s = write_timeout_s
        self._writer: asyncpg.Connection | None = None
        self._session: tuple[int, Any] | None = None
        """The session of the writer, or of the one that was lost last."""
        self._asker: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()
        """Held by whoever writes."""
        self._asking = asyncio.Lock()
        """Held by whoever uses the connection for questions and upkeep."""
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{token_hex(4)}"
        self._generation: int | None = None
        self._generation_asked = 0.0
        self._changes_heard = 0

    @classmethod
    async def open(cls, dsn: str, *, create: bool, write_timeout_s: float = 1.5) -> PostgresStore:
        """Open the database that ``dsn`` names, making or migrating its tables when ``create`` is set.

        ``write_timeout_s``: how long a batch may take before nothing is known of it.  Raises ``StoreRefused`` with one
        line that says what to do.
        """
        store = cls(dsn, write_timeout_s)
        with refusing(dsn):
            try:
                await store._prepare(create=create)
            except BaseException:
                await store.close()
                raise
        return store

    async def _prepare(self, *, create: bool) -> None:
        db = await self._open_asker()
        state = await read_state(db)
        if state.pending and not create:
            if not state.applied:
                raise StoreRefused("the database is empty; run 'postbackd serve' with this --store first")
            raise StoreRefused("the database has an old schema; run 'postbackd db migrate' once")
        if create:
            await migrate(db)
            await catalog.initialise(PostgresDatabase(db))
            await self.tend()

    # --- connections -------------------------------------------------------------------------------------------

    async def _open_writer(self) -> asyncpg.Connection:
        if self._writer is None or self._writer.is_closed():
            db = await connect(self._dsn, WRITING)
            try:
                checked = await check_server(db)
                await make_durable(db, checked["synchronous_commit"])
                if self._session is not None:
                    await db.fetchval(END_SESSION, *self._session)
                session = await db.fetchrow(SESSION)
                assert session is not None
                self._session = tuple(session)
            except BaseException:
                db.terminate()
                raise
            self._writer = db
        return self._writer

    async def _open_asker(self) -> asyncpg.Connection:
        if self._asker is None or self._asker.is_closed():
            db = await connect(self._dsn, {"jit": "off"})
            try:
                checked = await check_server(db)
                await make_durable(db, checked["synchronous_commit"])
                await db.add_listener(CATALOG_CHANNEL, self._hear_of_change)
            except BaseException:
                db.terminate()
                raise
            self._generation = None
            self._asker = db
        return self._asker

    def _hear_of_change(self, *_: object) -> None:
        self._changes_heard += 1
        self._generation = None

    def _drop_writer(self) -> None:
        if self._writer is not None:
            self._writer.terminate()
            self._writer = None

    # --- writing -----------------------------------------------------------------------------------------------

    async def write(self, batch: Batch, rulebook: Rulebook) -> Written:
        async with self._turn:
            return await write_in_parts(lambda part: self._write_whole(part, rulebook), batch, POISONED)

    async def _write_whole(self, batch: Batch, rulebook: Rulebook) -> Written:
        deadline = monotonic() + self._write_timeout_s
        lost = False
        for _ in range(_MOST_TRIES):
            try:
                async with asyncio.timeout(deadline - monotonic()):
                    db = await self._open_writer()
                    if lost and (written := await _find_written(db, batch)):
                        return written
                    return await self._write_once(db, batch, rulebook)
            except _IN_THE_WAY:
                continue
            except asyncpg.CheckViolationError as error:
                if error.constraint_name is not None:
                    raise
                await self._make_partitions(batch)
            except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, ConnectionError) as error:
                if isinstance(error, ValueError):  # what asyncpg cannot encode is an InterfaceError too
                    raise
                self._drop_writer()
                if lost:
                    raise unavailable(error) from error
                lost = True
            except AWAY as error:
                self._drop_writer()
                raise unavailable(error) from error
        raise StoreAway("other nodes got in the way too often")

    async def _write_once(self, db: asyncpg.Connection, batch: Batch, rulebook: Rulebook) -> Written:
        await db.execute(BEGIN_ALONE if _has_to_run_alone(batch.postbacks) else BEGIN)
        try:
            tx = PostgresTransaction(db)
            written = await settle(tx, batch, rulebook)
            if batch.flow:
                await tx.add_flow(batch.flow)
            pass_failpoint("before_commit")
            await db.execute("COMMIT")
            pass_failpoint("after_commit")
        except BaseException as error:
            await self._roll_back(error)
            raise
        return written

    async def _roll_back(self, error: BaseException) -> None:
        """Leave the connection as if nothing had happened, or leave the connection."""
        db = self._writer
        if db is None or db.is_closed():
            return
        try:
            if not isinstance(error, (asyncpg.PostgresError, *POISONED)):
                raise ConnectionAbortedError  # nobody knows what it is waiting for
            await db.execute("ROLLBACK")
        except AWAY:
            self._drop_writer()

    async def _make_partitions(self, batch: Batch) -> None:
        async with self._asking:
            try:
                await make_partitions(await self._open_asker(), partitions_of(batch))
            except asyncpg.PostgresError as error:
                raise unavailable(error) from error

    async def rehearse(self, batch: Batch, rulebook: Rulebook) -> Written:
        async with self._turn:
            await self._make_partitions(batch)
            try:
                db = await self._open_writer()
                await db.execute(BEGIN_ALONE)
                try:
                    return await settle(PostgresTransaction(db), batch, rulebook)
                finally:
                    await db.execute("ROLLBACK")
            except (asyncpg.PostgresError, *AWAY) as error:
                self._drop_writer()
                raise unavailable(error) from error

    async def match_waiting(self, rulebook: Rulebook, since_ms: int) -> int:
        rows = await self._ask(
            lambda db: db.fetch(FIND_ARRIVED, first_stamp_at(since_ms), _MOST_ARRIVED), _QUESTION_TIMEOUT_S
        )
        if rows:
            await self.write(Batch(arrived=[ref for (ref,) in rows]), rulebook)
        return len(rows)

    async def find_missing(self, request_ids: Sequence[int]) -> set[int]:
        if not request_ids:
            return set()
        rows = await self._ask(
            lambda db: db.fetch(FIND_OUTCOMES, request_ids, min(request_ids), max(request_ids)),
            _QUESTION_TIMEOUT_S,
        )
        return set(request_ids) - {row[0] for row in rows}

    async def load_postbacks(self, request_ids: Sequence[int]) -> Sequence[Postback]:
        return await self._ask(lambda db: PostgresTransaction(db).find_postbacks(request_ids))

    async def recover(self) -> None:
        async with self._turn:
            try:
                async with asyncio.timeout(self._write_timeout_s):
                    db = await self._open_writer()
                    await db.execute(TOUCH)
            except StoreRefused as error:
                self._drop_writer()
                raise StoreAway(str(error)) from error
            except (asyncpg.PostgresError, *AWAY) as error:
                self._drop_writer()
                raise unavailable(error) from error

    # --- catalog, questions, upkeep ------------------------------------------------------------------------------

    async def load_catalog(self, *, removed: bool = False) -> Catalog:
        return await self._ask(
            lambda db: catalog.load_catalog(PostgresDatabase(db), removed=removed), _QUESTION_TIMEOUT_S
        )

    async def catalog_generation(self) -> int:
        if self._generation is None or monotonic() - self._generation_asked > _ASK_GENERATION_EVERY_S:
            self._generation_asked = monotonic()
            # What is heard while the question is under way makes its answer old.
            changes = self._changes_heard
            asked = await self._ask(
                lambda db: catalog.generation(PostgresDatabase(db)), self._write_timeout_s
            )
            if changes != self._changes_heard:
                return asked
            self._generation = asked
        return self._generation

    async def save(self, entry: CatalogEntry) -> CatalogEntry:
        (saved,) = await self.change_catalog([entry], (), 0)
        return saved

    async def change_catalog(
        self, saves: Sequence[CatalogEntry], removals: Sequence[CatalogEntry], now_ms: int
    ) -> Sequence[CatalogEntry]:
        self._generation = None
        return await self._ask(
            lambda db: catalog.change_catalog(PostgresDatabase(db), saves, removals, now_ms)
        )

    async def rotate_signing_key(
        self, secret: bytes, *, now_ms: int, active_from_ms: int, keep: int
    ) -> Sequence[SigningKey]:
        self._generation = None
        return await self._ask(
            lambda db: catalog.rotate_signing_key(
                PostgresDatabase(db), secret, now_ms=now_ms, active_from_ms=active_from_ms, keep=keep
            )
        )

    async def last_stamp(self) -> int:
        return int(await self._ask(lambda db: db.fetchval(LAST_STAMP, MAX_STAMP)) or 0)

    async def claim_node(self, wanted: int, now_ms: int) -> NodeLease:
        return await self._ask(
            lambda db: postgres_nodes.claim_node(db, self._holder, now_ms), _QUESTION_TIMEOUT_S
        )

    async def renew_node(self, lease: NodeLease, now_ms: int) -> NodeLease:
        return await self._ask(
            lambda db: postgres_nodes.renew_node(db, self._holder, lease, now_ms), _QUESTION_TIMEOUT_S
        )

    async def release_node(self, lease: NodeLease, minted_ms: int) -> None:
        await self._ask(
            lambda db: postgres_nodes.release_node(db, self._holder, lease, minted_ms), _QUESTION_TIMEOUT_S
        )

    async def query(self, name: str, /, **parameters: Any) -> list[dict[str, Any]]:
        return await self._ask(lambda db: ask(db, name, **parameters))

    async def purge(self, before_ms: int, limit: int) -> int:
        return await self._ask(lambda db: purge(db, first_stamp_at(before_ms), limit))

    async def tend(self) -> None:
        """Make the partitions of the next days, and end what an interrupted purge began."""

        async def upkeep(db: asyncpg.Connection) -> None:
            await make_partitions(db, partitions_ahead(int(time() * 1000)))
            await finish_drops(db)

        await self._ask(upkeep)

    async def examine(self) -> dict[str, str]:
        checked: Mapping[str, Any] = await self._ask(check_server)
        return {
            "server version": checked["version_text"],
            "fsync": checked["fsync"],
            "full page writes": checked["full_page_writes"],
            "synchronous commit": "off" if checked["synchronous_commit"] == "off" else "on",
        }

    async def close(self) -> None:
        for db in (self._writer, self._asker):
            if db is not None and not db.is_closed():
                try:
                    await db.close(timeout=2)
                except AWAY:
                    db.terminate()
        self._writer = self._asker = None

    async def connection(self) -> asyncpg.Connection:
        """For tests and tools that look at the database itself."""
        return await self._open_asker()

    async def _ask(
        self, question: Callable[[asyncpg.Connection], Awaitable[_T]], timeout_s: float | None = None
    ) -> _T:
        async with self._asking:
            try:
                async with asyncio.timeout(timeout_s):
                    return await question(await self._open_asker())
            except TimeoutError as error:
                if self._asker is not None:
                    self._asker.terminate()
                raise StoreAway(f"no answer within {timeout_s} s") from error
            except StoreRefused as error:
                raise StoreAway(str(error)) from error
            except (asyncpg.PostgresError, *AWAY) as error:
                raise unavailable(error) from error


def _has_to_run_alone(postbacks: Sequence[Postback]) -> bool:
    """A pixel without transaction id is another view of a conversion that S2S may be bringing at this moment."""
    return any(
        postback.request.channel == Channel.PIXEL and not postback.transaction_id for postback in postbacks
    )


async def _find_written(db: asyncpg.Connection, batch: Batch) -> Written | None:
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
    holders = await PostgresTransaction(db).find_own_ids(own_ids) if own_ids else {}
    stored = [holders[click.own_id] if click.own_id else click.stamp for click in batch.clicks]
    return Written(stored, [found[request_id] for request_id in requests])
