"""Outbox and deliveries on PostgreSQL, in statements that a distributed database takes, too.

What is due is chosen first and claimed afterwards, by an ``UPDATE`` that looks again: of two deliverers that chose the
same, one gets it.  Nothing is locked while it is only looked at.

Where rows are known by their number or conversion, "it waits" is written ``state < 2``, and not ``state = 1``: the
planner would take the index of what is due for it, and read all that waits for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import asyncpg

from postbackd.core.deliveries import Delivery, DeliveryState, Owed, Settled, TargetState
from postbackd.store.base import Look, Turn
from postbackd.store.outbox import (
    BLOCKED,
    CLICK_COLUMNS,
    CONVERSION_COLUMNS,
    EVENT_COLUMNS,
    OWED_COLUMNS,
    TOLD_COLUMNS,
    assemble,
    changed_conversions,
    due_times,
    owed_row,
    read_delivery,
    read_told,
)
from postbackd.store.postgres_insert import Insert
from postbackd.store.postgres_write import PostgresTransaction, buckets_of
from postbackd.store.transaction import Row

# Every statement has a name and a sentence.

FIND_EVENTS = f"SELECT {EVENT_COLUMNS} FROM outbox ORDER BY event LIMIT $1"
"""The oldest events."""

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

FIND_TOLD = f"""
SELECT {TOLD_COLUMNS} FROM deliveries
WHERE bucket = ANY ($1::smallint[]) AND conversion_id = ANY ($2::bigint[]) AND click_id BETWEEN $3 AND $4
ORDER BY number
"""
"""What was ever owed about conversions."""

FIND_DUE = """
SELECT t.target FROM unnest($1::bigint[]) AS t (target)
WHERE EXISTS (SELECT 1 FROM deliveries AS d WHERE d.target = t.target AND d.state = 1 AND d.due_ms <= $2)
"""
"""Which targets have something to be sent."""

FIND_DUE_ON_SHARDS = """
SELECT DISTINCT target FROM deliveries WHERE target = ANY ($1::bigint[]) AND state = 1 AND due_ms <= $2
"""
"""The same, where the rows lie on several machines."""

LOCK_EVENTS = "SELECT pg_advisory_xact_lock(8101005)"
"""Held by whoever turns events into deliveries, until its transaction ends: the later event of a conversion must not
become a delivery before the earlier one."""

FINISH_EVENTS = """
DELETE FROM outbox WHERE bucket = ANY ($1::smallint[]) AND event = ANY ($2::bigint[]) RETURNING event
"""
"""The rules have been asked about these."""

SETTLE = """
UPDATE deliveries AS d SET state = w.state, due_ms = w.due_ms, holder = NULL, attempts = d.attempts + w.attempts,
                           settled_ms = w.settled_ms, reason = w.reason
FROM unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::integer[], $5::bigint[], $6::text[])
  AS w (number, state, due_ms, attempts, settled_ms, reason)
WHERE d.bucket = ANY ($7::smallint[]) AND d.click_id = ANY ($8::bigint[]) AND d.click_id BETWEEN $9 AND $10
  AND d.number = ANY ($1::bigint[]) AND d.number = w.number AND d.holder = $11 AND d.state < 2
"""
"""What became of deliveries, unless somebody else has them by now."""

SETTLE_ON_SHARDS = """
UPDATE deliveries SET state = $2, due_ms = $3, holder = NULL, attempts = attempts + $4, settled_ms = $5, reason = $6
WHERE number = $1 AND bucket = $7 AND click_id = $8 AND holder = $9 AND state < 2
"""
"""The same for one, where the rows lie on several machines."""

ADD_ATTEMPTS = Insert(
    "attempts",
    "click_id bigint, bucket smallint, delivery bigint, attempt integer, at_ms bigint, took_ms bigint, "
    "http_status smallint, excerpt text, error text",
    "ON CONFLICT (delivery, attempt, click_id, bucket) DO NOTHING",
)
"""Attempts."""

FIND_NEXT = f"""
SELECT number, due_ms = {BLOCKED} FROM deliveries
WHERE bucket = $1 AND click_id = $2 AND conversion_id = $3 AND target = $4 AND state < 2 ORDER BY number LIMIT 1
"""
"""The next message about a conversion, and whether it waits for its turn."""

UNBLOCK = (
    "UPDATE deliveries SET due_ms = $1 WHERE bucket = $2 AND click_id = $3 AND number = $4 AND state < 2"
)
"""It may go."""

FIND_BLOCKED = f"""
SELECT DISTINCT click_id, conversion_id, target FROM deliveries
WHERE bucket = ANY ($1::smallint[]) AND conversion_id = ANY ($2::bigint[]) AND click_id BETWEEN $3 AND $4
  AND state < 2 AND due_ms = {BLOCKED}
"""
"""For which targets something about these conversions waits for its turn."""

FIND_WAITING = """
UPDATE deliveries SET state = state
WHERE bucket = ANY ($1::smallint[]) AND conversion_id = ANY ($2::bigint[]) AND click_id BETWEEN $3 AND $4 AND state < 2
RETURNING conversion_id, target
"""
"""For which targets something about these conversions waits.  Locked, so that whoever settles the last one at this
moment either has committed, or sees what is blocked behind it."""

NEXT_NUMBERS = "SELECT nextval('delivery_numbers') FROM generate_series(1, $1)"
"""Numbers that no delivery has or had."""

ADD_DELIVERIES = Insert(
    "deliveries",
    "click_id bigint, bucket smallint, number bigint, request_id bigint, type text, transaction_id text, "
    "conversion_id bigint, campaign integer, offer integer, rule bigint, target bigint, message smallint, "
    "status smallint, value_micros bigint, currency text, facts text, created_ms bigint, due_ms bigint, "
    "expires_ms bigint, state smallint, attempts integer, reason text",
)
"""What is owed from now on."""

_CLAIMABLE = f"""
SELECT number, attempts,
       message <> 1 AND EXISTS (
           SELECT 1 FROM deliveries AS e
           WHERE e.bucket = d.bucket AND e.click_id = d.click_id AND e.conversion_id = d.conversion_id
             AND e.rule = d.rule AND e.number - d.number < 0 AND (e.state = 2 OR e.attempts > 0)) AS told,
       message = 1 AND EXISTS (
           SELECT 1 FROM deliveries AS e
           WHERE e.bucket = d.bucket AND e.click_id = d.click_id AND e.conversion_id = d.conversion_id
             AND e.rule = d.rule AND e.number - d.number > 0 AND e.state < 2 AND e.message = 3) AS outdated,
       unsure = 1 OR holder IS NOT NULL AS unsure,
       {OWED_COLUMNS}
FROM deliveries AS d WHERE target = {{target}} AND state = 1 AND due_ms <= {{now}}
ORDER BY due_ms, number LIMIT {{room}}
"""
# What came before matters to what takes it back or corrects it, what comes behind to a conversion.

FIND_CLAIMABLE = f"""
SELECT c.* FROM unnest($1::bigint[], $2::bigint[]) AS t (target, room)
CROSS JOIN LATERAL ({_CLAIMABLE.format(target="t.target", now="$3", room="t.room")}) AS c
"""
"""What may be sent to targets now, so many for each."""

FIND_CLAIMABLE_ON_SHARDS = _CLAIMABLE.format(target="$1", now="$2", room="$3")
"""The same for one target, where the rows lie on several machines: no shard knows which are the first."""

CLAIM = """
UPDATE deliveries SET unsure = CASE WHEN holder IS NULL THEN unsure ELSE 1 END, holder = $1, due_ms = $2
WHERE bucket = ANY ($3::smallint[]) AND click_id = ANY ($4::bigint[]) AND click_id BETWEEN $5 AND $6
  AND number = ANY ($7::bigint[]) AND state < 2 AND due_ms <= $8
RETURNING number
"""
"""Nobody else gets these until then."""

NOTE_STATE = """
INSERT INTO target_states (target, state, since_ms, until_ms, reason) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (target) DO UPDATE SET state = excluded.state, since_ms = excluded.since_ms, until_ms = excluded.until_ms,
                                   reason = excluded.reason
WHERE target_states.state <> 'paused' OR NOT $6::boolean
"""
"""A target is not served as usual."""

FORGET_STATE = "DELETE FROM target_states WHERE target = $1 AND (state <> 'paused' OR NOT $2::boolean)"
"""A target is served as usual again."""

RELEASE = """
UPDATE deliveries SET holder = NULL, due_ms = 0, unsure = 1
WHERE state = 1 AND holder IS NOT NULL AND coalesce(holder = $1::text, true) RETURNING number
"""
"""Let anybody have what a holder has."""

SEND_NOW = f"""
UPDATE deliveries SET due_ms = $1
WHERE number = ANY ($2::bigint[]) AND state < 2 AND holder IS NULL AND due_ms <> {BLOCKED} RETURNING number
"""
"""Those that wait need not wait longer."""

FIND_ENDED = f"""
SELECT {OWED_COLUMNS} FROM deliveries AS d WHERE number = ANY ($1::bigint[]) AND state <> 1
  AND NOT EXISTS (SELECT 1 FROM erased_clicks AS e WHERE e.click_id = d.click_id AND e.bucket = d.bucket)
ORDER BY number
"""
"""Deliveries that do not wait any more, but for those whose click was erased: there is nothing left to tell."""

CANCEL = """
UPDATE deliveries SET state = 4, settled_ms = $1, reason = $2, due_ms = $1
WHERE number = ANY ($3::bigint[]) AND state < 2 AND (holder IS NULL OR due_ms <= $1)
RETURNING click_id, conversion_id, target
"""
"""Not to be sent."""


async def look(
    db: asyncpg.Connection, targets: Sequence[int], now_ms: int, limit: int, *, distributed: bool
) -> Look:
    """See ``store.base.Store.look``."""
    due: set[int] = set()
    if targets:
        rows = await db.fetch(FIND_DUE_ON_SHARDS if distributed else FIND_DUE, targets, now_ms)
        due = {target for (target,) in rows}
    events = await db.fetch(FIND_EVENTS, limit) if limit else []
    if not events:
        return Look((), (), due)
    clicks = sorted({event[2] for event in events})
    where = (buckets_of(clicks), clicks, clicks[0], clicks[-1])
    conversions = await db.fetch(FIND_CONVERSIONS, *where)
    happened = assemble(events, map(tuple, conversions), map(tuple, await db.fetch(FIND_CLICKS, *where)))
    changed = {event[3]: event[2] for event in events if event[4]}
    told = await _of_conversions(db, FIND_TOLD, changed.items()) if changed else []
    return Look(happened, [read_told(row) for row in told], due)


async def _of_conversions(
    db: asyncpg.Connection, statement: str, pairs: Iterable[tuple[int, int]]
) -> Sequence[Row]:
    """Rows about conversions; ``pairs``: each with the click that it is of."""
    conversions, clicks = zip(*pairs, strict=True)
    rows = await db.fetch(statement, buckets_of(clicks), conversions, min(clicks), max(clicks))
    return [tuple(row) for row in rows]


async def take_turn(db: asyncpg.Connection, tx: PostgresTransaction, turn: Turn) -> list[Delivery]:
    """See ``store.base.Store.take_turn``; in an open transaction.  Raises ``PartitionMissing``."""
    if turn.planned:  # before any row is locked: whoever holds it waits for rows
        await db.execute(LOCK_EVENTS)
    if turn.settled:
        await _settle(db, tx, turn.settled, turn.holder, turn.now_ms)
    if turn.planned:
        await _finish(db, tx, turn)
    for state in turn.states:
        await note_state(db, state)
    claimed = [read_delivery(tuple(row)) for row in await _find_claimable(db, tx, turn)]
    if not claimed:
        return []
    clicks = [delivery.owed.click_id for delivery in claimed]
    numbers = [delivery.number for delivery in claimed]
    ours = await db.fetch(
        CLAIM, turn.holder, turn.now_ms + turn.lease_ms,
        buckets_of(clicks), clicks, min(clicks), max(clicks), numbers, turn.now_ms,
    )  # fmt: skip
    won = {number for (number,) in ours}
    return [delivery for delivery in claimed if delivery.number in won]


async def _find_claimable(
    db: asyncpg.Connection, tx: PostgresTransaction, turn: Turn
) -> Sequence[asyncpg.Record]:
    found: list[asyncpg.Record] = []
    if not tx.distributed and turn.rooms:
        found += await db.fetch(FIND_CLAIMABLE, turn.rooms.keys(), turn.rooms.values(), turn.now_ms)
    elif tx.distributed:
        for target, room in turn.rooms.items():
            found += await db.fetch(FIND_CLAIMABLE_ON_SHARDS, target, turn.now_ms, room)
    return found


async def _settle(
    db: asyncpg.Connection, tx: PostgresTransaction, settled: Sequence[Settled], holder: str, now_ms: int
) -> None:
    clicks = [one.delivery.owed.click_id for one in settled]
    buckets = buckets_of(clicks)
    rows, attempts, ended = [], [], []
    for one, click_id, bucket in zip(settled, clicks, buckets, strict=True):
        delivery, attempt = one.delivery, one.attempt
        waits = one.state is DeliveryState.WAITING
        tried, settled_ms = int(attempt is not None), None if waits else now_ms
        rows.append((delivery.number, one.state, one.due_ms, tried, settled_ms, one.reason))
        if attempt is not None:
            attempts.append((
                click_id, bucket, delivery.number, attempt.attempt, attempt.at_ms, attempt.took_ms,
                attempt.http_status, attempt.excerpt, attempt.error,
            ))  # fmt: skip
        if not waits:
            ended.append((click_id, delivery.owed.conversion_id, delivery.owed.target))
    if tx.distributed:
        each = zip(rows, buckets, clicks, strict=True)
        await db.executemany(SETTLE_ON_SHARDS, sorted((*row, *where, holder) for row, *where in each))
    else:
        where = (buckets, clicks, min(clicks), max(clicks))
        await db.execute(SETTLE, *zip(*rows, strict=True), *where, holder)
    await tx.insert(ADD_ATTEMPTS, attempts)
    await _unblock(db, ended, now_ms)


async def _unblock(db: asyncpg.Connection, ended: Sequence[tuple[int, int, int]], now_ms: int) -> None:
    """Let the next message go for each (click, conversion, target) of which one has ended."""
    if not ended:
        return
    blocked = await _of_conversions(db, FIND_BLOCKED, {(one[1], one[0]) for one in ended})
    for click_id, conversion_id, target in sorted(set(blocked) & set(ended)):
        (bucket,) = buckets_of([click_id])
        found = await db.fetchrow(FIND_NEXT, bucket, click_id, conversion_id, target)
        if found is not None and found[1]:
            await db.execute(UNBLOCK, now_ms, bucket, click_id, found[0])


async def _finish(db: asyncpg.Connection, tx: PostgresTransaction, turn: Turn) -> None:
    clicks = {one.click_id for one in turn.planned}
    events = [one.event for one in turn.planned]
    done = {event for (event,) in await db.fetch(FINISH_EVENTS, sorted(set(buckets_of(clicks))), events)}
    await _add(db, tx, [owed for owed in turn.owed if owed.event in done])


async def _add(db: asyncpg.Connection, tx: PostgresTransaction, owed: Sequence[Owed]) -> None:
    if not owed:
        return
    changed = set(changed_conversions(owed))
    pairs = {one.conversion_id: one.click_id for one in owed if one.conversion_id in changed}
    waiting = await _of_conversions(db, FIND_WAITING, pairs.items()) if pairs else []
    due = due_times(owed, [(row[0], row[1]) for row in waiting])
    await _insert(db, tx, [owed_row(one) for one in owed], due)


async def _insert(
    db: asyncpg.Connection, tx: PostgresTransaction, owed: Sequence[Sequence[object]], due: Sequence[int]
) -> None:
    """Insert deliveries, as ``OWED_COLUMNS``, each due at its time."""
    numbers = [number for (number,) in await db.fetch(NEXT_NUMBERS, len(owed))]
    rows = []
    for number, row, due_ms in zip(numbers, owed, due, strict=True):
        request_id, click_id, *middle, created_ms, _, expires_ms = row
        assert isinstance(click_id, int)
        (bucket,) = buckets_of([click_id])
        rows.append((click_id, bucket, number, request_id, *middle, created_ms, due_ms, expires_ms, 1, 0, ""))
    await tx.insert(ADD_DELIVERIES, rows)


async def note_state(db: asyncpg.Connection, state: TargetState) -> None:
    """Keep how a target is served."""
    if state.state:
        row = (state.target, state.state, state.since_ms, state.until_ms, state.reason, state.unless_paused)
        await db.execute(NOTE_STATE, *row)
    else:
        await db.execute(FORGET_STATE, state.target, state.unless_paused)


async def release(db: asyncpg.Connection, holder: str | None) -> int:
    """See ``store.base.Store.release``."""
    return len(await db.fetch(RELEASE, holder))


async def resend(db: asyncpg.Connection, tx: PostgresTransaction, numbers: Sequence[int], now_ms: int) -> int:
    """See ``store.base.Store.resend``; in an open transaction.  Raises ``PartitionMissing``."""
    sent = len(await db.fetch(SEND_NOW, now_ms, numbers))
    ended = await db.fetch(FIND_ENDED, numbers)
    again = [
        (*row[:14], now_ms, now_ms, 0) for row in map(tuple, ended)
    ]  # however old: a person asked for it
    if again:
        await _insert(db, tx, again, [now_ms] * len(again))
    return sent + len(again)


async def cancel(db: asyncpg.Connection, numbers: Sequence[int], now_ms: int, reason: str) -> int:
    """See ``store.base.Store.cancel``; in an open transaction."""
    ended = [tuple(row) for row in await db.fetch(CANCEL, now_ms, reason, numbers)]
    await _unblock(db, ended, now_ms)
    return len(ended)
