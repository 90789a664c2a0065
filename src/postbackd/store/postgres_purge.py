"""What is deleted from a PostgreSQL database, and the largest stamp that must never be given out again."""

from __future__ import annotations

import asyncpg

from postbackd.store.base import Purgeable
from postbackd.store.failpoints import pass_failpoint
from postbackd.store.postgres_insert import count_of
from postbackd.store.postgres_partitions import drop_partition, finish_drops, list_partitions

LAST_STAMP = """
SELECT greatest((SELECT max(click_id) FROM clicks WHERE click_id <= $1),
                (SELECT max(request_id) FROM postbacks WHERE request_id <= $1),
                (SELECT value FROM settings WHERE name = 'last_stamp'))
"""
"""The largest stamp in use."""

KEEP_SETTING = """
INSERT INTO settings AS s (name, value) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET value = greatest(s.value, excluded.value)
"""
"""Keep a number that only grows."""

PURGE_BESIDE = (
    "DELETE FROM own_ids WHERE click_id < $1",
    "DELETE FROM pixel_conversions WHERE click_id < $1",
    "DELETE FROM waiting WHERE request_id < $1",
)
"""What belongs to clicks and log rows that are purged next: own ids, what the pixel brought, and what waits."""

ESTIMATE = "SELECT greatest(reltuples, 1)::bigint FROM pg_class WHERE oid = $1::text::regclass"
"""About how many rows a partition has; counting them would read all of what is about to go."""

ANY_ROW = "SELECT EXISTS (SELECT 1 FROM {name})"
"""Whether a partition has any row."""

PURGE_ROWS = """
DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE {key} < $1 ORDER BY {key} LIMIT $2)
"""
"""The oldest rows of a day that is not over yet."""

COUNT_ROWS = "SELECT count(*) FROM {table} WHERE {key} >= $1 AND {key} < $2"
"""The rows of a table between two stamps."""

_KEYS = {"clicks": "click_id", "postbacks": "request_id"}


async def count_purgeable(db: asyncpg.Connection, before: int, *, distributed: bool) -> Purgeable:
    """How many clicks and log rows have a stamp below ``before``: about, where whole days lie before it.

    ``distributed``: the server at which we ask has no estimates of rows that lie on others, so all are counted.
    """
    counts: dict[str, int] = {}
    exact = True
    for table, key in _KEYS.items():
        counted_from = rows = 0
        for partition in [] if distributed else await list_partitions(db, table):
            if partition.end <= before and await db.fetchval(ANY_ROW.format(name=partition.name)):
                rows += await db.fetchval(ESTIMATE, partition.name)
                counted_from, exact = partition.end, False
        rows += await db.fetchval(COUNT_ROWS.format(table=table, key=key), counted_from, before)
        counts[table] = rows
    return Purgeable(**counts, exact=exact)


async def purge(db: asyncpg.Connection, before: int, limit: int, *, alone: bool) -> int:
    """Delete clicks and log rows with a stamp below ``before``; returns about how many rows of these went.

    A day that lies before it as a whole goes at once, the oldest first; of the last day ``limit`` rows of each go.
    ``alone``: see ``drop_partition``.
    """
    await finish_drops(db)  # an earlier one may have been interrupted
    async with db.transaction():
        await db.execute(KEEP_SETTING, "last_stamp", await db.fetchval(LAST_STAMP, (1 << 63) - 1) or 0)
        await db.execute(KEEP_SETTING, "purged_before", before)
        for statement in PURGE_BESIDE:
            await db.execute(statement, before)
    for table in _KEYS:
        for partition in await list_partitions(db, table):
            if partition.end <= before:
                used = await db.fetchval(ANY_ROW.format(name=partition.name))
                rows: int = await db.fetchval(ESTIMATE, partition.name)
                pass_failpoint("mid_purge")
                await drop_partition(db, partition, alone=alone)
                if used:
                    return rows
    deleted = 0
    for table, key in _KEYS.items():
        deleted += count_of(await db.execute(PURGE_ROWS.format(table=table, key=key), before, limit))
    return deleted
