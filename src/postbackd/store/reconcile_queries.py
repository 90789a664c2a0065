"""The named statements of a reconciliation: the conversions of one network, a page at a time."""

from __future__ import annotations

from collections.abc import Mapping

from postbackd.core.click_id import MAX_STAMP
from postbackd.store.statement import CLICK_OF_POSTBACK, Statement

_COLUMNS = (
    "p.click_id, p.type, p.transaction_id, p.conversion_id, p.campaign, p.status, p.value_micros, p.currency, "
    "p.channels, p.status_time_ms"
)

_PAGE = (
    "WHERE p.click_id < :until AND p.network = :network "
    "AND (p.click_id, p.type, p.transaction_id) > (:after_click_id, :after_type, :after_transaction_id) "
    "ORDER BY p.click_id, p.type, p.transaction_id LIMIT :limit"
)

# One lower bound: beside a second one SQLite would begin every page at the first click.

_DEFAULTS: Mapping[str, object] = {
    "network": 0,
    "until": MAX_STAMP,
    "after_click_id": -1,
    "after_type": "",
    "after_transaction_id": "",
    "limit": 5000,
}

RECONCILE_STATEMENTS: Mapping[str, Statement] = {
    "conversions_of_network": Statement(
        "Conversions of one network after one of them, in the order of their key, up to a click.",
        f"SELECT {_COLUMNS} FROM conversions AS p {_PAGE}",
        _DEFAULTS,
    ),
    "conversions_of_network_with_own_ids": Statement(
        "The same, with the caller's own id of each click that has one.",
        f"SELECT {_COLUMNS}, k.own_id FROM conversions AS p LEFT JOIN clicks AS k ON {CLICK_OF_POSTBACK} {_PAGE}",
        _DEFAULTS,
    ),
}
"""Name -> statement; a part of ``store.queries.STATEMENTS``."""
