"""The named statements behind ``/metrics``: counts of what happened in a span of time, and what waits now.

Each reads a range of an index, because it is asked every few seconds.
"""

from __future__ import annotations

from collections.abc import Mapping

from postbackd.store.statement import ALL_TIME, NOT_IMPORTED, Statement, rung

ATTEMPT_LADDER_MS = (10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)
"""Upper bounds of the rungs that the times of attempts are counted in; the last one has none."""

METRIC_STATEMENTS: Mapping[str, Statement] = {
    "metric_clicks": Statement(
        "Clicks by kind, in a range of stamps.",
        "SELECT c.kind & 15 AS kind, count(*) AS count FROM clicks AS c "
        "WHERE c.click_id >= :since AND c.click_id < :until GROUP BY 1",
        ALL_TIME,
    ),
    "metric_postbacks": Statement(
        "Postbacks by network, verdict and reason, then and now, in a range of stamps; the newest of each.",
        "SELECT p.network, p.verdict, p.reason, p.first_verdict, p.first_reason, count(*) AS count, "
        "CAST(sum(p.bytes) AS BIGINT) AS bytes, count(p.click_id) AS with_click, max(p.request_id) AS newest "
        f"FROM postbacks AS p WHERE p.request_id >= :since AND p.request_id < :until AND {NOT_IMPORTED} "
        "GROUP BY 1, 2, 3, 4, 5",
        ALL_TIME,
    ),
    "metric_attempts": Statement(
        "Attempts to deliver by outcome and rung of the ladder of times, in a range of milliseconds since 1970.",
        f"SELECT CASE WHEN error = '' THEN 1 ELSE 0 END AS delivered, {rung('took_ms', ATTEMPT_LADDER_MS)} "
        "AS rung, count(*) AS count, CAST(sum(took_ms) AS BIGINT) AS took_ms FROM attempts "
        "WHERE at_ms >= :since AND at_ms < :until GROUP BY 1, 2",
        ALL_TIME,
    ),
    "metric_given_up": Statement(
        "Deliveries that ended without success, by target and state, in a range of milliseconds since 1970.",
        "SELECT target, state, count(*) AS count FROM deliveries "
        "WHERE state >= 3 AND settled_ms >= :since AND settled_ms < :until GROUP BY 1, 2",
        ALL_TIME,
    ),
    "metric_waiting": Statement(
        "Deliveries that wait, by target, and when the first one is due.",
        "SELECT target, count(*) AS count, min(due_ms) AS due_ms FROM deliveries WHERE state = 1 GROUP BY 1",
        {},
    ),
}
"""Name -> statement; a part of ``store.queries.STATEMENTS``."""
