"""The named statements about roll-ups: what they are computed from, and what live charts show of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from postbackd.core.grouping import SUB_COLUMNS
from postbackd.store.statement import ALL_TIME, CLICK_OF_POSTBACK, NOT_IMPORTED, Statement

_COST = (
    "count(*) AS clicks, count(c.cost_micros) AS costed, "
    "CAST(coalesce(sum(c.cost_micros / 1000000), 0) AS BIGINT) AS units, "
    "CAST(coalesce(sum(c.cost_micros % 1000000), 0) AS BIGINT) AS micros"
)
_COUNTED = "c.kind & 15 = 0 AND c.click_id >= :since AND c.click_id < :until"

_BY_SPAN: Mapping[str, Any] = {**ALL_TIME, "grain": 60_000}

ROLLUP_STATEMENTS: Mapping[str, Statement] = {
    "rollup_clicks": Statement(
        "Counted clicks by campaign, offer, country and span of so many milliseconds.",
        "SELECT (c.click_id >> 22) / CAST(:grain AS BIGINT) AS span, c.campaign, c.offer, "
        f"coalesce(c.country, '') AS country, {_COST} FROM clicks AS c WHERE {_COUNTED} GROUP BY 1, 2, 3, 4",
        _BY_SPAN,
    ),
    "rollup_postbacks": Statement(
        "Postbacks by network, campaign, verdict, reason and span of so many milliseconds.",
        "SELECT (p.request_id >> 22) / CAST(:grain AS BIGINT) AS span, p.network, "
        "coalesce(p.campaign, 0) AS campaign, p.verdict, p.reason, count(*) AS count, "
        "count(p.click_id) AS with_click FROM postbacks AS p "
        f"WHERE p.request_id >= :since AND p.request_id < :until AND {NOT_IMPORTED} GROUP BY 1, 2, 3, 4, 5",
        _BY_SPAN,
    ),
    "rollup_conversions": Statement(
        "Conversions that stand by network, currency and span of so many milliseconds.",
        "SELECT (f.conversion_id >> 22) / CAST(:grain AS BIGINT) AS span, f.network, f.currency, count(*) AS count, "
        "CAST(sum(f.value_micros / 1000000) AS BIGINT) AS units, "
        "CAST(sum(f.value_micros % 1000000) AS BIGINT) AS micros FROM conversion_facts AS f "
        "WHERE f.conversion_id >= :since AND f.conversion_id < :until AND f.status <= 2 GROUP BY 1, 2, 3",
        _BY_SPAN,
    ),
    "rollup_log": Statement(
        "Which conversions log rows speak of, oldest first.",
        "SELECT p.request_id, p.click_id FROM postbacks AS p "
        "WHERE p.request_id >= :since AND p.request_id < :until AND p.conversion_id IS NOT NULL "
        "ORDER BY p.request_id LIMIT :limit",
        {**ALL_TIME, "limit": 1000},
    ),
    "rollup_converted": Statement(
        "Clicks that have conversions, after one that was seen.",
        "SELECT DISTINCT v.click_id FROM conversions AS v WHERE v.click_id > :after "
        "ORDER BY v.click_id LIMIT :limit",
        {"after": -1, "limit": 1000},
    ),
    "rollup_oldest_conversion": Statement(
        "The oldest click that has conversions, as they are counted and as they are rolled up.",
        "SELECT (SELECT min(click_id) FROM conversions) AS counted, "
        "(SELECT min(click_id) FROM conversion_facts) AS rolled_up",
        {},
    ),
    "rollup_horizons": Statement(
        "The stamps before which clicks, log rows and conversions have been purged.",
        "SELECT name, value AS stamp FROM settings "
        "WHERE name IN ('purged_before', 'postbacks_purged_before', 'conversions_purged_before')",
        {},
    ),
    "rollup_oldest": Statement(
        "The oldest click and the oldest row of the log, from a stamp on.",
        "SELECT (SELECT min(click_id) FROM clicks WHERE click_id >= :since) AS click_id, "
        "(SELECT min(request_id) FROM postbacks WHERE request_id >= :since) AS request_id",
        {"since": 0},
    ),
    "rollup_span": Statement(
        "The first and the last slot that is rolled up.",
        "SELECT min(slot) AS first, max(slot) AS last FROM click_rollups WHERE level = 1",
        {},
    ),
    "rollup_state": Statement("How far the roll-ups have come.", "SELECT name, value FROM rollup_state", {}),
    "rollup_marks": Statement(
        "How many slots wait to be computed again.",
        "SELECT count(*) AS count, coalesce(max(id), 0) AS newest FROM rollup_marks",
        {},
    ),
    "minutes": Statement(
        "Figures by the minute, oldest first, in a range of minutes since 1970.",
        "SELECT minute, kind, network, word, count, units, micros FROM minute_rollups "
        "WHERE minute >= :since AND minute < :until ORDER BY minute, kind, network, word",
        ALL_TIME,
    ),
    "rollup_quarters_clicks": Statement(
        "What is rolled up of clicks, by slot.",
        "SELECT slot, campaign, offer, country, clicks, costed, cost_units, cost_micros FROM click_rollups "
        "WHERE level = 1 AND slot >= :since AND slot < :until",
        ALL_TIME,
    ),
    "rollup_quarters_postbacks": Statement(
        "What is rolled up of postbacks, by slot.",
        "SELECT slot, network, campaign, postbacks, carried, matched, duplicates FROM postback_rollups "
        "WHERE level = 1 AND slot >= :since AND slot < :until",
        ALL_TIME,
    ),
    "rollup_levels_clicks": Statement(
        "Clicks in the levels above the quarters.",
        "SELECT level, slot, campaign, offer, country, clicks, costed, cost_units, cost_micros FROM click_rollups "
        "WHERE level IN (2, 3, 4, 5) AND slot >= :since AND slot < :until",
        ALL_TIME,
    ),
    "rollup_days_postbacks": Statement(
        "Postbacks by day.",
        "SELECT level, slot, network, campaign, postbacks, carried, matched, duplicates FROM postback_rollups "
        "WHERE level = 5 AND slot >= :since AND slot < :until",
        ALL_TIME,
    ),
    "rollup_sub_values": Statement(
        "Values of one sub id in one day or hour.",
        "SELECT campaign, value, other, clicks, costed, cost_units AS units, cost_micros AS micros "
        "FROM sub_rollups WHERE level = :level AND sub = :sub AND slot = :slot",
        {"level": 5, "sub": 1, "slot": 0},
    ),
    "rollup_old_hours": Statement(
        "Values of one sub id by the hour, before a slot, oldest first: the last of the first so many.",
        "SELECT w.slot, w.campaign, w.value, w.other FROM (SELECT slot, campaign, value, other FROM sub_rollups "
        "WHERE level = 6 AND sub = :sub AND slot < :before ORDER BY slot, campaign, value, other LIMIT :most) AS w "
        "ORDER BY w.slot DESC, w.campaign DESC, w.value DESC, w.other DESC LIMIT 1",
        {"sub": 1, "before": 0, "most": 1},
    ),
    "rollup_raw_facts": Statement(
        "Conversions with what their clicks say, if these are there still, by the stamps of their clicks.",
        "SELECT p.conversion_id, p.click_id, p.network, p.campaign, p.offer, p.type, p.status, p.value_micros, "
        "p.currency, p.channels, k.click_id AS known, k.country, "
        + ", ".join(f"k.{sub}" for sub in SUB_COLUMNS)
        + f" FROM conversions AS p LEFT JOIN clicks AS k ON {CLICK_OF_POSTBACK} "
        "WHERE p.click_id >= :since AND p.click_id < :until ORDER BY p.conversion_id",
        ALL_TIME,
    ),
    "rollup_facts": Statement(
        "Conversions as they are rolled up, after one that was seen.",
        "SELECT f.conversion_id, f.click_id, f.network, f.campaign, f.offer, f.type, f.status, f.value_micros, "
        "f.currency, f.channels, f.country, "
        + ", ".join(f"f.{sub}" for sub in SUB_COLUMNS)
        + " FROM conversion_facts AS f WHERE f.click_id >= :since AND f.click_id < :until ORDER BY f.conversion_id",
        ALL_TIME,
    ),
    **{
        f"rollup_day_{sub}": Statement(
            "The same over a day, the rarest values of a campaign put together (rest = 1).",
            f"SELECT r.campaign, r.value, r.rest, CAST(sum(r.clicks) AS BIGINT) AS clicks, "
            "CAST(sum(r.costed) AS BIGINT) AS costed, CAST(sum(r.units) AS BIGINT) AS units, "
            "CAST(sum(r.micros) AS BIGINT) AS micros FROM (SELECT w.campaign, w.clicks, w.costed, w.units, w.micros, "
            "CASE WHEN w.place > :most THEN '' ELSE w.value END AS value, "
            "CASE WHEN w.place > :most THEN 1 ELSE 0 END AS rest FROM (SELECT g.*, "
            "row_number() OVER (PARTITION BY g.campaign ORDER BY g.clicks DESC, g.value) AS place FROM ("
            f"SELECT c.campaign, coalesce(c.{sub}, '') AS value, {_COST} FROM clicks AS c "
            f"WHERE {_COUNTED} GROUP BY 1, 2) AS g) AS w) AS r GROUP BY 1, 2, 3",
            {**ALL_TIME, "most": 200},
        )
        for sub in SUB_COLUMNS
    },
    **{
        f"rollup_{sub}": Statement(
            f"Counted clicks by campaign and {sub}.",
            f"SELECT c.campaign, coalesce(c.{sub}, '') AS value, {_COST} FROM clicks AS c "
            f"WHERE {_COUNTED} GROUP BY 1, 2",
            ALL_TIME,
        )
        for sub in SUB_COLUMNS
    },
}
