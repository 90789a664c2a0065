"""Makes erased data vanish from the file of the embedded store, beside whoever writes to it.

``secure_delete`` overwrites what a connection deletes.  It does not reach what was left behind earlier: when SQLite
divides a page, copies of rows stay in the unused part of the old one; a page that was freed keeps what it held; and a
long row that takes such a page leaves what lies behind its own end.  What is left is often a part of a value, so nobody
could search for it.  So the unused part of every page is overwritten, where it is not empty: free space of tables and
indexes, free pages, and the tails of overflow pages (``sqlite_pages``), never a byte that is in use.

Nothing of this can damage the file.  Only bytes without a meaning change, so that it does not matter how much of a
write a crash lets through; it is done under the lock of the one writer, while the log is empty; and an empty commit
afterwards makes every other connection read the pages anew.  Others wait some milliseconds at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep

import apsw

from postbackd.store.base import StoreRefused
from postbackd.store.sqlite_file import TOUCH, is_replicated
from postbackd.store.sqlite_pages import Layout, find_tails

_CHUNK_PAGES = 256

_PAGES_A_TURN = 250
"""Pages that are overwritten in one transaction."""

_ROUNDS = 3
"""What SQLite moves from a page that comes later to one that is done is found by the next round, and so is whatever
was left behind meanwhile."""

_PATIENCE_S = 30.0
"""How long a reader that keeps the log in use is waited for."""

_ATTEMPT_MS = 50
"""How long an attempt to empty the log may hold the lock of the writer while it waits for a reader."""

_BETWEEN_S = 0.25
"""Between two of them: most of the time belongs to those who write."""

_MOST_PAGES = 2 << 24
"""From here on the first byte of an overflow page could be taken for the type of another page (137 GB)."""


def unsafe_erasure() -> bool:
    """``POSTBACKD_UNSAFE_ERASURE``: for negative controls of the trust campaign only; keeps what was erased."""
    return os.environ.get("POSTBACKD_UNSAFE_ERASURE") == "1"


def scrub(path: Path, db: apsw.Connection) -> int:
    """See ``store.base.Store.scrub``."""
    scrubber = Scrubber(path, db)
    usual_ms = db.pragma("busy_timeout")
    db.set_busy_timeout(_ATTEMPT_MS)
    try:
        return scrubber.scrub()
    finally:
        db.set_busy_timeout(usual_ms)
        scrubber.close()


class Scrubber:
    """One file and a connection to it, which is in no transaction."""

    def __init__(self, path: Path, db: apsw.Connection) -> None:
        self._path = path
        self._log = path.with_name(f"{path.name}-wal")
        self._db = db
        # Through SQLite's own layer: POSIX drops a process's locks when it closes any descriptor of a file.
        flags = [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READWRITE, 0]
        self._file = apsw.VFSFile("", str(path), flags)
        head = self._file.xRead(100, 0)
        size = int.from_bytes(head[16:18], "big")
        self._layout = Layout(65_536 if size == 1 else size, head[20])

    def close(self) -> None:
        self._file.xClose()

    def scrub(self) -> int:
        """Overwrite whatever is unused, and empty the log.

        Returns how many pages there are that cannot be judged, and so may hold some still: 0 when all is gone.
        Raises ``StoreRefused`` when somebody reads or writes for too long.
        """
        for _ in range(_ROUNDS):
            self._empty_log()
            if self._pages >= _MOST_PAGES:
                return self._pages
            tails: Mapping[int, int] = {}
            stained, may_end = self._look()
            if may_end:
                tails = find_tails(self._db)
                stained = sorted({*stained, *tails})
            if not stained:
                break
            for start in range(0, len(stained), _PAGES_A_TURN):
                self._overwrite(stained[start : start + _PAGES_A_TURN], tails)
        self._empty_log()
        return 0

    @property
    def _pages(self) -> int:
        return int(self._file.xFileSize()) // self._layout.page_size

    def _look(self) -> tuple[list[int], bool]:
        """Pages, from 1, whose unused part is not empty, and whether there may be tails of overflow pages besides.

        Read while others write: what it says is only where to look again.
        """
        trunks, leaves = self._free_pages()
        stained, may_end = [], False
        for number, page in self._read_all():
            if number in leaves or number in trunks or self._layout.is_tree(number, page):
                if self._blank(number, page, trunks, leaves) != page:
                    stained.append(number)
            elif not may_end:
                may_end = self._layout.may_be_last(page)
        return stained, may_end

    def _read_all(self) -> Iterator[tuple[int, bytes]]:
        size = self._layout.page_size
        for first in range(0, self._pages, _CHUNK_PAGES):
            data = self._file.xRead(size * min(_CHUNK_PAGES, self._pages - first), first * size)
            for place in range(len(data) // size):
                yield first + place + 1, data[place * size : (place + 1) * size]

    def _overwrite(self, pages: Sequence[int], tails: Mapping[int, int]) -> None:
        """``tails``: overflow page -> the page of the row that it belongs to."""
        self._begin_alone()
        try:
            trunks, leaves = self._free_pages()
            # A page that was freed meanwhile still lists rows; what it says of them is not true any more.
            free = trunks | leaves
            changed = False
            for number in pages:
                page = self._read(number)
                if number in tails and not {number, tails[number]} & free:
                    used = self._layout.used_of_tail(number, tails[number], self._read)
                    blank = page if used is None else page[:used] + bytes(len(page) - used)
                else:
                    blank = self._blank(number, page, trunks, leaves)
                if blank != page:
                    self._file.xWrite(blank, (number - 1) * self._layout.page_size)
                    changed = True
            if changed:
                self._file.xSync(apsw.SQLITE_SYNC_FULL)
                self._db.execute(TOUCH)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _blank(self, number: int, page: bytes, trunks: set[int], leaves: set[int]) -> bytes:
        if number in leaves:
            return bytes(len(page))
        if number in trunks:
            return self._layout.blank_trunk(page)
        return self._layout.blank_tree(number, page)

    def _read(self, number: int) -> bytes:
        return self._file.xRead(self._layout.page_size, (number - 1) * self._layout.page_size)

    def _free_pages(self) -> tuple[set[int], set[int]]:
        """Numbers of the pages that list free pages, and of those that are listed."""
        trunks: set[int] = set()
        leaves: set[int] = set()
        number = int.from_bytes(self._file.xRead(4, 32), "big")
        while number and number not in trunks:
            trunks.add(number)
            page = self._read(number)
            count = int.from_bytes(page[4:8], "big")
            leaves |= {int.from_bytes(page[8 + 4 * n : 12 + 4 * n], "big") for n in range(count)}
            number = int.from_bytes(page[:4], "big")
        return trunks, leaves

    # --- the log ------------------------------------------------------------------------------------------------

    def _begin_alone(self) -> None:
        """Begin a transaction while the log is empty, so that the file says all that there is."""
        deadline = monotonic() + _PATIENCE_S
        while True:
            self._empty_log()
            try:
                self._db.execute("BEGIN IMMEDIATE")
            except apsw.BusyError as error:
                self._wait(deadline, error)
                continue
            if not self._log.stat().st_size:
                return
            self._db.execute("ROLLBACK")  # somebody was quicker
            if monotonic() > deadline:
                raise StoreRefused(self._in_use())

    def _empty_log(self) -> None:
        """Copy the whole log into the database and cut it.

        An attempt that meets a reader holds the lock of the writer while it waits.  So most of the copying is done
        before, and none waits long.
        """
        deadline = monotonic() + _PATIENCE_S
        while True:
            try:
                self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
                return
            except (apsw.BusyError, apsw.LockedError) as error:
                self._wait(deadline, error)

    def _wait(self, deadline: float, error: apsw.Error) -> None:
        if monotonic() > deadline:
            raise StoreRefused(self._in_use()) from error
        sleep(_BETWEEN_S)

    def _in_use(self) -> str:
        if is_replicated(self._path):
            who, then = "Litestream", "stop it, run the same command again, then start it again"
        else:
            who, then = (
                "another program (a backup, a report, a shell)",
                "run the same command again when it has ended",
            )
        return (
            "the rows are erased, what is left of them in the file is not overwritten yet: for more than "
            f"{_PATIENCE_S:.0f} s {who} has been reading the database; {then}"
        )
