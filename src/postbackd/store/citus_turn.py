"""The statements of a deliverer's turn where the tables are distributed: each goes to the shards that it is about.

The rules of ``citus`` hold here: an insert names its rows, no join with an array of keys, no CTE.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import asyncpg

from postbackd.store.base import Turn
from postbackd.store.outbox import BLOCKED, CLICK_COLUMNS, CONVERSION_COLUMNS, EVENT_COLUMNS, TOLD_COLUMNS
from postbackd.store.postgres_insert import Insert
from postbackd.store.postgres_turn import ADDED, CLAIMABLE, Key
from postbackd.store.postgres_write import buckets_of
from postbackd.store.transaction import Row

# Every statement has a name and a sentence.

FIND_EVENTS = f"SELECT {EVENT_COLUMNS} FROM outbox ORDER BY event LIMIT $1"
"""The oldest events."""

FIND_DUE = """
SELECT DISTINCT target FROM deliveries WHERE target = ANY ($1::bigint[]) AND state = 1 AND due_ms <= $2
"""
"""Which targets have something to be sent."""

FIND_CONVERSIONS = f"""
SELECT {CONVERSION_COLUMNS} FROM conversions
WHERE bucket = ANY ($1::smallint[]) AND click_id = ANY ($2::bigint[]) AND click_id BETWEEN $3 AND $4
"""
"""All conversions of clicks."""

FIND_CLICKS = f"""
SELECT {CLICK_COLUMNS} FROM clicks
WHERE bucket = ANY ($1::smallint[]) AND click_id = ANY ($2::bigint[]) AND click_id BETWEEN $3 AND $4
"""
"""What deliveries may say of clicks."""

SETTLE = """
UPDATE deliveries SET state = $2, due_ms = $3, holder = NULL, attempts = attempts + $4, settled_ms = $5, reason = $6
WHERE number = $1 AND bucket = $7 AND click_id = $8 AND holder = $9 AND state < 2
"""
"""What became of a delivery, unless somebody else has it by now."""

ADD_ATTEMPTS = Insert(
    "attempts",
    "click_id bigint, bucket smallint, delivery bigint, attempt integer, at_ms bigint, took_ms bigint, "
    "http_status smallint, excerpt text, error text",
    "ON CONFLICT (delivery, attempt, click_id, bucket) DO NOTHING",
)
"""Attempts."""

FINISH_EVENTS = """
DELETE FROM outbox WHERE bucket = ANY ($1::smallint[]) AND event = ANY ($2::bigint[]) RETURNING event
"""
"""The rules have been asked about these."""

NEXT_NUMBERS = "SELECT nextval('delivery_numbers') FROM generate_series(1, $1)"
"""Numbers that no delivery has or had."""

ADD_DELIVERIES = Insert("deliveries", f"{ADDED.text}, number bigint, attempts integer")
"""What is owed from now on."""

FIND_BLOCKED = f"""
SELECT DISTINCT click_id, conversion_id, target FROM deliveries
WHERE bucket = ANY ($1::smallint[]) AND conversion_id = ANY ($2::bigint[]) AND click_id BETWEEN $3 AND $4
  AND state < 2 AND due_ms = {BLOCKED}
"""
"""For which targets something about conversions waits for its turn."""

FIND_TOLD = f"""
SELECT {TOLD_COLUMNS} FROM deliveries
WHERE bucket = ANY ($1::smallint[]) AND conversion_id = ANY ($2::bigint[]) AND click_id BETWEEN $3 AND $4
ORDER BY number
"""
"""What was ever owed about conversions."""

FIND_WAITING = """
UPDATE deliveries SET state = state
WHERE bucket = ANY ($1::smallint[]) AND conversion_id = ANY ($2::bigint[]) AND click_id BETWEEN $3 AND $4 AND state < 2
RETURNING conversion_id, target
"""
"""For which targets something about these conversions waits, locked."""

FIND_CLAIMABLE = CLAIMABLE.format(target="$1", now="$2", room="$3")
"""What may be sent to a target now: no shard knows which are the first."""

CLAIM = """
UPDATE deliveries SET unsure = CASE WHEN holder IS NULL THEN unsure ELSE 1 END, holder = $1, due_ms = $2
WHERE bucket = ANY ($3::smallint[]) AND click_id = ANY ($4::bigint[]) AND click_id BETWEEN $5 AND $6
  AND number = ANY ($7::bigint[]) AND state < 2 AND due_ms <= $8
RETURNING number
"""
"""Nobody else gets these until then."""


async def find_work(
    db: asyncpg.Connection, targets: Sequence[int], now_ms: int, limit: int
) -> tuple[list[Row], set[int]]:
    """See ``postgres_turn``."""
    due = await db.fetch(FIND_DUE, targets, now_ms) if targets else []
    events = await db.fetch(FIND_EVENTS, limit) if limit else []
    return [tuple(event) for event in events], {target for (target,) in due}


async def find_conversions(
    db: asyncpg.Connection, clicks: Sequence[int]
) -> tuple[Sequence[Row], Sequence[Row]]:
    """See ``postgres_turn``."""
    where = (buckets_of(clicks), clicks, clicks[0], clicks[-1])
    conversions = await db.fetch(FIND_CONVERSIONS, *where)
    return [tuple(row) for row in conversions], [tuple(row) for row in await db.fetch(FIND_CLICKS, *where)]


async def find_told(db: asyncpg.Connection, clicks: Mapping[int, int]) -> Sequence[Row]:
    """See ``postgres_turn``."""
    return [tuple(row) for row in await db.fetch(FIND_TOLD, *_where(clicks))]


async def lock_waiting(db: asyncpg.Connection, clicks: Mapping[int, int]) -> set[tuple[int, int]]:
    """See ``postgres_turn``."""
    return {(row[0], row[1]) for row in await db.fetch(FIND_WAITING, *_where(clicks))}


def _where(clicks: Mapping[int, int]) -> tuple[Sequence[int], Collection[int], int, int]:
    stamps = clicks.values()
    return sorted(set(buckets_of(stamps))), clicks.keys(), min(stamps), max(stamps)


async def settle_and_finish(
    db: asyncpg.Connection, holder: str, settled: Sequence[Row], events: Sequence[tuple[int, int]]
) -> set[int]:
    """See ``postgres_turn``."""
    one_by_one, attempts = [], []
    for number, click_id, bucket, state, due_ms, settled_ms, reason, attempt, *answer in settled:
        tried = int(attempt is not None)
        one_by_one.append((number, state, due_ms, tried, settled_ms, reason, bucket, click_id, holder))
        if tried:
            attempts.append((click_id, bucket, number, attempt, *answer))
    if one_by_one:
        await db.executemany(SETTLE, sorted(one_by_one))
    await ADD_ATTEMPTS.run_values(db, attempts)
    if not events:
        return set()
    buckets = sorted({bucket for _, bucket in events})
    done = await db.fetch(FINISH_EVENTS, buckets, [event for event, _ in events])
    return {event for (event,) in done}


async def add(
    db: asyncpg.Connection, rows: Sequence[Row], ended: Collection[Key]
) -> tuple[list[int], set[Key]]:
    """See ``postgres_turn``."""
    numbers = [number for (number,) in await db.fetch(NEXT_NUMBERS, len(rows))] if rows else []
    await ADD_DELIVERIES.run_values(
        db, [(*row, number, 0) for row, number in zip(rows, numbers, strict=True)]
    )
    if not ended:
        return numbers, set()
    clicks, conversions = [key[0] for key in ended], [key[1] for key in ended]
    buckets = sorted(set(buckets_of(clicks)))
    blocked = await db.fetch(FIND_BLOCKED, buckets, conversions, min(clicks), max(clicks))
    return numbers, {(row[0], row[1], row[2]) for row in blocked}


async def claim(db: asyncpg.Connection, turn: Turn, rooms: Mapping[int, int]) -> list[Row]:
    """See ``postgres_turn``."""
    found: list[Row] = []
    for target, room in rooms.items():
        found += map(tuple, await db.fetch(FIND_CLAIMABLE, target, turn.now_ms, room))
    if not found:
        return []
    numbers, clicks = [row[0] for row in found], [row[_CLICK_ID] for row in found]
    ours = await db.fetch(
        CLAIM, turn.holder, turn.now_ms + turn.lease_ms,
        buckets_of(clicks), clicks, min(clicks), max(clicks), numbers, turn.now_ms,
    )  # fmt: skip
    won = {number for (number,) in ours}
    return [row for row in found if row[0] in won]


_CLICK_ID = 6
"""The place of the click in a row of ``CLAIMABLE``."""
