"""The named statements that follow the postback log and the clicks as they grow: narrow, and by their keys alone."""

from __future__ import annotations

from collections.abc import Mapping

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


LIVE_STATEMENTS: Mapping[str, Statement] = {
    **_following(
        "live_postbacks",
        "postbacks",
        "request_id",
        "p.network, p.campaign, p.verdict, p.reason, p.click_id, p.click_text",
    ),
    **_following("live_clicks", "clicks", "click_id", "p.campaign, p.kind, p.click_id"),
}
"""Name -> statement; a part of ``store.queries.STATEMENTS``."""
