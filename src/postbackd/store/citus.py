"""PostgreSQL with the Citus extension: one database on many machines.

The large tables are distributed by ``bucket`` and lie together, so that everything of one click is on one shard; the
catalog is a reference table on every machine.  A batch is divided by shard, and each part is one transaction on one
shard.  Rules of the statements here, each learned from a real Citus (and held by a linter in the tests):

- an insert names its rows (``VALUES``): ``INSERT … SELECT unnest`` goes through the coordinator, ten times slower;
- a statement says in which buckets its rows are, so that it goes to one shard and no other;
- no join with an array of keys, no CTE with ``INSERT … RETURNING``, nothing that reads ``xmax``, no lock over shards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import asyncpg

from postbackd.core.buckets import BUCKETS, bucket_of_stamp, bucket_of_text
from postbackd.core.model import Click, Postback
from postbackd.core.rules import Conversion
from postbackd.store.base import Batch, StoreRefused
from postbackd.store.postgres_insert import Insert
from postbackd.store.postgres_schema import read_state
from postbackd.store.postgres_write import PostgresTransaction, buckets_of
from postbackd.store.transaction import Key, Row, StoredClick

_T = TypeVar("_T")

DISTRIBUTED = (
    "clicks",
    "conversions",
    "conversion_history",
    "postbacks",
    "own_ids",
    "waiting",
    "pixel_conversions",
    "outbox",
    "deliveries",
    "attempts",
    "erased_clicks",
)
"""Tables that are spread over the machines by ``bucket``, the first one giving the pattern."""

REFERENCE = (
    "networks",
    "sources",
    "offers",
    "campaigns",
    "targets",
    "rules",
    "target_states",
    "signing_keys",
    "secrets",
    "settings",
)
"""Tables of which every machine has all rows, in the order in which they refer to each other."""

HAS_CITUS = "SELECT to_regproc('create_distributed_table') IS NOT NULL"
"""Whether the extension is here."""

HAS_DISTRIBUTION = "SELECT to_regclass('pg_dist_partition') IS NOT NULL"
"""Whether there is a list of distributed tables."""

IS_DISTRIBUTED = "SELECT EXISTS (SELECT 1 FROM pg_dist_partition WHERE logicalrelid = to_regclass($1::text))"
"""Whether a table is in it."""

DISTRIBUTE = "SELECT create_distributed_table($1::text::regclass, 'bucket', colocate_with => $2)"
"""Spread a table over the machines."""

MAKE_REFERENCE = "SELECT create_reference_table($1::text::regclass)"
"""Copy a table to every machine."""

SHARD_OF_BUCKETS = """
SELECT b::integer, get_shard_id_for_distribution_column('clicks'::regclass, b::smallint)::bigint
FROM generate_series(0, $1) AS b
"""
"""The shard of each bucket."""

FIND_CLICKS = """
SELECT click_id, campaign, offer, kind FROM clicks
WHERE bucket = ANY ($1::smallint[]) AND click_id = ANY ($2::bigint[]) AND click_id BETWEEN $3 AND $4
"""
"""What matching needs of clicks."""

FIND_CONVERSIONS = """
SELECT click_id, type, transaction_id, conversion_id, status, value_micros, currency, channels, status_time_ms,
       network, campaign, offer, checksum
FROM conversions
WHERE bucket = ANY ($1::smallint[]) AND click_id = ANY ($2::bigint[]) AND click_id BETWEEN $3 AND $4
"""
"""The conversions of clicks."""

LOCK_CONVERSIONS = """
SELECT click_id, type, transaction_id, conversion_id, status, value_micros, currency, channels, status_time_ms,
       network, campaign, offer, checksum
FROM conversions WHERE bucket = $1 AND click_id = $2 ORDER BY type, transaction_id FOR UPDATE
"""
"""The conversions of one click, which nobody else changes until this transaction has ended."""

CHANGE_POSTBACK = """
UPDATE postbacks SET first_verdict = coalesce(first_verdict, verdict), first_reason = coalesce(first_reason, reason),
                     verdict = $1, reason = $2, click_id = $3, campaign = $4, conversion_id = $5
WHERE request_id = $6
"""
"""A late match or a replay changed what became of a postback.  Its bucket is that of the click it spoke of at first,
which is not known here: the one statement that goes to every shard."""

ANY_PIXEL_CONVERSION = "SELECT 1 FROM pixel_conversions WHERE bucket = ANY ($1::smallint[]) LIMIT 1"
"""Whether the pixel brought any to these buckets that S2S has not confirmed."""

TAKE_PIXEL_CONVERSIONS = """
DELETE FROM pixel_conversions
WHERE bucket = ANY ($1::smallint[]) AND click_id = ANY ($2::bigint[])
  AND (click_id::text || ' ' || type) = ANY ($3::text[])
RETURNING click_id, type
"""
"""S2S speaks of conversions that the pixel brought."""


async def distribute(db: asyncpg.Connection) -> Sequence[str]:
    """Spread the tables over the machines; returns the names of those that were.  Raises ``StoreRefused``.

    What is in the tables is moved; nobody can write meanwhile.
    """
    if not await db.fetchval(HAS_CITUS):
        raise StoreRefused("the database has no Citus; run CREATE EXTENSION citus and add the workers first")
    if (await read_state(db)).pending:
        raise StoreRefused("tables are missing; run 'postbackd db migrate' first")
    # Citus moves the rows with parallel connections otherwise, which cannot see the table of this transaction.
    made = []
    async with db.transaction():
        await db.execute("SET LOCAL citus.multi_shard_modify_mode TO 'sequential'")
        for table in (*REFERENCE, *DISTRIBUTED):
            if await _is_distributed(db, table):
                continue
            if table in REFERENCE:
                await db.fetchval(MAKE_REFERENCE, table)
            else:
                await db.fetchval(DISTRIBUTE, table, "default" if table == DISTRIBUTED[0] else DISTRIBUTED[0])
            made.append(table)
    return made


async def _is_distributed(db: asyncpg.Connection, table: str) -> bool:
    return bool(await db.fetchval(HAS_DISTRIBUTION) and await db.fetchval(IS_DISTRIBUTED, table))


async def read_shards(db: asyncpg.Connection) -> Sequence[int] | None:
    """The shard of each bucket, ``None`` when the tables are not distributed.

    Raises ``StoreRefused`` when those of a newer version are not, yet.
    """
    if not await _is_distributed(db, DISTRIBUTED[0]):
        return None
    for table in (*REFERENCE, *DISTRIBUTED):
        if not await _is_distributed(db, table):
            raise StoreRefused(
                f"table {table} is new and not distributed yet; run 'postbackd db distribute' once more"
            )
    return [shard for _, shard in sorted(await db.fetch(SHARD_OF_BUCKETS, BUCKETS - 1))]


def bucket_of_click(click: Click) -> int:
    """The bucket by which a click is put into a part: two that claim the same own id must meet in their order."""
    return bucket_of_stamp(click.stamp) if click.own_id is None else bucket_of_text(click.own_id)


def bucket_of_postback(postback: Postback) -> int:
    """The bucket of everything that a postback is about, as far as can be told before its click is found."""
    if postback.click.click_id is not None:
        return bucket_of_stamp(postback.click.click_id)
    if postback.click.own_id is not None:
        return bucket_of_text(postback.click.own_id)
    return bucket_of_stamp(postback.request.request_id)


def group_by_shard(
    items: Sequence[_T], bucket_of: Callable[[_T], int], shards: Sequence[int]
) -> Mapping[int, list[int]]:
    """Shard -> positions of the items that belong there, in their order."""
    groups: dict[int, list[int]] = {}
    for index, item in enumerate(items):
        try:
            shard = shards[bucket_of(item)]
        except UnicodeEncodeError:  # cannot be stored; whoever writes it will find out
            shard = shards[0]
        groups.setdefault(shard, []).append(index)
    return groups


def parts_of(batch: Batch, shards: Sequence[int]) -> tuple[Mapping[int, list[int]], Mapping[int, list[int]]]:
    """Shard -> positions of clicks, and shard -> positions of postbacks."""
    clicks = group_by_shard(batch.clicks, bucket_of_click, shards)
    return clicks, group_by_shard(batch.postbacks, bucket_of_postback, shards)


class CitusTransaction(PostgresTransaction):
    """As on one machine, in statements that go to one shard."""

    distributed = True

    async def insert(self, statement: Insert, rows: Sequence[Row]) -> int:
        return await statement.run_values(self._db, rows)

    async def find_clicks(self, stamps: Sequence[int]) -> Mapping[int, StoredClick]:
        buckets = buckets_of(stamps)
        self._buckets |= set(buckets)
        rows = await self._db.fetch(FIND_CLICKS, buckets, stamps, min(stamps), max(stamps))
        return {stamp: (campaign, offer, kind) for stamp, campaign, offer, kind in rows}

    async def find_conversions(self, keys: Sequence[Key]) -> Mapping[Key, Conversion]:
        if not keys:
            return {}
        stamps = sorted({key[0] for key in keys})
        buckets = buckets_of(stamps)
        rows = await self._db.fetch(FIND_CONVERSIONS, buckets, stamps, stamps[0], stamps[-1])
        return _choose(keys, rows)

    async def lock_conversions(self, keys: Sequence[Key]) -> Mapping[Key, Conversion]:
        found: list[Row] = []
        for stamp in sorted({key[0] for key in keys}):
            found += await self._db.fetch(LOCK_CONVERSIONS, bucket_of_stamp(stamp), stamp)
        return _choose(keys, found)

    async def change_postbacks(self, rows: Sequence[Row]) -> None:
        await self._db.executemany(CHANGE_POSTBACK, rows)

    async def has_pixel_conversions(self) -> bool:
        if self._pixel is None:
            found = await self._db.fetchval(ANY_PIXEL_CONVERSION, sorted(self._buckets))
            self._pixel = found is not None
        return self._pixel

    async def take_pixel_conversions(self, keys: Sequence[tuple[int, str]]) -> set[tuple[int, str]]:
        if not keys:
            return set()
        stamps = sorted({key[0] for key in keys})
        pairs = sorted({f"{stamp} {type_}" for stamp, type_ in keys})
        buckets = buckets_of(stamps)
        rows = await self._db.fetch(TAKE_PIXEL_CONVERSIONS, buckets, stamps, pairs)
        return {(stamp, type_) for stamp, type_ in rows}


def _choose(keys: Sequence[Key], rows: Sequence[Row]) -> dict[Key, Conversion]:
    found = {(row[0], row[1], row[2]): Conversion(*row[3:]) for row in map(tuple, rows)}
    return {key: found[key] for key in keys if key in found}
