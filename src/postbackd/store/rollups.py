"""Roll-ups in both stores: plain statements over one connection, inside a transaction of the caller.

One process keeps them at a time.  It holds a lease, and every step checks it: what somebody else has taken over is left
alone.  A step compares a slot as it was stored with the slot as its raw rows say it, and adds the difference to every
level, so that running it twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from time import time_ns
from typing import Any

from postbackd.core.buckets import bucket_of_stamp
from postbackd.core.click_id import first_stamp_at
from postbackd.core.rollups import (
    LATE_MS,
    Fact,
    Kind,
    Level,
    Mark,
    MinuteRow,
    PostbackKey,
    Put,
    Slot,
    SubSpan,
    Tally,
    changes,
    rung_of,
    slot_of,
    spread_clicks,
    spread_postbacks,
)
from postbackd.store.base import Batch
from postbackd.store.database import Database

# Every statement has a name and a sentence.  {rows}: as many rows of values as there are.

READ_STATE = "SELECT name, value FROM rollup_state"
"""How far the roll-ups have come, and who keeps them."""

KEEP_STATE = """
INSERT INTO rollup_state (name, value) VALUES {rows}
ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""
"""Note it."""

OLD_CLICKS = """
SELECT campaign, offer, country, clicks, costed, cost_units, cost_micros FROM click_rollups
WHERE level = 1 AND slot = ?
"""
"""The clicks of a slot as they are stored."""

ADD_CLICKS = """
INSERT INTO click_rollups (level, slot, campaign, offer, country, clicks, costed, cost_units, cost_micros)
VALUES {rows}
ON CONFLICT (level, slot, campaign, offer, country) DO UPDATE SET
    clicks = click_rollups.clicks + excluded.clicks, costed = click_rollups.costed + excluded.costed,
    cost_units = click_rollups.cost_units + excluded.cost_units,
    cost_micros = click_rollups.cost_micros + excluded.cost_micros
"""
"""Add what has changed to a level of clicks."""

RELEVEL_CLICKS = """
INSERT INTO click_rollups (level, slot, campaign, offer, country, clicks, costed, cost_units, cost_micros)
SELECT {level}, {slot}, {links}, {country}, sum(clicks), sum(costed), sum(cost_units), sum(cost_micros)
FROM click_rollups WHERE level = 1 AND slot >= ? AND slot < ? GROUP BY 1, 2, 3, 4, 5
"""
"""Make a level of clicks anew from the quarters."""

RELEVEL_POSTBACKS = """
INSERT INTO postback_rollups (level, slot, network, campaign, postbacks, carried, matched, duplicates)
SELECT 5, {slot}, network, campaign, sum(postbacks), sum(carried), sum(matched), sum(duplicates)
FROM postback_rollups WHERE level = 1 AND slot >= ? AND slot < ? GROUP BY 1, 2, 3, 4
"""
"""The same for postbacks."""

DROP_EMPTY_CLICKS = "DELETE FROM click_rollups WHERE level = ? AND slot = ? AND clicks = 0"
"""Rows of which nothing is left."""

OLD_POSTBACKS = """
SELECT network, campaign, postbacks, carried, matched, duplicates FROM postback_rollups
WHERE level = 1 AND slot = ?
"""
"""The postbacks of a slot as they are stored."""

ADD_POSTBACKS = """
INSERT INTO postback_rollups (level, slot, network, campaign, postbacks, carried, matched, duplicates)
VALUES {rows}
ON CONFLICT (level, slot, network, campaign) DO UPDATE SET
    postbacks = postback_rollups.postbacks + excluded.postbacks,
    carried = postback_rollups.carried + excluded.carried,
    matched = postback_rollups.matched + excluded.matched,
    duplicates = postback_rollups.duplicates + excluded.duplicates
"""
"""Add what has changed to a level of postbacks."""

DROP_EMPTY_POSTBACKS = "DELETE FROM postback_rollups WHERE level = ? AND slot = ? AND postbacks = 0"
"""Rows of which nothing is left."""

DROP_MINUTES = "DELETE FROM minute_rollups WHERE minute >= ? AND minute < ?"
"""The minutes of a slot are written anew."""

ADD_MINUTES = "INSERT INTO minute_rollups (minute, kind, network, word, count, units, micros) VALUES {rows}"
"""Figures of minutes."""

DROP_OLD_MINUTES = "DELETE FROM minute_rollups WHERE minute < ?"
"""Minutes that no live chart shows any more."""

DROP_OLD = (
    "DELETE FROM click_rollups WHERE level IN (1, 2, 3, 4, 5) AND slot < ?",
    "DELETE FROM postback_rollups WHERE level IN (1, 5) AND slot < ?",
    "DELETE FROM sub_rollups WHERE level IN (5, 6) AND sub IN (1, 2, 3, 4, 5, 6, 7, 8, 9, 10) AND slot < ?",
)
"""What is older than any conversion; all columns of the keys are named, so that what stays is not read."""

DROP_MARKS = "DELETE FROM rollup_marks WHERE id IN ({rows})"
"""Marks that were looked at."""

DROP_FACTS = "DELETE FROM conversion_facts WHERE conversion_id IN ({rows})"
"""Conversions that are not there any more."""

READ_MARKS = "SELECT id, kind, slot FROM rollup_marks ORDER BY id LIMIT ?"
"""Slots that have to be looked at again."""

ADD_MARKS = "INSERT INTO rollup_marks (kind, slot) VALUES {rows}"
"""A slot has to be looked at again."""

DROP_EMPTY_SUB = """
DELETE FROM sub_rollups WHERE level = ? AND sub = ? AND slot = ? AND campaign = ? AND value = ? AND other = ?
"""
"""A value that nothing is left of."""

DROP_OLD_HOURS = """
DELETE FROM sub_rollups WHERE level = 6 AND sub = ? AND (slot, campaign, value, other) <= (?, ?, ?, ?)
"""
"""Values by the hour whose day is over, up to one of them."""

PUT_SUBS = """
INSERT INTO sub_rollups (level, slot, campaign, sub, value, other, clicks, costed, cost_units, cost_micros)
VALUES {rows}
ON CONFLICT (level, sub, slot, campaign, value, other) DO UPDATE SET
    clicks = excluded.clicks, costed = excluded.costed, cost_units = excluded.cost_units,
    cost_micros = excluded.cost_micros
"""
"""Values of a sub id as they are now."""

_SUBS = ", ".join(f"sub{number}" for number in range(1, 11))

READ_FACTS = f"""
SELECT v.conversion_id, v.click_id, v.network, v.campaign, v.offer, v.type, v.status, v.value_micros, v.currency,
       v.channels, k.click_id, k.country, {", ".join(f"k.sub{number}" for number in range(1, 11))}
FROM conversions AS v LEFT JOIN clicks AS k ON k.click_id = v.click_id {{same_bucket}}
WHERE v.click_id IN ({{clicks}}) {{in_buckets}}
"""
"""Conversions with what their clicks say, if these are there still."""

_KEPT = ("status", "value_micros", "currency", "channels")
_OF_CLICK = ("country", *(f"sub{number}" for number in range(1, 11)))


def _put_facts(columns: Sequence[str]) -> str:
    differs = " OR ".join(f"conversion_facts.{name} IS DISTINCT FROM excluded.{name}" for name in columns)
    return f"""
INSERT INTO conversion_facts (conversion_id, click_id, network, campaign, offer, type, status, value_micros,
                              currency, channels, rung, country, {_SUBS})
VALUES {{rows}}
ON CONFLICT (conversion_id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in columns)}
WHERE {differs}
"""


PUT_FACTS = _put_facts((*_KEPT, *_OF_CLICK))
"""Conversions whose click is there."""

PUT_FACTS_ALONE = _put_facts(_KEPT)
"""Conversions whose click is gone: what is known of it stays."""

ERASE_FACTS = f"""
UPDATE conversion_facts SET {", ".join(f"{name} = NULL" for name in _OF_CLICK)}
WHERE click_id = ? AND ({" OR ".join(f"{name} IS NOT NULL" for name in _OF_CLICK)})
"""
"""What the conversions of an erased click say of it."""

_HOLDER, _STEP = "holder", "step_ms"

LEASE_MS = 60_000
"""A keeper that has not taken a step for so long may be replaced."""

_ROWS = 100
"""Rows in one statement."""


def late_before() -> int:
    """Rows with a smaller stamp that are written now leave a mark."""
    return first_stamp_at(time_ns() // 1_000_000 - LATE_MS)


def late_slots(batch: Batch, before: int) -> set[tuple[Kind, int]]:
    """The slots of what is written late in a batch."""
    late = {(Kind.CLICKS, slot_of(click.stamp)) for click in batch.clicks if click.stamp < before}
    return late | {
        (Kind.POSTBACKS, slot_of(postback.request.request_id))
        for postback in batch.postbacks
        if postback.request.request_id < before
    }


async def claim(db: Database, holder: int, now_ms: int) -> Mapping[str, int] | None:
    """Become the keeper; returns how far the roll-ups have come, ``None`` while somebody else keeps them."""
    state: dict[str, int] = {row[0]: row[1] for row in await db.rows(READ_STATE)}
    if state.get(_HOLDER) not in (None, holder) and abs(state[_STEP] - now_ms) < LEASE_MS:
        return None
    await _keep_state(db, {_HOLDER: holder, _STEP: now_ms})
    return {name: value for name, value in state.items() if name not in (_HOLDER, _STEP)}


async def give_up(db: Database, holder: int) -> None:
    """Let somebody else become the keeper."""
    if await _is_ours(db, holder):
        await _keep_state(db, {_STEP: 0})


async def _is_ours(db: Database, holder: int) -> bool:
    return any(row == (_HOLDER, holder) for row in map(tuple, await db.rows(READ_STATE)))


async def _keep_state(db: Database, state: Mapping[str, int]) -> None:
    await _run(db, KEEP_STATE, list(state.items()))


async def put(db: Database, step: Put) -> bool:
    """Store a step; returns whether it was ours to take."""
    if not await _is_ours(db, step.holder):
        return False
    for level, first, end in step.relevel:
        await _relevel(db, level, first, end)
    for slot in step.slots:
        if slot.clicks is not None:
            await _put_clicks(db, slot, slot.clicks)
        if slot.postbacks is not None:
            await _put_postbacks(db, slot, slot.postbacks)
        if slot.minutes is not None:
            await db.rows(DROP_MINUTES, slot.slot * 15, slot.slot * 15 + 15)
            await _run(db, ADD_MINUTES, [_minute_row(row) for row in slot.minutes])
    if step.subs_after:
        await db.rows("DELETE FROM sub_rollups WHERE level >= 0 AND slot > ?", step.subs_after)
    for subs in step.subs:
        await _put_subs(db, subs)
    for hours in step.old_hours:
        await db.rows(DROP_OLD_HOURS, hours.sub, *hours.last)
    await _drop(db, step)
    await _keep_state(db, {**step.state, _STEP: step.now_ms})
    return True


async def _drop(db: Database, step: Put) -> None:
    """Delete what a step says is over."""
    if step.minutes_before:
        await db.rows(DROP_OLD_MINUTES, step.minutes_before)
    for sql in DROP_OLD if step.slots_before else ():
        await db.rows(sql, step.slots_before)
    for sql, gone in ((DROP_FACTS, step.facts_gone), (DROP_MARKS, step.done)):
        for ids in _chunks(gone):
            await db.rows(sql.format(rows=", ".join("?" * len(ids))), *ids)


async def _relevel(db: Database, level: Level, first: int, end: int) -> None:
    """Make a level anew from the quarters of a span; for days the span is one day."""
    await db.rows("DELETE FROM click_rollups WHERE level = ? AND slot >= ? AND slot < ?", level, first, end)
    slot = {Level.HOUR_LINKS: "slot - slot % 4", Level.DAY: str(int(first))}.get(level, "slot")
    links = "0, 0" if level is Level.QUARTER_COUNTRIES else "campaign, offer"
    country = "''" if level in (Level.QUARTER_LINKS, Level.HOUR_LINKS) else "country"
    await db.rows(
        RELEVEL_CLICKS.format(level=int(level), slot=slot, links=links, country=country), first, end
    )
    if level is Level.DAY:
        await db.rows("DELETE FROM postback_rollups WHERE level = 5 AND slot >= ? AND slot < ?", first, end)
        await db.rows(RELEVEL_POSTBACKS.format(slot=slot), first, end)


async def _put_clicks(db: Database, slot: Slot, clicks: Mapping[tuple[int, int, str], Tally]) -> None:
    old = {(row[0], row[1], row[2]): _tally(row[3:]) for row in await db.rows(OLD_CLICKS, slot.slot)}
    spread = spread_clicks(slot.slot, slot.day, changes(old, clicks))
    await _run(db, ADD_CLICKS, [(*key, *tally) for key, tally in sorted(spread.items())])
    for level, start in sorted({key[:2] for key, tally in spread.items() if tally[0] < 0}):
        await db.rows(DROP_EMPTY_CLICKS, level, start)


async def _put_postbacks(db: Database, slot: Slot, postbacks: Mapping[PostbackKey, Tally]) -> None:
    old = {(row[0], row[1]): _tally(row[2:]) for row in await db.rows(OLD_POSTBACKS, slot.slot)}
    spread = spread_postbacks(slot.slot, slot.day, changes(old, postbacks))
    await _run(db, ADD_POSTBACKS, [(*key, *tally) for key, tally in sorted(spread.items())])
    for level, start in sorted({key[:2] for key, tally in spread.items() if tally[0] < 0}):
        await db.rows(DROP_EMPTY_POSTBACKS, level, start)


async def _put_subs(db: Database, subs: SubSpan) -> None:
    rows = []
    for (campaign, value, other), tally in sorted(subs.values.items()):
        if tally[0]:
            rows.append((subs.level, subs.slot, campaign, subs.sub, value, other, *tally))
        else:
            await db.rows(DROP_EMPTY_SUB, subs.level, subs.sub, subs.slot, campaign, value, other)
    await _run(db, PUT_SUBS, rows)


async def read_marks(db: Database, limit: int) -> Sequence[Mark]:
    """The oldest marks."""
    return [Mark(id_, Kind(kind), slot) for id_, kind, slot in await db.rows(READ_MARKS, limit)]


async def add_marks(db: Database, marks: Iterable[tuple[Kind, int]]) -> None:
    """Have slots looked at again."""
    await _run(db, ADD_MARKS, [(kind.value, slot) for kind, slot in sorted(set(marks))])


async def put_facts(db: Database, holder: int, clicks: Sequence[int], *, buckets: bool) -> bool:
    """Store what the conversions of these clicks are now; returns whether it was ours to do."""
    if not await _is_ours(db, holder):
        return False
    for some in _chunks(sorted(set(clicks))):
        found = await _read_facts(db, some, buckets=buckets)
        for sql, facts in (
            (PUT_FACTS, [fact for fact in found if fact.click_known]),
            (PUT_FACTS_ALONE, [fact for fact in found if not fact.click_known]),
        ):
            await _run(db, sql, [_fact_row(fact) for fact in facts])
    return True


async def _read_facts(db: Database, clicks: Sequence[int], *, buckets: bool) -> Sequence[Fact]:
    listed = ", ".join(map(str, clicks))  # whole numbers of ours
    chosen = ", ".join(map(str, sorted({bucket_of_stamp(stamp) for stamp in clicks})))
    sql = READ_FACTS.format(
        clicks=listed,
        same_bucket="AND k.bucket = v.bucket" if buckets else "",
        in_buckets=f"AND v.bucket IN ({chosen})" if buckets else "",
    )
    return [Fact(tuple(row[:10]), row[10] is not None, tuple(row[11:])) for row in await db.rows(sql)]


def _fact_row(fact: Fact) -> tuple[Any, ...]:
    columns = fact.columns
    return (*columns, rung_of(columns[1], columns[0]), *fact.of_click)


def _minute_row(row: MinuteRow) -> tuple[Any, ...]:
    return row.minute, row.kind, row.network, row.word, row.count, row.units, row.micros


def _tally(row: Sequence[Any]) -> Tally:
    return row[0], row[1], row[2], row[3]


async def _run(db: Database, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """A statement over rows of values, so many at a time."""
    for some in _chunks(rows):
        marks = f"({', '.join('?' * len(some[0]))})"
        values = [value for row in some for value in row]
        await db.rows(sql.replace("{rows}", ", ".join([marks] * len(some))), *values)


def _chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), _ROWS):
        yield items[start : start + _ROWS]
