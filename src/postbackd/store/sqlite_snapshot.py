"""A copy of an embedded database as it is at one moment, made beside a running server in small steps.

SQLite's online backup begins anew whenever somebody else has written, and with 20,000 writes a second it would never
end.  But the source here is one read transaction from the first page to the last: what others write meanwhile is not
seen.  The price is that the write-ahead log cannot start over as long as that takes; so pages are copied as they are,
and everything slow (checking, compressing) is done with the copy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import apsw

from postbackd.store.sqlite_verify import open_to_read

_STEP_PAGES = 256
"""1 MiB, a few milliseconds."""

_SYNC_STEPS = 4
"""What the copy leaves dirty would otherwise go to the disk in front of somebody's commit."""

TOUCH_SNAPSHOT = "SELECT count(*) FROM sqlite_schema"
"""The first read of a transaction: from here on it sees what was committed before."""


def size_of(path: Path) -> int:
    """Bytes that a copy of it needs.  Raises ``apsw.Error``."""
    db = open_to_read(path, alone=False)
    try:
        return int(db.pragma("page_count")) * int(db.pragma("page_size"))
    finally:
        db.close()


def copy_snapshot(source: Path, target: Path) -> Iterator[tuple[float, float]]:
    """Copy into a new file; yields after each step how long it took in seconds, and how much is done (0 to 1).

    The caller decides how long to pause.  Raises ``apsw.Error`` or ``OSError``.
    """
    here = open_to_read(source, alone=False)
    there = apsw.Connection(str(target))
    try:
        there.pragma("journal_mode", "OFF")
        there.pragma("synchronous", "OFF")
        here.execute("BEGIN")
        here.execute(TOUCH_SNAPSHOT).fetchall()
        with there.backup("main", here, "main") as copying, target.open("rb+") as file:
            steps = 0
            while not copying.done:
                began = perf_counter()
                copying.step(_STEP_PAGES)
                steps += 1
                if steps % _SYNC_STEPS == 0:
                    os.fdatasync(file.fileno())
                pages = max(copying.page_count, 1)
                yield perf_counter() - began, 1 - copying.remaining / pages
        here.execute("COMMIT")
    finally:
        here.close(force=True)
        there.close(force=True)
