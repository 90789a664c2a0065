"""The embedded store: one SQLite file, one writer at a time, a synced transaction a batch.

``synchronous=FULL`` in WAL mode: every commit is on the disk before it is answered.  A write or sync that fails is not
trusted again before ``recover`` has closed the file, opened it anew and pushed everything through a full
checkpoint, because after a failed fsync the kernel may call pages clean that never reached the disk.

Checkpoints are done by ``checkpoint`` and never in the middle of a commit: a helper thread with a connection of its
own copies the bulk of the log, then the writer copies the rest, so that the log starts over.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import apsw
from msgspec.structs import replace

from postbackd.core.click_id import first_stamp_at
from postbackd.core.diagnosis import Reason
from postbackd.core.model import Catalog, CatalogEntry, Postback, SigningKey
from postbackd.core.rulebook import Rulebook
from postbackd.core.rules import unusable
from postbackd.store import catalog, queries
from postbackd.store.base import Batch, Outcome, StoreRefused, StoreUnavailable, Written
from postbackd.store.failpoints import pass_failpoint
from postbackd.store.log_sync import LogSync
from postbackd.store.sqlite_write import SqliteTransaction, find_postbacks
from postbackd.store.write import settle

FILE_NAME = "postbackd.db"

APPLICATION_ID = 0x70624B64
"""Marks a SQLite file as ours, so that no other program's database is ever migrated."""

OLDEST_SQLITE = (3, 51, 3)
"""Older versions can corrupt a WAL database when a checkpoint meets a restart of the log."""

CHECKPOINT_PAGES = 8192
"""Pages in the log after which it is copied into the database (32 MiB)."""

_CACHE_KIB = 65_536

_BUSY_PAUSE_S = 0.001

_T = TypeVar("_T")

_DAMAGED = (apsw.NotADBError, apsw.CorruptError)
_POISONED = (
    apsw.ConstraintError,
    apsw.MismatchError,
    apsw.TooBigError,
    OverflowError,
    TypeError,
    UnicodeError,
)
"""What a row that cannot be stored raises; everything else concerns the store itself."""


class SqliteStore:
    """See ``store.base.Store`` for what each verb promises."""

    def __init__(self, path: Path, busy_timeout_ms: int) -> None:
        """Use ``SqliteStore.open``."""
        self._path = path
        self._busy_timeout_ms = busy_timeout_ms
        self._db = _connect(path, busy_timeout_ms)
        self._tx = SqliteTransaction(self._db)
        self._log_pages = 0
        self._log_sync: LogSync | None = None
        self._beside = False
        self._suspect = False  # after a failed write, until ``recover`` has succeeded
        self._watch_log()

    def sync_beside(self) -> None:
        """From now on sync commits in a thread, while the event loop goes on.  Needs a running event loop."""
        self._beside = True
        log = self._path.with_name(FILE_NAME + "-wal")
        if not log.exists():  # not written otherwise: another program may be writing for long
            self._db.execute(TOUCH)
        self._db.set_busy_timeout(0)  # ``_begin`` waits, and lets the loop go on meanwhile
        self._db.pragma("synchronous", unsafe_sync() or "NORMAL")
        if unsafe_sync() is None:
            self._log_sync = LogSync(log)

    @classmethod
    def open(cls, directory: Path, *, create: bool, busy_timeout_ms: int = 250) -> SqliteStore:
        """Open the database in a directory, making or migrating it when ``create`` is set.

        Raises ``StoreRefused`` with one line that says what to do when the file is not usable.  Nothing that is not
        a database of ours is ever written to.
        """
        path = directory / FILE_NAME
        if not create and not path.exists():
            raise StoreRefused(f"no database in {directory}; run 'postbackd serve --data {directory}' first")
        if apsw.sqlite_lib_version() and _sqlite_version() < OLDEST_SQLITE:
            raise StoreRefused(
                f"SQLite {apsw.sqlite_lib_version()} can corrupt databases; install apsw 3.51.3 or newer"
            )
        try:
            if create:
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            store = cls(path, busy_timeout_ms)
            store._check_and_migrate(create)
            return store
        except OSError as error:
            raise StoreRefused(
                f"cannot use {directory}: {error.strerror}; check the path and its owner"
            ) from error
        except _DAMAGED as error:
            raise StoreRefused(
                f"{path} is damaged or not a postbackd database ({error}); restore a backup or choose another --data"
            ) from error
        except (apsw.ReadOnlyError, apsw.CantOpenError, apsw.PermissionsError) as error:
            raise StoreRefused(
                f"cannot write {path} ({error}); make the file and its folder writable"
            ) from error
        except (apsw.BusyError, apsw.LockedError) as error:
            raise StoreRefused(f"{path} is locked by another program; stop it and try again") from error
        except (apsw.IOError, apsw.FullError) as error:
            raise StoreRefused(
                f"cannot read or write {path} ({error}); check the disk and its free space"
            ) from error

    # --- writing ---------------------------------------------------------------------------------------------

    async def write(self, batch: Batch, rulebook: Rulebook) -> Written:
        try:
            return await self._write_whole(batch, rulebook)
        except _POISONED:
            return await self._write_split(batch, rulebook)

    async def _write_whole(self, batch: Batch, rulebook: Rulebook) -> Written:
        db = self._db
        try:
            self._check_trusted()
            await self._begin()
            written = await settle(self._tx, batch, rulebook)
            if batch.flow:
                self._tx.add_flow(batch.flow)
            pass_failpoint("before_commit")
            db.execute("COMMIT")
            if self._log_sync is not None:
                await self._log_sync.sync()
                self._check_trusted()
            pass_failpoint("after_commit")
            return written
        except _POISONED:
            self._roll_back()
            raise
        except (apsw.Error, OSError) as error:
            self._suspect = True
            self._roll_back()
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error

    def _check_trusted(self) -> None:
        if self._suspect:
            raise StoreUnavailable("a write failed, and the store has not recovered yet")

    async def _begin(self) -> None:
        """Become the writer.  While another program writes, the event loop goes on."""
        deadline = monotonic() + self._busy_timeout_ms / 1000
        while True:
            try:
                self._db.execute("BEGIN IMMEDIATE")
            except apsw.BusyError:
                if monotonic() >= deadline:
                    raise
                await asyncio.sleep(_BUSY_PAUSE_S)
            else:
                return

    async def _write_split(self, batch: Batch, rulebook: Rulebook) -> Written:
        """A row that cannot be stored must not fail its neighbours: halve the batch until it stands alone."""
        clicks, postbacks = batch.clicks, batch.postbacks
        if len(clicks) + len(postbacks) <= 1:
            if clicks:
                raise StoreUnavailable("a click cannot be stored")
            poisoned = postbacks[0]
            bare = unusable(poisoned.request, Reason.BODY_MALFORMED, poisoned.parameters)
            return await self._write_whole(Batch(postbacks=[replace(bare, replay=poisoned.replay)]), rulebook)
        stamps: list[int] = []
        outcomes: list[Outcome] = []
        if clicks and postbacks:
            parts = [Batch(clicks=clicks, flow=batch.flow), Batch(postbacks=postbacks)]
        else:
            half = (len(clicks) + len(postbacks)) // 2
            parts = [
                Batch(clicks[:half], postbacks[:half], batch.flow),
                Batch(clicks[half:], postbacks[half:]),
            ]
        for part in parts:
            written = await self.write(part, rulebook)
            stamps += written.clicks
            outcomes += written.outcomes
        return Written(stamps, outcomes)

    async def rehearse(self, batch: Batch, rulebook: Rulebook) -> Written:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            return await settle(self._tx, batch, rulebook)
        except (apsw.Error, OSError) as error:
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error
        finally:
            self._roll_back()

    async def load_postbacks(self, request_ids: Sequence[int]) -> Sequence[Postback]:
        return self._ask(lambda: find_postbacks(self._db, request_ids))

    def _roll_back(self) -> None:
        """After some errors (a full disk) SQLite has rolled back already."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    async def recover(self) -> None:
        self._suspect = True
        try:
            if self._log_sync is not None:
                self._log_sync.close()
                self._log_sync = None
            _drop(self._db)
            self._db = _connect(self._path, 0)
            self._tx = SqliteTransaction(self._db)
            self._watch_log()
            self._prove_write()
            if self._beside:
                self.sync_beside()
            else:
                self._db.set_busy_timeout(self._busy_timeout_ms)
            self._suspect = False
        except (apsw.Error, OSError) as error:
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error

    def _prove_write(self) -> None:
        """A committed write, then a full checkpoint: everything in the log is written and synced once more."""
        self._db.execute(TOUCH)
        self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    # --- the log of the database -----------------------------------------------------------------------------

    def _watch_log(self) -> None:
        """Hear after each commit how long the log is; this also switches automatic checkpoints off."""

        def committed(_db: apsw.Connection, _name: str, pages: int) -> int:
            self._log_pages = pages
            return apsw.SQLITE_OK

        self._db.set_wal_hook(committed)

    @property
    def wants_checkpoint(self) -> bool:
        return self._log_pages >= CHECKPOINT_PAGES

    async def checkpoint(self) -> None:
        """Copy the log into the database.  Raises ``StoreUnavailable`` when that fails."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(None, _checkpoint_apart, self._path)
            pass_failpoint("mid_checkpoint")
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            self._log_pages = 0
        except (apsw.BusyError, apsw.LockedError):
            return  # a reader is in the way; the next round gets further
        except (apsw.Error, OSError) as error:
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error

    # --- catalog, questions, upkeep --------------------------------------------------------------------------

    async def load_catalog(self, *, removed: bool = False) -> Catalog:
        return self._ask(lambda: catalog.load_catalog(self._db, removed=removed))

    async def catalog_generation(self) -> int:
        return self._ask(lambda: catalog.generation(self._db))

    async def save(self, entry: CatalogEntry) -> CatalogEntry:
        return self._ask(lambda: catalog.save_entry(self._db, entry))

    async def change_catalog(
        self, saves: Sequence[CatalogEntry], removals: Sequence[CatalogEntry], now_ms: int
    ) -> Sequence[CatalogEntry]:
        return self._ask(lambda: catalog.change_catalog(self._db, saves, removals, now_ms))

    async def rotate_signing_key(
        self, secret: bytes, *, now_ms: int, active_from_ms: int, keep: int
    ) -> Sequence[SigningKey]:
        return self._ask(
            lambda: catalog.rotate_signing_key(
                self._db, secret, now_ms=now_ms, active_from_ms=active_from_ms, keep=keep
            )
        )

    async def last_stamp(self) -> int:
        return int(self._ask(lambda: self._db.execute(LAST_STAMP).get) or 0)

    async def query(self, name: str, /, **parameters: Any) -> list[dict[str, Any]]:
        return self._ask(lambda: queries.run(self._db, name, **parameters))

    async def purge(self, before_ms: int, limit: int) -> int:
        return self._ask(lambda: _purge(self._db, before_ms, limit))

    async def examine(self) -> dict[str, str]:
        return self._ask(lambda: _examine(self._db))

    async def close(self) -> None:
        if self._log_sync is not None:
            self._log_sync.close()
        self._db.close()

    @property
    def connection(self) -> apsw.Connection:
        """For tests and tools that look at the database itself."""
        return self._db

    def _ask(self, question: Callable[[], _T]) -> _T:
        try:
            return question()
        except (apsw.Error, OSError) as error:
            raise StoreUnavailable(f"{type(error).__name__}: {error}") from error

    # --- opening ---------------------------------------------------------------------------------------------

    def _check_and_migrate(self, create: bool) -> None:
        db = self._db
        application = db.pragma("application_id")
        version = db.pragma("user_version")
        empty = db.pragma("schema_version") == 0
        if not empty and application != APPLICATION_ID:
            raise StoreRefused(f"{self._path} belongs to another program; choose another --data")
        newest = len(migrations())
        if version > newest:
            raise StoreRefused(
                f"{self._path} was made by a newer postbackd (schema {version}, this one knows {newest}); "
                "run the newer version"
            )
        if self._path.stat().st_mode & 0o077:
            self._path.chmod(0o600)  # before the log exists, which is made with the same mode
        _configure(db)
        if version < newest and create:
            _migrate(db, version)
            catalog.initialise(db)
        elif version < newest:
            raise StoreRefused(f"{self._path} has an old schema; start 'postbackd serve' once to migrate it")


TOUCH = "INSERT INTO settings (name, value) VALUES ('opened', 1) ON CONFLICT DO UPDATE SET value = value + 1"
# A small write, to prove that writing works; counts how often the server opened the database.

LAST_STAMP = """
SELECT max(coalesce((SELECT max(click_id) FROM clicks), 0), coalesce((SELECT max(request_id) FROM postbacks), 0),
           coalesce((SELECT value FROM settings WHERE name = 'last_stamp'), 0))
"""  # The largest stamp in use.


def _sqlite_version() -> tuple[int, ...]:
    return tuple(int(part) for part in apsw.sqlite_lib_version().split("."))


def _connect(path: Path, busy_timeout_ms: int) -> apsw.Connection:
    db = apsw.Connection(str(path))
    db.set_busy_timeout(busy_timeout_ms)
    _tune(db)
    return db


def _drop(db: apsw.Connection) -> None:
    """Close without a checkpoint: the log is read and checked anew first."""
    try:
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    except apsw.ConnectionClosedError:
        return  # by a recovery that got no further
    db.close(force=True)


def _tune(db: apsw.Connection) -> None:
    """Settings of a connection; none of them writes to the file."""
    db.pragma("cache_size", -_CACHE_KIB)
    db.pragma("synchronous", unsafe_sync() or "FULL")
    db.pragma("temp_store", "MEMORY")
    db.pragma("foreign_keys", 1)


def _configure(db: apsw.Connection) -> None:
    """Settings that the file keeps."""
    if db.pragma("journal_mode", "wal") != "wal":
        raise StoreRefused("the file system cannot hold a write-ahead log; use a local disk")


def unsafe_sync() -> str | None:
    """``POSTBACKD_UNSAFE_SYNC``: for negative controls of the trust campaign only; loses acknowledged rows."""
    word = os.environ.get("POSTBACKD_UNSAFE_SYNC", "").upper()
    return word if word in ("NORMAL", "OFF") else None


def migrations() -> list[str]:
    """The numbered migrations, oldest first."""
    folder = resources.files("postbackd.store") / "migrations"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return [file.read_text("utf-8") for file in files]


def _migrate(db: apsw.Connection, version: int) -> None:
    """Bring the schema to the newest version, in one transaction."""
    with db:
        for number, sql in enumerate(migrations()[version:], start=version + 1):
            db.execute(_without_unique_key(sql))
            pass_failpoint("mid_migration")
            db.pragma("user_version", number)
        db.pragma("application_id", APPLICATION_ID)


def _without_unique_key(sql: str) -> str:
    """``POSTBACKD_UNSAFE_NO_UNIQUE``: for negative controls of the trust campaign only; counts doubles."""
    if os.environ.get("POSTBACKD_UNSAFE_NO_UNIQUE") != "1":
        return sql
    key = "CONSTRAINT counted_once PRIMARY KEY (click_id, type, transaction_id)"
    return sql.replace(
        key, "CONSTRAINT counted_once PRIMARY KEY (click_id, type, transaction_id, conversion_id)"
    )


def _checkpoint_apart(path: Path) -> None:
    """Copy what is in the log into the database, beside the writer."""
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        _tune(db)
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    finally:
        db.close()


KEEP_LAST_STAMP = f"""
INSERT INTO settings (name, value) SELECT 'last_stamp', ({LAST_STAMP})
WHERE true ON CONFLICT DO UPDATE SET value = excluded.value
"""  # Stamps are never given out twice, even when every row that had one is gone.

PURGE_HORIZON = """
INSERT INTO settings (name, value) VALUES ('purged_before', :before)
ON CONFLICT DO UPDATE SET value = max(value, excluded.value)
"""  # From now on, an id that verifies but is older than this was purged.

PURGE_OWN_IDS = """
DELETE FROM own_ids WHERE own_id IN (
    SELECT own_id FROM clicks WHERE click_id < :before AND own_id IS NOT NULL ORDER BY click_id LIMIT :limit)
"""  # The own ids of the clicks that are purged next.

PURGE_CLICKS = """
DELETE FROM clicks WHERE click_id IN (
    SELECT click_id FROM clicks WHERE click_id < :before ORDER BY click_id LIMIT :limit)
"""  # The oldest clicks.

PURGE_WAITING = """
DELETE FROM waiting WHERE request_id IN (
    SELECT request_id FROM postbacks WHERE request_id < :before ORDER BY request_id LIMIT :limit)
"""  # Postbacks that are purged next wait no longer.

PURGE_POSTBACKS = """
DELETE FROM postbacks WHERE request_id IN (
    SELECT request_id FROM postbacks WHERE request_id < :before ORDER BY request_id LIMIT :limit)
"""  # The oldest rows of the postback log.


def _examine(db: apsw.Connection) -> dict[str, str]:
    synchronous = {0: "off", 1: "normal", 2: "full", 3: "full"}
    return {
        "journal mode": str(db.pragma("journal_mode")),
        "synchronous": synchronous.get(db.pragma("synchronous"), "unknown"),
        "integrity": str(db.pragma("quick_check")),
    }


def _purge(db: apsw.Connection, before_ms: int, limit: int) -> int:
    parameters = {"before": first_stamp_at(before_ms), "limit": limit}
    with db:
        db.execute(KEEP_LAST_STAMP)
        db.execute(PURGE_HORIZON, parameters)
        before = db.total_changes()
        db.execute(PURGE_OWN_IDS, parameters)
        db.execute(PURGE_WAITING, parameters)
        db.execute(PURGE_CLICKS, parameters)
        db.execute(PURGE_POSTBACKS, parameters)
        pass_failpoint("mid_purge")
    return db.total_changes() - before
