"""What is deleted from a PostgreSQL database, and the largest stamp that must never be given out again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import asyncpg

from postbackd.core.click_id import EPOCH_MS, first_stamp_at
from postbackd.core.retention import Class
from postbackd.core.rollups import Kind
from postbackd.core.zones import QUARTER_MS
from postbackd.store.failpoints import pass_failpoint
from postbackd.store.postgres_insert import count_of
from postbackd.store.postgres_partitions import Partition, drop_partition, finish_drops, list_partitions

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

PURGE_MARKS = f"""
DELETE FROM rollup_marks WHERE kind = {{kind}} AND slot < (($1::bigint >> 22) + {EPOCH_MS}) / {QUARTER_MS}
"""
"""Nothing is left to roll up of these quarters; without an admin role nobody else takes their marks away."""

PURGE_BESIDE: Mapping[Class, Sequence[str]] = {
    Class.CLICKS: (
        "DELETE FROM own_ids WHERE click_id < $1",
        "DELETE FROM pixel_conversions WHERE click_id < $1",
        PURGE_MARKS.format(kind=Kind.CLICKS.value),
    ),
    Class.POSTBACKS: (
        "DELETE FROM waiting WHERE request_id < $1",
        PURGE_MARKS.format(kind=Kind.POSTBACKS.value),
    ),
}
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

PURGE_ATTEMPTS = """
DELETE FROM attempts WHERE at_ms < $1 AND (delivery, attempt) IN (
    SELECT delivery, attempt FROM attempts WHERE at_ms < $1 ORDER BY at_ms LIMIT $2)
"""
"""The oldest attempts, of months that are not over."""

COUNT_ATTEMPTS = "SELECT count(*) FROM attempts WHERE at_ms < $1"
"""How many there are."""

YOUNG_ATTEMPT = "SELECT EXISTS (SELECT 1 FROM {name} WHERE at_ms >= $1)"
"""Whether a partition has any that has to be kept."""

YOUNG_CONVERSION = "SELECT EXISTS (SELECT 1 FROM {name} WHERE conversion_id >= $1)"
"""Whether a partition has a conversion that has to be kept: it was counted long after its click."""

WAITING_DELIVERY = (
    "SELECT EXISTS (SELECT 1 FROM deliveries WHERE state = 1 AND click_id >= $1 AND click_id < $2)"
)
"""Whether anything about the clicks between two stamps waits to be sent."""

WAITING_EVENT = "SELECT EXISTS (SELECT 1 FROM outbox WHERE click_id >= $1 AND click_id < $2)"
"""Whether the rules have still to be asked about any of them."""

PURGE_ERASED = """
DELETE FROM erased_clicks AS e
WHERE e.click_id < $1
  AND NOT EXISTS (SELECT 1 FROM conversions AS k WHERE k.click_id = e.click_id AND k.bucket = e.bucket)
  AND NOT EXISTS (SELECT 1 FROM clicks AS k WHERE k.click_id = e.click_id AND k.bucket = e.bucket)
"""
"""Erased clicks of which nothing is left that a repeat could meet."""

PURGE_FACTS = "DELETE FROM conversion_facts WHERE click_id >= $1 AND click_id < $2"
"""What was rolled up of a month of conversions."""

PURGE_LOST_FACTS = "DELETE FROM conversion_facts WHERE click_id < $1"
"""What was rolled up of months that are gone: a purge may have been killed before it came to that."""

PURGED_BEFORE = "SELECT value FROM settings WHERE name = 'purged_before'"
"""The stamp before which clicks are gone."""

COUNTS = ("refusals", "response_times", "finds", "unmapped_names")

NOTE_PURGE = "INSERT INTO purges (at_ms, class, rows) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
"""What a purge deleted."""

FORGET_PURGES = "DELETE FROM purges WHERE at_ms < $1::bigint - 7776000000"
"""What they deleted long ago (90 days) says nothing any more."""

NOTE_CLOCK = """
INSERT INTO settings AS s (name, value) VALUES ('purge_clock_ms', $1)
ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""
"""The time at which a purge looked."""

_KEYS = {"clicks": "click_id", "postbacks": "request_id"}


async def count_old(
    db: asyncpg.Connection, class_: Class, before_ms: int, *, distributed: bool
) -> tuple[int, bool]:
    """How many rows of a class are older, and whether they were counted: of whole partitions it says about how many.

    ``distributed``: the server at which we ask has no estimates of rows that lie on others, so all are counted.
    """
    before = first_stamp_at(before_ms)
    if class_ is Class.ATTEMPTS:
        return await db.fetchval(COUNT_ATTEMPTS, before_ms), True
    if class_ is Class.COUNTS:
        counted = 0
        for table in COUNTS:
            counted += await db.fetchval(
                f"SELECT count(*) FROM {table} WHERE minute < $1", before_ms // 60_000
            )
        return counted, True
    if class_ is Class.CONVERSIONS:
        rows, exact = 0, True
        for partition in await _old_months(db, before):
            rows += await db.fetchval(ESTIMATE, partition.name)
            exact = False
        return rows, exact
    return await _count_by_day(db, str(class_), before, distributed=distributed)


async def _count_by_day(
    db: asyncpg.Connection, table: str, before: int, *, distributed: bool
) -> tuple[int, bool]:
    counted_from = rows = 0
    exact, key = True, _KEYS[table]
    for partition in [] if distributed else await list_partitions(db, table):
        if partition.end <= before and await db.fetchval(ANY_ROW.format(name=partition.name)):
            rows += await db.fetchval(ESTIMATE, partition.name)
            counted_from, exact = partition.end, False
    rows += await db.fetchval(COUNT_ROWS.format(table=table, key=key), counted_from, before)
    return rows, exact


async def purge(db: asyncpg.Connection, class_: Class, before_ms: int, limit: int, *, alone: bool) -> int:
    """One step of deleting what is older than ``before_ms`` of a class; returns about how many rows went.

    A partition that lies before it as a whole goes at once, the oldest first; of what is left ``limit`` rows of
    clicks, log and attempts.  Conversions go by the month only.  ``alone``: see ``drop_partition``.
    """
    await finish_drops(db)  # an earlier one may have been interrupted
    before = first_stamp_at(before_ms)
    if class_ is Class.COUNTS:
        deleted = 0
        for table in COUNTS:
            deleted += count_of(
                await db.execute(f"DELETE FROM {table} WHERE minute < $1", before_ms // 60_000)
            )
        return deleted
    if class_ is Class.ATTEMPTS:
        return await _purge_attempts(db, before, before_ms, limit, alone=alone)
    if class_ is Class.CONVERSIONS:
        return await _purge_conversions(db, before, alone=alone)
    return await _purge_by_day(db, class_, before, limit, alone=alone)


async def _purge_by_day(
    db: asyncpg.Connection, class_: Class, before: int, limit: int, *, alone: bool
) -> int:
    table, key = str(class_), _KEYS[class_]
    async with db.transaction():
        await db.execute(KEEP_SETTING, "last_stamp", await db.fetchval(LAST_STAMP, (1 << 63) - 1) or 0)
        horizon = "purged_before" if class_ is Class.CLICKS else "postbacks_purged_before"
        await db.execute(KEEP_SETTING, horizon, before)
        for statement in PURGE_BESIDE[class_]:
            await db.execute(statement, before)
    for partition in await list_partitions(db, table):
        if partition.end <= before:
            used = await db.fetchval(ANY_ROW.format(name=partition.name))
            rows: int = await db.fetchval(ESTIMATE, partition.name)
            pass_failpoint("mid_purge")
            await drop_partition(db, partition, alone=alone)
            if used:
                return rows
    return count_of(await db.execute(PURGE_ROWS.format(table=table, key=key), before, limit))


async def _purge_attempts(
    db: asyncpg.Connection, before: int, before_ms: int, limit: int, *, alone: bool
) -> int:
    for partition in await list_partitions(db, "attempts"):
        if partition.end <= before and not await db.fetchval(
            YOUNG_ATTEMPT.format(name=partition.name), before_ms
        ):
            used = await db.fetchval(ANY_ROW.format(name=partition.name))
            rows: int = await db.fetchval(ESTIMATE, partition.name)
            await drop_partition(db, partition, alone=alone)
            if used:
                return rows
    return count_of(await db.execute(PURGE_ATTEMPTS, before_ms, limit))


async def _purge_conversions(db: asyncpg.Connection, before: int, *, alone: bool) -> int:
    """A month of conversions, their history, deliveries and attempts; the conversions last, as their keys decide."""
    for month in await _old_months(db, before):
        used = await db.fetchval(ANY_ROW.format(name=month.name))
        rows: int = await db.fetchval(ESTIMATE, month.name)
        # The log may be kept for longer, and is not to miss them.
        await db.execute(KEEP_SETTING, "conversions_purged_before", month.end)
        for table in ("attempts", "deliveries", "conversion_history", "conversions"):
            for partition in await list_partitions(db, table):
                if month.first <= partition.first and partition.end <= month.end:
                    pass_failpoint("mid_purge")
                    await drop_partition(db, partition, alone=alone)
        await db.execute(PURGE_FACTS, month.first, month.end)
        if used:
            return rows
    months = await list_partitions(db, "conversions")
    await db.execute(PURGE_LOST_FACTS, months[0].first if months else 0)
    return count_of(await db.execute(PURGE_ERASED, min(before, await db.fetchval(PURGED_BEFORE) or 0)))


async def _old_months(db: asyncpg.Connection, before: int) -> Sequence[Partition]:
    """The months of conversions that may go: their clicks are gone, and nothing about them waits to be sent."""
    gone = min(before, await db.fetchval(PURGED_BEFORE) or 0)
    months = [partition for partition in await list_partitions(db, "conversions") if partition.end <= gone]
    return [
        month
        for month in months
        if not (
            await db.fetchval(YOUNG_CONVERSION.format(name=month.name), before)
            or await db.fetchval(WAITING_DELIVERY, month.first, month.end)
            or await db.fetchval(WAITING_EVENT, month.first, month.end)
        )
    ]


async def note_purge(db: asyncpg.Connection, now_ms: int, deleted: Mapping[Class, int]) -> None:
    """See ``store.base.Store.note_purge``."""
    async with db.transaction():
        await db.execute(NOTE_CLOCK, now_ms)
        await db.execute(FORGET_PURGES, now_ms)
        for class_, rows in deleted.items():
            if rows:
                await db.execute(NOTE_PURGE, now_ms, str(class_), rows)
