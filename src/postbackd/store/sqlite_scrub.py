"""Makes erased data vanish from the file of the embedded store, beside whoever writes to it.

``secure_delete`` overwrites what a connection deletes.  It does not reach what was left behind earlier: when SQLite
divides a page, copies of rows stay in the unused part of the old one, and a page that was freed keeps what it held.
So the file is searched for what was erased, and the unused part of each page that holds any is overwritten: free space
of tables and indexes and free pages, never a byte that is in use.

Nothing of this can damage the file.  Only bytes without a meaning change, so that it does not matter how much of a
write a crash lets through; it is done under the lock of the one writer, to pages that no log holds; and an empty commit
afterwards makes every other connection read them anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from time import monotonic, sleep

import apsw

from postbackd.store.base import StoreRefused
from postbackd.store.sqlite_file import TOUCH, is_replicated

_CHUNK_PAGES = 256
_PAGES_A_TURN = 500
"""Pages that are overwritten in one transaction."""

_ROUNDS = 20
PATIENCE_S = 30.0
"""How long to wait for readers of the log to end."""

_TRY_MS = 50
"""SQLite keeps every writer out while it waits for readers; so it waits no longer than senders may."""

_PAUSE_S = 0.1
"""Of writers between two tries, at least."""

_SHORTEST = 6
"""Shorter texts stand in too many places to be looked for; they are beside longer ones."""

_LONGEST = 64
"""So much of a text is enough to find it."""

_MOST_PAGES = 2 << 24
"""From here on the first byte of an overflow page could be taken for the type of another page (137 GB)."""

_TREE_HEADERS = {2: 12, 5: 12, 10: 8, 13: 8}
"""First byte of a page of a tree -> length of its header (fileformat2.html, section 1.6)."""

_WAL_HEADER, _FRAME_HEADER = 32, 24


def unsafe_erasure() -> bool:
    """``POSTBACKD_UNSAFE_ERASURE``: for negative controls of the trust campaign only; keeps what was erased."""
    return os.environ.get("POSTBACKD_UNSAFE_ERASURE") == "1"


def scrub(path: Path, db: apsw.Connection, values: Collection[str] | None) -> int:
    """See ``store.base.Store.scrub``."""
    scrubber = Scrubber(path, db)
    try:
        return scrubber.scrub(values)
    finally:
        scrubber.close()


class Scrubber:
    """One file and a connection to it, which is in no transaction."""

    def __init__(self, path: Path, db: apsw.Connection, patience_s: float = PATIENCE_S) -> None:
        self._path = path
        self._db = db
        self._patience_s = patience_s
        # Through SQLite's own layer: POSIX drops a process's locks when it closes any descriptor of a file.
        flags = [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READWRITE, 0]
        self._file = apsw.VFSFile("", str(path), flags)
        head = self._file.xRead(100, 0)
        size = int.from_bytes(head[16:18], "big")
        self._page_size = 65_536 if size == 1 else size
        self._usable = self._page_size - head[20]

    def close(self) -> None:
        self._file.xClose()

    def scrub(self, values: Collection[str] | None) -> int:
        """Overwrite what is left of ``values`` (``None``: whatever is left) where nothing is in use.

        Empties the log before and afterwards.  Returns how many pages hold some still where nothing is in use: 0 when
        all is gone.  What stands in rows belongs to others who share a value.
        """
        pattern = _pattern(values)
        if values is not None and pattern is None:
            self.empty_log()
            return 0
        left = 0
        for _ in range(_ROUNDS):
            self.empty_log()
            pages = list(self._find(pattern))
            if self._pages >= _MOST_PAGES:
                return len(pages)
            left = 0
            for start in range(0, len(pages), _PAGES_A_TURN):
                left += self._overwrite(pages[start : start + _PAGES_A_TURN])
            if not left:
                break
        self.empty_log()
        return left

    def empty_log(self) -> None:
        """Copy the whole log into the database and cut it.  Raises ``StoreRefused`` when it stays in use."""
        before, deadline = self._db.pragma("busy_timeout"), monotonic() + self._patience_s
        self._db.set_busy_timeout(_TRY_MS)
        try:
            while True:
                try:
                    self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
                    return
                except (apsw.BusyError, apsw.LockedError) as error:
                    if monotonic() > deadline:
                        raise StoreRefused(self._in_use()) from error
                sleep(_PAUSE_S)
        finally:
            self._db.set_busy_timeout(before)

    def _in_use(self) -> str:
        who = (
            "Litestream"
            if is_replicated(self._path)
            else "another program (a shell, a copy that is being made)"
        )
        return (
            f"erased in the tables, and not yet in the log of {self._path}: {who} has been reading it for "
            f"{self._patience_s:.0f} s; stop it, run the same command again, and start it again afterwards"
        )

    @property
    def _pages(self) -> int:
        return int(self._file.xFileSize()) // self._page_size

    def _find(self, pattern: re.Pattern[bytes] | None) -> Iterator[int]:
        """Numbers of the pages, from 1, in which the pattern is found.  Of two pages that share a hit both."""
        size, chunk = self._page_size, self._page_size * _CHUNK_PAGES
        total = self._pages * size
        found: set[int] = set()
        for start in range(0, total, chunk):
            if pattern is None:
                yield from range(start // size + 1, min(start + chunk, total) // size + 1)
                continue
            data = self._file.xRead(min(chunk + _LONGEST, total - start), start)
            for hit in pattern.finditer(data):
                first, last = (start + hit.start()) // size, (start + hit.end() - 1) // size
                found.update(range(first + 1, last + 2))
        yield from sorted(found)

    def _overwrite(self, pages: Sequence[int]) -> int:
        """Returns how many pages have to be looked at again."""
        again = changed = 0
        self._db.execute("BEGIN IMMEDIATE")
        try:
            logged = self._logged()
            trunks, leaves = self._free_pages(logged)
            for number in pages:
                if number in logged:  # when the log has been copied, if somebody has left anything there
                    page = logged[number]
                    again += self._blank(number, page, trunks, leaves) != page
                    continue
                place = (number - 1) * self._page_size
                page = self._file.xRead(self._page_size, place)
                blank = self._blank(number, page, trunks, leaves)
                if blank != page:
                    self._file.xWrite(blank, place)
                    changed += 1
            if changed:
                self._file.xSync(apsw.SQLITE_SYNC_FULL)
                self._db.execute(TOUCH)
            self._db.execute("COMMIT")
            return again
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _logged(self) -> dict[int, bytes]:
        """The pages in the log, as the next copy of it will write them."""
        log = self._path.with_name(f"{self._path.name}-wal")
        places: dict[int, int] = {}
        with log.open("rb") as file:
            salts = file.read(_WAL_HEADER)[16:24]
            while len(head := file.read(_FRAME_HEADER)) == _FRAME_HEADER:
                if head[8:16] != salts:
                    break  # of a log that has started over since
                places[int.from_bytes(head[:4], "big")] = file.tell()
                file.seek(self._page_size, os.SEEK_CUR)
            pages = {}
            for number, place in places.items():
                file.seek(place)
                pages[number] = file.read(self._page_size)
        return pages

    def _free_pages(self, logged: Collection[int]) -> tuple[set[int], set[int]]:
        """Numbers of the pages that list free pages, and of those that are listed."""
        trunks: set[int] = set()
        leaves: set[int] = set()
        number = int.from_bytes(self._file.xRead(4, 32), "big")
        if 1 in logged:
            return trunks, leaves  # the list may have changed since
        while number and number not in trunks:
            trunks.add(number)
            page = self._file.xRead(self._page_size, (number - 1) * self._page_size)
            count = int.from_bytes(page[4:8], "big")
            leaves |= {int.from_bytes(page[8 + 4 * n : 12 + 4 * n], "big") for n in range(count)}
            number = int.from_bytes(page[:4], "big")
        return trunks, leaves

    def _blank(self, number: int, page: bytes, trunks: set[int], leaves: set[int]) -> bytes:
        if number in leaves:
            return bytes(len(page))
        blank = bytearray(page)
        if number in trunks:
            used = 8 + 4 * int.from_bytes(page[4:8], "big")
            blank[used:] = bytes(len(page) - used)
            return bytes(blank)
        head = 100 if number == 1 else 0
        header = _TREE_HEADERS.get(page[head])
        if header is None:
            return page
        cells = int.from_bytes(page[head + 3 : head + 5], "big")
        begin = int.from_bytes(page[head + 5 : head + 7], "big") or 65_536
        end = head + header + 2 * cells
        if not end <= begin <= self._usable:
            return page
        blank[end:begin] = bytes(begin - end)
        free, seen = int.from_bytes(page[head + 1 : head + 3], "big"), begin - 1
        while free > seen:
            length = int.from_bytes(page[free + 2 : free + 4], "big")
            if length < 4 or free + length > self._usable:
                return page
            blank[free + 4 : free + length] = bytes(length - 4)
            free, seen = int.from_bytes(page[free : free + 2], "big"), free
        return bytes(blank)


def _pattern(values: Collection[str] | None) -> re.Pattern[bytes] | None:
    """What finds any of the values."""
    if values is None:
        return None
    texts = {text.encode("utf-8", "surrogatepass")[:_LONGEST] for text in values if len(text) >= _SHORTEST}
    return re.compile(b"|".join(map(re.escape, sorted(texts, reverse=True)))) if texts else None
