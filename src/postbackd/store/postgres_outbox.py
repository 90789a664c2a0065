"""Outbox and deliveries on PostgreSQL: the steps of a turn, and what operators do, in statements that a distributed
database takes, too.  What every turn asks is in ``postgres_turn`` and ``citus_turn``.

What is due is chosen first and claimed by an ``UPDATE`` that looks again: of two deliverers that chose the same, one
gets it.  Nothing is locked while it is only looked at.

Where rows are known by their number or conversion, "it waits" is written ``state < 2``, and not ``state = 1``: the
planner would take the index of what is due for it, and read all that waits for each.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import asyncpg

from postbackd.core.buckets import bucket_of_stamp
from postbackd.core.deliveries import Delivery, DeliveryState, Settled, TargetState
from postbackd.store import citus_turn, postgres_turn
from postbackd.store.base import Look, Turn
from postbackd.store.outbox import (
    BLOCKED,
    OWED_COLUMNS,
    assemble,
    changed_conversions,
    choose_fresh,
    due_times,
    owed_row,
    read_claimed,
    read_told,
)
from postbackd.store.postgres_turn import Key
from postbackd.store.postgres_write import PostgresTransaction
from postbackd.store.transaction import Row

# Every statement has a name and a sentence.

BEGIN_PLANNING = "BEGIN; SELECT pg_advisory_xact_lock(8101005)"
"""Begin a turn that plans.  Whoever turns events into deliveries holds the lock until its transaction ends: the later
event of a conversion must not become a delivery before the earlier one.  It is taken before any row is locked, because
whoever holds it waits for rows."""

FIND_NEXT = f"""
SELECT number, due_ms = {BLOCKED} FROM deliveries
WHERE bucket = $1 AND click_id = $2 AND conversion_id = $3 AND target = $4 AND state < 2 ORDER BY number LIMIT 1
"""
"""The next message about a conversion, and whether it waits for its turn."""

UNBLOCK = (
    "UPDATE deliveries SET due_ms = $1 WHERE bucket = $2 AND click_id = $3 AND number = $4 AND state < 2"
)
"""It may go."""

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
    ask = citus_turn if distributed else postgres_turn
    events, due = await ask.find_work(db, targets, now_ms, limit)
    if not events:
        return Look((), (), due)
    happened = assemble(events, *await ask.find_conversions(db, sorted({event[2] for event in events})))
    changed = {event[3]: event[2] for event in events if event[4]}
    told = await ask.find_told(db, changed) if changed else []
    return Look(happened, [read_told(row) for row in told], due)


async def take_turn(db: asyncpg.Connection, tx: PostgresTransaction, turn: Turn) -> list[Delivery]:
    """See ``store.base.Store.take_turn``; in a transaction that was begun as ``BEGIN_PLANNING`` says, if any event is
    planned.  Raises ``PartitionMissing``."""
    ask = citus_turn if tx.distributed else postgres_turn
    events = [(one.event, bucket_of_stamp(one.click_id)) for one in turn.planned]
    done = await ask.settle_and_finish(db, turn.holder, _settled_rows(turn.settled, turn.now_ms), events)
    fresh, rooms = choose_fresh(turn)
    ended = {_key(one.delivery) for one in turn.settled if one.state is not DeliveryState.WAITING}
    claimed = await _add(db, tx, turn, done, fresh, ended)
    for state in turn.states:
        await note_state(db, state)
    due, unreadable = read_claimed(await ask.claim(db, turn, rooms))
    if unreadable:
        await ask.settle_and_finish(db, turn.holder, _settled_rows(unreadable, turn.now_ms), ())
        _, blocked = await ask.add(db, (), {_key(one.delivery) for one in unreadable})
        await _unblock(db, blocked, turn.now_ms)
    return [*sorted(due, key=lambda one: (one.owed.due_ms, one.number)), *claimed]


def _key(delivery: Delivery) -> Key:
    return delivery.owed.click_id, delivery.owed.conversion_id, delivery.owed.target


def _settled_rows(settled: Sequence[Settled], now_ms: int) -> list[Row]:
    """As ``postgres_turn.SETTLED``."""
    rows = []
    for one in settled:
        attempt, click_id = one.attempt, one.delivery.owed.click_id
        settled_ms = None if one.state is DeliveryState.WAITING else now_ms
        row = (
            one.delivery.number, click_id, bucket_of_stamp(click_id), one.state, one.due_ms, settled_ms, one.reason,
        )  # fmt: skip
        tried = (
            (attempt.attempt, attempt.at_ms, attempt.took_ms, attempt.http_status, attempt.excerpt, attempt.error)
            if attempt is not None
            else _NOT_TRIED
        )  # fmt: skip
        rows.append((*row, *tried))
    return rows


_NOT_TRIED = (None,) * 6


async def _add(
    db: asyncpg.Connection,
    tx: PostgresTransaction,
    turn: Turn,
    done: Collection[int],
    fresh: Collection[int],
    ended: Collection[Key],
) -> list[Delivery]:
    """Keep what is owed for events that are done with, and let go what waited for those that have ended.

    Returns what was claimed at once; ``fresh``: places of those that can be.
    """
    ask = citus_turn if tx.distributed else postgres_turn
    places = [place for place, one in enumerate(turn.owed) if one.event in done]
    owed = [turn.owed[place] for place in places]
    changed = set(changed_conversions(owed))
    clicks = {one.conversion_id: one.click_id for one in owed if one.conversion_id in changed}
    due = due_times(owed, await ask.lock_waiting(db, clicks) if clicks else ())
    rows = []
    for place, one, due_ms in zip(places, owed, due, strict=True):
        until, holder = (turn.now_ms + turn.lease_ms, turn.holder) if place in fresh else (due_ms, None)
        rows.append(_added_row(owed_row(one), until, holder, one.dead, turn.now_ms))
    numbers, blocked = await ask.add(db, rows, ended)
    await _unblock(db, blocked & set(ended), turn.now_ms)
    return [
        Delivery(number, one, 0, told=False, outdated=False)
        for place, number, one in zip(places, numbers, owed, strict=True)
        if place in fresh
    ]


def _added_row(owed: Sequence[Any], due_ms: int, holder: str | None, dead: str, now_ms: int) -> Row:
    """``OWED_COLUMNS`` as ``postgres_turn.ADDED``, due at its time, or dead with a reason."""
    request_id, click_id, *middle, created_ms, _, expires_ms = owed
    place = (click_id, bucket_of_stamp(click_id), request_id, *middle, created_ms, due_ms, expires_ms)
    if dead:
        return (*place, DeliveryState.DEAD, holder, now_ms, dead)
    return (*place, DeliveryState.WAITING, holder, None, "")


async def _unblock(db: asyncpg.Connection, blocked: Collection[Key], now_ms: int) -> None:
    """Let the next message go for each, of which one has ended."""
    for click_id, conversion_id, target in sorted(blocked):
        bucket = bucket_of_stamp(click_id)
        found = await db.fetchrow(FIND_NEXT, bucket, click_id, conversion_id, target)
        if found is not None and found[1]:
            await db.execute(UNBLOCK, now_ms, bucket, click_id, found[0])


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
    again = [  # however old: a person asked for it
        _added_row((*row[:14], now_ms, now_ms, 0), now_ms, None, "", now_ms) for row in map(tuple, ended)
    ]
    ask = citus_turn if tx.distributed else postgres_turn
    await ask.add(db, again, ())
    return sent + len(again)


async def cancel(
    db: asyncpg.Connection, tx: PostgresTransaction, numbers: Sequence[int], now_ms: int, reason: str
) -> int:
    """See ``store.base.Store.cancel``; in an open transaction."""
    ended: list[Key] = [(row[0], row[1], row[2]) for row in await db.fetch(CANCEL, now_ms, reason, numbers)]
    ask = citus_turn if tx.distributed else postgres_turn
    _, blocked = await ask.add(db, (), set(ended))
    await _unblock(db, blocked & set(ended), now_ms)
    return len(ended)
