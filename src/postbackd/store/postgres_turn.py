"""The statements of a deliverer's turn where all tables lie on one server; ``citus_turn`` has those for several.

A turn is in nobody's way, but each question costs the way to the server and back, and on a busy machine a wait for a
processor at either end.  So what can be asked together is one statement here.  A statement sees what was committed when
it began, which is why there are several, and not one.

Every statement is planned once (``TURNING``), perhaps for tables that have just begun, of which the planner believes
that reading them whole is cheap; a minute later it is not.  So rows are looked up one by one, by a key: in a
``LATERAL`` part that ends in ``OFFSET 0`` and cannot be turned round, or, for an ``UPDATE``, by ``= ANY (ARRAY[…])``
and nothing else that an index could answer, so that there is no other way than one key after the other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import asyncpg

from postbackd.store.base import Turn
from postbackd.store.outbox import BLOCKED, CLICK_COLUMNS, EVENT_COLUMNS, OWED_COLUMNS, TOLD_COLUMNS
from postbackd.store.postgres_connection import WRITING
from postbackd.store.postgres_insert import Columns, naming_partitions
from postbackd.store.postgres_write import buckets_of
from postbackd.store.transaction import Row

Key = tuple[int, int, int]
"""(click, conversion, target): of the messages about it one goes after the other."""

SETTLED = Columns(
    "number bigint, click_id bigint, bucket smallint, state smallint, due_ms bigint, settled_ms bigint, reason text, "
    "attempt integer, at_ms bigint, took_ms bigint, http_status smallint, excerpt text, error text"
)
"""What became of a delivery, and the attempt that was made, if one was."""

ADDED = Columns(
    "click_id bigint, bucket smallint, request_id bigint, type text, transaction_id text, conversion_id bigint, "
    "campaign integer, offer integer, rule bigint, target bigint, message smallint, status smallint, "
    "value_micros bigint, currency text, facts text, created_ms bigint, due_ms bigint, expires_ms bigint, "
    "state smallint, holder text, settled_ms bigint, reason text"
)
"""A delivery that is new, but for its number."""

TURNING: Mapping[str, str] = {
    **WRITING,
    # What is due is read in the order of its index: of a long queue only the beginning is needed.
    "enable_sort": "off",
}
"""Settings of the session that takes turns."""

# Every statement has a name and a sentence.

_NO_EVENT = ", ".join("NULL" for _ in EVENT_COLUMNS.split(", "))

FIND_WORK = f"""
(SELECT NULL::bigint AS target, {EVENT_COLUMNS} FROM outbox ORDER BY event LIMIT $1)
UNION ALL
SELECT t.target, {_NO_EVENT} FROM unnest($2::bigint[]) AS t (target)
CROSS JOIN LATERAL (
    SELECT 1 FROM deliveries AS d WHERE d.target = t.target AND d.state = 1 AND d.due_ms <= $3 LIMIT 1) AS d
"""
"""The oldest events, and which targets have something to be sent."""

FIND_CONVERSIONS = f"""
SELECT c.click_id, c.conversion_id, c.type, c.transaction_id, c.campaign, c.offer,
       {", ".join(f"k.{name}" for name in CLICK_COLUMNS.split(", "))}
FROM unnest($1::bigint[], $2::smallint[]) AS w (click_id, bucket)
CROSS JOIN LATERAL (
    SELECT * FROM conversions WHERE click_id = w.click_id AND bucket = w.bucket AND click_id BETWEEN $3 AND $4 OFFSET 0
) AS c
LEFT JOIN LATERAL (
    SELECT * FROM clicks WHERE click_id = w.click_id AND bucket = w.bucket AND click_id BETWEEN $3 AND $4 OFFSET 0
) AS k ON true
"""
"""All conversions of clicks, each with what deliveries may say of its click."""

_OF_CONVERSION = 6

SETTLE_AND_FINISH = f"""
WITH w AS (
    SELECT * FROM unnest({SETTLED.arrays}) AS w ({SETTLED.names})
), settled AS (
    UPDATE deliveries AS d
    SET state = w.state, due_ms = w.due_ms, holder = NULL, attempts = d.attempts + (w.attempt IS NOT NULL)::integer,
        settled_ms = w.settled_ms, reason = w.reason
    FROM w WHERE d.number = ANY (ARRAY[w.number]) AND d.click_id = ANY (ARRAY[w.click_id])
             AND d.holder = {SETTLED.mark(1)} AND d.state < 2
), kept AS (
    INSERT INTO attempts (click_id, bucket, delivery, attempt, at_ms, took_ms, http_status, excerpt, error)
    SELECT click_id, bucket, number, attempt, at_ms, took_ms, http_status, excerpt, error FROM w
    WHERE attempt IS NOT NULL
    ON CONFLICT (delivery, attempt, click_id, bucket) DO NOTHING
)
DELETE FROM outbox WHERE event = ANY ({SETTLED.mark(2)}::bigint[]) RETURNING event
"""
"""What became of deliveries, unless somebody else has them by now, with their attempts; and the rules have been asked
about events."""

ADD_AND_FIND_BLOCKED = f"""
WITH w AS (
    SELECT nextval('delivery_numbers') AS number, o.* FROM (
        SELECT * FROM unnest({ADDED.arrays}) WITH ORDINALITY AS o ({ADDED.names}, place) ORDER BY place) AS o
), added AS (
    INSERT INTO deliveries (number, attempts, {ADDED.names}) SELECT number, 0, {ADDED.names} FROM w
)
SELECT place, number, NULL::bigint AS conversion_id, NULL::bigint AS target FROM w
UNION ALL
SELECT NULL, d.click_id, d.conversion_id, d.target
FROM unnest({ADDED.mark(1)}::bigint[], {ADDED.mark(2)}::bigint[]) AS e (click_id, conversion_id)
CROSS JOIN LATERAL (
    SELECT click_id, conversion_id, target FROM deliveries
    WHERE click_id = e.click_id AND click_id BETWEEN {ADDED.mark(3)} AND {ADDED.mark(4)}
      AND conversion_id = e.conversion_id AND state < 2 AND due_ms = {BLOCKED} OFFSET 0
) AS d
"""
"""What is owed from now on, under numbers that no delivery has or had; and for which targets something about some
conversions waits for its turn."""

FIND_TOLD = f"""
SELECT d.* FROM unnest($1::bigint[], $2::bigint[]) AS w (conversion_id, click_id)
CROSS JOIN LATERAL (
    SELECT {TOLD_COLUMNS}, number FROM deliveries
    WHERE conversion_id = w.conversion_id AND click_id = w.click_id AND click_id BETWEEN $3 AND $4 OFFSET 0
) AS d ORDER BY d.number
"""
"""What was ever owed about conversions."""

FIND_WAITING = """
SELECT d.* FROM unnest($1::bigint[], $2::bigint[]) AS w (conversion_id, click_id)
CROSS JOIN LATERAL (
    SELECT conversion_id, target FROM deliveries
    WHERE conversion_id = w.conversion_id AND click_id = w.click_id AND click_id BETWEEN $3 AND $4 AND state < 2
    OFFSET 0 FOR UPDATE
) AS d
"""
"""For which targets something about these conversions waits.  Locked, so that whoever settles the last one at this
moment either has committed, or sees what is blocked behind it."""

CLAIMABLE = f"""
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
"""What may be sent to a target now.  What came before matters to what takes it back or corrects it, what comes behind
to a conversion."""

CLAIM = f"""
WITH c AS (
    SELECT c.* FROM unnest($1::bigint[], $2::bigint[]) AS t (target, room)
    CROSS JOIN LATERAL ({CLAIMABLE.format(target="t.target", now="$3", room="t.room")}) AS c
)
UPDATE deliveries AS d
SET unsure = CASE WHEN d.holder IS NULL THEN d.unsure ELSE 1 END, holder = $4, due_ms = $5
FROM c WHERE d.number = ANY (ARRAY[c.number]) AND d.click_id = ANY (ARRAY[c.click_id]) AND d.state < 2
         AND d.due_ms <= $3
RETURNING c.*
"""
"""What may be sent to targets now, so many for each; nobody else gets these until then."""


async def find_work(
    db: asyncpg.Connection, targets: Sequence[int], now_ms: int, limit: int
) -> tuple[list[Row], set[int]]:
    """The oldest events, as ``EVENT_COLUMNS``, and the targets that have something due."""
    rows = await db.fetch(FIND_WORK, limit, targets, now_ms)
    events = sorted(tuple(row)[1:] for row in rows if row[0] is None)
    return events, {row[0] for row in rows if row[0] is not None}


async def find_conversions(
    db: asyncpg.Connection, clicks: Sequence[int]
) -> tuple[Sequence[Row], Sequence[Row]]:
    """All conversions of clicks, and the clicks; ``clicks``: in their order."""
    rows = await db.fetch(FIND_CONVERSIONS, clicks, buckets_of(clicks), clicks[0], clicks[-1])
    both = [tuple(row) for row in rows]
    return [row[:_OF_CONVERSION] for row in both], [
        row[_OF_CONVERSION:] for row in both if row[_OF_CONVERSION]
    ]


async def find_told(db: asyncpg.Connection, clicks: Mapping[int, int]) -> Sequence[Row]:
    """What was ever owed about conversions, as ``TOLD_COLUMNS``, oldest first; ``clicks``: the click of each."""
    stamps = list(clicks.values())
    rows = await db.fetch(FIND_TOLD, clicks.keys(), stamps, min(stamps), max(stamps))
    return [tuple(row)[:-1] for row in rows]


async def lock_waiting(db: asyncpg.Connection, clicks: Mapping[int, int]) -> set[tuple[int, int]]:
    """(conversion, target) of all that waits about conversions, locked; ``clicks``: the click of each."""
    stamps = list(clicks.values())
    rows = await db.fetch(FIND_WAITING, clicks.keys(), stamps, min(stamps), max(stamps))
    return {(row[0], row[1]) for row in rows}


async def settle_and_finish(
    db: asyncpg.Connection, holder: str, settled: Sequence[Row], events: Sequence[tuple[int, int]]
) -> set[int]:
    """Settle deliveries (``SETTLED``) and be done with (event, bucket); returns the events that we were first with."""
    if not settled and not events:
        return set()
    clicks = [row[1] for row in settled] or [0]
    with naming_partitions("attempts", clicks):
        done = await db.fetch(
            SETTLE_AND_FINISH, *SETTLED.values(settled), holder, [event for event, _ in events]
        )
    return {event for (event,) in done}


async def add(
    db: asyncpg.Connection, rows: Sequence[Row], ended: Collection[Key]
) -> tuple[list[int], set[Key]]:
    """Keep new deliveries (``ADDED``); returns their numbers, and behind which of those that have ended more waits."""
    if not rows and not ended:
        return [], set()
    clicks = [key[0] for key in ended] or [0]
    with naming_partitions("deliveries", [row[0] for row in rows]):
        found = await db.fetch(
            ADD_AND_FIND_BLOCKED, *ADDED.values(rows),
            [key[0] for key in ended], [key[1] for key in ended], min(clicks), max(clicks),
        )  # fmt: skip
    numbers = [number for _, number in sorted((row[0], row[1]) for row in found if row[0] is not None)]
    return numbers, {(row[1], row[2], row[3]) for row in found if row[0] is None}


async def claim(db: asyncpg.Connection, turn: Turn, rooms: Mapping[int, int]) -> list[Row]:
    """Claim what is due, as ``outbox.read_delivery`` takes it."""
    if not rooms:
        return []
    rows: list[Any] = await db.fetch(
        CLAIM, rooms.keys(), rooms.values(), turn.now_ms, turn.holder, turn.now_ms + turn.lease_ms
    )
    return [tuple(row) for row in rows]
