"""Rows of the postback log as people and scripts see them: the words of the HTTP answer, ids as text, times in UTC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from postbackd.core.click_id import KeyRing, stamp_ms, write_stamp
from postbackd.core.diagnosis import Reason
from postbackd.core.model import Catalog, Channel
from postbackd.core.moments import write_moment
from postbackd.core.privacy import Masker
from postbackd.core.sender_rules import read_observed
from postbackd.core.verdicts import word_of
from postbackd.store.base import Store

_AS_SENT = ("type", "value", "currency", "transaction_id", "status", "time")


def describe_row(row: Mapping[str, Any], keys: KeyRing) -> dict[str, Any]:
    """One row of the statements ``log``, ``postback`` … as a document.

    ``sent`` holds the fields as the sender wrote them; ``would_be_refused`` what observed steps found; ``sender`` the
    network from which something came that is wrong with its sender.  ``first_verdict`` and ``first_reason`` are there
    when a late match or a replay has changed what became of the postback.
    """
    reason = Reason(row["reason"])
    entry: dict[str, Any] = {
        "request": write_stamp(row["request_id"]),
        "time": write_moment(stamp_ms(row["request_id"])),
        "network": row["network_name"],
        "channel": Channel(row["channel"]).name.lower(),
        "verdict": word_of(row["verdict"]),
        "reason": reason.word if reason else None,
        "click_id": write_click_id(row, keys),
        "campaign": row["campaign_name"],
        "conversion": _write_id(row["conversion_id"]),
        "sent": {name: row[name] for name in _AS_SENT if row[name] is not None},
        "bytes": row["bytes"],
        "parameters": row["parameters"],
    }
    if reason:
        entry |= {"cause": reason.cause, "fix": reason.fix}
    if row["found_in"]:
        entry["found_in"] = row["found_in"]
    if row["observed"]:
        entry["would_be_refused"] = [found.word for found in read_observed(row["observed"])]
    if row["sender"]:
        entry["sender"] = row["sender"]
    if row["first_verdict"] is not None:
        entry["first_verdict"] = word_of(row["first_verdict"])
        entry["first_reason"] = Reason(row["first_reason"]).word if row["first_reason"] else None
    return entry


def write_click_id(row: Mapping[str, Any], keys: KeyRing) -> str | None:
    """The click id of a row: as issued when it is one of ours, as received otherwise."""
    if row["click_id"] is not None and row["campaign"] is not None:
        return keys.write(row["click_id"], row["campaign"])
    text: str | None = row.get("click_text")
    return text


async def find_click(store: Store, catalog: Catalog, text: str) -> dict[str, Any]:
    """``click_id``: the stamp of the click with this id, as issued or a caller's own; or, where there is none,
    ``click_text``: the id as rows hold it that were received with it."""
    verified = KeyRing(catalog.signing_keys).verify(text)
    if verified:
        return {"click_id": verified[0]}
    masked = Masker(catalog.privacy_key).mask(text.strip())
    owned = await store.query("own_id", own_id=masked)
    return {"click_id": owned[0]["click_id"]} if owned else {"click_text": masked}


def _write_id(stamp: int | None) -> str | None:
    return None if stamp is None else write_stamp(stamp)


def format_row(entry: Mapping[str, Any]) -> str:
    """One row of the log as one line."""
    sent = " ".join(f"{name}={text}" for name, text in entry["sent"].items())
    parts = [
        entry["time"],
        entry["request"],
        entry["network"] or "(removed network)",
        _format_verdict(entry),
        f"click={entry['click_id'] or '-'}",
        sent,
    ]
    return "  ".join(part for part in parts if part)


def _format_verdict(entry: Mapping[str, Any]) -> str:
    """``accepted``, or with what else is known: ``accepted (was unmatched: click_id_foreign)``."""
    notes = [entry["reason"]] if entry["reason"] else []
    if "found_in" in entry:
        notes.append(f"found in {entry['found_in']}")
    if "would_be_refused" in entry:
        notes.append(f"would be refused: {', '.join(entry['would_be_refused'])}")
    if "sender" in entry:
        notes.append(f"from {entry['sender']}")
    if "first_verdict" in entry:
        first = (entry["first_verdict"], entry["first_reason"])
        notes.append(f"was {': '.join(word for word in first if word)}")
    return f"{entry['verdict']} ({'; '.join(notes)})" if notes else str(entry["verdict"])
