"""The embedded store: one SQLite file, one writer at a time, a synced transaction a batch.

A commit is on the disk before it is answered: by ``synchronous=FULL``, or, where it is set, by ``LogSync``.  A write or
sync that fails is not trusted again: nothing is written before ``recover`` has closed the file, opened it anew and
pushed everything through a full checkpoint, because after a failed fsync the kernel may call pages clean that
never reached the disk, and what is written behind them would be lost with them.

Checkpoints are done by ``checkpoint`` and never in the middle of a commit: a thread with a connection of its own copies
the log.  When the log has grown long, writers wait a few milliseconds while the little that is left is copied, so that
the log starts over; the event loop goes on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import apsw

from postbackd.core.click_id import MAX_STAMP, stamp_ms
from postbackd.core.deliveries import Delivery
from postbackd.core.model import Postback
from postbackd.core.rulebook import Rulebook
from postbackd.store import sqlite_outbox
from postbackd.store.base import (
    Batch,
    Look,
    NodeLease,
    StoreAway,
    StoreRefused,
    StoreUnavailable,
    Turn,
    TurnRefused,
    Written,
)
from postbackd.store.catalog_verbs import CatalogVerbs, Work
from postbackd.store.checkpoint import Checkpoint
from postbackd.store.database import Seals
from postbackd.store.failpoints import pass_failpoint
from postbackd.store.log_sync import LogSync
from postbackd.store.rollups import late_before
from postbackd.store.split import write_in_parts
from postbackd.store.sqlite_database import SqliteDatabase, ask, initialise
from postbackd.store.sqlite_file import (
    FILE_NAME,
    TOUCH,
    check_and_migrate,
    check_not_emptied,
    check_sqlite,
    connect,
    drop,
    examine,
    limit_log,
    refusing,
    sync_names,
    unsafe_sync,
)
from postbackd.store.sqlite_purge import LAST_STAMP
from postbackd.store.sqlite_upkeep import SqliteUpkeep
from postbackd.store.sqlite_write import SqliteTransaction, find_missing, find_postbacks
from postbackd.store.write import settle

CHECKPOINT_PAGES = 32_768
"""Pages in the log after which it starts over (128 MiB)."""

_FEW_PAGES = 300
"""What may be left of the log to be copied while writers wait; takes 3-4 ms."""

_MOST_ROUNDS = 5
"""How often what has come meanwhile is copied before writers have to wait."""

_BUSY_PAUSE_S = 0.001

_T = TypeVar("_T")

_POISONED = (
    apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError, OverflowError, TypeError, UnicodeError,
)  # fmt: skip
"""What a row that cannot be stored raises; everything else concerns the store itself."""


class SqliteStore(CatalogVerbs, SqliteUpkeep):
    """See ``store.base.Store`` for what each verb promises."""

    def __init__(self, path: Path, busy_timeout_ms: int, checkpoint_pages: int, *, create: bool) -> None:
        """Use ``SqliteStore.open``."""
        self._seals: Seals | None = None
        self._path = path
        self._busy_timeout_ms = busy_timeout_ms
        self._db = connect(path, busy_timeout_ms, create=create)
        self._tx = SqliteTransaction(self._db)
        self._log = Checkpoint(path, checkpoint_pages)
        self._log.watch(self._db)
        self._failed = False
        """Since a write or sync failed, and until ``recover`` has succeeded, nothing may be written."""
        self._beside = self._in_loop = False
        self.waited_s = 0.0
        self._log_sync: LogSync | None = None
        self._turn = asyncio.Lock()
        """Held by whoever writes, and by the checkpoint that lets the log start over."""
        self._copying = asyncio.Lock()
        """Held during a checkpoint."""

    def wait_in_loop(self) -> None:
        """From now on the event loop goes on while another program writes.  Needs a running event loop."""
        self._in_loop = True
        self._db.set_busy_timeout(0)  # ``_begin`` waits

    def spare_syncs(self) -> None:
        """Sync with checkpoints only: what a power cut takes can be made again, and the file stays whole."""
        self._db.pragma("synchronous", "NORMAL")

    def sync_beside(self) -> None:
        """From now on sync commits in a thread, while the event loop goes on.  Needs a running event loop.

        Raises ``StoreRefused`` when the database cannot be written.
        """
        self._beside = True
        self.wait_in_loop()
        with refusing(self._path):
            self._start_log_sync()

    def _start_log_sync(self) -> None:
        log = Path(self._db.filename_wal)
        if not log.exists():  # not written otherwise: another program may be writing for long
            self._db.execute(TOUCH)
        self._db.pragma("synchronous", unsafe_sync() or "NORMAL")
        if unsafe_sync() is None:
            self._log_sync = LogSync(log)

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        create: bool,
        busy_timeout_ms: int = 250,
        checkpoint_pages: int = CHECKPOINT_PAGES,
        seals: Seals | None = None,
    ) -> SqliteStore:
        """Open the database in a directory, making or migrating it when ``create`` is set.

        ``seals``: opens the keys that are stored in it; without, those of a database that seals them cannot be used.
        Raises ``StoreRefused`` with one line that says what to do when the file is not usable.  Nothing that is not
        a database of ours is ever written to.
        """
        store = cls._open_file(directory, busy_timeout_ms, checkpoint_pages, create=create)
        store._seals = seals
        try:
            with refusing(store._path):
                if create:
                    await initialise(store._db, seals)
        except BaseException:
            drop(store._db)
            raise
        return store

    @classmethod
    def _open_file(
        cls, directory: Path, busy_timeout_ms: int, checkpoint_pages: int, *, create: bool
    ) -> SqliteStore:
        path = directory / FILE_NAME
        if not create and not path.exists():
            raise StoreRefused(f"no database in {directory}; run 'postbackd serve --data {directory}' first")
        check_sqlite()
        with refusing(path):
            if create:
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            check_not_emptied(path)
            store = cls(path, busy_timeout_ms, checkpoint_pages, create=create)
            try:
                check_and_migrate(store._db, path, create=create)
                sync_names(directory)
            except BaseException:
                drop(store._db)  # closing it otherwise could write to what is not ours
                raise
        return store

    # --- writing ---------------------------------------------------------------------------------------------

    async def write(self, batch: Batch, rulebook: Rulebook, *, patience_s: float = 0) -> Written:
        return await write_in_parts(lambda part: self._write_whole(part, rulebook), batch, _POISONED)

    async def _write_whole(self, batch: Batch, rulebook: Rulebook) -> Written:
        async def work() -> Written:
            written = await settle(self._tx, batch, rulebook, late_before())
            if batch.flow:
                self._tx.add_flow(batch.flow)
            return written

        return await self._commit(work)

    async def _change(self, work: Callable[[apsw.Connection], _T]) -> _T:
        async def change() -> _T:
            return work(self._db)

        return await self._commit(change)

    async def _commit(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Do the work in one transaction that is on the disk when this returns.  Raises ``StoreUnavailable``."""
        async with self._turn:
            return await self._commit_in_turn(work)

    async def _commit_in_turn(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        self._check_trusted()
        try:
            await self._begin()
            self._check_trusted()
            done = await work()
            pass_failpoint("before_commit")
            self._db.execute("COMMIT")
            if self._log_sync is not None:
                await self._log_sync.sync()
            pass_failpoint("after_commit")
        except apsw.BusyError as error:
            self._roll_back()
            raise StoreAway(f"another program keeps the database locked: {error}") from error
        except _POISONED:
            self._roll_back()
            raise
        except (apsw.Error, OSError) as error:
            self._failed = True
            self._roll_back()
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
        except Exception:
            self._roll_back()
            raise
        return done

    def _check_trusted(self) -> None:
        if self._failed or self._log.failed:
            raise StoreUnavailable("a write failed, and the store has not recovered yet")

    async def _begin(self) -> None:
        """Become the writer.  While another program writes, the event loop goes on."""
        began = monotonic()
        self.waited_s = 0.0
        while True:
            try:
                self._db.execute("BEGIN IMMEDIATE")
            except apsw.BusyError:
                self.waited_s = monotonic() - began
                if self.waited_s >= self._busy_timeout_ms / 1000:
                    raise
                await asyncio.sleep(_BUSY_PAUSE_S)
            else:
                return

    async def rehearse(self, batch: Batch, rulebook: Rulebook) -> Written:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            return await settle(self._tx, batch, rulebook)
        except (apsw.Error, OSError) as error:
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
        finally:
            self._roll_back()

    async def match_waiting(self, rulebook: Rulebook, since_ms: int) -> int:
        return 0  # one writer at a time: each sees what was there before

    async def find_missing(self, request_ids: Sequence[int]) -> set[int]:
        return self._ask(lambda: find_missing(self._db, request_ids))

    async def load_postbacks(self, request_ids: Sequence[int]) -> Sequence[Postback]:
        return self._ask(lambda: find_postbacks(self._db, request_ids))

    def _roll_back(self) -> None:
        """After some errors (a full disk) SQLite has rolled back already."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    async def recover(self) -> None:
        async with self._copying, self._turn:
            try:
                if self._failed or self._log.failed:
                    self._open_anew()
                else:  # another program was in the way, nothing has failed
                    await self._prove_write()
            except StoreRefused as error:
                raise StoreUnavailable(str(error)) from error
            except (apsw.Error, OSError) as error:
                raise StoreUnavailable(f"{type(error).__name__}: {error}") from error

    async def _prove_write(self) -> None:
        self._db.set_busy_timeout(0)
        try:
            self._db.execute(TOUCH)
            if self._log_sync is not None:
                await self._log_sync.sync()
        except (apsw.IOError, OSError):
            self._failed = True
            raise
        finally:
            if not self._in_loop:
                self._db.set_busy_timeout(self._busy_timeout_ms)

    def _open_anew(self) -> None:
        """Trust nothing that was in memory: read the log again, and copy all of it into the database, synced."""
        self._failed = True
        self._log.check_not_replaced()
        if self._log.failed and not self._log.keep_others_out():
            raise StoreUnavailable("the disk failed; end other programs that have the database open")
        self._stop_log_sync()
        drop(self._db)
        self._log.release()
        check_not_emptied(self._path)
        self._db = connect(self._path, 0, create=False)
        self._tx = SqliteTransaction(self._db)
        self._log.watch(self._db)
        self._db.execute(TOUCH)
        sync_names(self._path.parent)
        try:
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.IOError:
            self._log.failed = True
            raise
        self._log.emptied()
        if self._beside:
            self._start_log_sync()
        if not self._in_loop:
            self._db.set_busy_timeout(self._busy_timeout_ms)
        self._failed = False

    def _stop_log_sync(self) -> None:
        if self._log_sync is not None:
            self._log_sync.close()
            self._log_sync = None

    # --- the log of the database -----------------------------------------------------------------------------

    @property
    def wants_checkpoint(self) -> bool:
        return self._log.wanted and not self._failed and not self._log.failed

    async def checkpoint(self) -> None:
        """Copy what is new in the log into the database; start the log over when it has grown long.

        Raises ``StoreUnavailable`` when that fails.  When the disk failed, nothing is written before ``recover``.
        """
        async with self._copying:
            try:
                await self._checkpoint()
            except (apsw.BusyError, apsw.LockedError):
                return  # another checkpoint is at work; the next round gets further
            except (apsw.Error, OSError) as error:
                raise StoreUnavailable(f"{type(error).__name__}: {error}") from error

    async def _checkpoint(self) -> None:
        complete = await self._log.copy_gently()
        pass_failpoint("mid_checkpoint")
        for _ in range(_MOST_ROUNDS):
            if not self._log.overlong or not complete:
                return  # a reader still needs the log, and with it all that came later
            if self._log.left <= _FEW_PAGES:
                break
            complete = await self._log.copy_gently(spread_s=0)
        if not complete:
            return
        async with self._turn:  # nothing is added meanwhile, so the next write finds nothing left to copy
            limit_log(self._db)  # before that write lets the log start over
            await self._log.copy()

    # --- catalog, questions, upkeep --------------------------------------------------------------------------

    async def _read_catalog(self, work: Work[_T]) -> _T:
        return await self._wait(work(SqliteDatabase(self._db, self._seals)))

    async def _change_catalog(self, work: Work[_T]) -> _T:
        return await self._wait(work(SqliteDatabase(self._db, self._seals)))

    async def last_stamp(self) -> int:
        return int(self._ask(lambda: self._db.execute(LAST_STAMP).get) or 0)

    async def claim_node(self, wanted: int, now_ms: int) -> NodeLease:
        last = await self.last_stamp()
        # The lock of the directory is the lease.
        return NodeLease(wanted, stamp_ms(last) + 1 if last else 0, stamp_ms(MAX_STAMP))

    async def renew_node(self, lease: NodeLease, now_ms: int) -> NodeLease:
        return lease

    async def release_node(self, lease: NodeLease, minted_ms: int) -> None:
        """Nothing is leased."""

    async def query(self, name: str, /, **parameters: Any) -> list[dict[str, Any]]:
        return self._ask(lambda: ask(self._db, name, **parameters))

    async def look(self, targets: Sequence[int], now_ms: int, events: int) -> Look:
        return self._ask(lambda: sqlite_outbox.look(self._db, targets, now_ms, events))

    async def take_turn(self, turn: Turn) -> Sequence[Delivery]:
        chosen = self._ask(lambda: sqlite_outbox.choose(self._db, turn))
        try:
            return await self._change(lambda db: sqlite_outbox.take_turn(db, turn, chosen))
        except _POISONED as error:
            raise TurnRefused(f"{type(error).__name__}: {error}") from error

    async def release(self, holder: str | None) -> int:
        return await self._change(lambda db: sqlite_outbox.release(db, holder))

    async def resend(self, numbers: Sequence[int], now_ms: int) -> int:
        return await self._change(lambda db: sqlite_outbox.resend(db, numbers, now_ms))

    async def cancel(self, numbers: Sequence[int], now_ms: int, reason: str) -> int:
        return await self._change(lambda db: sqlite_outbox.cancel(db, numbers, now_ms, reason))

    async def examine(self) -> dict[str, str]:
        return self._ask(lambda: examine(self._db))

    async def close(self) -> None:
        self._stop_log_sync()
        async with self._copying:
            if self._log.failed:
                drop(self._db)  # whoever opens it next copies the log again, from its start
            else:
                self._db.close()
            self._log.close()

    @property
    def connection(self) -> apsw.Connection:
        """For tests and tools that look at the database itself."""
        return self._db

    def _ask(self, question: Callable[[], _T]) -> _T:
        try:
            return question()
        except (apsw.Error, OSError) as error:
            raise self._unavailable(error) from error

    async def _wait(self, question: Coroutine[Any, Any, _T]) -> _T:
        try:
            return await question
        except (apsw.Error, OSError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        self._failed |= isinstance(error, (apsw.IOError, OSError))
        return StoreUnavailable(f"{type(error).__name__}: {error}")
