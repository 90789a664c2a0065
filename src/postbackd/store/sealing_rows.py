"""Gives a checksum to rows from before there were any: ``postbackd verify --seal``.

What a row says today is what its checksum will hold it to, so this is done once, and by an operator.  A row that a
server changes at the same moment is left for the next round.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from time import perf_counter
from typing import Any, Protocol

import apsw

from postbackd.core.checksum import checksum
from postbackd.store.verifying import MONEY_TABLES, MoneyTable, Reader, StoredRow

_ROUNDS = 5

_STEP_ROWS = 500
"""In one transaction of the embedded database: a few milliseconds of the only writer's time."""

_PAUSE_SHARE = 2
"""The pause after a step, in lengths of that step: two thirds of the time belong to the server."""

NOTE_SEALED = "UPDATE settings SET value = 0 WHERE name = 'unsealed_to'"
"""From now on every row must have a checksum."""


class Writer(Protocol):
    """Writes checksums."""

    async def seal(self, table: MoneyTable, rows: Sequence[tuple[Any, ...]]) -> int:
        """Set the checksum (first) of rows that still say what follows; returns how many did."""
        ...

    async def note_sealed(self) -> None: ...


def seal_statement(table: MoneyTable, mark: str) -> str:
    """Sets the checksum of a row that says what it said; ``mark``: ``?`` or ``$``, which is numbered."""
    marks = iter(f"${number}" if mark == "$" else "?" for number in range(1, len(table.columns) + 2))
    sets = f"UPDATE {table.name} SET checksum = {next(marks)}"
    same = "IS NOT DISTINCT FROM" if mark == "$" else "IS"
    says = " AND ".join(
        f"{name} {'=' if name in table.key else same} {next(marks)}" for name in table.columns
    )
    return f"{sets} WHERE {says} AND checksum IS NULL"


async def seal(reader: Reader, writer: Writer) -> AsyncIterator[int]:
    """Seal every row that has no checksum; yields how many were, part by part."""
    for _ in range(_ROUNDS):
        left = 0
        for table in MONEY_TABLES:
            async for rows in reader.read(table):
                open_rows = [
                    (checksum(row.columns), *row.columns)
                    for row in rows
                    if isinstance(row, StoredRow) and row.checksum is None
                ]
                if open_rows:
                    sealed = await writer.seal(table, open_rows)
                    left += len(open_rows) - sealed
                    yield sealed
        if not left:
            await writer.note_sealed()
            return


class SqliteSealer:
    """``Writer`` over a connection to the embedded database."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db

    async def seal(self, table: MoneyTable, rows: Sequence[tuple[Any, ...]]) -> int:
        sql, sealed = seal_statement(table, "?"), 0
        for start in range(0, len(rows), _STEP_ROWS):
            began = perf_counter()
            before = self._db.total_changes()
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(sql, rows[start : start + _STEP_ROWS])
            finally:
                self._db.execute("COMMIT")
            sealed += self._db.total_changes() - before
            await asyncio.sleep(_PAUSE_SHARE * (perf_counter() - began))
        return sealed

    async def note_sealed(self) -> None:
        self._db.execute(NOTE_SEALED)
