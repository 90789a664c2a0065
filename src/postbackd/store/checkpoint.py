"""Copies the write-ahead log into the database (a checkpoint) so gently that no commit waits for it.

Three things would be felt by whoever commits at the same time, and each has its remedy here:

- SQLite syncs the database only when nothing is left in the log, and then thousands of pages at once.  Here they are
  synced after each copy.
- The pages of one sync fill the queue of the disk, and the sync of a commit waits behind them.  ``copy_gently`` hands
  them to the disk a few at a time.
- The copying takes the processor from the event loop.  ``copy_gently`` does it in a thread of the lowest priority.

SQLite keeps beside the file how much of the log is copied, for as long as any program has the file open, and never
copies that again.  So after a failed sync (``Checkpoint.failed``) the file has to be closed by everybody first.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import apsw

from postbackd.store.sqlite_file import is_replicated, limit_log, tune

STEP_PAGES = 512
"""New pages in the log that are worth copying (2 MiB)."""

REPLICATED_PAGES = 32_768
"""The same where Litestream replicates the database (128 MiB).

It keeps others from starting the log over by reading it, and copies it itself, every second when 1,000 pages are in it.
A reader who comes when all is copied reads no log, and keeps nobody from anything; so nobody else may copy beside
Litestream, or it misses rows.  This much comes together when it is not running.
"""

_PARTS = 100
"""In how many parts of the file its new pages are handed to the disk."""

_SPREAD_S = 0.1
"""Over how long."""

_LOWEST_PRIORITY = 19

_WAIT_WRITE_WAIT = 7
"""``SYNC_FILE_RANGE_WAIT_BEFORE | WRITE | WAIT_AFTER``, see sync_file_range(2)."""

_NOT_OFFERED = (errno.ENOSYS, errno.EINVAL, errno.EPERM)

_SHARED_FIRST, _SHARED_SIZE = 0x4000_0002, 510
"""The bytes of a database that SQLite locks shared while it has it open (its "unix" VFS, os_unix.c)."""


class Checkpoint:
    """The log of one database: how long it is, how much of it is copied, and the copying.

    Only one copy may be under way.  One object a database and process: see ``release``.
    """

    def __init__(self, path: Path, most_pages: int) -> None:
        """``most_pages``: pages after which the log has to start over."""
        self._path = path
        self._most_pages = most_pages
        self._pages = self._copied = 0
        self._file: int | None = None
        self._hurry = threading.Event()
        self._gentle = ThreadPoolExecutor(1, "gentle checkpoint", initializer=_let_others_go_first)
        self._quick = ThreadPoolExecutor(1, "checkpoint")
        self.failed = False
        """Since a copy failed: what is copied may be missing on the disk."""

    def watch(self, db: apsw.Connection) -> None:
        """Hear after each commit how long the log is; this also switches automatic checkpoints off."""
        db.set_wal_hook(self._committed)

    def _committed(self, db: apsw.Connection, _name: str, pages: int) -> int:
        if pages < self._pages:  # the log has started over
            limit_log(db)  # somebody may have begun to replicate it
        if pages < self._copied:
            self._copied = 0
        self._pages = pages
        return apsw.SQLITE_OK

    def emptied(self) -> None:
        """The whole log has been copied and synced, by whoever opened the database anew, and is empty."""
        self._pages = self._copied = 0
        self.failed = False

    @property
    def left(self) -> int:
        """Pages of the log that are not copied yet."""
        return self._pages - self._copied

    @property
    def wanted(self) -> bool:
        """Whether there is enough to copy."""
        if self.left < min(STEP_PAGES, self._most_pages):
            return False
        return self.left >= REPLICATED_PAGES or not is_replicated(self._path)

    @property
    def overlong(self) -> bool:
        """Whether the log has to start over."""
        return self._pages >= self._most_pages

    async def copy_gently(self, *, spread_s: float = _SPREAD_S) -> bool:
        """Copy and sync what is in the log now; returns whether no reader kept anything back.

        ``spread_s``: over how long the disk is handed what was copied.  As ``copy`` when the log is twice as long as it
        should be: on a busy processor the lowest priority gets little.  Raises ``OSError`` or ``apsw.Error``.
        """
        if self._pages >= 2 * self._most_pages:
            return await self.copy()
        return await self._copy_in(self._gentle, spread_s)

    async def copy(self) -> bool:
        """As ``copy_gently``, at once.  When nobody writes meanwhile, the next commit lets the log start over."""
        return await self._copy_in(self._quick, 0)

    async def _copy_in(self, thread: ThreadPoolExecutor, spread_s: float) -> bool:
        pages = self._pages
        copying = asyncio.get_running_loop().run_in_executor(thread, self._copy_and_sync, spread_s)
        try:
            self._copied = await asyncio.shield(copying)
        except asyncio.CancelledError:
            self._hurry.set()
            await asyncio.wait([copying])  # nobody may take it for ended before it has
            raise
        return self._copied >= pages

    def _copy_and_sync(self, spread_s: float) -> int:
        try:
            file = self._opened()
            self.check_not_replaced()
            copied = _copy(self._path)
            if spread_s:
                self._hand_over(file, spread_s)
            os.fdatasync(file)
        except (apsw.IOError, OSError):
            self.failed = True
            raise
        return copied

    def _hand_over(self, file: int, spread_s: float) -> None:
        """Let the disk have what is new in a file part by part, over a time.  Promises nothing: a sync does.

        Raises ``OSError`` for a page that could not be written: it is reported once, and not to the sync after this.
        """
        size = os.fstat(file).st_size
        part = max(size // _PARTS, 1)
        begun = monotonic()
        for start in range(0, size, part):
            if _sync_file_range(file, start, part, _WAIT_WRITE_WAIT) != 0:
                number = ctypes.get_errno()
                if number in _NOT_OFFERED:
                    return
                raise OSError(number, os.strerror(number))
            ahead = begun + spread_s * (start / size) - monotonic()
            if self._hurry.wait(max(ahead, 0)):
                return

    def _opened(self) -> int:
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        return self._file

    def check_not_replaced(self) -> None:
        """Raises ``OSError`` when another file has taken the place of the database, or none."""
        if self._file is not None and not os.path.samestat(os.fstat(self._file), self._path.stat()):
            raise OSError(errno.ESTALE, f"{self._path} is not the file that was opened; put that back")

    def keep_others_out(self) -> bool:
        """Whether no other process has the database open, by the lock that SQLite holds for as long.

        When so, none can open it before the connections of this process are closed, which has to be done now.
        """
        try:
            fcntl.lockf(self._opened(), fcntl.LOCK_EX | fcntl.LOCK_NB, _SHARED_SIZE, _SHARED_FIRST)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Close the file.  Only while no connection of this process to the database is open.

        POSIX takes all locks of a process on a file away when the process closes any descriptor of it.
        """
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def close(self) -> None:
        """End the threads and close the file; see ``release``."""
        self._hurry.set()
        self._gentle.shutdown()
        self._quick.shutdown()
        self.release()


def _copy(path: Path) -> int:
    """Copy what no reader keeps in the log; returns how many pages of the log are copied in all.

    SQLite syncs the log before, and the database after it when nothing is left.
    """
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        tune(db)
        _, copied = db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    finally:
        db.close()
    return copied


_sync_file_range = ctypes.CDLL(None, use_errno=True).sync_file_range
_sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def _let_others_go_first() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
