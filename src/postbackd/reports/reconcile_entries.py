"""Entries of a bucket as people and scripts see them: what the file says, what we say, and a note."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from postbackd.core.click_id import KeyRing, write_stamp
from postbackd.core.csv_text import Value, line_text
from postbackd.core.export_rows import Problem
from postbackd.core.moments import write_moment
from postbackd.core.money import write_micros
from postbackd.core.reconciling import Bucket
from postbackd.core.statuses import Status
from postbackd.store.reconcile_file import ReconcileFile

PAGE = 1000

COLUMNS = (
    "line", "transaction_id", "click_id", "type", "value", "currency", "status", "time",
    "our_conversion", "our_transaction_id", "our_click_id", "our_type", "our_value", "our_currency", "our_status",
    "our_time", "note",
)  # fmt: skip
"""Of a line of a bucket's CSV, and of its documents.  Times are UTC."""


def describe_entry(entry: Mapping[str, Any], keys: KeyRing) -> dict[str, Any]:
    """One entry of ``ReconcileFile.page`` as a document with the keys of ``COLUMNS``."""
    theirs = entry["line"] is not None
    ours = entry["n"] is not None
    return {
        "line": entry["line"],
        "transaction_id": entry["transaction_id"] or None,
        "click_id": _click(keys, entry["click"], entry["campaign"], entry["own_id"]),
        "type": entry["type"],
        "value": _money(entry["value_micros"]),
        "currency": entry["currency"] if theirs and entry["value_micros"] is not None else None,
        "status": entry["status_text"],
        "time": None if entry["utc_ms"] is None else write_moment(entry["utc_ms"]),
        "our_conversion": write_stamp(entry["our_conversion_id"]) if ours else None,
        "our_transaction_id": entry["our_transaction_id"] or None,
        "our_click_id": _click(keys, entry["our_click"], entry["our_campaign"], None),
        "our_type": entry["our_type"],
        "our_value": _money(entry["our_value_micros"]),
        "our_currency": entry["our_currency"],
        "our_status": Status(entry["our_status"]).word if ours else None,
        "our_time": write_moment(entry["our_time_ms"]) if ours else None,
        "note": _note(entry),
    }


def _click(keys: KeyRing, stamp: int | None, campaign: int | None, own_id: str | None) -> str | None:
    if stamp is None or campaign is None:
        return own_id
    return keys.write(stamp, campaign)


def _money(micros: int | None) -> str | None:
    return None if micros is None else write_micros(micros)


def _note(entry: Mapping[str, Any]) -> str | None:
    if entry["problem"]:
        return Problem(entry["problem"]).sentence
    if entry["other"] is None:
        return None
    if entry["bucket"] == Bucket.DUPLICATE:
        return f"The first row is on line {entry['other']}."
    return "Its click is counted here under a transaction id that is not this one."


def write_bucket(file: ReconcileFile, bucket: Bucket, keys: KeyRing) -> Iterator[str]:
    """The CSV of a bucket, a page of lines at a time; no cell of it is a formula."""
    yield line_text(COLUMNS)
    after = 0
    while entries := file.page(bucket, after, PAGE):
        yield "".join(line_text(_cells(describe_entry(entry, keys))) for entry in entries)
        after = entries[-1]["place"]


def _cells(document: Mapping[str, Any]) -> list[Value]:
    return [document[name] for name in COLUMNS]
