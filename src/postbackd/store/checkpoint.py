"""Copies the write-ahead log into the database (a checkpoint) so gently that no commit waits for it.

Three things would be felt by whoever commits at the same time, and each has its remedy here:

- SQLite syncs the database only when nothing is left in the log, and then thousands of pages at once.  ``copy`` syncs
  them itself, each time.
- The pages of one sync fill the queue of the disk, and the sync of a commit waits behind them.  ``copy`` hands them to
  the disk a few at a time.
- The copying takes the processor from the event loop.  It is done by a thread of the lowest priority.

``finish`` is for the end, when nobody writes meanwhile: it copies and syncs what is left at the usual priority, so that
the log can start over.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import apsw

from postbackd.store.sqlite_file import tune

STEP_PAGES = 512
"""New pages in the log that are worth copying (2 MiB)."""

_PARTS = 100
"""In how many parts of the file its new pages are handed to the disk."""

_LOWEST_PRIORITY = 19

_WAIT_WRITE_WAIT = 7
"""``SYNC_FILE_RANGE_WAIT_BEFORE | WRITE | WAIT_AFTER`` of Linux, see sync_file_range(2)."""

_SHARED_FIRST, _SHARED_SIZE = 0x4000_0002, 510
"""The bytes of a database that SQLite locks shared while it has it open (its "unix" VFS, os_unix.c)."""


class Checkpoint:
    """The log of one database: how long it is, how much of it is copied, and the copying.

    Only one ``copy`` or ``finish`` may be under way.
    """

    def __init__(self, path: Path, most_pages: int) -> None:
        """``most_pages``: pages after which the log has to start over."""
        self._path = path
        self._most_pages = most_pages
        self._pages = self._copied = 0
        self._file: int | None = None
        self._closing = threading.Event()
        self._thread = ThreadPoolExecutor(1, "checkpoint", initializer=_let_others_go_first)

    def watch(self, db: apsw.Connection) -> None:
        """Hear after each commit how long the log is; this also switches automatic checkpoints off."""
        db.set_wal_hook(self._committed)

    def _committed(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        if pages < self._copied:  # the log has started over
            self._copied = 0
        self._pages = pages
        return apsw.SQLITE_OK

    @property
    def left(self) -> int:
        """Pages of the log that are not copied yet."""
        return self._pages - self._copied

    @property
    def wanted(self) -> bool:
        """Whether there is enough to copy."""
        return self.left >= min(STEP_PAGES, self._most_pages)

    @property
    def overlong(self) -> bool:
        """Whether the log has to start over."""
        return self._pages >= self._most_pages

    async def copy(self, spread_s: float) -> None:
        """Copy and sync what is in the log now; ``spread_s``: over how many seconds the disk shall get it.

        Raises ``OSError`` or ``apsw.Error``.
        """
        self._copied = await self._apart(self._thread, lambda: self._copy_and_sync(spread_s))

    async def finish(self) -> None:
        """Copy and sync the last pages while nobody writes: the next commit lets the log start over."""
        self._copied = await self._apart(None, lambda: _copy(self._path))

    async def _apart(self, thread: ThreadPoolExecutor | None, work: Callable[[], int]) -> int:
        return await asyncio.get_running_loop().run_in_executor(thread, work)

    def used_by_nobody_else(self) -> bool:
        """Whether no other process has the database open, by the lock that SQLite holds for as long.

        When so, none can open it before the connections of this process are closed, which has to be done now.
        """
        try:
            fcntl.lockf(self._opened(), fcntl.LOCK_EX | fcntl.LOCK_NB, _SHARED_SIZE, _SHARED_FIRST)
        except BlockingIOError:
            return False
        return True

    def _opened(self) -> int:
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        return self._file

    def release(self) -> None:
        """Close the file.  Only while no connection of this process to the database is open.

        POSIX takes all locks of a process on a file away when the process closes any descriptor of it.
        """
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def close(self) -> None:
        """End the thread and close the file; see ``release``."""
        self._closing.set()
        self._thread.shutdown()
        self.release()

    def _copy_and_sync(self, spread_s: float) -> int:
        copied = _copy(self._path)
        file = self._opened()
        if spread_s:
            self._hand_over(file, spread_s)
        os.fdatasync(file)
        return copied

    def _hand_over(self, file: int, spread_s: float) -> None:
        """Let the kernel write what is new in a file part by part, over a time.  Promises nothing: a sync does."""
        if _sync_file_range is None:
            return
        size = os.fstat(file).st_size
        part = max(size // _PARTS, 1)
        begun = monotonic()
        for start in range(0, size, part):
            _sync_file_range(file, start, part, _WAIT_WRITE_WAIT)
            ahead = begun + spread_s * (start / size) - monotonic()
            if self._closing.wait(max(ahead, 0)):
                return


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


def _find_sync_file_range() -> Callable[[int, int, int, int], int] | None:
    call = getattr(ctypes.CDLL(None), "sync_file_range", None) if sys.platform == "linux" else None
    if call is not None:
        call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return call


_sync_file_range = _find_sync_file_range()


def _let_others_go_first() -> None:
    """Linux has a priority for each thread; elsewhere this would be the priority of everything."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
