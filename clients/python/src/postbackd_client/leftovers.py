"""What ended processes have left in the directory of a spool: found, taken over, or kept aside for people.

The directory may hold thousands of files (a process for each order, and a tracker that was away for a weekend): it is
listed once for all of them, not once for each.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from pathlib import Path
from typing import List, Optional, Set

from postbackd_client.files import LOCK_SUFFIX, Held, is_for, is_held, list_files, log_path
from postbackd_client.segment import Segment

log = logging.getLogger("postbackd_client")


class Leftovers:
    """For the thread that sends, but for ``wait`` and ``ask``."""

    def __init__(self, directory: Path, tracker: str) -> None:
        """``tracker``: the fingerprint of the endpoint (``Endpoint.fingerprint``)."""
        self.foreign = 0
        """Files of ended processes that were for another tracker, and stay."""
        self.damaged = 0
        """Files that could not be read."""
        self.searches = 0
        """How often all of the directory was looked at."""
        self._directory = directory
        self._tracker = tracker
        self._any_tracker = False
        self._lock = threading.Lock()
        self._asked = False
        self._found: Optional[List[Path]] = None
        """What is still to be looked at, the oldest at the end; ``None`` before the directory is listed."""
        self._foreign = 0
        self._told: Set[str] = set()

    def wait(self) -> bool:
        """Whether there is something for this tracker."""
        try:
            return any(is_for(path, self._tracker) and _is_left(path) for path in list_files(self._directory))
        except OSError:
            return False  # the first report says what is wrong with the directory

    def ask(self, *, any_tracker: bool) -> int:
        """Have all of the directory looked at from now on; it is done when ``searches`` is more than the answer.

        ``any_tracker``: take over what was reported to other trackers too, since the URL has changed.
        """
        with self._lock:
            self._any_tracker |= any_tracker
            self._asked = True
            return self.searches

    def find(self) -> Optional[Path]:
        """The next file that may be taken over; ``None`` when all were looked at."""
        while True:
            while self._found:
                path = self._found.pop()
                if self._any_tracker or is_for(path, self._tracker):
                    return path
                self._foreign += _is_left(path)
            if self._is_done():
                return None
            self._found = list_files(self._directory)[::-1]
            self._foreign = 0

    def _is_done(self) -> bool:
        with self._lock:
            if self._found is None or self._asked:
                self._asked = False
                return False
            self._found = None
        self._note_foreign(self._foreign)
        with self._lock:
            self.searches += 1  # last: whoever waited for it reads what was found
        return True

    def _note_foreign(self, count: int) -> None:
        if count > self.foreign:
            log.warning(
                "%d files in %s were left by clients of another URL; if it has only changed, send them with"
                " postbackd-client drain --any-url; otherwise give each tracker a directory of its own",
                count,
                self._directory,
            )
        self.foreign = count

    def take_over(self, path: Path) -> Optional[Segment]:
        """``None`` when its process lives, or when it cannot be read."""
        try:
            return Segment.adopt(path)
        except Held:
            return None
        except (sqlite3.OperationalError, OSError) as error:  # a full disk, another user's file: later
            if path.name not in self._told:
                self._told.add(path.name)
                log.warning("%s cannot be taken over now: %s", path.name, error)
            return None
        except (sqlite3.DatabaseError, TypeError, ValueError) as error:
            self.set_aside(path, error)
            return None

    def set_aside(self, path: Path, error: Exception) -> None:
        """Keep a file that cannot be read, with its log, for people to look at."""
        self.damaged += 1
        log.error("%s cannot be read (%s); it is kept as .damaged", path.name, error)
        for one in (path, log_path(path)):
            with contextlib.suppress(FileNotFoundError):
                one.replace(one.with_name(f"{one.name}.damaged"))
        path.with_suffix(LOCK_SUFFIX).unlink(missing_ok=True)


def _is_left(path: Path) -> bool:
    return not is_held(path.with_suffix(LOCK_SUFFIX))
