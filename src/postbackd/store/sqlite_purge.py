"""What is deleted from the embedded store, and the largest stamp that must never be given out again."""

from __future__ import annotations

import apsw

from postbackd.core.click_id import first_stamp_at
from postbackd.store.base import Purgeable
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


COUNT_PURGEABLE = """
SELECT (SELECT count(*) FROM clicks WHERE click_id < :before),
       (SELECT count(*) FROM postbacks WHERE request_id < :before)
"""  # How many clicks and log rows are older than a stamp.


def count_purgeable(db: apsw.Connection, before_ms: int) -> Purgeable:
    """How many clicks and log rows are older than ``before_ms``."""
    clicks, postbacks = db.execute(COUNT_PURGEABLE, {"before": first_stamp_at(before_ms)}).get
    return Purgeable(clicks, postbacks, exact=True)


def purge(db: apsw.Connection, before_ms: int, limit: int) -> int:
    """Delete up to ``limit`` clicks and log rows older than ``before_ms``; returns how many rows went."""
    parameters = {"before": first_stamp_at(before_ms), "limit": limit}
    with db:
        db.execute(KEEP_LAST_STAMP)
        db.execute(PURGE_HORIZON, parameters)
        before = db.total_changes()
        db.execute(PURGE_OWN_IDS, parameters)
        db.execute(PURGE_PIXEL_CONVERSIONS, parameters)
        db.execute(PURGE_WAITING, parameters)
        db.execute(PURGE_CLICKS, parameters)
        db.execute(PURGE_POSTBACKS, parameters)
        pass_failpoint("mid_purge")
    return db.total_changes() - before
