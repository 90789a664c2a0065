"""What both stores make of the rows of outbox and deliveries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from postbackd.core.deliveries import Delivery, DeliveryState, Facts, Happened, Message, Owed, Settled, Told
from postbackd.core.model import CONSENT_BIT, NO_CONSENT_BIT
from postbackd.store.base import Turn
from postbackd.store.transaction import Row

BLOCKED = (1 << 62) - 1
"""``due_ms`` of a message that waits for an earlier one about the same conversion to the same target."""

EVENT_COLUMNS = (
    "event, request_id, click_id, conversion_id, status_from, status, value_micros_from, value_micros, "
    "currency, trace"
)

CONVERSION_COLUMNS = "click_id, conversion_id, type, transaction_id, campaign, offer"

CLICK_COLUMNS = (
    "click_id, source_click_id, own_id, country, kind, "
    "sub1, sub2, sub3, sub4, sub5, sub6, sub7, sub8, sub9, sub10"
)

TOLD_COLUMNS = "conversion_id, rule, message, state, value_micros, facts, target"

OWED_COLUMNS = (
    "request_id, click_id, type, transaction_id, conversion_id, campaign, offer, rule, target, message, status, "
    "value_micros, currency, facts, created_ms, due_ms, expires_ms"
)


def assemble(events: Sequence[Row], conversions: Iterable[Row], clicks: Iterable[Row]) -> Sequence[Happened]:
    """Events with what is known of their conversions and clicks, in their order.

    ``conversions``: all of the clicks that the events are about.
    """
    of_id: dict[int, Row] = {}
    first: dict[tuple[int, str], int] = {}
    for row in conversions:
        click_id, conversion_id, type_ = row[0], row[1], row[2]
        of_id[conversion_id] = row
        key = (click_id, type_)
        first[key] = min(first.get(key, conversion_id), conversion_id)
    facts = {row[0]: make_facts(row) for row in clicks}
    happened = []
    for (
        event,
        request_id,
        click_id,
        conversion_id,
        status_from,
        status,
        micros_from,
        micros,
        currency,
        trace,
    ) in events:
        # No conversion is ever deleted; one that is missing is nobody's business.
        _, _, type_, transaction_id, campaign, offer = of_id.get(conversion_id, (0, 0, "", "", 0, 0))
        happened.append(
            Happened(
                event, request_id, click_id, type_, transaction_id, conversion_id, campaign, offer,
                status_from, status, micros_from, micros, currency,
                first.get((click_id, type_)) == conversion_id, facts.get(click_id), trace,
            )
        )  # fmt: skip
    return happened


def make_facts(row: Row) -> Facts:
    """Of a row of clicks (``CLICK_COLUMNS``)."""
    subs = tuple(row[5:])
    while subs and subs[-1] is None:
        subs = subs[:-1]
    refused, consented = bool(row[4] & NO_CONSENT_BIT), bool(row[4] & CONSENT_BIT)
    return Facts(row[1], row[2], row[3], subs, refused, consented=consented)


_FACTS = msgspec.json.Decoder(Facts)


def read_told(row: Row) -> Told:
    """A row of ``TOLD_COLUMNS``."""
    conversion_id, rule, message, state, value_micros, facts, target = row
    try:
        known = _FACTS.decode(facts)
    except msgspec.MsgspecError:  # its own delivery is put aside for that, not what follows
        known = Facts()
    return Told(conversion_id, rule, message, state, value_micros, known, target)


# --- rows of the named statements (``store.queries``) ----------------------------------------------------------------


def facts_of(click: Mapping[str, Any]) -> Facts:
    """Of a row of the statement ``click``."""
    return make_facts(_columns(click, CLICK_COLUMNS))


def told_of(delivery: Mapping[str, Any]) -> Told:
    """Of a row of the statement ``deliveries_of_click``."""
    return read_told(_columns(delivery, TOLD_COLUMNS))


def happened_now(
    row: Mapping[str, Any], counted: Sequence[Mapping[str, Any]], facts: Facts | None
) -> Happened:
    """A conversion as it is now, as if it had just been counted.

    ``row`` is one of ``counted``, all conversions of its click: rows of the statement ``conversions_of_click``.
    """
    first = min(other["conversion_id"] for other in counted if other["type"] == row["type"])
    return Happened(
        0, row["conversion_id"], row["click_id"], row["type"], row["transaction_id"], row["conversion_id"],
        row["campaign"], row["offer"], 0, row["status"], 0, row["value_micros"], row["currency"],
        row["conversion_id"] == first, facts,
    )  # fmt: skip


def _columns(row: Mapping[str, Any], names: str) -> Row:
    return tuple(row[name] for name in names.split(", "))


# --- rows of the tables ----------------------------------------------------------------------------------------------


def owed_row(owed: Owed) -> list[Any]:
    """The columns of ``OWED_COLUMNS``."""
    return [
        owed.request_id, owed.click_id, owed.type, owed.transaction_id, owed.conversion_id, owed.campaign,
        owed.offer, owed.rule, owed.target, owed.message, owed.status, owed.value_micros, owed.currency,
        msgspec.json.encode(owed.facts).decode(), owed.created_ms, owed.due_ms, owed.expires_ms,
    ]  # fmt: skip


def read_delivery(row: Row) -> Delivery:
    """A row of number, attempts, whether it was told, is outdated, is unsure, and ``OWED_COLUMNS``."""
    (
        number, attempts, told, outdated, unsure,
        request_id, click_id, type_, transaction_id, conversion_id, campaign, offer, rule, target, message,
        status, value_micros, currency, facts, created_ms, due_ms, expires_ms,
    ) = row  # fmt: skip
    owed = Owed(
        0, request_id, click_id, type_, transaction_id, conversion_id, campaign, offer, rule, target, message,
        status, value_micros, currency, _FACTS.decode(facts), created_ms, due_ms, expires_ms,
    )  # fmt: skip
    return Delivery(number, owed, attempts, bool(told), bool(outdated), bool(unsure))


def read_claimed(rows: Iterable[Row]) -> tuple[list[Delivery], list[Settled]]:
    """What was claimed, and the end of those among it that cannot be read."""
    claimed, unreadable = [], []
    for row in rows:
        try:
            Message(row[_MESSAGE_AT])
            claimed.append(read_delivery(row))
        except (msgspec.MsgspecError, ValueError) as error:
            readable = list(row)
            readable[_FACTS_AT], readable[_MESSAGE_AT] = "{}", Message.CONVERSION
            blank = read_delivery(tuple(readable))
            reason = f"what is stored of it cannot be read: {error}"
            unreadable.append(Settled(blank, DeliveryState.DEAD, 0, reason))
    return claimed, unreadable


_MESSAGE_AT, _FACTS_AT = (5 + OWED_COLUMNS.split(", ").index(name) for name in ("message", "facts"))


def changed_conversions(owed: Sequence[Owed]) -> Sequence[int]:
    """Conversions about which something may be owed already: those that were not counted just now."""
    return sorted({one.conversion_id for one in owed if one.request_id != one.conversion_id})


def due_times(owed: Sequence[Owed], waiting: Iterable[tuple[int, int]]) -> Sequence[int]:
    """When each is due: ``BLOCKED`` where an earlier message about the same conversion waits for the same target.

    ``waiting``: (conversion, target) of those that wait already.
    """
    ahead = set(waiting)
    times = []
    for one in owed:
        key = (one.conversion_id, one.target)
        if one.dead:
            times.append(one.due_ms)
            continue
        times.append(BLOCKED if key in ahead else one.due_ms)
        ahead.add(key)
    return times


def choose_fresh(turn: Turn) -> tuple[set[int], dict[int, int]]:
    """What of a turn is claimed as soon as it is owed, as places in ``turn.owed``, and the room that is left for what
    is due already.

    Nothing else is owed about such a conversion to its target, and never was: there is nothing to wait for.
    """
    messages = Counter((one.conversion_id, one.target) for one in turn.owed)
    rooms, taken = dict(turn.rooms), set()
    for place, one in enumerate(turn.owed):
        fresh = one.request_id == one.conversion_id and messages[one.conversion_id, one.target] == 1
        if fresh and not one.dead and one.due_ms <= turn.now_ms and rooms.get(one.target, 0) > 0:
            rooms[one.target] -= 1
            taken.add(place)
    due = rooms.keys() if turn.due is None else turn.due
    return taken, {target: room for target, room in rooms.items() if room > 0 and target in due}
