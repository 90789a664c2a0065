"""Conversions that the disk did not take: a bounded queue that is sent from as files are, and lost with the process."""

from __future__ import annotations

import threading
from collections import deque
from typing import Deque, List, Optional, Sequence, Tuple

from postbackd_client.segment import Row, Segment


class Memory:
    """Conversions that the disk did not take.  Sent like those of a file, lost when the process ends."""

    def __init__(self, rows: int) -> None:
        self._rows: Deque[Row] = deque()
        self._most = rows
        self._number = 0
        self._taken = 0
        self._lock = threading.RLock()

    def append(self, made_s: int, payload: str) -> bool:
        """Whether there was place for it."""
        with self._lock:
            if len(self._rows) >= self._most:
                return False
            self._number += 1
            self._rows.append(Row(self._number, made_s, payload, 0))
            return True

    @property
    def waiting(self) -> int:
        return len(self._rows)

    @property
    def next_due_s(self) -> float:
        return 0.0 if self._rows else float("inf")

    def take(self, _now_s: float, limit: int) -> List[Row]:
        with self._lock:
            rows = [self._rows[index] for index in range(min(limit, len(self._rows)))]
            self._taken = len(rows)
            return rows

    def settle(self, rows: Sequence[Row], postponed: Sequence[Tuple[Row, float]] = ()) -> None:
        """Those that are tried again go to the end."""
        with self._lock:
            self._taken -= len(rows)
            for _ in range(
                min(len(rows), len(self._rows))
            ):  # fewer are there when the client was closed meanwhile
                self._rows.popleft()
            self._rows.extend(row._replace(attempts=row.attempts + 1) for row, _ in postponed)

    def leave(self) -> None:
        """What was taken stays."""
        with self._lock:
            self._taken = 0

    def move_to(self, segment: Segment) -> None:
        """Bring to the disk what is not just being sent.  Raises ``sqlite3.Error``; what is not moved stays."""
        with self._lock:
            while len(self._rows) > self._taken:
                row = self._rows[self._taken]
                if not segment.append(row.made_s, row.payload):
                    return  # it was closed meanwhile
                del self._rows[self._taken]

    def clear(self) -> int:
        """Forget all of it; returns how many that were."""
        with self._lock:
            count = len(self._rows)
            self._rows.clear()
            return count

    def oldest_s(self) -> Optional[int]:
        with self._lock:
            return self._rows[0].made_s if self._rows else None
