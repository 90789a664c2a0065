"""``store.sealing_rows.Writer`` on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from postbackd.store.postgres_insert import count_of
from postbackd.store.sealing_rows import NOTE_ACCEPTED, NOTE_SEALED, seal_statement
from postbackd.store.verifying import MoneyTable


class PostgresSealer:
    """``Writer`` over a connection to a PostgreSQL database."""

    def __init__(self, db: asyncpg.Connection) -> None:
        self._db = db

    async def seal(self, table: MoneyTable, rows: Sequence[tuple[Any, ...]]) -> int:
        sql, sealed = await self._db.prepare(seal_statement(table, "$")), 0
        async with self._db.transaction():
            for row in rows:
                await sql.fetch(*row)
                sealed += count_of(sql.get_statusmsg())
        return sealed

    async def note_sealed(self) -> None:
        await self._db.execute(NOTE_SEALED)

    async def note_accepted(self, name: str, now_ms: int) -> None:
        await self._db.execute(NOTE_ACCEPTED.format("$1", "$2"), name, now_ms)
