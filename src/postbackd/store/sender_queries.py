"""The named statements about who sends postbacks: what the steps of networks found."""

from __future__ import annotations

from collections.abc import Mapping

from postbackd.core.diagnosis import SENDER_REASONS
from postbackd.core.verdicts import Verdict
from postbackd.store.statement import ALL_TIME, Statement

_REASONS = ", ".join(str(int(reason)) for reason in sorted(SENDER_REASONS))

SENDER_STATEMENTS: Mapping[str, Statement] = {
    "observed_senders": Statement(
        "Postbacks that observed steps would have refused, by network and sender, most first.",
        "SELECT p.network, p.observed, p.sender, count(*) AS count FROM postbacks AS p "
        "WHERE p.request_id >= :since AND p.request_id < :until AND p.observed > 0 "
        "GROUP BY p.network, p.observed, p.sender ORDER BY count(*) DESC, p.observed, p.sender LIMIT :limit",
        {**ALL_TIME, "limit": 1000},
    ),
    "refused_senders": Statement(
        "Postbacks that enforced steps have refused, by network, reason and sender, most first.",
        "SELECT p.network, p.reason, p.sender, count(*) AS count FROM postbacks AS p "
        f"WHERE p.request_id >= :since AND p.request_id < :until AND p.verdict = {int(Verdict.REJECTED)} "
        f"AND p.reason IN ({_REASONS}) "
        "GROUP BY p.network, p.reason, p.sender ORDER BY count(*) DESC, p.reason, p.sender LIMIT :limit",
        {**ALL_TIME, "limit": 1000},
    ),
}
"""Name -> statement; a part of ``store.queries.STATEMENTS``."""
