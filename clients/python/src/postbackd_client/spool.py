"""The spool: a directory in which conversions wait until the tracker has said what became of them.

Each process has files of its own in it (``segment``): one to which its threads append, and older ones that are only
sent from.  A file whose process has ended is adopted by any other that uses the same directory.  What the disk does
not take is kept in a bounded queue in memory, sent from there, and moved to the disk as soon as that works again.

``append`` never waits for the disk, and never raises.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from postbackd_client.leftovers import Leftovers
from postbackd_client.memory import Memory
from postbackd_client.segment import Row, Segment

log = logging.getLogger("postbackd_client")

_LARGEST_SEGMENT = 32 << 20
_SEGMENTS_A_SPOOL = 8
"""A small spool is cut into as many files, so that dropping the oldest of them drops a part only."""
_MEND_EVERY_S = 0.5
_SAY_EVERY_S = 60.0
_OLDER_AT_ONCE = 4
"""Other processes may want their share of a large backlog."""
_SYNC_WAIT_S = 5.0
_FURTHEST_S = 86_400.0
"""Nothing is postponed for longer, whatever a clock said that was set right since."""


@dataclass(frozen=True)
class Limits:
    """How much may wait."""

    spool_bytes: int = 1 << 30
    """About 750,000 conversions."""
    memory_rows: int = 10_000
    """In memory, while the disk takes nothing."""
    drop_oldest: bool = False
    """When the spool is full or the disk is: the oldest give way.  Otherwise the newest find no place."""


Source = Union[Segment, Memory]


class Place(NamedTuple):
    """Where a conversion was put; without a segment, in memory."""

    segment: Optional[Segment]
    number: int


class Taken(NamedTuple):
    """Conversions that are being sent, and where they came from."""

    source: Source
    rows: List[Row]


class Spool:
    """What waits in this process.  ``append`` is for all threads, ``take`` and what follows it for the one that
    sends."""

    def __init__(self, directory: Path, limits: Limits, tracker: str) -> None:
        """``tracker``: the fingerprint of the endpoint (``Endpoint.fingerprint``)."""
        self.directory = directory
        self.leftovers = Leftovers(directory, tracker)
        self._tracker = tracker
        self.limits = limits
        self.memory = Memory(limits.memory_rows)
        self.dropped = 0
        """Conversions that found no place, or gave way."""
        self.trouble = ""
        """Why the disk takes nothing; empty while it does."""
        self._segment_bytes = min(_LARGEST_SEGMENT, max(1, limits.spool_bytes // _SEGMENTS_A_SPOOL))
        self._active: Optional[Segment] = None
        self._older: List[Segment] = []
        self._lock = threading.RLock()
        self._opening = threading.RLock()
        """Held, and taken before any other, where files are opened and closed: a fork must not copy half of that."""
        self._is_full = False
        self._closed = False
        self._mended_at = 0.0
        self._said_at = 0.0
        self._synced = threading.Condition()

    # --- adding: any thread ---------------------------------------------------------------------------------------

    def append(self, made_s: int, payload: str) -> Optional[Place]:
        """Keep one conversion; ``None`` when there was no place for it."""
        if not self._is_full and not self.trouble and not self._closed:
            try:
                return self._append(made_s, payload)
            except (sqlite3.Error, OSError) as error:
                if not self._closed:
                    self._note_trouble(error)
        if self._closed:
            place = self._append_alone(made_s, payload)
            if place is not None:
                return place
        elif self.memory.append(made_s, payload):
            return Place(None, 0)
        self.dropped += 1
        self._say("%d conversions found no place: %s", self.dropped, self._why_not())
        return None

    def _append_alone(self, made_s: int, payload: str) -> Optional[Place]:
        """Nothing is open any more, as at the end of the interpreter: into a file of its own, for the next process."""
        try:
            with self._opening:
                self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                segment = Segment.create(self.directory, self._tracker)
                segment.append(made_s, payload)
                segment.close()
        except (sqlite3.Error, OSError) as error:
            self.trouble = str(error)
            return None
        self._say(
            "the client is closed: what is reported now is sent by the next process that uses the spool"
        )
        return Place(None, 0)

    def _why_not(self) -> str:
        return self.trouble or "the spool is full, and so is the memory beside it"

    def _append(self, made_s: int, payload: str) -> Place:
        while True:
            segment = self._active or self._open_active()
            number = segment.append(made_s, payload)
            if number:
                return Place(segment, number)

    def _open_active(self) -> Segment:
        with self._opening, self._lock:
            if self._closed:
                raise OSError("the client is closed")
            if self._active is None:
                self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                return self._put_active(Segment.create(self.directory, self._tracker))
            return self._active

    def _put_active(self, made: Segment) -> Segment:
        if self._active is None:
            self._active = made
        else:  # a signal handler that interrupted the making was quicker
            made.close()
        return self._active

    def wait_synced(self, place: Place) -> None:
        """Until ``tend`` has brought it to the disk; a disk that does not answer must not hold the caller for ever."""
        segment = place.segment
        if segment is None:
            return
        with self._synced:
            if not self._synced.wait_for(
                lambda: segment.synced >= place.number or segment.closed, _SYNC_WAIT_S
            ):
                self._say("the disk has not taken a conversion within %g s", _SYNC_WAIT_S)

    def _note_trouble(self, error: Exception) -> None:
        self.trouble = str(error)
        self._say("the spool in %s takes nothing (%s); conversions are kept in memory", self.directory, error)

    def _say(self, text: str, *values: object) -> None:
        """Log an error, once a minute at most."""
        if monotonic() - self._said_at > _SAY_EVERY_S or not self._said_at:
            self._said_at = monotonic()
            log.error(text, *values)

    # --- upkeep: one thread ---------------------------------------------------------------------------------------

    def tend(self) -> None:
        """What has to be done every few hundredths of a second so that nobody who appends has to do it."""
        self._sync_active()
        active = self._active
        if active is not None and active.bytes_on_disk > self._segment_bytes:
            self._retire_active()
        if self.trouble and monotonic() - self._mended_at > _MEND_EVERY_S:
            self._mended_at = monotonic()
            self._mend()
        self._keep_limits()
        if self.memory.waiting and not self.trouble and not self._is_full:
            self._empty_memory()

    def _sync_active(self) -> None:
        active = self._active
        if active is None or active.is_synced:
            return
        self._sync(active)

    def _sync(self, segment: Segment) -> None:
        try:
            segment.sync()
        except OSError as error:
            if not segment.closed:
                self._note_trouble(error)
        with self._synced:
            self._synced.notify_all()

    def _retire_active(self) -> None:
        """From now on the file is only sent from; the next one is there before anybody needs it."""
        try:
            with self._opening:
                self._replace_active(Segment.create(self.directory, self._tracker))
        except (sqlite3.Error, OSError) as error:
            self._note_trouble(error)

    def _replace_active(self, following: Segment) -> None:
        with self._lock:
            before, self._active = self._active, following
            if before is not None:
                self._older.append(before)
        if before is not None:
            before.retire()
            self._sync(before)

    def _mend(self) -> None:
        """Try to go on with another file; the one that failed is sent from, as far as it can be read."""
        try:
            with self._opening:
                self._replace_active(self._create_synced())
        except (sqlite3.Error, OSError) as error:
            self.trouble = str(error)
            if self.limits.drop_oldest and not self._drop_oldest():
                self._drop_active()
            return
        self.trouble = ""
        log.warning("the spool in %s takes conversions again", self.directory)

    def _create_synced(self) -> Segment:
        """A file of which it is proved that the disk takes it."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = Segment.create(self.directory, self._tracker)
        try:
            made.sync()
        except OSError:
            made.close()  # nothing is in it: that removes it
            raise
        return made

    def _keep_limits(self) -> None:
        while (size := self._bytes()) > self.limits.spool_bytes and self.limits.drop_oldest:
            if not self._drop_oldest():
                break
        self._is_full = size > self.limits.spool_bytes

    def _bytes(self) -> int:
        return sum(segment.bytes_on_disk for segment in self._segments())

    def _drop_oldest(self) -> bool:
        with self._opening:
            with self._lock:
                if not self._older:
                    return False
                oldest = self._older.pop(0)
            lost = oldest.discard()
        self.dropped += lost
        if lost:
            log.error("the spool is full: the oldest %d conversions were dropped, as drop_oldest says", lost)
        return True

    def _drop_active(self) -> None:
        """There is no other file: the disk takes nothing, and all that could give way is in this one."""
        with self._lock:
            active, self._active = self._active, None
            if active is not None:
                self._older.append(active)
        if active is not None:
            active.retire()
            self._drop_oldest()

    def _empty_memory(self) -> None:
        try:
            self.memory.move_to(self._active or self._open_active())
        except (sqlite3.Error, OSError) as error:
            self._note_trouble(error)

    # --- sending: one thread --------------------------------------------------------------------------------------

    def take(self, now_s: float, limit: int) -> Optional[Taken]:
        """Conversions that may be sent now, the oldest first; ``None`` when there are none."""
        for source in self._sources():
            if isinstance(source, Segment) and now_s + _FURTHEST_S < source.next_due_s < float("inf"):
                source.hasten()  # the clock was wrong, or is
            if source.next_due_s <= now_s:
                rows = self._take_from(source, now_s, limit)
                if rows:
                    return Taken(source, rows)
        return None

    def _take_from(self, source: Source, now_s: float, limit: int) -> List[Row]:
        try:
            return source.take(now_s, limit)
        except sqlite3.OperationalError:  # the disk, not the file
            raise
        except sqlite3.DatabaseError as error:
            if isinstance(source, Segment):
                self._give_up(source, error)
            return []

    def _give_up(self, segment: Segment, error: sqlite3.Error) -> None:
        self.leftovers.set_aside(segment.path, error)
        with self._opening:
            with self._lock:
                if segment is self._active:
                    self._active = None
                else:
                    self._older.remove(segment)
            segment.close()

    def next_due_s(self) -> float:
        """When the next conversion may be sent: 0 for at once, infinity for never."""
        return min((source.next_due_s for source in self._sources()), default=float("inf"))

    def settle(self, taken: Taken, postponed: Sequence[Tuple[Row, float]] = ()) -> None:
        """These are done, but for those that are tried again at a time.  Raises ``sqlite3.Error`` (see ``Segment``)."""
        source = taken.source
        source.settle(taken.rows, postponed)
        if isinstance(source, Segment) and source is not self._active and source.is_finished:
            self._put_away(source)

    def leave(self, taken: Taken) -> None:
        """Nothing became of these: they stay where they are."""
        if isinstance(taken.source, Memory):
            taken.source.leave()

    def hasten(self) -> None:
        """The tracker is back: what was postponed may be sent now."""
        for segment in self._segments():
            segment.hasten()

    def adopt(self) -> bool:
        """Take over files whose process has ended; whether there may be more of them."""
        while len(self._older) < _OLDER_AT_ONCE:
            path = self.leftovers.find()
            if path is None:
                return False
            self._take_over(path)
        return True

    def _take_over(self, path: Path) -> None:
        with self._opening:
            segment = self.leftovers.take_over(path)
            if segment is None:
                return
            with self._lock:
                self._older = sorted([*self._older, segment], key=lambda one: one.path.name)
        if segment.is_finished:
            self._put_away(segment)

    def _put_away(self, segment: Segment) -> None:
        with self._opening:
            with self._lock:
                if segment in self._older:
                    self._older.remove(segment)
            segment.close()

    # --- all of it ------------------------------------------------------------------------------------------------

    def _segments(self) -> List[Segment]:
        with self._lock:
            return [*self._older, *([self._active] if self._active else [])]

    def _sources(self) -> Iterator[Source]:
        yield from self._segments()
        yield self.memory

    @property
    def waiting(self) -> int:
        return sum(source.waiting for source in self._sources())

    def oldest_s(self) -> Optional[int]:
        """When the oldest conversion that waits was made."""
        found = [made_s for source in self._sources() if (made_s := source.oldest_s()) is not None]
        return min(found, default=None)

    def close(self) -> None:
        """Bring everything to the disk and give the files up; nothing is taken any more."""
        if self.memory.waiting:
            self._empty_memory()
        with self._lock:
            self._closed = True
            segments = [*self._older, *([self._active] if self._active else [])]
            self._older, self._active = [], None
        for segment in segments:
            try:
                segment.sync()
            except OSError as error:
                log.error("the spool could not be brought to the disk: %s", error)  # noqa: TRY400 - one line
            with self._opening:
                segment.close()
        lost = self.memory.clear()
        if lost:
            self.dropped += lost
            log.error("%d conversions were in memory only and are lost: %s", lost, self.trouble)

    # --- forking --------------------------------------------------------------------------------------------------

    def lock_all(self) -> List[threading.RLock]:
        """Before a fork: SQLite is at rest, whatever other threads do.  Returns what has to be released."""
        self._opening.acquire()
        self._lock.acquire()
        locks = [self._opening, self._lock]
        for segment in [*self._older, *([self._active] if self._active else [])]:
            segment.lock.acquire()
            locks.append(segment.lock)
        return locks

    def forget(self) -> None:
        """In a forked child: the files are the parent's."""
        for segment in [*self._older, *([self._active] if self._active else [])]:
            segment.forget()
