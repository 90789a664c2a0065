"""What the embedded store does beside requests: purges and erasures."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import apsw

from postbackd.core.grouping import Grouping
from postbackd.core.privacy import Masker
from postbackd.core.retention import Class
from postbackd.core.rollups import Kind, Mark
from postbackd.store import erasure, grouping, rollups, sqlite_purge
from postbackd.store.base import Erased, Erasing, Purgeable, StoreUnavailable
from postbackd.store.catalog_verbs import Work
from postbackd.store.checkpoint import Checkpoint
from postbackd.store.keeping_verbs import KeepingVerbs
from postbackd.store.sqlite_database import SqliteDatabase, ask
from postbackd.store.sqlite_scrub import scrub, unsafe_erasure

_T = TypeVar("_T")


class SqliteUpkeep(KeepingVerbs):
    """A part of ``SqliteStore``.  See ``store.base.Store`` for what each verb promises."""

    _path: Path
    _db: apsw.Connection
    _log: Checkpoint
    _turn: asyncio.Lock
    _copying: asyncio.Lock

    @abstractmethod
    def _ask(self, question: Callable[[], _T]) -> _T: ...

    @abstractmethod
    def _check_trusted(self) -> None: ...

    @abstractmethod
    async def _wait(self, question: Coroutine[Any, Any, _T]) -> _T: ...

    @abstractmethod
    async def _commit(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T: ...

    @abstractmethod
    async def _change(self, work: Callable[[apsw.Connection], _T]) -> _T: ...

    async def count_purgeable(self, before_ms: int) -> Purgeable:
        clicks, _ = await self.count_old(Class.CLICKS, before_ms)
        postbacks, _ = await self.count_old(Class.POSTBACKS, before_ms)
        return Purgeable(clicks, postbacks, exact=True)

    async def purge(self, before_ms: int, limit: int) -> int:
        clicks = await self.purge_class(Class.CLICKS, before_ms, limit)
        return clicks + await self.purge_class(Class.POSTBACKS, before_ms, limit)

    async def count_old(self, class_: Class, before_ms: int) -> tuple[int, bool]:
        return self._ask(lambda: sqlite_purge.count_old(self._db, class_, before_ms)), True

    async def purge_class(self, class_: Class, before_ms: int, limit: int) -> int:
        return self._ask(lambda: sqlite_purge.purge(self._db, class_, before_ms, limit))

    async def note_purge(self, now_ms: int, deleted: Mapping[Class, int]) -> None:
        await self._change(lambda db: sqlite_purge.note_purge(db, now_ms, deleted))

    async def erase(self, erasing: Erasing, masker: Masker) -> Erased:
        if not unsafe_erasure():
            self._db.pragma("secure_delete", 1)
        try:
            return await self._commit(
                lambda: erasure.erase(SqliteDatabase(self._db), erasing, masker, buckets=False)
            )
        finally:
            self._db.pragma("secure_delete", 0)

    async def scrub(self, erasing: Erasing, *, everywhere: bool, rewrite: bool) -> int:
        if unsafe_erasure():
            return 0
        async with self._copying, self._turn:
            self._check_trusted()
            left = self._ask(lambda: scrub(self._path, self._db))
            self._log.emptied()
            return left

    async def end_erasure(self, id_: int, now_ms: int) -> None:
        await self._change(lambda db: db.execute(erasure.END_ERASURE, (now_ms, id_)))

    # --- alarms and roll-ups: what their keepers do is in keeping_verbs ---------------------------------------

    async def _keep_alarms(self, work: Work[_T]) -> _T:
        return await self._commit(lambda: work(SqliteDatabase(self._db)))

    async def _keep_rollups(self, work: Work[_T]) -> _T:
        return await self._commit(lambda: work(SqliteDatabase(self._db)))

    async def put_facts(self, holder: int, clicks: Sequence[int]) -> bool:
        return await self._keep_rollups(lambda db: rollups.put_facts(db, holder, clicks, buckets=False))

    async def rollup_marks(self, limit: int) -> Sequence[Mark]:
        return await self._wait(rollups.read_marks(SqliteDatabase(self._db), limit))

    async def mark_slots(self, marks: Collection[tuple[Kind, int]]) -> None:
        await self._commit(lambda: rollups.add_marks(SqliteDatabase(self._db), marks))

    async def aggregate(self, asked: Grouping) -> Sequence[Sequence[Any]]:
        sql, values = grouping.write(asked)
        return await self._apart(lambda db: db.execute(sql, values).fetchall())

    async def query_apart(self, name: str, /, **parameters: Any) -> list[dict[str, Any]]:
        return await self._apart(lambda db: ask(db, name, **parameters))

    async def _apart(self, question: Callable[[apsw.Connection], _T]) -> _T:
        """Ask over a connection of its own, in a thread."""
        try:
            return await asyncio.to_thread(_ask_apart, self._path, question)
        except (apsw.Error, OSError) as error:
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error


_READING_CACHE_KIB = 65_536
_READING_PATIENCE_MS = 5_000


def _ask_apart(path: Path, question: Callable[[apsw.Connection], _T]) -> _T:
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        db.set_busy_timeout(_READING_PATIENCE_MS)
        db.pragma("query_only", 1)
        db.pragma("cache_size", -_READING_CACHE_KIB)
        db.pragma("temp_store", "MEMORY")
        return question(db)
    finally:
        db.close()
