"""What alarms write, in both stores: plain statements over one connection, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import astuple, replace

from postbackd.core.alarm_notices import Notice
from postbackd.core.alarms import Alarm, Key, Quiet
from postbackd.core.rhythm import HourCount
from postbackd.store.base_upkeep import AlarmStep
from postbackd.store.database import Database

HOLD = """
INSERT INTO alarm_keeper (name, holder, until_ms) VALUES ('keeper', ?, ?)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until_ms = excluded.until_ms
WHERE alarm_keeper.holder = excluded.holder OR alarm_keeper.until_ms < ? RETURNING holder
"""
"""Become the keeper, where nobody else is."""

STILL_HOLDS = """
UPDATE alarm_keeper SET until_ms = until_ms WHERE name = 'keeper' AND holder = ? RETURNING holder
"""
"""What is written is the keeper's; whoever is overtaken writes nothing."""

COUNTED = """
INSERT INTO settings (name, value) VALUES ('alarms_counted_ms', ?)
ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""
"""So far the log has been counted."""

TAKE_IDS = """
INSERT INTO settings (name, value) VALUES ('alarms_last_id', ?)
ON CONFLICT (name) DO UPDATE SET value = settings.value + excluded.value RETURNING value
"""
"""Ids of alarms and notices, never given out twice."""

_HOUR = HourCount.__struct_fields__[3:]

KEEP_HOUR = (
    f"INSERT INTO alarm_hours (scope, subject, hour, {', '.join(_HOUR)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
    f"ON CONFLICT (scope, subject, hour) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _HOUR)}"
)
"""What was counted in an hour."""

KEEP_WORD = (
    "INSERT INTO alarm_words (kind, network, word, first_ms, last_ms, count) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (kind, network, word) DO UPDATE SET first_ms = excluded.first_ms, last_ms = excluded.last_ms, "
    "count = excluded.count"
)
"""What a network has sent."""

ADD_ALARM = (
    "INSERT INTO alarms (id, kind, scope, subject, urgent, seen, normal, todo, raised_ms, bad_ms, good_ms, told_ms, "
    "ended_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
"""An alarm is raised."""

CHANGE_ALARM = (
    "UPDATE alarms SET urgent = ?, seen = ?, normal = ?, todo = ?, bad_ms = ?, good_ms = ?, told_ms = ?, "
    "ended_ms = ? WHERE id = ?"
)
"""An alarm goes on, or is over."""

END_QUIET = "DELETE FROM alarm_quiets WHERE kind = ? AND scope = ? AND subject = ? AND until_ms = 0"
"""Quiet until it is over ends with it."""

ADD_NOTICE = (
    "INSERT INTO alarm_notices (id, alarm, place, said, body, made_ms, due_ms, attempts, state, settled_ms, error) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
"""Something is to be told."""

SETTLE_NOTICE = (
    "UPDATE alarm_notices SET due_ms = ?, attempts = ?, state = ?, settled_ms = ?, error = ? WHERE id = ?"
)
"""What became of it."""

QUIET = (
    "INSERT INTO alarm_quiets (kind, scope, subject, until_ms, who, why, at_ms) VALUES (?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (kind, scope, subject) DO UPDATE SET until_ms = excluded.until_ms, who = excluded.who, "
    "why = excluded.why, at_ms = excluded.at_ms"
)
"""Somebody does not want to hear of it."""

UNQUIET = "DELETE FROM alarm_quiets WHERE kind = ? AND scope = ? AND subject = ? RETURNING kind"
"""Somebody wants to again."""

FORGET = (
    "DELETE FROM alarm_hours WHERE hour < ? OR (scope = 'campaign' AND hour < ?)",
    "DELETE FROM alarm_words WHERE last_ms < ?",
    "DELETE FROM alarm_notices WHERE alarm IN (SELECT id FROM alarms WHERE ended_ms < ?)",
    "DELETE FROM alarms WHERE ended_ms < ?",
    "DELETE FROM alarm_quiets WHERE until_ms > 0 AND until_ms < ?",
)
"""What is old: counts; words; alarms that are over, and what was told of them; quiet that is over."""


async def hold(db: Database, holder: str, now_ms: int, until_ms: int) -> bool:
    return bool(await db.rows(HOLD, holder, until_ms, now_ms))


async def write(db: Database, step: AlarmStep) -> Sequence[int] | None:
    new = sum(not change.alarm.id for change in step.changes)
    wanted = new + sum(len(notices) for notices in step.notices.values())
    if not await db.rows(STILL_HOLDS, step.holder):
        return None
    await db.rows(COUNTED, step.counted_ms)
    next_id = int((await db.rows(TAKE_IDS, wanted))[0][0]) - wanted + 1 if wanted else 0
    for count in step.hours:
        await db.rows(KEEP_HOUR, *astuple(count))
    for word in step.words:
        await db.rows(KEEP_WORD, str(word.kind), *astuple(word)[1:])
    ids = []
    for place, change in enumerate(step.changes):
        alarm = change.alarm
        if not alarm.id:
            alarm = replace(alarm, id=next_id)
            next_id += 1
            await db.rows(ADD_ALARM, *_alarm_row(alarm))
        else:
            await _change(db, alarm)
        for notice in step.notices.get(place, ()):
            await _add_notice(db, replace(notice, id=next_id, alarm=alarm.id))
            next_id += 1
        ids.append(alarm.id)
    return ids


def _alarm_row(alarm: Alarm) -> Sequence[Any]:
    id_, kind, scope, subject, urgent, *rest = astuple(alarm)
    return (id_, str(kind), str(scope), subject, int(urgent), *rest)


async def _change(db: Database, alarm: Alarm) -> None:
    await db.rows(
        CHANGE_ALARM, int(alarm.urgent), alarm.seen, alarm.normal, alarm.todo, alarm.bad_ms, alarm.good_ms,
        alarm.told_ms, alarm.ended_ms, alarm.id,
    )  # fmt: skip
    if alarm.ended_ms is not None:
        await db.rows(END_QUIET, *_texts(alarm.key))


def _texts(key: Key) -> tuple[str, str, int]:
    return str(key.kind), str(key.scope), key.subject


async def _add_notice(db: Database, notice: Notice) -> None:
    """The alarm's id is known only now, and its body names it."""
    payload = msgspec.json.decode(notice.body)
    payload["data"]["id"] = notice.alarm
    body = msgspec.json.encode(payload).decode()
    id_, alarm, place, said, _, *rest = astuple(notice)
    await db.rows(ADD_NOTICE, id_, alarm, place, str(said), body, *rest)


async def settle(db: Database, notices: Sequence[Notice]) -> None:
    for one in notices:
        await db.rows(SETTLE_NOTICE, one.due_ms, one.attempts, one.state, one.settled_ms, one.error, one.id)


async def quiet(db: Database, one: Quiet) -> None:
    await db.rows(QUIET, *_texts(one.key), one.until_ms, one.who, one.why, one.at_ms)


async def unquiet(db: Database, key: Key) -> bool:
    return bool(await db.rows(UNQUIET, *_texts(key)))


async def forget(db: Database, hours_before: int, campaigns_before: int, ended_before_ms: int) -> None:
    await db.rows(FORGET[0], hours_before, campaigns_before)
    for statement in FORGET[1:]:
        await db.rows(statement, ended_before_ms)
