"""Reads a PostgreSQL database for ``store.verifying``, whatever state its files are in, and changes nothing in it.

Tables are read by their blocks, not by an index, in short statements; blocks that cannot be read are read row by row.
Where the extension ``amcheck`` is installed it is asked about each table and its indexes: it finds what reading does
not see, such as an index that misses a row.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg

from postbackd.core.buckets import bucket_of_stamp
from postbackd.core.click_id import write_stamp
from postbackd.store.citus import read_shards
from postbackd.store.postgres_connection import AWAY, ask
from postbackd.store.postgres_partitions import PARTITIONS
from postbackd.store.verifying import Damage, MoneyTable, StoredRow, Unreadable, read_text

_BLOCKS = 256
"""Of 8 kB, read by one statement."""

_MOST_ROWS_A_BLOCK = 291
"""Line pointers that fit into a block (MaxHeapTuplesPerPage)."""

_FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, *AWAY)

BLOCKS_OF = "SELECT pg_relation_size($1::text::regclass) / current_setting('block_size')::bigint"
"""How many blocks a table has."""

HAS_AMCHECK = "SELECT EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'amcheck')"
"""Whether the extension is in this database."""

CHECK_HEAP = "SELECT blkno, offnum, msg FROM verify_heapam($1::text::regclass)"
"""What is wrong with the rows of a table, as the server sees it."""

INDEXES_OF = """
SELECT i.indexrelid::regclass::text AS name FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_am AS a ON a.oid = c.relam WHERE i.indrelid = $1::text::regclass AND a.amname = 'btree'
"""
"""The indexes of a table."""

CHECK_INDEX = "SELECT bt_index_check($1::text::regclass, true)"
"""Raises when an index is damaged, or misses a row of its table."""

_MISSING = {
    "accepted_without_conversion": "was accepted, and its conversion is not there",
    "updated_without_history": "changed a conversion, and the change is not there",
}


class PostgresReader:
    """``store.verifying.Reader`` over one connection."""

    def __init__(self, db: asyncpg.Connection) -> None:
        self._db = db

    async def examine(self) -> AsyncIterator[Damage]:
        try:
            if not await self._db.fetchval(HAS_AMCHECK):
                return
            names = [
                name
                for table in ("conversions", "conversion_history")
                for name in await self._parts_of(table)
            ]
        except _FAILURES as error:
            yield Damage(where="structure", detail=f"cannot be checked ({_words(error)})")
            return
        for name in names:
            async for damage in self._check(name):
                yield damage

    async def _check(self, name: str) -> AsyncIterator[Damage]:
        try:
            for block, row, message in await self._db.fetch(CHECK_HEAP, name):
                yield Damage(where="structure", detail=f"{name}, block {block}, row {row}: {message}")
            for (index,) in await self._db.fetch(INDEXES_OF, name):
                await self._db.fetchval(CHECK_INDEX, index)
        except _FAILURES as error:
            yield Damage(where="structure", detail=f"{name}: {_words(error)}")

    async def unsealed_to(self) -> int:
        try:
            rows = await ask(self._db, "unsealed_to", distributed=False)
        except _FAILURES:
            return 0  # what is wrong is found elsewhere; then every row must have one
        return int(rows[0]["stamp"]) if rows else 0

    async def _parts_of(self, table: str) -> Sequence[str]:
        return [name for name, _ in await self._db.fetch(PARTITIONS, table)]

    async def read(self, table: MoneyTable) -> AsyncIterator[Sequence[StoredRow | Unreadable]]:
        try:
            if await read_shards(self._db) is not None:
                async for rows in self._read_shards(table):
                    yield rows
                return
            for part in await self._parts_of(table.name):
                for first in range(0, await self._db.fetchval(BLOCKS_OF, part), _BLOCKS):
                    async for rows in self._read_blocks(table, part, first):
                        yield rows
        except _FAILURES as error:
            yield [Unreadable(f"cannot be read ({_words(error)})")]

    async def _read_blocks(
        self, table: MoneyTable, part: str, first: int
    ) -> AsyncIterator[Sequence[StoredRow | Unreadable]]:
        whole = f"WHERE ctid >= '({first},0)' AND ctid < '({first + _BLOCKS},0)'"
        try:
            yield await self._select(table, part, whole)
        except asyncpg.PostgresError:
            for block in range(first, first + _BLOCKS):
                yield await self._read_block(table, part, block)

    async def _read_block(self, table: MoneyTable, part: str, block: int) -> Sequence[StoredRow | Unreadable]:
        try:
            return await self._select(
                table, part, f"WHERE ctid >= '({block},0)' AND ctid < '({block + 1},0)'"
            )
        except asyncpg.PostgresError as error:
            found: list[StoredRow | Unreadable] = [
                Unreadable(f"{part}, block {block}: rows cannot be read ({_words(error)})")
            ]
        for row in range(1, _MOST_ROWS_A_BLOCK + 1):
            try:
                found += await self._select(table, part, f"WHERE ctid = '({block},{row})'")
            except asyncpg.PostgresError as error:
                found.append(Unreadable(f"{part}, block {block}, row {row} cannot be read ({_words(error)})"))
        return found

    async def _read_shards(self, table: MoneyTable) -> AsyncIterator[Sequence[StoredRow | Unreadable]]:
        """Where the tables are distributed no machine knows the blocks of the others."""
        async with self._db.transaction(isolation="repeatable_read", readonly=True):
            chunk: list[StoredRow] = []
            async for row in self._db.cursor(_select(table, table.name, ""), prefetch=2000):
                chunk.append(_stored(table, row))
                if len(chunk) == 2000:
                    yield chunk
                    chunk = []
            yield chunk

    async def _select(self, table: MoneyTable, part: str, where: str) -> list[StoredRow]:
        return [_stored(table, row) for row in await self._db.fetch(_select(table, part, where))]

    async def missing(self) -> AsyncIterator[Damage]:
        try:
            distributed = await read_shards(self._db) is not None
            replayed = int(
                not distributed
            )  # what a replay matched may lie on another shard than its conversion
            for name, words in _MISSING.items():
                for row in await ask(self._db, name, distributed=distributed, replayed=replayed):
                    detail = f"request {write_stamp(row['request_id'])} {words}"
                    yield Damage(where="log", conversion=write_stamp(row["conversion_id"]), detail=detail)
        except _FAILURES as error:
            yield Damage(where="log", detail=f"cannot be read ({_words(error)})")

    async def close(self) -> None:
        self._db.terminate()


def _select(table: MoneyTable, part: str, where: str) -> str:
    # The bytes of a text: one that is no UTF-8 any more would end the whole answer.
    columns = ", ".join(f"textsend({name})" if name in table.texts else name for name in table.columns)
    return f"SELECT {columns}, checksum, click_id, bucket FROM {part} {where}"


def _stored(table: MoneyTable, row: Sequence[Any]) -> StoredRow:
    *columns, stored, click_id, bucket = row
    for index, name in enumerate(table.columns):
        if name in table.texts and columns[index] is not None:
            columns[index] = read_text(columns[index])
    right = bucket_of_stamp(click_id) if click_id >= 0 else -1
    return StoredRow(
        columns, stored, "" if bucket == right else f"it lies in bucket {bucket}, and belongs into {right}"
    )


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
