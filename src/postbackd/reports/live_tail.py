"""Follows a table as it grows and gives each new row once, also those that are committed a little late.

Rows are ordered by the stamp that they were given when their request came, not by when they were committed: of several
nodes, or of a batch that had to wait, an older one may appear after a younger one.  So what lies up to ``MARGIN_MS``
behind the newest row is counted again and again, in parts, and a part is looked through when its count is not what was
seen: most of what is late is late by little.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from postbackd.store.base import Store

Row = Mapping[str, Any]

MARGIN_MS = 5_000
"""So late a row may be, and the clocks of nodes so far apart.  What comes later still is in the log, but not seen
here."""

ATTEMPT_MARGIN_MS = 30_000
"""An attempt is stored when it has ended and bears the time at which it began; few targets are waited for longer."""

_PARTS = (2, 8)
"""Where the margin is divided: at a half and an eighth of it."""

MOST_SEEN = 100_000
"""Rows of the margin that are remembered; where more come in that time the margin is shorter."""

PAGE = 2_000
_MOST_PAGES = 10
_MOST_LATE = 200
"""Late rows read at once; the rest is still there the next time."""


class Tail:
    """The end of one table."""

    def __init__(self, store: Store, table: str, one: tuple[str, str], margin_ms: int = MARGIN_MS) -> None:
        """``table``: the first word of its statements.  ``one``: statement and parameter that give a whole row."""
        self._margin = margin_ms << 22
        self._store = store
        self._table = table
        self._one = one
        self.newest = 0
        """All rows up to this one were given, except late ones."""
        self._seen: list[int] = []
        """Ids of the margin, in order."""

    async def start(self) -> None:
        """Begin behind what is there now."""
        (row,) = await self._store.query(f"{self._table}_last")
        self.newest = row["id"] or 0
        self._seen = [
            row["id"]
            for row in await self._store.query(f"{self._table}_ids", after=self._low(), last=self.newest)
        ]
        self._forget()

    def _low(self) -> int:
        return max(-1, self.newest - self._margin)

    def _forget(self) -> None:
        del self._seen[: max(bisect_right(self._seen, self._low()), len(self._seen) - MOST_SEEN)]

    async def read_new(self) -> list[dict[str, Any]]:
        """Rows behind the newest, with the columns that filters ask for, oldest first."""
        found: list[dict[str, Any]] = []
        for _ in range(_MOST_PAGES):
            rows = await self._store.query(f"{self._table}_from", after=self.newest, limit=PAGE)
            if rows:
                self.newest = rows[-1]["id"]
                self._seen += [row["id"] for row in rows]
                found += rows
            if len(rows) < PAGE:
                break
        if found:
            self._forget()
        return found

    async def read_late(self) -> list[dict[str, Any]]:
        """Whole rows that were committed late, with ``id``."""
        low = self._seen[0] - 1 if len(self._seen) >= MOST_SEEN else self._low()
        edges = [low, *(max(low, self.newest - self._margin // part) for part in _PARTS), self.newest]
        late: list[int] = []
        for after, last in pairwise(edges):
            late += await self._find_late(after, last)
        rows = [(id_, await self.read_whole(id_)) for id_ in late]
        return [{**row, "id": id_} for id_, row in rows if row is not None]

    async def _find_late(self, after: int, last: int) -> list[int]:
        """Ids between two that were not seen; what was purged or erased is forgotten."""
        begin, end = bisect_right(self._seen, after), bisect_right(self._seen, last)
        within = {"after": after, "last": last}
        (row,) = await self._store.query(f"{self._table}_count", **within)
        if row["count"] == end - begin:
            return []
        there = [row["id"] for row in await self._store.query(f"{self._table}_ids", **within)]
        known = set(self._seen[begin:end])
        late = [id_ for id_ in there if id_ not in known][:_MOST_LATE]
        if len(there) < len(known):
            known.intersection_update(there)
        self._seen[begin:end] = sorted([*known, *late])
        return late

    async def read_whole(self, id_: int) -> dict[str, Any] | None:
        """One whole row; ``None``: it is gone."""
        statement, parameter = self._one
        rows = await self._store.query(statement, **{parameter: id_})
        return rows[0] if rows else None


class AttemptTail(Tail):
    """The end of the attempts; a whole row is an attempt with the delivery that it belongs to."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, "live_deliveries", ("live_delivery", "number"), ATTEMPT_MARGIN_MS)

    async def read_whole(self, id_: int) -> dict[str, Any] | None:
        attempt = await super().read_whole(id_)
        if attempt is None:
            return None
        rows = await self._store.query("delivery", number=attempt["delivery"])
        return {**rows[0], **attempt, "failed": bool(attempt["error"])} if rows else None
