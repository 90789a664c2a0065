"""The named statements about postbacks that were not counted, and about clicks whose ids may have been lost."""

from __future__ import annotations

from collections.abc import Mapping

from postbackd.core.lost_ids import AGES_MS
from postbackd.store.statement import ALL_TIME, LOG_COLUMNS, LOG_NAMES, NOT_IMPORTED, Statement, rung

# By network: so the index over what is to be repaired leads to the rows, however long the log is.
_OF_NETWORK = """
WHERE p.network = :network AND p.verdict >= 4 AND p.request_id >= :since AND p.request_id < :until
"""


UNMATCHED_STATEMENTS: Mapping[str, Statement] = {
    "unmatched_of_network": Statement(
        "Held, unmatched and rejected postbacks of a network by verdict and reason, with the first and the last.",
        "SELECT p.verdict, p.reason, count(*) AS count, min(p.request_id) AS first, max(p.request_id) AS last "
        f"FROM postbacks AS p {_OF_NETWORK} GROUP BY p.verdict, p.reason",
        {**ALL_TIME, "network": 0},
    ),
    "unmatched_newest": Statement(
        "Held, unmatched and rejected postbacks of a network, the newest first.",
        f"{LOG_COLUMNS} FROM postbacks AS p {LOG_NAMES} {_OF_NETWORK} ORDER BY p.request_id DESC LIMIT :limit",
        {**ALL_TIME, "network": 0, "limit": 100},
    ),
    "postback_totals": Statement(
        "How many postbacks each network sent.",
        "SELECT p.network, count(*) AS count FROM postbacks AS p "
        f"WHERE p.request_id >= :since AND p.request_id < :until AND {NOT_IMPORTED} GROUP BY p.network",
        ALL_TIME,
    ),
    "any_own_id": Statement(
        "A click that was registered with a caller's own id, if there is any.",
        "SELECT own_id FROM own_ids LIMIT :limit",
        {"limit": 1},
    ),
    "mixed_own_id": Statement(
        "A caller's own id that is written in both cases, if there is any; reads all of them when there is none.",
        "SELECT own_id FROM own_ids WHERE own_id <> lower(own_id) AND own_id <> upper(own_id) LIMIT :limit",
        {"limit": 1},
    ),
    "converted_by_age": Statement(
        "Clicks that converted, by offer and by how old they were when they first did (core.lost_ids.AGES_MS).",
        f"SELECT f.offer, {rung('f.age_ms', AGES_MS)} AS rung, count(*) AS count FROM ("
        "SELECT v.click_id, min(v.offer) AS offer, min(v.conversion_id >> 22) - (v.click_id >> 22) AS age_ms "
        "FROM conversions AS v WHERE v.click_id >= :since AND v.click_id < :until GROUP BY v.click_id"
        ") AS f GROUP BY 1, 2",
        ALL_TIME,
    ),
}
"""Name -> statement; a part of ``store.queries.STATEMENTS``."""
