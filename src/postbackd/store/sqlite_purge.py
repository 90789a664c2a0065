"""What is deleted from the embedded store, and the largest stamp that must never be given out again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import apsw

from postbackd.core.click_id import EPOCH_MS, first_stamp_at
from postbackd.core.retention import Class
from postbackd.core.rollups import Kind
from postbackd.core.zones import QUARTER_MS
from postbackd.store.failpoints import pass_failpoint

LAST_STAMP = """
SELECT max(coalesce((SELECT max(click_id) FROM clicks), 0), coalesce((SELECT max(request_id) FROM postbacks), 0),
           coalesce((SELECT value FROM settings WHERE name = 'last_stamp'), 0))
"""  # The largest stamp in use.

KEEP_LAST_STAMP = f"""
INSERT INTO settings (name, value) SELECT 'last_stamp', ({LAST_STAMP})
WHERE true ON CONFLICT DO UPDATE SET value = excluded.value
"""  # Stamps are never given out twice, even when every row that had one is gone.

PURGE_HORIZON = """
INSERT INTO settings (name, value) VALUES ('purged_before', :before)
ON CONFLICT DO UPDATE SET value = max(value, excluded.value)
"""  # From now on, an id that verifies but is older than this was purged.

LOG_HORIZON = """
INSERT INTO settings (name, value) VALUES ('postbacks_purged_before', :before)
ON CONFLICT DO UPDATE SET value = max(value, excluded.value)
"""  # From now on, the log of an earlier time is not whole.

CONVERSIONS_HORIZON = """
INSERT INTO settings (name, value) VALUES ('conversions_purged_before', :before)
ON CONFLICT DO UPDATE SET value = max(value, excluded.value)
"""  # From now on, the log may know of conversions of older clicks that are not there.

PURGE_OWN_IDS = """
DELETE FROM own_ids WHERE own_id IN (
    SELECT own_id FROM (SELECT own_id FROM clicks WHERE click_id < :before ORDER BY click_id LIMIT :limit)
    WHERE own_id IS NOT NULL)
"""  # The own ids of the clicks that are purged next.

PURGE_PIXEL_CONVERSIONS = """
DELETE FROM pixel_conversions WHERE click_id IN (
    SELECT click_id FROM clicks WHERE click_id < :before ORDER BY click_id LIMIT :limit)
"""  # What the pixel brought for these clicks will not be confirmed any more.

PURGE_CLICKS = """
DELETE FROM clicks WHERE click_id IN (
    SELECT click_id FROM clicks WHERE click_id < :before ORDER BY click_id LIMIT :limit)
"""  # The oldest clicks.

PURGE_WAITING = """
DELETE FROM waiting WHERE request_id IN (
    SELECT request_id FROM postbacks WHERE request_id < :before ORDER BY request_id LIMIT :limit)
"""  # Postbacks that are purged next wait no longer.

PURGE_POSTBACKS = """
DELETE FROM postbacks WHERE request_id IN (
    SELECT request_id FROM postbacks WHERE request_id < :before ORDER BY request_id LIMIT :limit)
"""  # The oldest rows of the postback log.

PURGE_MARKS = f"""
DELETE FROM rollup_marks WHERE id IN (
    SELECT id FROM rollup_marks WHERE kind = {{kind}} AND slot < ((:before >> 22) + {EPOCH_MS}) / {QUARTER_MS}
    LIMIT :limit)
"""  # Nothing is left to roll up of these quarters; without an admin role nobody else takes their marks away.

PURGE_ATTEMPTS = """
DELETE FROM attempts WHERE (delivery, attempt) IN (
    SELECT delivery, attempt FROM attempts WHERE at_ms < :before_ms ORDER BY at_ms LIMIT :limit)
"""  # The oldest attempts.

OLD_CONVERSIONS = """
SELECT c.click_id, c.type, c.transaction_id, c.conversion_id FROM conversions AS c
WHERE c.click_id < :before AND c.conversion_id < :before
  AND c.click_id < coalesce((SELECT value FROM settings WHERE name = 'purged_before'), 0)
  AND NOT EXISTS (SELECT 1 FROM deliveries AS d WHERE d.conversion_id = c.conversion_id AND d.state = 1)
  AND c.click_id NOT IN (SELECT click_id FROM outbox)
ORDER BY c.click_id LIMIT :limit
"""  # Conversions whose time has come: their clicks are gone, and nothing about them waits to be sent or asked.

PURGE_OF_CONVERSION = (
    "DELETE FROM attempts WHERE delivery IN (SELECT number FROM deliveries WHERE conversion_id = ?)",
    "DELETE FROM deliveries WHERE conversion_id = ?",
    "DELETE FROM conversion_history WHERE conversion_id = ?",
    "DELETE FROM conversion_facts WHERE conversion_id = ?",
)
# All that hangs on a conversion.

PURGE_KEY = "DELETE FROM conversions WHERE click_id = ? AND type = ? AND transaction_id = ?"
# The conversion itself.

PURGE_ERASED = """
DELETE FROM erased_clicks WHERE click_id IN (
    SELECT click_id FROM erased_clicks AS e WHERE click_id < :before
      AND NOT EXISTS (SELECT 1 FROM conversions AS c WHERE c.click_id = e.click_id)
      AND NOT EXISTS (SELECT 1 FROM clicks AS c WHERE c.click_id = e.click_id) LIMIT :limit)
"""  # Erased clicks of which nothing is left that a repeat could meet.

PURGE_COUNTS = tuple(
    f"DELETE FROM {table} WHERE (minute, {key}) IN "
    f"(SELECT minute, {key} FROM {table} WHERE minute < :minute ORDER BY minute LIMIT :limit)"
    for table, key in (
        ("refusals", "kind"),
        ("response_times", "bucket"),
        ("finds", "network, field, kind"),
        ("unmapped_names", "network, name"),
    )
)
# The oldest counts.

COUNT_OLD: Mapping[Class, str] = {
    Class.CLICKS: "SELECT count(*) FROM clicks WHERE click_id < :before",
    Class.POSTBACKS: "SELECT count(*) FROM postbacks WHERE request_id < :before",
    Class.ATTEMPTS: "SELECT count(*) FROM attempts WHERE at_ms < :before_ms",
    Class.CONVERSIONS: "SELECT count(*) FROM conversions WHERE click_id < :before AND conversion_id < :before",
    Class.COUNTS: "SELECT (SELECT count(*) FROM refusals WHERE minute < :minute) "
    "+ (SELECT count(*) FROM response_times WHERE minute < :minute) "
    "+ (SELECT count(*) FROM finds WHERE minute < :minute) "
    "+ (SELECT count(*) FROM unmapped_names WHERE minute < :minute)",
}
"""How many rows of a class are older."""

NOTE_PURGE = "INSERT INTO purges (at_ms, class, rows) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
# What a purge deleted.

FORGET_PURGES = "DELETE FROM purges WHERE at_ms < ? - 7776000000"
# What they deleted long ago (90 days) says nothing any more.

NOTE_CLOCK = """
INSERT INTO settings (name, value) VALUES ('purge_clock_ms', ?) ON CONFLICT DO UPDATE SET value = excluded.value
"""  # The time at which a purge looked.


def _moment(before_ms: int, limit: int = 0) -> dict[str, int]:
    return {
        "before": first_stamp_at(before_ms), "before_ms": before_ms, "minute": before_ms // 60_000, "limit": limit,
    }  # fmt: skip


def count_old(db: apsw.Connection, class_: Class, before_ms: int) -> int:
    """How many rows of a class are older than ``before_ms``."""
    return int(db.execute(COUNT_OLD[class_], _moment(before_ms)).get)


def purge(db: apsw.Connection, class_: Class, before_ms: int, limit: int) -> int:
    """Delete about ``limit`` of the oldest rows of a class, older than ``before_ms``; returns how many rows went."""
    parameters = _moment(before_ms, limit)
    with db:
        before = db.total_changes()
        if class_ in (Class.CLICKS, Class.POSTBACKS):
            db.execute(KEEP_LAST_STAMP)
            before = db.total_changes()
        if class_ in _HORIZONS:
            db.execute(_HORIZONS[class_], parameters)
            before = db.total_changes()
        if class_ is Class.CONVERSIONS:
            rows = db.execute(OLD_CONVERSIONS, parameters).fetchall()
            if rows:
                db.execute(CONVERSIONS_HORIZON, parameters)
                before = db.total_changes()
            for statement in PURGE_OF_CONVERSION:
                db.executemany(statement, [(row[3],) for row in rows])
            db.executemany(PURGE_KEY, [row[:3] for row in rows])
        for statement in PURGES.get(class_, ()):
            db.execute(statement, parameters)
        pass_failpoint("mid_purge")
    return db.total_changes() - before


_HORIZONS: Mapping[Class, str] = {Class.CLICKS: PURGE_HORIZON, Class.POSTBACKS: LOG_HORIZON}


def _marks(kind: Kind) -> str:
    return PURGE_MARKS.format(kind=kind.value)


PURGES: Mapping[Class, Sequence[str]] = {
    Class.CLICKS: (PURGE_OWN_IDS, PURGE_PIXEL_CONVERSIONS, PURGE_CLICKS, _marks(Kind.CLICKS)),
    Class.POSTBACKS: (PURGE_WAITING, PURGE_POSTBACKS, _marks(Kind.POSTBACKS)),
    Class.ATTEMPTS: (PURGE_ATTEMPTS,),
    Class.CONVERSIONS: (PURGE_ERASED,),
    Class.COUNTS: PURGE_COUNTS,
}
"""What a step of each class runs, in this order."""


def note_purge(db: apsw.Connection, now_ms: int, deleted: Mapping[Class, int]) -> None:
    """See ``store.base.Store.note_purge``."""
    db.execute(NOTE_CLOCK, (now_ms,))
    db.execute(FORGET_PURGES, (now_ms,))
    db.executemany(NOTE_PURGE, [(now_ms, str(class_), rows) for class_, rows in deleted.items() if rows])
