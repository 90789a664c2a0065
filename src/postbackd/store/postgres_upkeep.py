"""What the store on PostgreSQL does beside requests: purges and erasures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import asyncpg

from postbackd.core.grouping import Grouping
from postbackd.core.privacy import Masker
from postbackd.core.retention import Class
from postbackd.core.rollups import Kind, Mark
from postbackd.store import erasure, grouping, postgres_purge, rollups
from postbackd.store.base import Erased, Erasing, Purgeable
from postbackd.store.catalog_verbs import Work
from postbackd.store.database import Database
from postbackd.store.keeping_verbs import KeepingVerbs
from postbackd.store.postgres_connection import PostgresDatabase
from postbackd.store.postgres_scrub import scrub
from postbackd.store.postgres_write import PostgresTransaction
from postbackd.store.postgres_writer import ALONE, BESIDE

_T = TypeVar("_T")

LOCK_ROLLUPS = "SELECT pg_advisory_xact_lock(8101007)"
"""Held by whoever changes roll-ups, until its transaction ends."""


class PostgresUpkeep(KeepingVerbs):
    """A part of ``PostgresStore``.  See ``store.base.Store`` for what each verb promises."""

    _shards: Sequence[int] | None

    @abstractmethod
    async def _ask(
        self, question: Callable[[asyncpg.Connection], Awaitable[_T]], timeout_s: float | None = None
    ) -> _T: ...

    @abstractmethod
    async def _change(
        self, work: Callable[[asyncpg.Connection, PostgresTransaction], Awaitable[_T]]
    ) -> _T: ...

    async def count_purgeable(self, before_ms: int) -> Purgeable:
        clicks, all_counted = await self.count_old(Class.CLICKS, before_ms)
        postbacks, counted = await self.count_old(Class.POSTBACKS, before_ms)
        return Purgeable(clicks, postbacks, exact=all_counted and counted)

    async def purge(self, before_ms: int, limit: int) -> int:
        clicks = await self.purge_class(Class.CLICKS, before_ms, limit)
        return clicks + await self.purge_class(Class.POSTBACKS, before_ms, limit)

    async def count_old(self, class_: Class, before_ms: int) -> tuple[int, bool]:
        distributed = self._shards is not None
        return await self._ask(
            lambda db: postgres_purge.count_old(db, class_, before_ms, distributed=distributed)
        )

    async def purge_class(self, class_: Class, before_ms: int, limit: int) -> int:
        alone = self._shards is not None
        return await self._ask(lambda db: postgres_purge.purge(db, class_, before_ms, limit, alone=alone))

    async def note_purge(self, now_ms: int, deleted: Mapping[Class, int]) -> None:
        await self._ask(lambda db: postgres_purge.note_purge(db, now_ms, deleted))

    async def erase(self, erasing: Erasing, masker: Masker) -> Erased:
        async def work(db: asyncpg.Connection, _: PostgresTransaction) -> Erased:
            # Who has found a click or a conversion before, and writes after, would count it again under its old key.
            await db.execute(ALONE)
            return await erasure.erase(PostgresDatabase(db), erasing, masker, buckets=True)

        return await self._change(work)

    async def scrub(self, erasing: Erasing, *, everywhere: bool, rewrite: bool) -> int:
        # What an interrupted pass erased is not known any more: it may have been in any partition.
        distributed = self._shards is not None
        await self._ask(
            lambda db: scrub(db, erasing, rewrite=rewrite, everywhere=everywhere, distributed=distributed)
        )
        return 0

    async def end_erasure(self, id_: int, now_ms: int) -> None:
        await self._ask(lambda db: PostgresDatabase(db).rows(erasure.END_ERASURE, now_ms, id_))

    # --- alarms and roll-ups: what their keepers do is in keeping_verbs ---------------------------------------

    async def _keep_alarms(self, work: Work[_T]) -> _T:
        return await self._change(lambda db, _: work(PostgresDatabase(db)))

    async def _keep_rollups(self, work: Work[_T]) -> _T:
        async def keep(db: asyncpg.Connection, _: PostgresTransaction) -> _T:
            await db.execute(LOCK_ROLLUPS)
            return await work(PostgresDatabase(db))

        return await self._change(keep)

    async def put_facts(self, holder: int, clicks: Sequence[int]) -> bool:
        distributed = self._shards is not None

        async def keep(db: Database) -> bool:
            await db.rows(BESIDE)  # an erasure has to come before or after
            return await rollups.put_facts(db, holder, clicks, buckets=distributed)

        return await self._keep_rollups(keep)

    async def rollup_marks(self, limit: int) -> Sequence[Mark]:
        return await self._ask(lambda db: rollups.read_marks(PostgresDatabase(db), limit))

    async def mark_slots(self, marks: Collection[tuple[Kind, int]]) -> None:
        await self._ask(lambda db: rollups.add_marks(PostgresDatabase(db), marks))

    @abstractmethod
    async def query(self, name: str, /, **parameters: Any) -> list[dict[str, Any]]: ...

    async def query_apart(self, name: str, /, **parameters: Any) -> list[dict[str, Any]]:
        return await self.query(name, **parameters)

    async def aggregate(self, asked: Grouping) -> Sequence[Sequence[Any]]:
        sql, values = grouping.write(asked)
        return await self._ask(lambda db: PostgresDatabase(db).rows(sql, *values))
