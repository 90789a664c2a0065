"""Deliveries and their attempts as people and scripts see them: words for numbers, ids as text, times in UTC."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from postbackd.core.click_id import KeyRing, read_stamp, write_stamp
from postbackd.core.deliveries import DeliveryState, Facts, Message, delivery_id, state_word
from postbackd.core.moments import write_moment
from postbackd.core.money import write_micros
from postbackd.core.statuses import Status
from postbackd.store.base import Store
from postbackd.store.outbox import BLOCKED

Row = Mapping[str, Any]
"""One row of a statement about deliveries or attempts, column name -> value."""

_ID = re.compile(r"(?:([0-9A-Za-z]{13})-)?([0-9]{1,18})")

BEHIND = "it waits for an earlier message about the same conversion"
SENDING = "it is being sent at this moment"


class NoDelivery(LookupError):
    """There is no such delivery; the message says what was wrong with its id."""


def looks_like_delivery(text: str) -> bool:
    """Whether the text has the form of a whole delivery id."""
    match = _ID.fullmatch(text)
    return match is not None and match[1] is not None


async def find_delivery(store: Store, text: str) -> Row:
    """The row of a delivery by its id, or by the number in it.  Raises ``NoDelivery``."""
    match = _ID.fullmatch(text.strip())
    if match is None:
        raise NoDelivery(
            f"{text!r} is no delivery id; write one such as {delivery_id(0, 17)}, or the number after the dash alone"
        )
    rows = await store.query("delivery", number=int(match[2]))
    if not rows:
        raise NoDelivery(
            f"there is no delivery {text!r}; 'postbackd delivery list' shows the newest, and 'postbackd why' "
            "takes the ids of clicks, requests and conversions"
        )
    if match[1] is not None and read_stamp(match[1]) != rows[0]["request_id"]:
        meant = delivery_id(rows[0]["request_id"], rows[0]["number"])
        raise NoDelivery(f"there is no delivery {text!r}; the one with this number is {meant}")
    return rows[0]


class DeliveryDescriber:
    """Rows of the statements about deliveries as documents, as of one moment."""

    def __init__(self, keys: KeyRing, target_states: Iterable[Row], now_ms: int) -> None:
        """``target_states``: the rows of that statement."""
        self._keys = keys
        self._states = {row["target"]: row for row in target_states}
        self._now_ms = now_ms

    @classmethod
    async def load(cls, store: Store, keys: KeyRing, now_ms: int) -> DeliveryDescriber:
        """One that knows how the targets are served now."""
        return cls(keys, await store.query("target_states"), now_ms)

    def describe(self, row: Row) -> dict[str, Any]:
        """One delivery.

        ``next_attempt`` is there while it waits and it is known when its turn comes; ``note`` says what it waits for
        beside that.  ``target_state``: ``paused`` or ``broken`` when its target is.
        """
        waits = row["state"] == DeliveryState.WAITING
        return {
            "delivery": delivery_id(row["request_id"], row["number"]),
            "time": write_moment(row["created_ms"]),
            "target": row["target_name"],
            "rule": row["rule_name"],
            "campaign": row["campaign_name"],
            "message": Message(row["message"]).word,
            "type": row["type"],
            "transaction_id": row["transaction_id"] or None,
            "status": Status(row["status"]).word,
            "value": write_micros(row["value_micros"]),
            "currency": row["currency"],
            "state": state_word(row["state"]),
            "attempts": row["attempts"],
            "next_attempt": write_moment(row["due_ms"]) if waits and not self._held_up(row) else None,
            "note": self._note(row) if waits else None,
            "target_state": self._states[row["target"]]["state"] if row["target"] in self._states else None,
            "settled": None if row["settled_ms"] is None else write_moment(row["settled_ms"]),
            "reason": row["reason"] or None,
            "expires": write_moment(row["expires_ms"]) if row["expires_ms"] else None,
            "click_id": self._keys.write(row["click_id"], row["campaign"]),
            "request": write_stamp(row["request_id"]),
            "conversion": write_stamp(row["conversion_id"]),
        }

    async def tell(self, store: Store, row: Row) -> dict[str, Any]:
        """One delivery with all that is known of it: ``facts`` of the click, and ``attempt_log``, oldest first."""
        attempts = await store.query("attempts_of_delivery", number=row["number"])
        return {
            **self.describe(row),
            "facts": describe_facts(row["facts"]),
            "attempt_log": [describe_attempt(attempt) for attempt in attempts],
        }

    def target_note(self, target: int) -> str | None:
        """That a target is not served as usual, and what to do; ``None`` when it is."""
        row = self._states.get(target)
        if row is None:
            return None
        note = f"target {row['target_name']} is {row['state']} since {write_moment(row['since_ms'])}"
        if row["reason"]:
            note += f" ({row['reason']})"
        if row["state"] == "paused":
            return f"{note}; go on with: {resume_command(row['target_name'])}"
        return f"{note}; tried again at {write_moment(row['until_ms'])}" if row["until_ms"] else note

    def _held_up(self, row: Row) -> bool:
        """Whether its own time says nothing about the next attempt."""
        return bool(row["due_ms"] == BLOCKED or self._is_being_sent(row))

    def _is_being_sent(self, row: Row) -> bool:
        return bool(row["holder"] is not None and row["due_ms"] > self._now_ms)

    def _note(self, row: Row) -> str | None:
        if row["due_ms"] == BLOCKED:
            return BEHIND
        if self._is_being_sent(row):
            return SENDING
        return self.target_note(row["target"])


def resume_command(target: str) -> str:
    """The command that lets a paused target be served again; the name is quoted for a shell."""
    return shlex.join(["postbackd", "target", "resume", target])


def describe_facts(facts: str) -> dict[str, Any]:
    """What the delivery may say of its click; absent ones are left out, and all where they cannot be read."""
    try:
        known = msgspec.json.decode(facts, type=Facts)
    except msgspec.MsgspecError:  # the delivery is dead, and its reason says so
        return {}
    named = {"source_click_id": known.source_click_id, "own_id": known.own_id, "country": known.country}
    named |= {f"sub{number}": sub for number, sub in enumerate(known.subs, 1)}
    return {name: value for name, value in named.items() if value is not None}


def describe_attempt(row: Row) -> dict[str, Any]:
    """One attempt; ``http_status`` is ``None`` when there was no answer, ``error`` when it was a success."""
    return {
        "attempt": row["attempt"],
        "time": write_moment(row["at_ms"]),
        "ms": row["took_ms"],
        "http_status": row["http_status"] or None,
        "answer": row["excerpt"] or None,
        "error": row["error"] or None,
    }


# --- for people --------------------------------------------------------------------------------------------------

LIST_HEADER = (
    "delivery", "time", "target", "message", "type", "value", "state", "attempts", "next time or reason",
)  # fmt: skip


def list_row(document: Mapping[str, Any]) -> Sequence[str]:
    """The cells of a delivery under ``LIST_HEADER``."""
    return (
        document["delivery"],
        document["time"],
        document["target"] or "-",
        document["message"],
        document["type"],
        f"{document['value']} {document['currency']}",
        document["state"],
        str(document["attempts"]),
        what_next(document),
    )


def what_next(document: Mapping[str, Any], *, fully: bool = False) -> str:
    """When a waiting delivery is tried again, or what became of one that has ended.

    ``fully``: with the reason for which its target is not served.
    """
    if document["state"] != "waiting":
        return str(document["reason"] or document["settled"] or "-")
    when, note = document["next_attempt"], document["note"]
    if when and note and not fully:
        note = f"target {document['target_state']}"
    return "; ".join(part for part in (f"next attempt {when}" if when else "", note) if part)


def said(document: Mapping[str, Any]) -> str:
    """What a delivery tells: ``conversion of 2.00 USD``; of one that could not be stored no more than what it is."""
    if not document["currency"]:
        return str(document["message"])
    return f"{document['message']} of {document['value']} {document['currency']}"


def sum_up(document: Mapping[str, Any]) -> str:
    """What became of a delivery so far, on one line."""
    count = document["attempts"]
    tries = "not tried yet" if not count else f"{count} attempt{'s' * (count != 1)}"
    if document["state"] == "delivered":
        return f"delivered {document['settled']}, {tries}"
    if document["state"] == "waiting":
        return f"waiting, {tries}, {what_next(document, fully=True)}"
    return f"{document['state']} {document['settled']}, {tries}: {document['reason'] or 'no reason is known'}"


def format_attempt(attempt: Mapping[str, Any]) -> str:
    """One attempt as one line."""
    answer = f"HTTP {attempt['http_status']}" if attempt["http_status"] else "no answer"
    parts = [attempt["time"], answer, f"{attempt['ms']} ms"]
    if attempt["error"] and attempt["error"] != answer:
        parts.append(attempt["error"])
    if attempt["answer"]:
        parts.append(f"answer: {attempt['answer']}")
    return "  ".join(parts)


def log_entry(document: Mapping[str, Any], attempt: Mapping[str, Any] | None) -> dict[str, Any]:
    """A delivery as an entry of the log: with one of its attempts as ``last``, and its ``outcome``.

    ``outcome`` is ``delivered``, ``failed`` (and is tried again), ``dead``, ``cancelled`` or ``waiting`` (not tried).
    """
    if attempt is None:
        outcome = document["state"]
    elif attempt["attempt"] < document["attempts"] or document["state"] == "waiting":
        outcome = "failed" if attempt["error"] else "delivered"
    else:
        outcome = document["state"]
    return {**document, "outcome": outcome, "last": attempt}


def format_logged(entry: Mapping[str, Any]) -> str:
    """An entry of the log as one line."""
    attempt, outcome = entry["last"], entry["outcome"]
    time = (
        attempt["time"]
        if attempt and outcome in ("delivered", "failed")
        else entry["settled"] or entry["time"]
    )
    parts = [time, entry["delivery"], entry["target"] or "-", f"{said(entry)} ({entry['type']})", outcome]
    if attempt:
        parts[-1] += f" at attempt {attempt['attempt']}" if outcome in ("delivered", "failed") else ""
        parts += format_attempt(attempt).split("  ")[1:]
    if outcome != "delivered" and (not attempt or what_next(entry) != attempt["error"]):
        parts.append(what_next(entry))
    return "  ".join(part for part in parts if part)
