"""Partitions of the large tables: made ahead, made at once where one is missing, dropped whole when a day is purged.

A partition is made as a table of its own and then attached, which stops neither readers nor writers (``CREATE TABLE …
PARTITION OF`` would wait for every reader, and everybody behind it).  One process at a time does so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import asyncpg

from postbackd.core.click_id import first_stamp_at, stamp_ms
from postbackd.store.base import StoreRefused

LOCK_PARTITIONS = "SELECT pg_advisory_xact_lock(8101001)"
"""Held by whoever makes partitions, until its transaction ends."""

PARTITIONS = """
SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bound
FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = $1::text::regclass AND NOT i.inhdetachpending ORDER BY c.relname
"""
"""The partitions of a table."""

TABLES = {
    "clicks": "day",
    "postbacks": "day",
    "conversions": "month",
    "conversion_history": "month",
    "deliveries": "month",
    "attempts": "month",
}
"""Table -> how long the time of one partition is.  What is purged goes by the day.  What is kept for years goes by the
month: every partition costs each statement on its table a lock."""

_AHEAD_DAYS = 3


class Partition(NamedTuple):
    """One partition: its table, its own name, and the stamps in it, the upper one not included."""

    table: str
    name: str
    first: int
    end: int


def partition_of(table: str, stamp: int) -> Partition:
    """The partition in which a row of a table belongs."""
    begin = datetime.fromtimestamp(stamp_ms(stamp) // 1000, UTC).replace(hour=0, minute=0, second=0)
    if TABLES[table] == "month":
        begin = begin.replace(day=1)
        end = (begin + timedelta(days=32)).replace(day=1)
        name = f"{table}_{begin:%Y%m}"
    else:
        end = begin + timedelta(days=1)
        name = f"{table}_{begin:%Y%m%d}"
    return Partition(table, name, _stamp(begin), _stamp(end))


def _stamp(moment: datetime) -> int:
    return first_stamp_at(int(moment.timestamp()) * 1000)


def partitions_ahead(now_ms: int) -> set[Partition]:
    """What rows that are written now, and in the next days, can need."""
    days = [first_stamp_at(now_ms + day * 86_400_000) for day in range(_AHEAD_DAYS + 1)]
    return {partition_of(table, stamp) for table in TABLES for stamp in days}


STATE_OF_TABLE = """
SELECT c.relispartition, obj_description(c.oid, 'pg_class') FROM pg_class AS c
WHERE c.oid = to_regclass($1::text)
"""
"""Whether there is a table, whether it is a partition, and its comment."""

PURGED = "postbackd: purged, may be dropped"
"""The comment of a table that a purge has begun to drop.  Nothing without it is ever dropped: an operator may have
detached it."""


async def make_partitions(db: asyncpg.Connection, wanted: Iterable[Partition]) -> int:
    """Make those of the partitions that are not there; returns how many that were.

    Raises ``StoreRefused`` when a table of that name stands beside: only its owner can tell what it is.
    """
    async with db.transaction():
        await db.execute("SET LOCAL lock_timeout = '3s'")
        await db.execute(LOCK_PARTITIONS)
        made = 0
        for partition in sorted(wanted):
            if partition.name in {name for name, _ in await db.fetch(PARTITIONS, partition.table)}:
                continue
            state = await db.fetchrow(STATE_OF_TABLE, partition.name)
            if state is not None:
                attached, comment = state
                if attached or comment != PURGED:
                    raise StoreRefused(
                        f"table {partition.name} is there and no partition of {partition.table}; "
                        "attach it again, or give it another name"
                    )
                await db.execute(f"DROP TABLE {partition.name}")
            await db.execute(f"CREATE TABLE {partition.name} (LIKE {partition.table} INCLUDING ALL)")
            await db.execute(
                f"ALTER TABLE {partition.table} ATTACH PARTITION {partition.name} "
                f"FOR VALUES FROM ({partition.first}) TO ({partition.end})"
            )
            made += 1
    return made


async def list_partitions(db: asyncpg.Connection, table: str) -> Sequence[Partition]:
    """The partitions of a table, oldest first."""
    rows = await db.fetch(PARTITIONS, table)
    return [Partition(table, name, *_read_bound(bound)) for name, bound in rows]


def _read_bound(bound: str) -> tuple[int, int]:
    """``FOR VALUES FROM ('1') TO ('2')``."""
    _, first, _, end, _ = bound.split("'")
    return int(first), int(end)


async def drop_partition(db: asyncpg.Connection, partition: Partition, *, alone: bool) -> None:
    """Take a partition out of its table without stopping anybody, then drop it.  Outside of a transaction.

    ``alone``: the others have to wait a moment, because Citus cannot do it beside them.
    """
    await db.execute(f"COMMENT ON TABLE {partition.name} IS '{PURGED}'")
    how = "" if alone else "CONCURRENTLY"
    await db.execute(f"ALTER TABLE {partition.table} DETACH PARTITION {partition.name} {how}")
    await _drop_detached(db)


HALF_DETACHED = """
SELECT p.relname, c.relname FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid JOIN pg_class AS p ON p.oid = i.inhparent
WHERE i.inhdetachpending AND p.relname = ANY ($1::text[]) AND obj_description(c.oid, 'pg_class') = $2
"""
"""Partitions that a purge was interrupted in detaching."""

DETACHED = """
SELECT c.relname FROM pg_class AS c
WHERE c.relkind = 'r' AND NOT c.relispartition AND obj_description(c.oid, 'pg_class') = $1
  AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'clicks'::regclass)
"""
"""Tables that a purge detached and has not dropped yet."""


async def finish_drops(db: asyncpg.Connection) -> None:
    """End what a purge began that was interrupted between detaching and dropping.  Outside of a transaction."""
    for table, name in await db.fetch(HALF_DETACHED, list(TABLES), PURGED):
        await db.execute(f"ALTER TABLE {table} DETACH PARTITION {name} FINALIZE")
    await _drop_detached(db)


async def _drop_detached(db: asyncpg.Connection) -> None:
    """Under the lock, so that nobody has made a partition of that name anew in between."""
    async with db.transaction():
        await db.execute(LOCK_PARTITIONS)
        for (name,) in await db.fetch(DETACHED, PURGED):
            await db.execute(f"DROP TABLE {name}")
