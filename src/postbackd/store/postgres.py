"""The store on a PostgreSQL server: any number of nodes write to one database; nothing is kept in a node.

On one server a batch is one transaction (``postgres_writer``).  Where Citus has spread the tables over several, a batch
is divided by shard, and the parts are written at the same time.
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
from postbackd.core.deliveries import Delivery
from postbackd.core.model import Postback
from postbackd.core.rulebook import Rulebook
from postbackd.store import citus, postgres_nodes, postgres_outbox
from postbackd.store.base import (
    Batch,
    Look,
    NodeLease,
    Outcome,
    StoreAway,
    StoreRefused,
    Turn,
    TurnRefused,
    Written,
)
from postbackd.store.catalog_verbs import CatalogVerbs, Work
from postbackd.store.database import Seals, generation
from postbackd.store.keys import initialise
from postbackd.store.postgres_asking import Asking
from postbackd.store.postgres_connection import (
    CATALOG_CHANNEL,
    WRITING_TO_SHARDS,
    PostgresDatabase,
    ask,
    check_server,
    connect_durably,
    is_cut_short,
    refusing,
    what_it_says,
)
from postbackd.store.postgres_partitions import (
    Partition,
    finish_drops,
    make_partitions,
    partitions_ahead,
)
from postbackd.store.postgres_purge import LAST_STAMP
from postbackd.store.postgres_schema import migrate, read_state
from postbackd.store.postgres_turn import TURNING
from postbackd.store.postgres_upkeep import PostgresUpkeep
from postbackd.store.postgres_write import PostgresTransaction
from postbackd.store.postgres_writer import FIND_OUTCOMES, POISONED, Writer

_T = TypeVar("_T")

FIND_ARRIVED = """
SELECT w.click_ref FROM waiting AS w
JOIN clicks AS c ON c.bucket = w.bucket
 AND c.click_id = CASE WHEN left(w.click_ref, 1) = '#' THEN substr(w.click_ref, 2)::bigint END
WHERE w.request_id >= $1
UNION
SELECT w.click_ref FROM waiting AS w
JOIN own_ids AS o ON o.bucket = w.bucket AND o.own_id = substr(w.click_ref, 2)
WHERE w.request_id >= $1 AND left(w.click_ref, 1) = '='
LIMIT $2
"""
"""Clicks that are there although postbacks wait for them."""

_MOST_ARRIVED = 200

_WRITERS = 8
"""Connections over which the parts of a batch are written, where the tables are distributed."""

_QUESTION_TIMEOUT_S = 5.0
"""For small questions on which a server waits."""

_TURN_TIMEOUT_S = 30.0
"""For what a deliverer commits."""

_ASK_GENERATION_EVERY_S = 0.4
"""A node that hears of changes asks all the same, in case it did not hear one."""


class PostgresStore(CatalogVerbs, PostgresUpkeep):
    """See ``store.base.Store`` for what each verb promises."""

    waited_s = 0.0  # writers do not wait for each other here

    def __init__(
        self, dsn: str, write_timeout_s: float, question_timeout_s: float | None, seals: Seals | None
    ) -> None:
        """Use ``PostgresStore.open``."""
        self._dsn = dsn
        self._seals = seals
        self._write_timeout_s = write_timeout_s
        self._writers: Sequence[Writer] = ()
        self._shards: Sequence[int] | None = None
        """The shard of each bucket, where the tables are distributed."""
        self._transaction_kind: type[PostgresTransaction] = PostgresTransaction
        self._asker = Asking(self._connect_asker, question_timeout_s)
        """For questions and upkeep."""
        self._deliverer = Asking(self._connect_to_deliver, question_timeout_s)
        """For the turns of a deliverer."""
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{token_hex(4)}"
        self._generation: int | None = None
        self._generation_asked = 0.0
        self._changes_heard = 0

    @classmethod
    async def open(
        cls,
        dsn: str,
        *,
        create: bool,
        write_timeout_s: float = 1.5,
        question_timeout_s: float | None = None,
        seals: Seals | None = None,
    ) -> PostgresStore:
        """Open the database that ``dsn`` names, making or migrating its tables when ``create`` is set.

        ``write_timeout_s``: how long a batch may take before nothing is known of it; ``question_timeout_s``: the same
        for a question, ``None``: as long as it takes.  ``seals``: see ``SqliteStore.open``.  Raises ``StoreRefused``
        with one line that says what to do.
        """
        store = cls(dsn, write_timeout_s, question_timeout_s, seals)
        with refusing(dsn):
            try:
                await store._prepare(create=create)
            except BaseException:
                await store.close()
                raise
        return store

    async def _prepare(self, *, create: bool) -> None:
        db = await self._asker.open()
        state = await read_state(db)
        if state.pending and not create:
            if not state.applied:
                raise StoreRefused("the database is empty; run 'postbackd serve' with this --store first")
            raise StoreRefused("the database has an old schema; run 'postbackd db migrate' once")
        if create:
            await migrate(db)
            await initialise(PostgresDatabase(db, self._seals))
        self._shards = await citus.read_shards(db)
        distributed = self._shards is not None
        self._transaction_kind = citus.CitusTransaction if distributed else PostgresTransaction
        self._writers = [
            Writer(self._dsn, self._write_timeout_s, self._transaction_kind, self._make_partitions)
            for _ in range(_WRITERS if distributed else 1)
        ]
        if create:
            await self.tend()

    # --- connections -------------------------------------------------------------------------------------------

    async def _connect_asker(self) -> asyncpg.Connection:
        db = await connect_durably(self._dsn, {"jit": "off"})
        try:
            await db.add_listener(CATALOG_CHANNEL, self._hear_of_change)
        except BaseException:
            db.terminate()
            raise
        self._generation = None
        return db

    async def _connect_to_deliver(self) -> asyncpg.Connection:
        return await connect_durably(self._dsn, TURNING if self._shards is None else WRITING_TO_SHARDS)

    def _hear_of_change(self, *_: object) -> None:
        self._changes_heard += 1
        self._generation = None

    # --- writing -----------------------------------------------------------------------------------------------

    async def write(self, batch: Batch, rulebook: Rulebook, *, patience_s: float = 0) -> Written:
        if self._shards is None:
            return await self._writers[0].write(batch, rulebook, patience_s)
        return await self._write_by_shard(batch, rulebook, self._shards, patience_s)

    async def _write_by_shard(
        self, batch: Batch, rulebook: Rulebook, shards: Sequence[int], patience_s: float
    ) -> Written:
        """The clicks first, because a postback with a caller's own id may lie on another shard than its click."""
        clicks, postbacks = citus.parts_of(batch, shards)
        stored: list[int] = [0] * len(batch.clicks)
        outcomes: dict[int, Outcome] = {}
        parts = [Batch([batch.clicks[index] for index in part]) for part in clicks.values()]
        for part, written in zip(
            clicks.values(), await self._write_together(parts, rulebook, patience_s), strict=True
        ):
            for index, stamp in zip(part, written.clicks, strict=True):
                stored[index] = stamp
        parts = [Batch(postbacks=[batch.postbacks[index] for index in part]) for part in postbacks.values()]
        for part, written in zip(
            postbacks.values(), await self._write_together(parts, rulebook, patience_s), strict=True
        ):
            outcomes |= zip(part, written.outcomes, strict=True)
        if batch.flow or batch.arrived:
            await self._writers[0].write(Batch(flow=batch.flow, arrived=batch.arrived), rulebook, patience_s)
        return Written(stored, [outcomes[index] for index in range(len(outcomes))])

    async def _write_together(
        self, parts: Sequence[Batch], rulebook: Rulebook, patience_s: float
    ) -> Sequence[Written]:
        """Write the parts at the same time.  Raises what the first one that failed raised, when all have ended."""
        writing = (
            self._writers[number % len(self._writers)].write(part, rulebook, patience_s)
            for number, part in enumerate(parts)
        )
        ended = await asyncio.gather(*writing, return_exceptions=True)
        written = [part for part in ended if isinstance(part, Written)]
        for failed in ended:
            if isinstance(failed, BaseException):
                raise failed
        return written

    async def rehearse(self, batch: Batch, rulebook: Rulebook) -> Written:
        return await self._writers[0].rehearse(batch, rulebook)

    async def recover(self) -> None:
        for writer in self._writers:
            await writer.prove()

    async def _make_partitions(self, partitions: set[Partition]) -> None:
        try:
            await self._ask(lambda db: make_partitions(db, partitions), _QUESTION_TIMEOUT_S)
        except StoreRefused as error:
            raise StoreAway(str(error)) from error

    async def match_waiting(self, rulebook: Rulebook, since_ms: int) -> int:
        left, since = self._take_left_waiting(), first_stamp_at(since_ms)
        try:
            rows = await self._ask(
                lambda db: db.fetch(FIND_ARRIVED, 0 if left else since, _MOST_ARRIVED), _QUESTION_TIMEOUT_S
            )
            if rows:
                await self.write(Batch(arrived=[ref for (ref,) in rows]), rulebook)
        except StoreAway:
            self._writers[0].left_waiting |= left
            raise
        self._writers[0].left_waiting |= len(rows) == _MOST_ARRIVED
        return len(rows)

    def _take_left_waiting(self) -> bool:
        """Whether a batch left postbacks waiting whose click is there, however old they are."""
        left = any(writer.left_waiting for writer in self._writers)
        for writer in self._writers:
            writer.left_waiting = False
        return left

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

    # --- catalog, questions, upkeep ------------------------------------------------------------------------------

    async def _read_catalog(self, work: Work[_T]) -> _T:
        return await self._ask(lambda db: work(PostgresDatabase(db, self._seals)), _QUESTION_TIMEOUT_S)

    async def _change_catalog(self, work: Work[_T]) -> _T:
        self._generation = None
        return await self._ask(lambda db: work(PostgresDatabase(db, self._seals)))

    async def catalog_generation(self) -> int:
        if self._generation is None or monotonic() - self._generation_asked > _ASK_GENERATION_EVERY_S:
            self._generation_asked = monotonic()
            # What is heard while the question is under way makes its answer old.
            changes = self._changes_heard
            asked = await self._ask(lambda db: generation(PostgresDatabase(db)), self._write_timeout_s)
            if changes != self._changes_heard:
                return asked
            self._generation = asked
        return self._generation

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
        return await self._ask(lambda db: ask(db, name, distributed=self._shards is not None, **parameters))

    async def look(self, targets: Sequence[int], now_ms: int, events: int) -> Look:
        distributed = self._shards is not None
        return await self._deliverer.ask(
            lambda db: postgres_outbox.look(db, targets, now_ms, events, distributed=distributed),
            _QUESTION_TIMEOUT_S,
        )

    async def take_turn(self, turn: Turn) -> Sequence[Delivery]:
        async def work(db: asyncpg.Connection) -> Sequence[Delivery]:
            try:
                return await postgres_outbox.take_turn(db, self._transaction_kind(db), turn)
            except (asyncpg.RaiseError, *POISONED) as error:  # an operator's trigger may say no, too
                if is_cut_short(error):
                    raise
                raise TurnRefused(what_it_says(error)) from error

        begin = postgres_outbox.BEGIN_PLANNING if turn.planned else "BEGIN"
        return await self._deliverer.change(work, _TURN_TIMEOUT_S, begin)

    async def release(self, holder: str | None) -> int:
        return await self._ask(lambda db: postgres_outbox.release(db, holder))

    async def resend(self, numbers: Sequence[int], now_ms: int) -> int:
        return await self._change(lambda db, tx: postgres_outbox.resend(db, tx, numbers, now_ms))

    async def cancel(self, numbers: Sequence[int], now_ms: int, reason: str) -> int:
        return await self._change(lambda db, tx: postgres_outbox.cancel(db, tx, numbers, now_ms, reason))

    async def _change(self, work: Callable[[asyncpg.Connection, PostgresTransaction], Awaitable[_T]]) -> _T:
        return await self._asker.change(lambda db: work(db, self._transaction_kind(db)), _TURN_TIMEOUT_S)

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
            "schema": str((await self._ask(read_state)).applied[-1][0]),
            "clock": str(checked["clock_ms"]),
        }

    async def close(self) -> None:
        for writer in self._writers:
            await writer.close()
        for asking in (self._asker, self._deliverer):
            await asking.close()

    async def connection(self) -> asyncpg.Connection:
        """For tests and tools that look at the database itself."""
        return await self._asker.open()

    async def _ask(
        self, question: Callable[[asyncpg.Connection], Awaitable[_T]], timeout_s: float | None = None
    ) -> _T:
        return await self._asker.ask(question, timeout_s)
