"""The named read-only statements: every question that reports, ``why``, ``log`` and ``doctor`` ask.

A statement has a name, a sentence and defaults for its parameters.  Stamps (see ``core.click_id``) bound every time
range, because the tables are ordered by them: ``since`` is included, ``until`` is not.  Nothing here writes.

The statements are written in what SQLite and PostgreSQL understand alike; parameters are ``:names``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from postbackd.core.click_id import EPOCH_MS, MAX_STAMP
from postbackd.store.alarm_queries import ALARM_STATEMENTS
from postbackd.store.invariants import INVARIANTS
from postbackd.store.live_queries import LIVE_STATEMENTS
from postbackd.store.metric_queries import METRIC_STATEMENTS
from postbackd.store.privacy_queries import PRIVACY_STATEMENTS
from postbackd.store.reconcile_queries import RECONCILE_STATEMENTS
from postbackd.store.rollup_queries import ROLLUP_STATEMENTS
from postbackd.store.sender_queries import SENDER_STATEMENTS
from postbackd.store.statement import ALL_TIME, CLICK_OF_POSTBACK, LOG_COLUMNS, LOG_NAMES, Statement, rung
from postbackd.store.unmatched_queries import UNMATCHED_STATEMENTS

_LOG_FILTERS = """
WHERE p.request_id >= :since AND p.request_id < :until AND p.request_id > :after
  AND (CAST(:verdict AS INTEGER) IS NULL OR p.verdict = CAST(:verdict AS INTEGER))
  AND (CAST(:reason AS INTEGER) IS NULL OR p.reason = CAST(:reason AS INTEGER))
  AND (CAST(:network AS INTEGER) IS NULL OR p.network = CAST(:network AS INTEGER))
  AND (CAST(:campaign AS INTEGER) IS NULL OR p.campaign = CAST(:campaign AS INTEGER))
  AND (CAST(:click_text AS TEXT) IS NULL OR p.click_text = CAST(:click_text AS TEXT))
  AND (CAST(:observed AS INTEGER) IS NULL OR p.observed & CAST(:observed AS INTEGER) <> 0)
"""

_REPLAYABLE = """
AND p.verdict >= 4 AND p.reason NOT IN (23, 24) AND coalesce(p.click_text, '') <> 'erased'
AND (p.verdict <> 6 OR p.reason NOT IN (18, 19, 20, 21, 27, 28) OR CAST(:reason AS INTEGER) IS NOT NULL)
"""
"""Held, unmatched and rejected, but not what left nothing to judge again: a body that could not be read, too many
parameters, data that was erased.  What was refused for its sender (``core.diagnosis.SENDER_REASONS``) may be forged:
only when it is asked for by its reason."""

_LOG_DEFAULTS: Mapping[str, Any] = {
    **ALL_TIME,
    "after": -1,
    "verdict": None,
    "reason": None,
    "network": None,
    "campaign": None,
    "click_text": None,
    "observed": None,
    "limit": 100,
}

_OF_CLICK = """
FROM (SELECT request_id FROM postbacks WHERE click_id = :click_id AND verdict <> 1
      UNION SELECT conversion_id FROM conversions WHERE click_id = :click_id) AS k
JOIN postbacks AS p ON p.request_id = k.request_id
"""
# Accepted rows are left out of the index on click ids; the conversions know them.

_CONVERSION_COLUMNS = """
SELECT v.click_id, v.type, v.transaction_id, v.conversion_id, v.network, n.name AS network_name, v.campaign,
       m.name AS campaign_name, v.offer, o.name AS offer_name, v.status, v.value_micros, v.currency, v.channels,
       v.status_time_ms
FROM conversions AS v
LEFT JOIN networks AS n ON n.id = v.network
LEFT JOIN campaigns AS m ON m.id = v.campaign
LEFT JOIN offers AS o ON o.id = v.offer
"""

_DELIVERY_COLUMNS = """
SELECT d.number, d.request_id, d.click_id, d.type, d.transaction_id, d.conversion_id, d.campaign,
       m.name AS campaign_name, d.rule, r.name AS rule_name, d.target, t.name AS target_name, d.message, d.status,
       d.value_micros, d.currency, d.facts, d.created_ms, d.expires_ms, d.state, d.due_ms, d.holder, d.attempts,
       d.settled_ms, d.reason
FROM deliveries AS d
LEFT JOIN campaigns AS m ON m.id = d.campaign
LEFT JOIN rules AS r ON r.id = d.rule
LEFT JOIN targets AS t ON t.id = d.target
"""

_DELIVERY_FILTERS = """
WHERE d.request_id >= :since AND d.request_id < :until AND d.number > :after AND d.number <= :last
  AND (CAST(:state AS INTEGER) IS NULL OR d.state = CAST(:state AS INTEGER))
  AND (CAST(:target AS INTEGER) IS NULL OR d.target = CAST(:target AS INTEGER))
  AND (CAST(:rule AS INTEGER) IS NULL OR d.rule = CAST(:rule AS INTEGER))
"""

# Not the ones that were sent again since, nor those whose conversion went on without them (reversed, say): sent
# again, they would tell the source twice, or what is no longer true.
_STILL_TRUE = f"""
  AND NOT EXISTS (SELECT 1 FROM deliveries AS k
                  WHERE {CLICK_OF_POSTBACK} AND k.conversion_id = p.conversion_id AND k.rule = p.rule
                    AND k.message = p.message AND k.number > p.number)
  AND EXISTS (SELECT 1 FROM conversions AS k
              WHERE {CLICK_OF_POSTBACK} AND k.conversion_id = p.conversion_id AND k.status = p.status)
"""

_RESENDABLE = f"""
FROM deliveries AS p JOIN targets AS t ON t.id = p.target AND t.removed_ms IS NULL
{_DELIVERY_FILTERS.replace("d.", "p.")} AND p.state <> 1 {_STILL_TRUE}
"""

_DELIVERY_DEFAULTS: Mapping[str, Any] = {
    **ALL_TIME,
    "after": -1,
    "last": MAX_STAMP,
    "state": None,
    "target": None,
    "rule": None,
    "limit": 100,
}

_PIECES: Mapping[str, Statement] = {
    "log": Statement(
        "Rows of the postback log, newest first.",
        f"{LOG_COLUMNS} FROM postbacks AS p {LOG_NAMES} {_LOG_FILTERS} ORDER BY p.request_id DESC LIMIT :limit",
        _LOG_DEFAULTS,
    ),
    "log_of_click": Statement(
        "Rows of the postback log that speak of one click, newest first.",
        f"{LOG_COLUMNS} {_OF_CLICK} {LOG_NAMES} {_LOG_FILTERS} ORDER BY p.request_id DESC LIMIT :limit",
        _LOG_DEFAULTS,
    ),
    "log_from": Statement(
        "Rows of the postback log after one that was seen, oldest first.",
        f"{LOG_COLUMNS} FROM postbacks AS p {LOG_NAMES} {_LOG_FILTERS} ORDER BY p.request_id LIMIT :limit",
        _LOG_DEFAULTS,
    ),
    "last_request": Statement(
        "The newest request id in the postback log.",
        "SELECT max(request_id) AS request_id FROM postbacks",
        {},
    ),
    "postback": Statement(
        "One row of the postback log.",
        f"{LOG_COLUMNS} FROM postbacks AS p {LOG_NAMES} WHERE p.request_id = :request_id",
        {},
    ),
    "postbacks_of_transaction": Statement(
        "Rows of the postback log with a transaction id; reads the whole log.",
        f"{LOG_COLUMNS} FROM postbacks AS p {LOG_NAMES} WHERE p.transaction_id = :transaction_id "
        "ORDER BY p.request_id LIMIT :limit",
        {"limit": 1000},
    ),
    "click": Statement(
        "One click with the names of its campaign and offer.",
        "SELECT c.click_id, c.campaign, c.offer, c.kind, c.source_click_id, c.cost_micros, c.country, c.ip_prefix, "
        "c.own_id, c.sub1, c.sub2, c.sub3, c.sub4, c.sub5, c.sub6, c.sub7, c.sub8, c.sub9, c.sub10, "
        "m.name AS campaign_name, o.name AS offer_name FROM clicks AS c "
        "LEFT JOIN campaigns AS m ON m.id = c.campaign LEFT JOIN offers AS o ON o.id = c.offer "
        "WHERE c.click_id = :click_id",
        {},
    ),
    "own_id": Statement(
        "The click that was registered with a caller's own id.",
        "SELECT click_id FROM own_ids WHERE own_id = :own_id",
        {},
    ),
    "conversions_of_click": Statement(
        "Everything counted for one click, in the order in which it was counted.",
        f"{_CONVERSION_COLUMNS} WHERE v.click_id = :click_id ORDER BY v.conversion_id",
        {},
    ),
    "conversion": Statement(
        "One conversion by its id; reads all conversions, for the case that its log row was purged.",
        f"{_CONVERSION_COLUMNS} WHERE v.conversion_id = :conversion_id",
        {},
    ),
    "conversions_of_transaction": Statement(
        "Conversions with a transaction id; reads all conversions.",
        f"{_CONVERSION_COLUMNS} WHERE v.transaction_id = :transaction_id ORDER BY v.conversion_id LIMIT :limit",
        {"limit": 1000},
    ),
    "history": Statement(
        "Every change of one conversion, oldest first.",
        "SELECT request_id, conversion_id, status_from, status_to, status_word, value_micros_from, value_micros_to "
        "FROM conversion_history WHERE conversion_id = :conversion_id ORDER BY request_id",
        {},
    ),
    "purged_before": Statement(
        "The stamp before which clicks have been purged.",
        "SELECT value AS stamp FROM settings WHERE name = 'purged_before'",
        {},
    ),
    "replayable": Statement(
        "Held, unmatched and rejected rows of the postback log after one that was seen, oldest first.",
        f"{LOG_COLUMNS} FROM postbacks AS p {LOG_NAMES} {_LOG_FILTERS} {_REPLAYABLE} "
        "ORDER BY p.request_id LIMIT :limit",
        {**_LOG_DEFAULTS, "limit": 1000},
    ),
    "replayable_count": Statement(
        "How many rows a replay would try.",
        f"SELECT count(*) AS count FROM postbacks AS p {_LOG_FILTERS} {_REPLAYABLE}",
        _LOG_DEFAULTS,
    ),
    "deliveries": Statement(
        "Deliveries, newest first.",
        f"{_DELIVERY_COLUMNS} {_DELIVERY_FILTERS} ORDER BY d.number DESC LIMIT :limit",
        _DELIVERY_DEFAULTS,
    ),
    "deliveries_from": Statement(
        "Deliveries after one that was seen, oldest first.",
        f"{_DELIVERY_COLUMNS} {_DELIVERY_FILTERS} ORDER BY d.number LIMIT :limit",
        _DELIVERY_DEFAULTS,
    ),
    "delivery_count": Statement(
        "How many deliveries there are.",
        f"SELECT count(*) AS count FROM deliveries AS d {_DELIVERY_FILTERS}",
        _DELIVERY_DEFAULTS,
    ),
    "delivery": Statement(
        "One delivery by its number.",
        f"{_DELIVERY_COLUMNS} WHERE d.number = :number",
        {},
    ),
    "deliveries_of_click": Statement(
        "Everything that was ever owed about the conversions of one click, oldest first.",
        f"{_DELIVERY_COLUMNS} WHERE d.conversion_id IN "
        "(SELECT v.conversion_id FROM conversions AS v WHERE v.click_id = :click_id) "
        "AND d.click_id = :click_id ORDER BY d.number",
        {},
    ),
    "resendable": Statement(
        "Numbers of ended deliveries that make sense to be sent again, oldest first.",
        f"SELECT p.number {_RESENDABLE} ORDER BY p.number LIMIT :limit",
        _DELIVERY_DEFAULTS,
    ),
    "resendable_count": Statement(
        "How many ended deliveries make sense to be sent again.",
        f"SELECT count(*) AS count {_RESENDABLE}",
        _DELIVERY_DEFAULTS,
    ),
    "last_delivery": Statement(
        "The newest delivery's number.",
        "SELECT max(number) AS number FROM deliveries",
        {},
    ),
    "deliveries_given_up": Statement(
        "Deliveries that ended without success since a time, the latest last.",
        f"{_DELIVERY_COLUMNS} WHERE d.state >= 3 AND d.settled_ms >= :from_ms "
        "ORDER BY d.settled_ms, d.number LIMIT :limit",
        {"limit": 500},
    ),
    "dead_by_reason": Statement(
        "Deliveries that died since a time and that nothing has made up for, by target and reason, most first.",
        "SELECT p.target, t.name AS target_name, p.reason, count(*) AS count FROM deliveries AS p "
        "JOIN targets AS t ON t.id = p.target AND t.removed_ms IS NULL "
        f"WHERE p.state >= 3 AND p.state = 3 AND p.settled_ms >= :from_ms {_STILL_TRUE} "
        "GROUP BY p.target, t.name, p.reason ORDER BY count(*) DESC, p.reason",
        {},
    ),
    "overdue": Statement(
        "Deliveries that should have been sent before a time, by target, and since when the first one should.",
        "SELECT d.target, t.name AS target_name, count(*) AS count, min(d.due_ms) AS due_ms FROM deliveries AS d "
        "JOIN targets AS t ON t.id = d.target AND t.removed_ms IS NULL "
        "WHERE d.state = 1 AND d.due_ms < :before_ms GROUP BY d.target, t.name ORDER BY d.target",
        {},
    ),
    "attempts_of_delivery": Statement(
        "Every attempt of one delivery, oldest first.",
        "SELECT attempt, at_ms, took_ms, http_status, excerpt, error FROM attempts "
        "WHERE delivery = :number ORDER BY attempt",
        {},
    ),
    "last_attempt": Statement(
        "The latest attempt of one delivery.",
        "SELECT delivery, attempt, at_ms, took_ms, http_status, excerpt, error FROM attempts "
        "WHERE delivery = :number ORDER BY attempt DESC LIMIT 1",
        {},
    ),
    "attempts_from": Statement(
        "Attempts that began at a time or later, oldest first.",
        "SELECT delivery, attempt, at_ms, took_ms, http_status, excerpt, error FROM attempts "
        "WHERE at_ms >= :from_ms ORDER BY at_ms, delivery, attempt LIMIT :limit",
        {"limit": 500},
    ),
    "events_of_click": Statement(
        "What happened to the conversions of a click and the rules have not been asked about yet.",
        "SELECT event, request_id, conversion_id FROM outbox WHERE click_id = :click_id ORDER BY event",
        {},
    ),
    "outbox_count": Statement(
        "How many events wait for the rules to be asked, and the oldest request among them.",
        "SELECT count(*) AS count, min(request_id) AS request_id FROM outbox",
        {},
    ),
    "target_states": Statement(
        "Targets that are not served as usual.",
        "SELECT s.target, t.name AS target_name, s.state, s.since_ms, s.until_ms, s.reason FROM target_states AS s "
        "LEFT JOIN targets AS t ON t.id = s.target ORDER BY s.target",
        {},
    ),
    "names": Statement(
        "Names of everything that ever was in the catalog.",
        "SELECT 'network' AS kind, id, name FROM networks UNION ALL SELECT 'source', id, name FROM sources "
        "UNION ALL SELECT 'offer', id, name FROM offers UNION ALL SELECT 'campaign', id, name FROM campaigns "
        "UNION ALL SELECT 'target', id, name FROM targets",
        {},
    ),
    "refusals": Statement(
        "Requests that were refused before they reached an endpoint, by kind, in a range of minutes since 1970.",
        "SELECT kind, CAST(sum(count) AS BIGINT) AS count FROM refusals "
        "WHERE minute >= :since AND minute < :until GROUP BY kind",
        ALL_TIME,
    ),
    "response_times": Statement(
        "Response times by histogram bucket, in a range of minutes since 1970.",
        "SELECT bucket, CAST(sum(count) AS BIGINT) AS count, CAST(sum(total_us) AS BIGINT) AS total_us "
        "FROM response_times WHERE minute >= :since AND minute < :until GROUP BY bucket",
        ALL_TIME,
    ),
}

# --- reports: one aggregate a table and grouping ---------------------------------------------------------------


class _Grouping(NamedTuple):
    """The expression that a table is grouped by, and what must be joined for it; no expression: not applicable."""

    clicks: str | None
    postbacks: str | None
    conversions: str | None
    joins: tuple[str, str, str] = ("", "", "")


_DAY = "({stamp} >> 22) / 86400000"
_HOUR = "({stamp} >> 22) / 3600000"

GROUPINGS: Mapping[str, _Grouping] = {
    "all": _Grouping("0", "0", "0"),
    "campaign": _Grouping("c.campaign", "p.campaign", "v.campaign"),
    "offer": _Grouping(
        "c.offer", "k.offer", "v.offer", ("", f"LEFT JOIN clicks AS k ON {CLICK_OF_POSTBACK}", "")
    ),
    "source": _Grouping(
        "m.source",
        "m.source",
        "m.source",
        (
            "LEFT JOIN campaigns AS m ON m.id = c.campaign",
            "LEFT JOIN campaigns AS m ON m.id = p.campaign",
            "LEFT JOIN campaigns AS m ON m.id = v.campaign",
        ),
    ),
    "network": _Grouping(
        "o.network", "p.network", "v.network", ("LEFT JOIN offers AS o ON o.id = c.offer", "", "")
    ),
    "day": _Grouping(
        _DAY.format(stamp="c.click_id"),
        _DAY.format(stamp="p.request_id"),
        _DAY.format(stamp="v.conversion_id"),
    ),
    "hour": _Grouping(
        _HOUR.format(stamp="c.click_id"),
        _HOUR.format(stamp="p.request_id"),
        _HOUR.format(stamp="v.conversion_id"),
    ),
    "type": _Grouping(None, "lower(coalesce(nullif(trim(p.type), ''), 'conversion'))", "v.type"),
    "verdict": _Grouping(None, "p.verdict", None),
    "reason": _Grouping(None, "p.reason", None),
}
"""How a report can be grouped.  Days and hours are counted from 2020-01-01 UTC, the epoch of the stamps."""


def _report_statements() -> Mapping[str, Statement]:
    made: dict[str, Statement] = {}
    for by, grouping in GROUPINGS.items():
        if grouping.clicks is not None:
            made[f"clicks_by_{by}"] = Statement(
                f"Counted clicks by {by}.",
                f"SELECT {grouping.clicks} AS key, count(*) AS count FROM clicks AS c {grouping.joins[0]} "
                "WHERE c.kind & 15 = 0 AND c.click_id >= :since AND c.click_id < :until GROUP BY 1",
                ALL_TIME,
            )
        if grouping.postbacks is not None:
            made[f"postbacks_by_{by}"] = Statement(
                f"Postbacks by {by}, verdict, reason and what was observed of the sender.",
                f"SELECT {grouping.postbacks} AS key, p.verdict, p.reason, p.observed, count(*) AS count, "
                "CAST(sum(p.bytes) AS BIGINT) AS bytes, "
                "count(*) FILTER (WHERE p.bytes < 200) AS under_200, "
                "count(*) FILTER (WHERE p.parameters > 10) AS over_10, "
                f"count(p.click_id) AS with_click FROM postbacks AS p {grouping.joins[1]} "
                # What an operator imported (channel 4) says nothing about how a network sends.
                "WHERE p.request_id >= :since AND p.request_id < :until AND p.channel <> 4 GROUP BY 1, 2, 3, 4",
                ALL_TIME,
            )
        if grouping.conversions is not None:
            # Units and micros are added apart, because a sum of large values in micros can leave 64 bits.
            made[f"conversions_by_{by}"] = Statement(
                f"Conversions by {by}, status, currency and channels.",
                f"SELECT {grouping.conversions} AS key, v.status, v.currency, v.channels, count(*) AS count, "
                "CAST(sum(v.value_micros / 1000000) AS BIGINT) AS units, "
                "CAST(sum(v.value_micros % 1000000) AS BIGINT) AS micros "
                f"FROM conversions AS v {grouping.joins[2]} "
                "WHERE v.conversion_id >= :since AND v.conversion_id < :until GROUP BY 1, 2, 3, 4",
                ALL_TIME,
            )
    took = rung("d.took_ms", DELIVERY_LADDER_MS, "WHEN d.state <> 2 THEN 0")
    made["deliveries_by_outcome"] = Statement(
        "Deliveries by source, target, state and rung of the ladder of times.",
        f"SELECT m.source, d.target, d.state, {took} AS rung, count(*) AS count, "
        "CAST(sum(d.attempts) AS BIGINT) AS attempts "
        "FROM (SELECT campaign, target, state, attempts, "
        f"coalesce(settled_ms, 0) - (request_id >> 22) - {EPOCH_MS} AS took_ms "
        "FROM deliveries WHERE request_id >= :since AND request_id < :until) AS d "
        "LEFT JOIN campaigns AS m ON m.id = d.campaign GROUP BY 1, 2, 3, 4",
        ALL_TIME,
    )
    return made


_SECOND, _MINUTE, _HOUR_MS = 1_000, 60_000, 3_600_000

DELIVERY_LADDER_MS = (
    *(5, 10, 20, 30, 40, 50, 75, 100, 150, 200, 300, 500, 750),
    *(n * _SECOND for n in (1, 2, 3, 5, 7, 10, 15, 20, 30, 45)),
    *(n * _MINUTE for n in (1, 2, 3, 5, 7, 10, 15, 20, 30, 45)),
    *(n * _HOUR_MS for n in (1, 2, 3, 4, 6, 9, 12, 18, 24, 36, 48, 72, 96, 168)),
)
"""Upper bounds of the rungs that times from a conversion to its delivery are counted in; the last one has none.

A ladder is what both databases can compute: they have no percentiles in common.
"""


STATEMENTS: Mapping[str, Statement] = {
    **_PIECES,
    **PRIVACY_STATEMENTS,
    **SENDER_STATEMENTS,
    **METRIC_STATEMENTS,
    **RECONCILE_STATEMENTS,
    **ROLLUP_STATEMENTS,
    **ALARM_STATEMENTS,
    **UNMATCHED_STATEMENTS,
    **LIVE_STATEMENTS, **_report_statements(), **INVARIANTS,
}  # fmt: skip
"""Name -> statement."""
