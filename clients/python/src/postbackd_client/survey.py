"""What waits in a spool, seen by somebody who has none of its files.

A file that a living process has cannot be opened beside it.  Its database and its log are copied: appending is all that
happens to them, and SQLite reads a log as far as it is whole, so that the copy is the file as it was a moment ago.
"""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import List, NamedTuple, Optional

from postbackd_client.files import LOCK_SUFFIX, SUFFIX, is_held, log_path
from postbackd_client.segment import find_oldest


class FileState(NamedTuple):
    held: bool
    """By a living process."""
    waiting: int
    oldest_s: Optional[int]
    unreadable: bool


def survey(directory: Path) -> List[FileState]:
    """Each file of a spool."""
    with TemporaryDirectory() as place:
        found = [_look(path, Path(place)) for path in sorted(directory.glob(f"*{SUFFIX}"))]
    return [one for one in found if one is not None]


def _look(path: Path, place: Path) -> Optional[FileState]:
    """``None`` when the file is gone meanwhile, because it is settled."""
    copy = place / path.name
    try:
        shutil.copyfile(path, copy)
        if log_path(path).exists():
            shutil.copyfile(log_path(path), log_path(copy))
    except FileNotFoundError:
        return None
    try:
        return _read(copy, is_held(path.with_suffix(LOCK_SUFFIX)))
    except (sqlite3.Error, TypeError, ValueError):
        return FileState(is_held(path.with_suffix(LOCK_SUFFIX)), 0, None, unreadable=True)
    finally:
        copy.unlink(missing_ok=True)
        log_path(copy).unlink(missing_ok=True)


def _read(copy: Path, held: bool) -> FileState:
    connection = sqlite3.connect(str(copy))
    try:
        settled = int(connection.execute("SELECT settled FROM progress").fetchone()[0])
        fresh = int(connection.execute("SELECT count(*) FROM waiting WHERE id > ?", (settled,)).fetchone()[0])
        late = int(connection.execute("SELECT count(*) FROM later").fetchone()[0])
        return FileState(held, fresh + late, find_oldest(connection, settled), unreadable=False)
    finally:
        connection.close()
