"""What is kept of people, as a table and as a document, and what is held about one click."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from postbackd.catalog.errors import NoEntry
from postbackd.core.kept import FOR_EVER, KEPT, NEVER, POLICY, Kept
from postbackd.core.privacy import Masker
from postbackd.core.retention import Class, Keep
from postbackd.reports.held import gather
from postbackd.reports.log import find_click
from postbackd.store.base import Store


def how_long(keep: Keep, class_: Class) -> str:
    """In words."""
    days = keep.days[class_]
    return f"{days} days" if days else "for ever"


def table_rows(keep: Keep) -> Sequence[Sequence[str]]:
    """The table, columns of one purpose together."""
    groups: dict[tuple[str, str], list[Kept]] = {}
    for kept in KEPT:
        groups.setdefault((kept.table, kept.purpose), []).append(kept)
    return [
        (
            first.table,
            ", ".join(kept.column for kept in group if kept.column != "bucket"),
            first.form,
            how_long(keep, first.class_),
            first.erased,
            first.purpose,
        )
        for group in groups.values()
        for first in group[:1]
    ]


def describe(keep: Keep) -> dict[str, Any]:
    """The same as a document."""
    kept = [
        {
            "table": one.table,
            "column": one.column,
            "purpose": one.purpose,
            "form": one.form,
            "days": keep.days[one.class_] or None,
            "after_erasure": one.erased,
        }
        for one in KEPT
    ]
    return {"kept": kept, "without_people": dict(FOR_EVER), "never": dict(NEVER), "policy": POLICY}


async def export_click(store: Store, click_id: str) -> Mapping[str, Any]:
    """Everything that is held about one click, with the purpose of each field.  Raises ``NoEntry``."""
    catalog = await store.load_catalog()
    text = click_id.strip()
    found = await find_click(store, catalog, text)
    if "click_id" not in found:
        raise NoEntry("no click has this id; 'postbackd why ID' says what became of it")
    return {"click_id": text, **await gather(store, found["click_id"])}


async def hash_identity(store: Store, text: str) -> str:
    """The keyed hash under which a value is kept.  Raises ``NoEntry`` for one that is kept as it is."""
    hashed = Masker((await store.load_catalog()).privacy_key).mask(text)
    if hashed == text:
        raise NoEntry("the value is none that is replaced; it is kept as it is, and can be erased by itself")
    return hashed
