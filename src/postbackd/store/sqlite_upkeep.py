"""What the embedded store does beside requests: purges and erasures."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import apsw

from postbackd.core.alarm_notices import Notice
from postbackd.core.alarms import Key, Quiet
from postbackd.core.privacy import Masker
from postbackd.core.retention import Class
from postbackd.store import alarm_rows, erasure, sqlite_purge
from postbackd.store.base import AlarmStep, Erased, Erasing, Purgeable
from postbackd.store.checkpoint import Checkpoint
from postbackd.store.sqlite_database import SqliteDatabase
from postbackd.store.sqlite_scrub import scrub, unsafe_erasure

_T = TypeVar("_T")


class SqliteUpkeep:
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

    async def scrub(self, erasing: Erasing, values: Collection[str] | None, *, rewrite: bool) -> int:
        if unsafe_erasure():
            return 0
        async with self._copying, self._turn:
            self._check_trusted()
            left = self._ask(lambda: scrub(self._path, self._db, values))
            self._log.emptied()
            return left

    async def end_erasure(self, id_: int, now_ms: int) -> None:
        await self._change(lambda db: db.execute(erasure.END_ERASURE, (now_ms, id_)))

    # --- alarms ----------------------------------------------------------------------------------------------

    async def hold_alarms(self, holder: str, now_ms: int, until_ms: int) -> bool:
        return await self._write_alarms(lambda db: alarm_rows.hold(db, holder, now_ms, until_ms))

    async def write_alarms(self, step: AlarmStep) -> Sequence[int] | None:
        return await self._write_alarms(lambda db: alarm_rows.write(db, step))

    async def settle_notices(self, notices: Sequence[Notice]) -> None:
        await self._write_alarms(lambda db: alarm_rows.settle(db, notices))

    async def quiet_alarm(self, quiet: Quiet) -> None:
        await self._write_alarms(lambda db: alarm_rows.quiet(db, quiet))

    async def unquiet_alarm(self, key: Key) -> bool:
        return await self._write_alarms(lambda db: alarm_rows.unquiet(db, key))

    async def forget_alarms(self, hours_before: int, campaigns_before: int, ended_before_ms: int) -> None:
        await self._write_alarms(
            lambda db: alarm_rows.forget(db, hours_before, campaigns_before, ended_before_ms)
        )

    async def _write_alarms(self, work: Callable[[SqliteDatabase], Coroutine[Any, Any, _T]]) -> _T:
        return await self._commit(lambda: work(SqliteDatabase(self._db)))
