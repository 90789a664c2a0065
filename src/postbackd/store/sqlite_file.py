"""The file of the embedded store: opening, checking and migrating it.

A file that is not ours, is damaged, or comes from a newer version is refused with one line that says what to do, and
nothing is written to it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import apsw

from postbackd.store.base import StoreRefused
from postbackd.store.failpoints import pass_failpoint

FILE_NAME = "postbackd.db"

APPLICATION_ID = 0x70624B64
"""Marks a SQLite file as ours, so that no other program's database is ever migrated."""

OLDEST_SQLITE = (3, 51, 3)
"""Older versions can corrupt a WAL database when a checkpoint meets a restart of the log."""

_CACHE_KIB = 16_384

_LOG_LIMIT = 256 * 1024 * 1024
"""What a log that had to grow beyond it, for a long reader, is cut to when it starts over, in bytes."""

REPLICATOR_STATE = f".{FILE_NAME}-litestream"
"""Where Litestream keeps, beside the database, how far it has read the log."""

_DAMAGED = (apsw.NotADBError, apsw.CorruptError)


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Every way in which a file can be unusable, as one line that says what to do."""
    try:
        yield
    except OSError as error:
        raise StoreRefused(
            f"cannot use {path.parent}: {error.strerror}; check the path and its owner"
        ) from error
    except _DAMAGED as error:
        raise StoreRefused(
            f"{path} is damaged or not a postbackd database ({error}); restore a backup or choose another --data"
        ) from error
    except (apsw.ReadOnlyError, apsw.CantOpenError, apsw.PermissionsError) as error:
        raise StoreRefused(f"cannot write {path} ({error}); make the file and its folder writable") from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise StoreRefused(f"{path} is locked by another program; stop it and try again") from error
    except (apsw.IOError, apsw.FullError) as error:
        raise StoreRefused(
            f"cannot read or write {path} ({error}); check the disk and its free space"
        ) from error


def check_not_emptied(path: Path) -> None:
    """SQLite would take a database of 0 bytes for a new one, and throw its log away."""
    log = path.with_name(f"{FILE_NAME}-wal")
    emptied = path.exists() and path.stat().st_size == 0
    if emptied and log.exists() and log.stat().st_size > 0:
        raise StoreRefused(f"{path} is empty but its log is not: restore the file from a backup")


def check_sqlite() -> None:
    """Raises ``StoreRefused`` when the library itself is not safe."""
    if _version_of_sqlite() < OLDEST_SQLITE:
        raise StoreRefused(
            f"SQLite {apsw.sqlite_lib_version()} can corrupt databases; install apsw 3.51.3 or newer"
        )


def check_and_migrate(db: apsw.Connection, path: Path, *, create: bool) -> None:
    """Make sure that the open file is a current database of ours.  Raises ``StoreRefused``."""
    application = db.pragma("application_id")
    version = db.pragma("user_version")
    empty = db.pragma("schema_version") == 0
    if not empty and application != APPLICATION_ID:
        raise StoreRefused(f"{path} belongs to another program; choose another --data")
    newest = len(migrations())
    if version > newest:
        raise StoreRefused(
            f"{path} was made by a newer postbackd (schema {version}, this one knows {newest}); "
            "run the newer version"
        )
    if create and db.readonly("main"):
        raise StoreRefused(f"cannot write {path}; make the file and its folder writable")
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)  # before the log exists, which is made with the same mode
    _configure(db)
    if version < newest and create:
        _migrate(db, version)
    elif version < newest:
        raise StoreRefused(f"{path} has an old schema; start 'postbackd serve' once to migrate it")


def _version_of_sqlite() -> tuple[int, ...]:
    return tuple(int(part) for part in apsw.sqlite_lib_version().split("."))


def connect(path: Path, busy_timeout_ms: int, *, create: bool) -> apsw.Connection:
    """A connection with our settings.

    Without ``create`` a file that is not there is an error: SQLite would make an empty one, and throw away the log that
    belongs to the one that was there.
    """
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
    db = apsw.Connection(str(path), flags=flags)
    db.set_busy_timeout(busy_timeout_ms)
    tune(db)
    return db


def sync_names(directory: Path) -> None:
    """Sync the names of the files in a directory, the log's above all.  Raises ``OSError``.

    SQLite does this at its first sync of a new log, and ignores a failure (unixSync in os_unix.c): after a power cut
    the log could be gone, and every commit in it.
    """
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def drop(db: apsw.Connection) -> None:
    """Close without a checkpoint: the log is read and checked anew first."""
    try:
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    except apsw.ConnectionClosedError:
        return  # by a recovery that got no further
    db.close(force=True)


def tune(db: apsw.Connection) -> None:
    """Settings of a connection; none of them writes to the file."""
    db.pragma("cache_size", -_CACHE_KIB)
    db.pragma("synchronous", unsafe_sync() or "FULL")
    limit_log(db)
    db.pragma("temp_store", "MEMORY")
    db.pragma("foreign_keys", 1)


def limit_log(db: apsw.Connection) -> None:
    """Say what the file of the log is cut to when this connection lets the log start over.

    To what is in use, where Litestream (0.5.17) replicates the database: when the log starts over in place while
    Litestream is not running, it finds the end of what it has read still where it was, goes on with the new log, and
    what was written in between is missing in the replica for ever, unnoticed.  A log that was cut it takes for what
    it is, and copies the whole database.
    """
    db.pragma("journal_size_limit", 0 if is_replicated(Path(db.filename)) else _LOG_LIMIT)


def is_replicated(path: Path) -> bool:
    """Whether Litestream has ever replicated the database with this path.

    ``POSTBACKD_UNSAFE_REPLICATION``: for negative controls of the trust campaign only; the replica can miss rows.
    """
    if os.environ.get("POSTBACKD_UNSAFE_REPLICATION") == "1":
        return False
    return path.with_name(REPLICATOR_STATE).is_dir()


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
    folder = resources.files("postbackd.store") / "migrations" / "sqlite"
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


TOUCH = "INSERT INTO settings (name, value) VALUES ('opened', 1) ON CONFLICT DO UPDATE SET value = value + 1"
# A small write, to prove that writing works; counts how often the server opened the database.


def examine(db: apsw.Connection) -> dict[str, str]:
    """The settings that durability depends on, and whether the file is whole."""
    synchronous = {0: "off", 1: "normal", 2: "full", 3: "full"}
    return {
        "journal mode": str(db.pragma("journal_mode")),
        "synchronous": synchronous.get(db.pragma("synchronous"), "unknown"),
        "integrity": str(db.pragma("quick_check")),
        "schema": str(db.pragma("user_version")),
    }
