"""The named statements of alarms: what is counted of the log, what lasts, what has to be told."""

from __future__ import annotations

from collections.abc import Mapping

from postbackd.core.diagnosis import SENDER_REASONS, Reason
from postbackd.core.sender_rules import write_observed
from postbackd.core.verdicts import Verdict
from postbackd.store.statement import ALL_TIME, NOT_IMPORTED, Statement

_HOUR = "({stamp} >> 22) / 3600000"
_MINUTE = "({stamp} >> 22) / 60000"
# Counted from 2020-01-01 UTC, the epoch of the stamps.


def _numbers(*reasons: Reason) -> str:
    return ", ".join(str(int(reason)) for reason in sorted(reasons))


_NOT_OF_THE_NETWORK = (
    f"((p.verdict = {int(Verdict.REJECTED)} AND p.reason IN ({_numbers(*SENDER_REASONS)})) "
    f"OR p.reason = {int(Reason.TEST_EVENT)})"
)
"""Somebody else may have sent it, or somebody tried something out."""

_SAYS_NOTHING = _numbers(
    Reason.CLICK_ID_MISSING,
    Reason.CLICK_ID_EMPTY,
    Reason.BODY_MALFORMED,
    Reason.CLICK_NOT_YET_SEEN,
)
"""Of matching: no click id, or a genuine one whose click is on its way.  The latter are counted once, at once."""

_ADDRESS = write_observed([Reason.SENDER_IP_NOT_ALLOWED])

_ALARM = "id, kind, scope, subject, urgent, seen, normal, todo, raised_ms, bad_ms, good_ms, told_ms, ended_ms"
_NOTICE = "id, alarm, place, said, body, made_ms, due_ms, attempts, state, settled_ms, error"

ALARM_STATEMENTS: Mapping[str, Statement] = {
    "alarm_log": Statement(
        "Postbacks by network, campaign and minute, as alarms count them.",
        f"SELECT p.network, p.campaign, {_MINUTE.format(stamp='p.request_id')} AS minute, "
        f"count(*) FILTER (WHERE NOT {_NOT_OF_THE_NETWORK}) AS postbacks, "
        f"count(*) FILTER (WHERE NOT {_NOT_OF_THE_NETWORK} "
        f"AND (p.reason NOT IN ({_SAYS_NOTHING}) OR (p.click_id IS NOT NULL AND p.verdict <> 5))) AS carried, "
        f"count(*) FILTER (WHERE NOT {_NOT_OF_THE_NETWORK} AND p.click_id IS NOT NULL AND p.verdict <> 5) AS matched, "
        f"count(*) FILTER (WHERE p.verdict = {int(Verdict.DUPLICATE)}) AS duplicates "
        f"FROM postbacks AS p WHERE p.request_id >= :since AND p.request_id < :until AND {NOT_IMPORTED} "
        "GROUP BY 1, 2, 3",
        ALL_TIME,
    ),
    "alarm_clicks": Statement(
        "Counted clicks by network and hour, as alarms count them.",
        f"SELECT o.network, {_HOUR.format(stamp='c.click_id')} AS hour, count(*) AS clicks FROM clicks AS c "
        "LEFT JOIN offers AS o ON o.id = c.offer "
        "WHERE c.kind & 15 = 0 AND c.click_id >= :since AND c.click_id < :until GROUP BY 1, 2",
        ALL_TIME,
    ),
    "alarm_parameters": Statement(
        "How many parameters the postbacks of each network had.",
        "SELECT p.network, p.parameters, count(*) AS count, max(p.request_id) AS request_id FROM postbacks AS p "
        f"WHERE p.request_id >= :since AND p.request_id < :until AND NOT {_NOT_OF_THE_NETWORK} "
        f"AND {NOT_IMPORTED} GROUP BY p.network, p.parameters",
        ALL_TIME,
    ),
    "alarm_names": Statement(
        "Names of parameters that no field claims, by network, in a range of minutes since 1970.",
        "SELECT network, name, min(minute) AS first, max(minute) AS last FROM unmapped_names "
        "WHERE minute >= :since AND minute < :until GROUP BY network, name",
        {"since": 0, "until": 1 << 40},
    ),
    "alarm_names_since": Statement(
        "Since when names of parameters have been noted.",
        "SELECT value AS since_ms FROM settings WHERE name = 'unmapped_since_ms'",
        {},
    ),
    "alarm_words_sent": Statement(
        "Status words that are not known, macros that were not filled, and senders that are not on the list.",
        "SELECT p.network, p.reason, CASE WHEN p.reason = "
        f"{int(Reason.STATUS_UNKNOWN)} THEN p.status WHEN p.reason = {int(Reason.MACRO_LITERAL)} THEN p.click_text "
        f"WHEN p.reason = {int(Reason.VALUE_MACRO_LITERAL)} THEN p.value END AS word, "
        f"CASE WHEN p.observed & {_ADDRESS} <> 0 OR p.reason = {int(Reason.SENDER_IP_NOT_ALLOWED)} "
        "THEN p.sender END AS sender, count(*) AS count, max(p.request_id) AS request_id FROM postbacks AS p "
        f"WHERE p.request_id >= :since AND p.request_id < :until AND {NOT_IMPORTED} AND (p.reason IN "
        f"({_numbers(Reason.STATUS_UNKNOWN, Reason.MACRO_LITERAL, Reason.VALUE_MACRO_LITERAL)}, "
        f"{int(Reason.SENDER_IP_NOT_ALLOWED)}) OR p.observed & {_ADDRESS} <> 0) "
        "GROUP BY 1, 2, 3, 4 ORDER BY count(*) DESC, 1, 2 LIMIT :limit",
        {**ALL_TIME, "limit": 500},
    ),
    "alarm_deliveries": Statement(
        "How the latest deliveries that were tried went, by target: delivered, dead, or waiting after a failure.",
        "SELECT k.target, count(*) FILTER (WHERE k.state = 2) AS delivered, "
        "count(*) FILTER (WHERE k.state = 3 OR (k.state = 1 AND k.attempts > 0)) AS failed "
        "FROM (SELECT target, state, attempts, created_ms FROM deliveries ORDER BY number DESC LIMIT :limit) AS k "
        "WHERE k.created_ms >= :from_ms GROUP BY k.target",
        {"limit": 2000},
    ),
    "alarms_counted": Statement(
        "How far the log has been counted.",
        "SELECT value AS counted_ms FROM settings WHERE name = 'alarms_counted_ms'",
        {},
    ),
    "alarm_hours": Statement(
        "What alarms have counted, by network or campaign and hour.",
        "SELECT scope, subject, hour, clicks, postbacks, carried, matched, duplicates, first_ms, last_ms, "
        "gap_from_ms, gap_until_ms FROM alarm_hours WHERE hour >= :hour",
        {"hour": 0},
    ),
    "alarm_words": Statement(
        "What networks have sent before.",
        "SELECT kind, network, word, first_ms, last_ms, count FROM alarm_words",
        {},
    ),
    "alarms_lasting": Statement(
        "Alarms that last.",
        f"SELECT {_ALARM} FROM alarms WHERE ended_ms IS NULL ORDER BY id",
        {},
    ),
    "alarms": Statement(
        "Alarms before one that was seen, the latest first, those that last or all.",
        f"SELECT {_ALARM} FROM alarms WHERE id < :before AND (ended_ms IS NULL OR CAST(:ended AS INTEGER) = 1) "
        "ORDER BY id DESC LIMIT :limit",
        {"before": 1 << 62, "ended": 1, "limit": 100},
    ),
    "alarm": Statement(
        "One alarm by its id.",
        f"SELECT {_ALARM} FROM alarms WHERE id = :number",
        {},
    ),
    "alarm_quiets": Statement(
        "What somebody does not want to hear of.",
        "SELECT kind, scope, subject, until_ms, who, why, at_ms FROM alarm_quiets",
        {},
    ),
    "alarm_notices_of": Statement(
        "What was told of one alarm, or is to be, oldest first.",
        f"SELECT {_NOTICE} FROM alarm_notices WHERE alarm = :number ORDER BY id",
        {},
    ),
    "alarm_notices_due": Statement(
        "Notices that wait, those that are due first.",
        f"SELECT {_NOTICE} FROM alarm_notices WHERE state = 'waiting' ORDER BY due_ms, id LIMIT :limit",
        {"limit": 100},
    ),
}
"""Name -> statement; a part of ``store.queries.STATEMENTS``."""
