"""The named statements about what is kept of people: purges, erasures, finds, and what is held under an identity."""

from __future__ import annotations

from collections.abc import Mapping

from postbackd.core.kept import screened_columns
from postbackd.store.statement import ALL_TIME, Statement

CHECKED_KEYS: Mapping[str, tuple[str, ...]] = {
    "clicks": ("click_id",),
    "own_ids": ("own_id",),
    "conversions": ("click_id", "type", "transaction_id"),
    "conversion_history": ("request_id",),
    "postbacks": ("request_id",),
    "waiting": ("click_ref", "request_id"),
    "pixel_conversions": ("click_id", "type"),
    "deliveries": ("number",),
    "attempts": ("delivery", "attempt"),
    "conversion_facts": ("conversion_id",),
    "sub_rollups": ("level", "sub", "slot", "campaign", "value", "other"),
    "alarm_words": ("kind", "network", "word"),
    "unmapped_names": ("minute", "network", "name"),
}
"""Table -> the columns by which its rows are read in order."""

_TEXT_KEYS = frozenset({"own_id", "type", "transaction_id", "click_ref", "value", "kind", "word", "name"})


def _check_statements() -> Mapping[str, Statement]:
    """One statement a table: its columns that may hold what people sent, a page at a time."""
    made = {}
    for table, columns in screened_columns().items():
        keys = CHECKED_KEYS[table]
        names = dict.fromkeys((*keys, *(kept.column for kept in columns)))
        after = ", ".join(f":after_{key}" for key in keys)
        made[f"check_{table}"] = Statement(
            f"What people sent, as it is kept in {table}, after one row.",
            f"SELECT {', '.join(names)} FROM {table} WHERE ({', '.join(keys)}) > ({after}) "
            f"ORDER BY {', '.join(keys)} LIMIT :limit",
            {"limit": 2000, **{f"after_{key}": "" if key in _TEXT_KEYS else -1 for key in keys}},
        )
    return made


PRIVACY_STATEMENTS: Mapping[str, Statement] = {
    **_check_statements(),
    "purge_clock": Statement(
        "When a purge looked last.",
        "SELECT value AS at_ms FROM settings WHERE name = 'purge_clock_ms'",
        {},
    ),
    "purges": Statement(
        "What the last purges deleted, the latest first.",
        "SELECT at_ms, class, rows FROM purges ORDER BY at_ms DESC, class LIMIT :limit",
        {"limit": 100},
    ),
    "finds": Statement(
        "Personal data that was sent, by network, field and kind, in a range of minutes since 1970.",
        "SELECT network, field, kind, CAST(sum(count) AS BIGINT) AS count FROM finds "
        "WHERE minute >= :since AND minute < :until GROUP BY network, field, kind ORDER BY 4 DESC, 1, 2, 3",
        ALL_TIME,
    ),
    "erasures": Statement(
        "The certificates of erasures, the latest first.",
        "SELECT id, at_ms, asked, reference, counts, done_ms FROM erasures ORDER BY id DESC LIMIT :limit",
        {"limit": 1000},
    ),
    "clicks_of_identity": Statement(
        "Clicks that hold a value in a field that callers choose; reads all clicks.",
        "SELECT click_id FROM clicks WHERE own_id = :identity OR source_click_id = :identity "
        "OR sub1 = :identity OR sub2 = :identity OR sub3 = :identity OR sub4 = :identity OR sub5 = :identity "
        "OR sub6 = :identity OR sub7 = :identity OR sub8 = :identity OR sub9 = :identity OR sub10 = :identity "
        "ORDER BY click_id LIMIT :limit",
        {"limit": 10_000},
    ),
    "postbacks_of_identity": Statement(
        "Rows of the postback log that hold a value; reads the whole log.",
        "SELECT request_id, click_id FROM postbacks "
        "WHERE click_text = :identity OR transaction_id = :identity OR value = :identity OR currency = :identity "
        "OR status = :identity OR time = :identity OR found_in = :identity ORDER BY request_id LIMIT :limit",
        {"limit": 10_000},
    ),
    "conversions_of_identity": Statement(
        "Conversions that hold a value, also when click and log row are gone; reads all of them.",
        "SELECT click_id FROM conversions WHERE transaction_id = :identity ORDER BY click_id LIMIT :limit",
        {"limit": 10_000},
    ),
    "facts_of_identity": Statement(
        "The same of what is kept of conversions for reports.",
        "SELECT click_id FROM conversion_facts WHERE sub1 = :identity OR sub2 = :identity OR sub3 = :identity "
        "OR sub4 = :identity OR sub5 = :identity OR sub6 = :identity OR sub7 = :identity OR sub8 = :identity "
        "OR sub9 = :identity OR sub10 = :identity ORDER BY click_id LIMIT :limit",
        {"limit": 10_000},
    ),
    "deliveries_like": Statement(
        "Deliveries whose facts may hold a value: which click, and the facts; reads all of them.",
        "SELECT number, click_id, facts FROM deliveries WHERE number > :after AND facts LIKE :pattern "
        "ORDER BY number LIMIT :limit",
        {"after": 0, "limit": 10_000},
    ),
    "was_erased": Statement(
        "Whether a click was erased.",
        "SELECT click_id FROM erased_clicks WHERE click_id = :click_id",
        {},
    ),
    "waiting_of_click": Statement(
        "Postbacks that wait for a click.",
        "SELECT request_id FROM waiting WHERE click_ref = :ref ORDER BY request_id",
        {},
    ),
}
"""Name -> statement; a part of ``store.queries.STATEMENTS``."""
