"""The named statements that follow the postback log and the clicks as they grow: narrow, and by their keys alone."""

from __future__ import annotations

from collections.abc import Mapping

from postbackd.core.click_id import EPOCH_MS
from postbackd.store.statement import Statement


def _following(name: str, table: str, key: str, columns: str) -> Mapping[str, Statement]:
    """The statements that follow one table; its key is called ``id``."""
    between = f"FROM {table} AS p WHERE p.{key} > :after AND p.{key} <= :last"
    return {
        f"{name}_last": Statement(f"The newest row of {table}.", f"SELECT max({key}) AS id FROM {table}", {}),
        f"{name}_from": Statement(
            f"What rows of {table} are filtered by, after one that was seen, oldest first.",
            f"SELECT p.{key} AS id, {columns} FROM {table} AS p WHERE p.{key} > :after ORDER BY p.{key} LIMIT :limit",
            {"after": -1, "limit": 1000},
        ),
        f"{name}_count": Statement(
            f"How many rows of {table} lie between two.",
            f"SELECT count(*) AS count {between}",
            {"after": -1, "last": 0},
        ),
        f"{name}_ids": Statement(
            f"Which rows of {table} lie between two.",
            f"SELECT p.{key} AS id {between} ORDER BY p.{key}",
            {"after": -1, "last": 0},
        ),
    }


# An attempt has no stamp: its time, its delivery and its number make one that sorts alike and is hardly ever another's.
_ATTEMPT = f"((a.at_ms - {EPOCH_MS}) << 22 | ((a.delivery * 32 + a.attempt) & 4194303))"
_AFTER = f"a.at_ms >= (CAST(:after AS BIGINT) >> 22) + {EPOCH_MS} AND {_ATTEMPT} > CAST(:after AS BIGINT)"
_UP_TO = f"a.at_ms <= (CAST(:last AS BIGINT) >> 22) + {EPOCH_MS} AND {_ATTEMPT} <= CAST(:last AS BIGINT)"
# The bounds of time are what the index knows.

_ATTEMPTS: Mapping[str, Statement] = {
    "live_deliveries_last": Statement(
        "The newest attempt.",
        f"SELECT max(k.id) AS id FROM (SELECT {_ATTEMPT} AS id FROM attempts AS a ORDER BY a.at_ms DESC LIMIT 50) AS k",
        {},
    ),
    "live_deliveries_from": Statement(
        "Attempts after one that was seen, oldest first, and whether they failed.",
        f"SELECT {_ATTEMPT} AS id, CASE WHEN a.error = '' THEN 0 ELSE 1 END AS failed FROM attempts AS a "
        f"WHERE {_AFTER} ORDER BY a.at_ms, 1 LIMIT :limit",
        {"after": -1, "limit": 1000},
    ),
    "live_deliveries_count": Statement(
        "How many attempts lie between two.",
        f"SELECT count(*) AS count FROM attempts AS a WHERE {_AFTER} AND {_UP_TO}",
        {"after": -1, "last": 0},
    ),
    "live_deliveries_ids": Statement(
        "Which attempts lie between two.",
        f"SELECT {_ATTEMPT} AS id FROM attempts AS a WHERE {_AFTER} AND {_UP_TO} ORDER BY 1",
        {"after": -1, "last": 0},
    ),
    "live_delivery": Statement(
        "One attempt by the number that stands for it here.",
        "SELECT a.delivery, a.attempt, a.at_ms, a.took_ms, a.http_status, a.excerpt, a.error FROM attempts AS a "
        f"WHERE a.at_ms = (CAST(:number AS BIGINT) >> 22) + {EPOCH_MS} AND {_ATTEMPT} = CAST(:number AS BIGINT) "
        "LIMIT 1",
        {},
    ),
}

LIVE_STATEMENTS: Mapping[str, Statement] = {
    **_following(
        "live_postbacks",
        "postbacks",
        "request_id",
        "p.network, p.campaign, p.verdict, p.reason, p.click_id, p.click_text",
    ),
    **_ATTEMPTS,
    **_following("live_clicks", "clicks", "click_id", "p.campaign, p.kind, p.click_id"),
}
"""Name -> statement; a part of ``store.queries.STATEMENTS``."""
