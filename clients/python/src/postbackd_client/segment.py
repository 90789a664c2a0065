"""One file of the spool: conversions in the order in which they came, and how far they are settled.

The file is a SQLite database that one process has to itself: it holds a lock (``flock``) on ``NAME.lock`` for as
long as it has the file, uses one connection, and SQLite is told that nobody else comes
(``locking_mode=EXCLUSIVE``).  Several connections of one file are what the error in WAL mode needs that SQLite had
until 3.51.3.

Rows are appended and never changed.  What is settled is a number, ``settled``: everything up to it is done, but for
what stands in ``later``.  So settling two hundred conversions writes one small page, and a caller who appends
meanwhile waits for microseconds.  A file is not emptied: it is followed by another one when it is large, and
removed when it is done.

A commit hands its pages to the kernel and does not wait for the disk: what was appended survives the end of the
process, however it ends.  ``sync`` brings it to the disk.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from postbackd_client.files import (
    LOCK_SUFFIX,
    Held,
    Lock,
    claim_name,
    log_path,
    remove,
    sync_directory,
    sync_file,
)

log = logging.getLogger("postbackd_client")

_PAGE_BYTES = 1024
"""Small, because each commit writes whole pages: measured 173,000 appends a second, against 122,000 with 4096."""

_SCHEMA = (
    "CREATE TABLE waiting (id INTEGER PRIMARY KEY, made INTEGER NOT NULL, payload TEXT NOT NULL)",
    "CREATE TABLE later (id INTEGER PRIMARY KEY, attempts INTEGER NOT NULL, due REAL NOT NULL)",
    "CREATE TABLE progress (settled INTEGER NOT NULL)",
    "INSERT INTO progress VALUES (0)",
)
_TABLES = 3
_APPEND = "INSERT INTO waiting (made, payload) VALUES (?, ?)"
_ROW = "CAST(coalesce(made, 0) AS INTEGER), CAST(coalesce(payload, '') AS TEXT)"
"""Whatever a damaged page says: what is no conversion is found where it is read, and kept as dead."""
_FRESH = f"SELECT id, {_ROW}, 0 FROM waiting WHERE id > ? ORDER BY id LIMIT ?"
_DUE = f"SELECT later.id, {_ROW}, attempts FROM later JOIN waiting USING (id) WHERE due <= ? ORDER BY due LIMIT ?"
_SETTLE = "UPDATE progress SET settled = ?"
_POSTPONE = "INSERT OR REPLACE INTO later (id, attempts, due) VALUES (?, ?, ?)"
_DONE_LATE = "DELETE FROM later WHERE id = ?"


class Row(NamedTuple):
    """One conversion that waits."""

    number: int
    made_s: int
    payload: str
    attempts: int


class Segment:
    """A file that this process has.  Everything but ``append`` is for one thread; ``lock`` guards the connection."""

    def __init__(self, path: Path, file: int, lock: Lock, connection: sqlite3.Connection) -> None:
        """``file``: open since before SQLite opened it, because closing it any earlier would drop SQLite's own
        locks."""
        self.path = path
        self._file = file
        self.lock = threading.RLock()
        self.closed = False
        self._retired = False
        self._said_unnoted = False
        self._unnoted: Set[int] = set()
        """Done, though ``later`` still holds them: the disk did not take that."""
        self._file_lock = lock
        self._connection = connection
        self._settled = int(connection.execute("SELECT settled FROM progress").fetchone()[0])
        self._last = int(connection.execute("SELECT coalesce(max(id), 0) FROM waiting").fetchone()[0])
        self._late = int(connection.execute("SELECT count(*) FROM later").fetchone()[0])
        self._next_due = self._find_next_due()
        if self._settled > self._last:
            raise sqlite3.DatabaseError("more is settled than there is")
        self._log_file = os.open(log_path(path), os.O_RDONLY | os.O_CLOEXEC)
        self._is_new = True
        self._is_synced = False
        self.synced = 0
        """Up to this number, conversions are on the disk."""
        _keep_for_ever(connection)

    # --- opening and closing --------------------------------------------------------------------------------------

    @classmethod
    def create(cls, directory: Path, tracker: str) -> Segment:
        """A new, empty file.  Raises ``OSError`` or ``sqlite3.Error`` when there cannot be one.

        ``tracker``: the fingerprint of the endpoint for which it is; part of the name.
        """
        path, lock = claim_name(directory, tracker)
        return cls._open(path, lock, os.O_CREAT | os.O_EXCL)

    @classmethod
    def adopt(cls, path: Path) -> Segment:
        """A file that another process has left.

        Raises ``Held`` when somebody has it, and ``sqlite3.DatabaseError`` when it cannot be read.
        """
        lock = Lock(path.with_suffix(LOCK_SUFFIX))
        if not path.exists():
            remove(path)
            lock.release()
            raise Held(str(path))
        return cls._open(path, lock, 0)

    @classmethod
    def _open(cls, path: Path, lock: Lock, flags: int) -> Segment:
        file, connection = -1, None
        try:
            # SQLite gives its log the mode of the database; what is reported is nobody else's business.
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
            connection = _connect(path)
            return cls(path, file, lock, connection)
        except BaseException:
            if connection is not None:
                connection.close()
            if file >= 0:
                os.close(file)
                if flags:
                    remove(path)
            lock.release()
            raise

    def close(self) -> None:
        """Give the file up.  What is not settled stays in it for whoever comes next."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
            if self.is_finished:
                with contextlib.suppress(OSError):  # the directory is read-only: whoever comes next does it
                    remove(self.path)
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("PRAGMA synchronous=OFF")
            os.close(self._log_file)
            _close(self._connection)
            os.close(self._file)
            self._file_lock.release()

    def discard(self) -> int:
        """Remove the file with all that is in it; returns how many conversions that were."""
        with self.lock:
            lost = 0 if self.closed else self.waiting
            self._settled, self._late = self._last, 0
        self.close()
        return lost

    def forget(self) -> None:
        """In a forked child: let go of the parent's file without touching it.

        The connection is never closed here, not even when the interpreter ends: SQLite would clear away the
        parent's log.
        """
        self.closed = True
        self._file_lock.release()
        os.close(self._log_file)
        os.close(self._file)

    # --- adding ---------------------------------------------------------------------------------------------------

    def append(self, made_s: int, payload: str) -> int:
        """Add one conversion and return its number; 0 when nothing is added any more.  Raises ``sqlite3.Error``."""
        with self.lock:
            if self._retired or self.closed:
                return 0
            if self._connection.in_transaction:  # a destructor has interrupted this very thread's settling
                raise sqlite3.OperationalError("the file is just being written")
            number = int(self._connection.execute(_APPEND, (made_s, payload)).lastrowid or 0)
            self._last = max(self._last, number)  # a signal handler may have added another meanwhile
            self._is_synced = False
            return number

    def retire(self) -> None:
        """Nothing is added any more."""
        with self.lock:
            self._retired = True

    def sync(self) -> None:
        """Bring everything that was appended before this call to the disk.

        Raises ``OSError``: then nobody knows what has arrived there.
        """
        reached = self._last
        self._is_synced = True
        try:
            sync_file(self._log_file)
            if self._is_new:
                sync_file(self._file)
                sync_directory(self.path.parent)
                self._is_new = False
        except OSError:
            self._is_synced = False
            raise
        self.synced = reached

    @property
    def is_synced(self) -> bool:
        return self._is_synced

    @property
    def bytes_on_disk(self) -> int:
        with self.lock:  # nobody closes it meanwhile
            if self.closed:
                return 0
            return os.fstat(self._log_file).st_size + os.fstat(self._file).st_size

    # --- sending --------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        return self._last - self._settled + self._late

    @property
    def is_finished(self) -> bool:
        return self._last == self._settled and not self._late

    @property
    def next_due_s(self) -> float:
        """When the next conversion may be sent: 0 for at once, infinity for never."""
        return 0.0 if self._last > self._settled else self._next_due

    def take(self, now_s: float, limit: int) -> List[Row]:
        """Up to so many conversions that may be sent now: first those whose next attempt is due.

        Raises ``sqlite3.DatabaseError`` when the file is damaged.
        """
        with self.lock:
            if self.closed:
                return []
            found = self._read_due(now_s, limit) if self._next_due <= now_s else []
            if not found:
                found = self._read_fresh(limit)
        return [Row(*row) for row in found]

    def _read_due(self, now_s: float, limit: int) -> List[Tuple[int, int, str, int]]:
        rows = self._connection.execute(_DUE, (now_s, limit + len(self._unnoted))).fetchall()
        return [row for row in rows if row[0] not in self._unnoted][:limit]

    def _read_fresh(self, limit: int) -> List[Tuple[int, int, str, int]]:
        """As far as the file is whole: what comes before a damaged page is sent."""
        found: List[Tuple[int, int, str, int]] = []
        last = self._settled
        try:
            for row in self._connection.execute(_FRESH, (last, limit)):
                if not last < row[0] <= self._last:
                    break
                last = row[0]
                found.append(row)
        except sqlite3.DatabaseError:
            if not found:
                raise
        if not found and self._last > self._settled:
            raise sqlite3.DatabaseError("conversions that it should hold are not there, or out of order")
        return found

    def settle(self, rows: Sequence[Row], postponed: Sequence[Tuple[Row, float]] = ()) -> None:
        """Note that these rows of one ``take`` are done, but for those that are to be tried again at a time.

        When that cannot be written, those that are done are remembered for as long as the process lives: a full
        disk must not send the same conversion over and over.  Raises ``sqlite3.Error`` when some are postponed:
        those stay where they are.
        """
        fresh = not rows[0].attempts
        with self.lock:
            if self.closed:
                return
            try:
                self._write_settled(rows, postponed, fresh)
            except sqlite3.Error as error:
                if postponed:
                    raise
                if not fresh:
                    self._unnoted.update(row.number for row in rows)
                self._say_unnoted(error)
            self._is_synced = False
            if fresh:
                self._settled = rows[-1].number
                self._late += len(postponed)
            else:
                self._late -= len(rows) - len(postponed)
            if postponed or not fresh:
                self._next_due = self._find_next_due()

    def _say_unnoted(self, error: sqlite3.Error) -> None:
        """Once a file: as long as the disk is full, this happens with everything that is sent."""
        if not self._said_unnoted:
            self._said_unnoted = True
            log.warning(
                "what was sent cannot be noted in the spool (%s); after a crash it is sent again", error
            )

    def _write_settled(
        self, rows: Sequence[Row], postponed: Sequence[Tuple[Row, float]], fresh: bool
    ) -> None:
        with _transaction(self._connection):
            if fresh:
                self._connection.execute(_SETTLE, (rows[-1].number,))
            else:
                done = self._unnoted.union(row.number for row in rows)
                self._connection.executemany(_DONE_LATE, [(number,) for number in done])
            if postponed:
                values = [(row.number, row.attempts + 1, due_s) for row, due_s in postponed]
                self._connection.executemany(_POSTPONE, values)
        if not fresh:
            self._unnoted.clear()

    def hasten(self) -> None:
        """What was to be tried again later may be tried now: the tracker is back."""
        with self.lock:
            if self._late and not self.closed:
                with contextlib.suppress(sqlite3.Error):  # a full disk: they wait for their time
                    self._connection.execute("UPDATE later SET due = 0")
                    self._next_due = 0.0

    def oldest_s(self) -> Optional[int]:
        """When the oldest conversion that waits was made; ``None`` when none waits."""
        with self.lock:
            if self.closed or self.is_finished:
                return None
            return find_oldest(self._connection, self._settled)

    def _find_next_due(self) -> float:
        if not self._late:
            return float("inf")
        for number, due_s in self._connection.execute("SELECT id, due FROM later ORDER BY due"):
            if number not in self._unnoted:
                return float(due_s)
        return float("inf")


def find_oldest(connection: sqlite3.Connection, settled: int) -> Optional[int]:
    """When the oldest conversion of a file that waits was made."""
    found = connection.execute(
        "SELECT min(made) FROM (SELECT made FROM waiting WHERE id = (SELECT min(id) FROM later)"
        " UNION ALL SELECT made FROM (SELECT made FROM waiting WHERE id > ? ORDER BY id LIMIT 1))",
        (settled,),
    ).fetchone()[0]
    return None if found is None else int(found)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


# --- files ------------------------------------------------------------------------------------------------------------


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(str(path), isolation_level=None, check_same_thread=False, timeout=1)
    try:
        # Before the first look at the file: then SQLite keeps the index of its log to itself and makes no -shm.
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")  # of a damaged page
        # A new file is brought to the disk by the first ``sync``, so that whoever reports the first conversion
        # waits not.
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        _make_tables(connection)
        # Makes the log where there is none, as after a clean end.
        connection.execute("UPDATE progress SET settled = settled")
        connection.execute("PRAGMA synchronous=NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection


def _make_tables(connection: sqlite3.Connection) -> None:
    (count,) = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()
    if count == _TABLES:
        return
    if count:
        raise sqlite3.DatabaseError("it has not the tables of a spool")
    with _transaction(connection):
        for statement in _SCHEMA:
            connection.execute(statement)


def _keep_for_ever(connection: sqlite3.Connection) -> None:
    """Keep the interpreter from closing a connection by itself.

    A forked child has a copy, and at its end the interpreter would close it.  When the parent was killed meanwhile,
    SQLite would take itself for the last user, and remove the log with what the parent has added since the fork.
    """
    try:
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
    except (
        ImportError,
        AttributeError,
    ):  # an interpreter that counts no references closes nothing by itself either
        _kept.append(connection)


def _close(connection: sqlite3.Connection) -> None:
    """Close it on purpose."""
    with contextlib.suppress(sqlite3.Error):  # a full disk: the log stays, and is read by whoever comes next
        connection.close()
    try:
        import ctypes

        ctypes.pythonapi.Py_DecRef(ctypes.py_object(connection))
    except (ImportError, AttributeError):
        _kept.remove(connection)


_kept: List[sqlite3.Connection] = []
