"""Looks through everything that is stored for personal data that the table of what is kept does not allow."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from ipaddress import ip_network
from typing import Any

import msgspec
from msgspec import Struct

from postbackd.core.click_id import write_stamp
from postbackd.core.kept import Form, Kept, screened_columns
from postbackd.core.privacy import Masker
from postbackd.store.base import Store
from postbackd.store.privacy_queries import CHECKED_KEYS

PAGE_ROWS = 2000
"""Rows in memory at a time."""

_STAMPS = frozenset({"click_id", "request_id", "conversion_id"})


class Found(Struct, frozen=True):
    """A value that should not be there; which, not what."""

    table: str
    column: str
    id: str
    """The key of its row."""
    kind: str


async def check_rows(store: Store, masker: Masker) -> AsyncIterator[Found | int]:
    """What is found, and between that how many rows have been looked at since."""
    for table, columns in screened_columns().items():
        keys = CHECKED_KEYS[table]
        after: dict[str, Any] = {}
        while rows := await store.query(f"check_{table}", limit=PAGE_ROWS, **after):
            for row in rows:
                for found in _check_row(table, columns, row, keys, masker):
                    yield found
            yield len(rows)
            after = {f"after_{key}": rows[-1][key] for key in keys}


def _check_row(
    table: str, columns: Any, row: Mapping[str, Any], keys: tuple[str, ...], masker: Masker
) -> Iterator[Found]:
    for column in columns:
        text = row[column.column]
        kind = _kind(column, text, masker) if isinstance(text, str) else None
        if kind is not None:
            shown = [
                write_stamp(row[key]) if key in _STAMPS else str(row[key])
                for key in keys
                if _is_safe(row[key])
            ]
            yield Found(table, column.column, "/".join(shown) or "(by its own value)", kind)


def _is_safe(key: Any) -> bool:
    """Texts in a key may be the very value."""
    return isinstance(key, int)


def _kind(column: Kept, text: str, masker: Masker) -> str | None:
    if column.form is Form.TRUNCATED:
        return None if text.endswith(("/24", "/48")) else "full IP address"
    if column.table == "alarm_words" and _is_truncated(text):
        return None
    if column.column == "facts":
        return _kind_of_facts(text, masker)
    if column.column == "click_ref":
        text = text[1:]
    if column.form is Form.OPAQUE:
        return masker.find_opaque(text)
    if column.form is Form.SAID or column.column == "excerpt":
        addresses = column.form is Form.SAID
        return masker.find(text) if masker.mask_words(text, addresses=addresses) != text else None
    return masker.find(text)


def _is_truncated(text: str) -> bool:
    """Whether it is a network of which no host is named."""
    try:
        return ip_network(text).prefixlen in (24, 48)
    except ValueError:
        return False


def _kind_of_facts(text: str, masker: Masker) -> str | None:
    facts = msgspec.json.decode(text)
    others = [facts.get("own_id"), *(facts.get("subs") or ())]
    found = masker.find_opaque(facts.get("source_click_id") or "")
    return found or next((kind for other in others if other and (kind := masker.find(other))), None)
