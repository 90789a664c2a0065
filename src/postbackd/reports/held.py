"""All that is held about one click, for whoever asks what is kept of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from postbackd.core.click_id import stamp_ms, write_stamp
from postbackd.core.kept import KEPT
from postbackd.core.moments import write_moment
from postbackd.store.base import Store

_MOST_ROWS = 10_000


async def gather(store: Store, stamp: int) -> dict[str, Any]:
    """Table -> rows as they are stored, with the purpose of each column; names of the catalog beside ids."""
    conversions = await store.query("conversions_of_click", click_id=stamp)
    deliveries = await store.query("deliveries_of_click", click_id=stamp)
    clicks = await store.query("click", click_id=stamp)
    refs = [f"#{stamp}", *(f"={row['own_id']}" for row in clicks if row["own_id"])]
    tables: dict[str, list[dict[str, Any]]] = {
        "clicks": clicks,
        "conversions": conversions,
        "conversion_history": [
            row
            for conversion in conversions
            for row in await store.query("history", conversion_id=conversion["conversion_id"])
        ],
        "postbacks": await store.query("log_of_click", click_id=stamp, limit=_MOST_ROWS),
        "waiting": [row for ref in refs for row in await store.query("waiting_of_click", ref=ref)],
        "outbox": await store.query("events_of_click", click_id=stamp),
        "deliveries": deliveries,
        "attempts": [
            {"delivery": delivery["number"], **row}
            for delivery in deliveries
            for row in await store.query("attempts_of_delivery", number=delivery["number"])
        ],
    }
    held = {table: [_readable(row) for row in rows] for table, rows in tables.items() if rows}
    erased = bool(await store.query("was_erased", click_id=stamp))
    return {
        "made": write_moment(stamp_ms(stamp)),
        "erased": erased,
        "held": held,
        "purposes": {
            table: {kept.column: kept.purpose for kept in KEPT if kept.table == table} for table in held
        },
    }


def _readable(row: Mapping[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for name, value in row.items():
        if value is None or value == "":
            continue
        if name in ("request_id", "conversion_id"):
            document[name] = write_stamp(value)
        elif name == "facts":
            document[name] = msgspec.json.decode(value)
        elif name.endswith("_ms") and isinstance(value, int) and value > 1 << 36:
            document[name] = write_moment(value) if value < 1 << 45 else None
        elif name != "click_id":
            document[name] = value
    return document
