"""The named statements that must find nothing: what the tables say of each other when nothing is lost.

``store.queries`` takes them in.  Each reads the log, or the deliveries, from ``since`` on, and returns a few of the
rows that contradict it, or how many there are of each kind.  Of clicks whose conversions a purge has reached the log
may know more than there is, rightly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from postbackd.core.click_id import MAX_STAMP
from postbackd.store.statement import CLICK_OF_POSTBACK, REQUEST_OF_POSTBACK, Statement

_FEW: Mapping[str, Any] = {"since": 0, "until": MAX_STAMP, "replayed": 1, "limit": 100}
"""``replayed``: 0 leaves out what a late match or a replay counted, which may lie on another machine."""

_OF_LOG = """
SELECT p.request_id, p.conversion_id, p.transaction_id FROM postbacks AS p
WHERE p.verdict = {verdict} AND p.request_id >= :since AND p.request_id < :until
  AND (:replayed = 1 OR p.first_verdict IS NULL)
  AND p.click_id >= coalesce((SELECT value FROM settings WHERE name = 'conversions_purged_before'), 0)
  AND NOT EXISTS (SELECT 1 FROM {table} AS k WHERE {same} AND k.conversion_id = p.conversion_id)
ORDER BY p.request_id LIMIT :limit
"""

INVARIANTS: Mapping[str, Statement] = {
    "accepted_without_conversion": Statement(
        "Accepted postbacks whose conversion is not there.",
        _OF_LOG.format(verdict=1, table="conversions", same=CLICK_OF_POSTBACK),
        _FEW,
    ),
    "updated_without_history": Statement(
        "Postbacks that changed a conversion, and whose change is not there.",
        _OF_LOG.format(verdict=3, table="conversion_history", same=REQUEST_OF_POSTBACK),
        _FEW,
    ),
    "log_by_verdict": Statement(
        "How many postbacks were received, by what became of them.",
        "SELECT verdict, count(*) AS count FROM postbacks "
        "WHERE request_id >= :since AND request_id < :until GROUP BY verdict ORDER BY verdict",
        {"since": 0, "until": MAX_STAMP},
    ),
    "deliveries_by_state": Statement(
        "How many deliveries were made, by what became of them.",
        "SELECT state, count(*) AS count FROM deliveries "
        "WHERE request_id >= :since AND request_id < :until GROUP BY state ORDER BY state",
        {"since": 0, "until": MAX_STAMP},
    ),
    "unsealed_to": Statement(
        "Up to which stamp money rows may lack a checksum.",
        "SELECT value AS stamp FROM settings WHERE name = 'unsealed_to'",
        {},
    ),
    "accepted_rows": Statement(
        "Conversions of which damaged rows were accepted as they are, and when.",
        "SELECT substr(name, 10) AS conversion, value AS at_ms FROM settings WHERE name LIKE 'accepted:%' "
        "ORDER BY value, name",
        {},
    ),
}
"""Name -> statement."""
