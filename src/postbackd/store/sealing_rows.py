"""Gives rows a checksum over what they say today: rows from before there were any, and damaged ones that are accepted.

``postbackd verify --seal`` does the first, once; ``postbackd verify --accept`` the second, a conversion at a time.
From then on that is what the checksum holds a row to, so both are an operator's decision.  A row that a server changes
at the same moment is left for the next round.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from time import perf_counter
from typing import Any, Protocol

import apsw

from postbackd.core.checksum import checksum
from postbackd.store.base import StoreRefused
from postbackd.store.verifying import (
    MONEY_TABLES,
    Damage,
    MoneyTable,
    Reader,
    StoredRow,
    judge,
    may_be_unsealed,
)

_ROUNDS = 5

_STEP_ROWS = 500
"""In one transaction of the embedded database: a few milliseconds of the only writer's time."""

_PAUSE_SHARE = 2
"""The pause after a step, in lengths of that step: two thirds of the time belong to the server."""

NOTE_SEALED = "UPDATE settings SET value = 0 WHERE name = 'unsealed_to'"
"""From now on every row must have a checksum."""

_ACCEPTED = "accepted:"

NOTE_ACCEPTED = (
    "INSERT INTO settings (name, value) VALUES ({0}, {1}) ON CONFLICT (name) DO UPDATE SET value = {1}"
)
"""Damaged rows of a conversion were accepted as they are, at this time; ``postbackd doctor`` goes on telling it."""


def accepted_name(conversion: str) -> str:
    """Under which name of ``settings`` it stands that rows of a conversion were accepted."""
    return f"{_ACCEPTED}{conversion}"


class Writer(Protocol):
    """Writes checksums."""

    async def seal(self, table: MoneyTable, rows: Sequence[tuple[Any, ...]]) -> int:
        """Set the checksum (first) of rows that still say what follows, and carry the checksum that comes last.

        Returns how many did.
        """
        ...

    async def note_sealed(self) -> None: ...

    async def note_accepted(self, name: str, now_ms: int) -> None: ...


def seal_statement(table: MoneyTable, mark: str) -> str:
    """Sets the checksum of a row that says what it said; ``mark``: ``?`` or ``$``, which is numbered."""
    marks = iter(f"${number}" if mark == "$" else "?" for number in range(1, len(table.columns) + 3))
    sets = f"UPDATE {table.name} SET checksum = {next(marks)}"
    same = "IS NOT DISTINCT FROM" if mark == "$" else "IS"
    says = " AND ".join(
        f"{name} {'=' if name in table.key else same} {next(marks)}" for name in table.columns
    )
    return f"{sets} WHERE {says} AND checksum {same} {next(marks)}"


async def seal(reader: Reader, writer: Writer) -> AsyncIterator[int]:
    """Seal every row that has no checksum; yields how many were, part by part."""
    for _ in range(_ROUNDS):
        left = 0
        for table in MONEY_TABLES:
            async for rows in reader.read(table):
                open_rows = [
                    (checksum(row.columns), *row.columns, None)
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


async def accept(reader: Reader, writer: Writer, conversion: str, now_ms: int) -> Sequence[Damage]:
    """Give the damaged rows of a conversion, by its id as ``verify`` names it, a checksum over what they say now.

    Returns what was wrong, and nothing when nothing is.  Raises ``StoreRefused`` for a row that no checksum can be
    made of, or that was changed at the same moment; then some of the others may have been accepted.
    """
    accepted: list[Damage] = []
    unsealed_to = await reader.unsealed_to()
    for table in MONEY_TABLES:
        async for rows in reader.read(table):
            for row in rows:
                if not isinstance(row, StoredRow) or may_be_unsealed(table, row, unsealed_to):
                    continue
                damage = judge(table, row)
                if damage is None or damage.conversion != conversion:
                    continue
                _check_acceptable(table, row, damage)
                # First, so that a row is never accepted without being told of.
                await writer.note_accepted(accepted_name(conversion), now_ms)
                if not await writer.seal(table, [(checksum(row.columns), *row.columns, row.checksum)]):
                    raise StoreRefused(
                        f"{table.name}: {conversion} was changed at the same moment; run it again"
                    )
                accepted.append(damage)
    return accepted


def _check_acceptable(table: MoneyTable, row: StoredRow, damage: Damage) -> None:
    for name, value in zip(table.columns, row.columns, strict=True):
        garbled = isinstance(value, tuple) or (isinstance(value, str) and name not in table.texts)
        if garbled or row.misplaced:
            what = row.misplaced or f"{name} is nothing that it can be"
            raise StoreRefused(
                f"{damage.where}: {damage.conversion}: {what}, and cannot be accepted; restore it from a backup"
            )


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

    async def note_accepted(self, name: str, now_ms: int) -> None:
        self._db.execute(NOTE_ACCEPTED.format("?1", "?2"), (name, now_ms))
