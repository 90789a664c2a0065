"""Copies a PostgreSQL database, as it is at one moment, into a new embedded database: the way back from ``moving``.

One transaction sees all of it (REPEATABLE READ, read only), and rows stream through a cursor, so that memory does not
grow with the tables.  Writers do not wait; but what they replace is kept by the server until the copy has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import apsw
import asyncpg

from postbackd.store.base import StoreRefused
from postbackd.store.citus import read_shards
from postbackd.store.moving import CATALOG, LARGE, WHOLE, Table
from postbackd.store.postgres_connection import check_server, connect, disconnect, refusing
from postbackd.store.postgres_schema import read_state
from postbackd.store.sqlite_file import APPLICATION_ID, migrations

_ROWS = 5000
"""Of one turn; the event loop goes on between them."""

_NOT_HERE = {"conversion_history": "click_id", "attempts": "click_id"}
"""A column that the embedded database keeps elsewhere."""

NEXT_DELIVERY = "SELECT last_value FROM delivery_numbers"
"""No delivery has a larger number than this."""


async def copy_to_file(dsn: str, target: Path) -> None:
    """Fill a new file.  Raises ``StoreRefused``, ``apsw.Error`` or ``OSError``."""
    with refusing(dsn):
        source = await connect(dsn, {"jit": "off"})
        try:
            await check_server(source)
            if (await read_state(source)).pending:
                raise StoreRefused("the database has an old schema; run 'postbackd db migrate' once")
            if await read_shards(source) is not None:
                raise StoreRefused(
                    "the tables are distributed by Citus, which has no view of all its machines at one moment; take a "
                    "restore point (citus_create_restore_point) and a base backup of each machine instead"
                )
            there = apsw.Connection(str(target))
            try:
                async with source.transaction(isolation="repeatable_read", readonly=True):
                    await _copy(source, there)
            finally:
                there.close(force=True)
        finally:
            await disconnect(source)


async def _copy(source: asyncpg.Connection, target: apsw.Connection) -> None:
    target.pragma("journal_mode", "OFF")
    target.pragma("synchronous", "OFF")
    target.execute("BEGIN")
    for number, sql in enumerate(migrations(), start=1):
        target.execute(sql)
        target.pragma("user_version", number)
    target.pragma("application_id", APPLICATION_ID)
    target.execute("DELETE FROM settings")
    for table in ("settings", "secrets"):
        rows = await source.fetch(f"SELECT name, value FROM {table}")
        target.executemany("INSERT INTO settings (name, value) VALUES (?, ?)", map(tuple, rows))
    for tables in (CATALOG, LARGE, WHOLE):
        for one in tables:
            await _copy_table(source, target, one)
    number = await source.fetchval(NEXT_DELIVERY)
    target.execute("DELETE FROM sqlite_sequence WHERE name = 'deliveries'")
    target.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('deliveries', ?)", (number,))
    target.execute("COMMIT")
    target.pragma("journal_mode", "wal")


async def _copy_table(source: asyncpg.Connection, target: apsw.Connection, table: Table) -> None:
    columns = [name for name in table.columns if name != _NOT_HERE.get(table.name)]
    names = ", ".join(f'"{name}"' for name in columns)
    insert = f"INSERT INTO {table.name} ({names}) VALUES ({', '.join('?' * len(columns))})"
    chunk: list[tuple[object, ...]] = []
    async for row in source.cursor(f"SELECT {names} FROM {table.name}{_order(table)}", prefetch=_ROWS):
        chunk.append(tuple(row))
        if len(chunk) == _ROWS:
            _insert(target, insert, chunk)
            chunk = []
            await asyncio.sleep(0)
    _insert(target, insert, chunk)


def _order(table: Table) -> str:
    """Large tables by their key: the embedded one grows at its end then."""
    return f" ORDER BY {table.key}" if table.key else ""


def _insert(target: apsw.Connection, sql: str, rows: Iterable[tuple[object, ...]]) -> None:
    target.executemany(sql, rows)
