"""Follows a table as it grows and gives each new row once, also those that are committed a little late.

Rows are ordered by the stamp that they were given when their request came, not by when they were committed: of several
nodes, or of a batch that had to wait, an older one may appear after a younger one.  So what lies up to ``MARGIN_MS``
behind the newest row is counted again and again, and looked through when the count is not what was seen.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Mapping
from typing import Any

from postbackd.store.base import Store

Row = Mapping[str, Any]

MARGIN_MS = 5_000
"""So late a row may be, and the clocks of nodes so far apart.  What comes later still is in the log, but not seen
here."""

MOST_SEEN = 100_000
"""Rows of the margin that are remembered; where more come in that time the margin is shorter."""

PAGE = 2_000
_MOST_PAGES = 10
_MOST_LATE = 200
"""Late rows read at once; the rest is still there the next time."""


class Tail:
    """The end of one table."""

    def __init__(self, store: Store, table: str, one: tuple[str, str]) -> None:
        """``table``: the first word of its statements.  ``one``: statement and parameter that give a whole row."""
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
        return max(-1, self.newest - (MARGIN_MS << 22))

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
        within = {"after": low, "last": self.newest}
        (row,) = await self._store.query(f"{self._table}_count", **within)
        if row["count"] == len(self._seen):
            return []
        there = [row["id"] for row in await self._store.query(f"{self._table}_ids", **within)]
        known = set(self._seen)
        late = [id_ for id_ in there if id_ not in known][:_MOST_LATE]
        if len(there) < len(known):  # some were purged or erased
            self._seen = [id_ for id_ in there if id_ in known]
        for id_ in late:
            insort(self._seen, id_)
        rows = [(id_, await self.read_whole(id_)) for id_ in late]
        return [{**row, "id": id_} for id_, row in rows if row is not None]

    async def read_whole(self, id_: int) -> dict[str, Any] | None:
        """One whole row; ``None``: it is gone."""
        statement, parameter = self._one
        rows = await self._store.query(statement, **{parameter: id_})
        return rows[0] if rows else None
