"""The named read-only statements: every question that reports, ``why``, ``log`` and ``doctor`` ask.

A statement has a name, a sentence and defaults for its parameters.  Stamps (see ``core.click_id``) bound every time
range, because the tables are ordered by them: ``since`` is included, ``until`` is not.  Nothing here writes.

The statements are written in what SQLite and PostgreSQL understand alike; parameters are ``:names``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from postbackd.core.click_id import MAX_STAMP


class Statement(NamedTuple):
    """One question: what it answers, how, and what its parameters are when not given."""

    sentence: str
    sql: str
    defaults: Mapping[str, Any]


_ALL_TIME: Mapping[str, Any] = {"since": 0, "until": MAX_STAMP}

_LOG_COLUMNS = """
SELECT p.request_id, p.network, n.name AS network_name, p.channel, p.verdict, p.reason, p.click_id, p.campaign,
       m.name AS campaign_name, p.conversion_id, p.click_text, p.type, p.value, p.currency, p.transaction_id,
       p.status, p.time, p.found_in, p.bytes, p.parameters, p.first_verdict, p.first_reason
"""

_LOG_NAMES = """
LEFT JOIN networks AS n ON n.id = p.network
LEFT JOIN campaigns AS m ON m.id = p.campaign
"""

_LOG_FILTERS = """
WHERE p.request_id >= :since AND p.request_id < :until AND p.request_id > :after
  AND (CAST(:verdict AS INTEGER) IS NULL OR p.verdict = CAST(:verdict AS INTEGER))
  AND (CAST(:reason AS INTEGER) IS NULL OR p.reason = CAST(:reason AS INTEGER))
  AND (CAST(:network AS INTEGER) IS NULL OR p.network = CAST(:network AS INTEGER))
  AND (CAST(:click_text AS TEXT) IS NULL OR p.click_text = CAST(:click_text AS TEXT))
"""

_REPLAYABLE = "AND p.verdict >= 4 AND p.reason NOT IN (23, 24)"
"""Held, unmatched and rejected, but not what left nothing to judge again: a body that could not be read, too many
parameters."""

_LOG_DEFAULTS: Mapping[str, Any] = {
    **_ALL_TIME,
    "after": -1,
    "verdict": None,
    "reason": None,
    "network": None,
    "click_text": None,
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

_PIECES: Mapping[str, Statement] = {
    "log": Statement(
        "Rows of the postback log, newest first.",
        f"{_LOG_COLUMNS} FROM postbacks AS p {_LOG_NAMES} {_LOG_FILTERS} ORDER BY p.request_id DESC LIMIT :limit",
        _LOG_DEFAULTS,
    ),
    "log_of_click": Statement(
        "Rows of the postback log that speak of one click, newest first.",
        f"{_LOG_COLUMNS} {_OF_CLICK} {_LOG_NAMES} {_LOG_FILTERS} ORDER BY p.request_id DESC LIMIT :limit",
        _LOG_DEFAULTS,
    ),
    "log_from": Statement(
        "Rows of the postback log after one that was seen, oldest first.",
        f"{_LOG_COLUMNS} FROM postbacks AS p {_LOG_NAMES} {_LOG_FILTERS} ORDER BY p.request_id LIMIT :limit",
        _LOG_DEFAULTS,
    ),
    "last_request": Statement(
        "The newest request id in the postback log.",
        "SELECT max(request_id) AS request_id FROM postbacks",
        {},
    ),
    "postback": Statement(
        "One row of the postback log.",
        f"{_LOG_COLUMNS} FROM postbacks AS p {_LOG_NAMES} WHERE p.request_id = :request_id",
        {},
    ),
    "postbacks_of_transaction": Statement(
        "Rows of the postback log with a transaction id; reads the whole log.",
        f"{_LOG_COLUMNS} FROM postbacks AS p {_LOG_NAMES} WHERE p.transaction_id = :transaction_id "
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
        f"{_LOG_COLUMNS} FROM postbacks AS p {_LOG_NAMES} {_LOG_FILTERS} {_REPLAYABLE} "
        "ORDER BY p.request_id LIMIT :limit",
        {**_LOG_DEFAULTS, "limit": 1000},
    ),
    "replayable_count": Statement(
        "How many rows a replay would try.",
        f"SELECT count(*) AS count FROM postbacks AS p {_LOG_FILTERS} {_REPLAYABLE}",
        _LOG_DEFAULTS,
    ),
    "names": Statement(
        "Names of everything that ever was in the catalog.",
        "SELECT 'network' AS kind, id, name FROM networks UNION ALL SELECT 'source', id, name FROM sources "
        "UNION ALL SELECT 'offer', id, name FROM offers UNION ALL SELECT 'campaign', id, name FROM campaigns",
        {},
    ),
    "refusals": Statement(
        "Requests that were refused before they reached an endpoint, by kind, in a range of minutes since 1970.",
        "SELECT kind, CAST(sum(count) AS BIGINT) AS count FROM refusals "
        "WHERE minute >= :since AND minute < :until GROUP BY kind",
        _ALL_TIME,
    ),
    "response_times": Statement(
        "Response times by histogram bucket, in a range of minutes since 1970.",
        "SELECT bucket, CAST(sum(count) AS BIGINT) AS count, CAST(sum(total_us) AS BIGINT) AS total_us "
        "FROM response_times WHERE minute >= :since AND minute < :until GROUP BY bucket",
        _ALL_TIME,
    ),
}

# --- reports: one aggregate a table and grouping ---------------------------------------------------------------


class _Grouping(NamedTuple):
    """The expression that a table is grouped by, and what must be joined for it; no expression: not applicable."""

    clicks: str | None
    postbacks: str | None
    conversions: str | None
    joins: tuple[str, str, str] = ("", "", "")


CLICK_OF_POSTBACK = "k.click_id = p.click_id"
"""The join of two large tables: a distributed database wants to be told, too, that both rows are on one shard."""

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
                "WHERE c.kind = 0 AND c.click_id >= :since AND c.click_id < :until GROUP BY 1",
                _ALL_TIME,
            )
        if grouping.postbacks is not None:
            made[f"postbacks_by_{by}"] = Statement(
                f"Postbacks by {by}, verdict and reason.",
                f"SELECT {grouping.postbacks} AS key, p.verdict, p.reason, count(*) AS count, "
                "CAST(sum(p.bytes) AS BIGINT) AS bytes, "
                "count(*) FILTER (WHERE p.bytes < 200) AS under_200, "
                "count(*) FILTER (WHERE p.parameters > 10) AS over_10, "
                f"count(p.click_id) AS with_click FROM postbacks AS p {grouping.joins[1]} "
                "WHERE p.request_id >= :since AND p.request_id < :until GROUP BY 1, 2, 3",
                _ALL_TIME,
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
                _ALL_TIME,
            )
    return made


STATEMENTS: Mapping[str, Statement] = {**_PIECES, **_report_statements()}
"""Name -> statement."""
