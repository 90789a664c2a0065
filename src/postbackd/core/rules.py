"""What becomes of a postback: the decisions, in the order in which they are made.

``judge`` runs before the database is asked and either settles a postback or makes it ready to be matched.
``check_window`` and ``repeat`` run inside the transaction, when the click and, for a repeat, the conversion are
known.  Nothing here touches a database, a clock or a socket.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from postbackd.core.click_id import KeyRing, stamp_ms
from postbackd.core.click_ref import find_click
from postbackd.core.diagnosis import Reason
from postbackd.core.model import Channel, ClickRef, Dedup, Offer, Postback, Request, Terms
from postbackd.core.params import MAX_PARAMETERS, Received
from postbackd.core.privacy import Kind, Masker
from postbackd.core.statuses import Status, settle
from postbackd.core.terms import (
    NO_TERMS,
    NetworkRules,
    Refusal,
    keep_text,
    read_event_time,
    read_transaction_id,
)
from postbackd.core.verdicts import Verdict

_MASKED_FROM = 6
"""No e-mail address, phone number, card number or IP address is shorter than this many characters."""

_NO_CLICK = ClickRef()


def judge(
    received: Received, network: NetworkRules, keys: KeyRing, masker: Masker, request: Request
) -> Postback:
    """One postback, settled or ready to be matched.

    Promise: never raises for anything a sender can send, and what it returns holds no personal data.
    """
    click_text, type_, value, currency, transaction_id, status, time = received.values
    terms = network.read_terms(type_, value, currency, status, masker)
    finds = terms.finds
    verified = keys.verify(click_text) if click_text else None
    if verified is not None:
        click = ClickRef(*verified)
        click_text = None
    else:
        click = find_click(received, keys, masker, request.now_ms)
        if click_text is not None:
            finds = _note(finds, "click_id", masker.find(click_text))
            click_text = keep_text(masker, click_text, "click_id")
        if click.click_id is not None and transaction_id and keys.verify(transaction_id):
            transaction_id = None  # it was the click id, not a transaction id
    if transaction_id is not None and len(transaction_id) >= _MASKED_FROM:
        kept = keep_text(masker, transaction_id, "transaction_id")
        if kept is not transaction_id:
            finds = _note(finds, "transaction_id", masker.find(transaction_id))
            transaction_id = kept
    if time is not None:
        finds = _note(finds, "time", masker.find(time))
        time = keep_text(masker, time, "time")
    verdict, reason = _settle_early(click, terms, received.parameters)
    if finds:
        if network.personal_data == "refuse":
            verdict, reason = Verdict.REJECTED, Reason.PERSONAL_DATA
        elif network.personal_data == "drop" and any(field == "transaction_id" for field, _ in finds):
            transaction_id = None
    transaction, time_ms = "", 0
    if not verdict and (transaction_id or time):
        transaction, time_ms, verdict, reason = _read_ids(transaction_id, time, reason, request.now_ms)
    return Postback(
        request, received.parameters, click, click_text, terms, transaction_id, time, transaction, time_ms,
        verdict, reason, finds=finds,
    )  # fmt: skip


_Finds = tuple[tuple[str, str], ...]


def _note(finds: _Finds, field: str, kind: Kind | None) -> _Finds:
    return finds if kind is None else (*finds, (field, str(kind)))


def _read_ids(
    transaction_id: str | None, time: str | None, reason: int, now_ms: int
) -> tuple[str, int, int, int]:
    """``(transaction id, time in ms, verdict, reason)``; the first reason stays."""
    transaction, time_ms = "", 0
    try:
        if transaction_id:
            transaction, flagged = read_transaction_id(transaction_id)
            reason = reason or flagged
        if time:
            time_ms, flagged = read_event_time(time, now_ms)
            reason = reason or flagged
    except Refusal as refusal:
        return "", 0, refusal.verdict, refusal.reason
    return transaction, time_ms, 0, reason


def _settle_early(click: ClickRef, terms: Terms, parameters: int) -> tuple[int, int]:
    """``(verdict, reason)`` of what needs no database; verdict 0 with a warning or 0 when it does."""
    if click.click_id is None and click.own_id is None:
        verdict = Verdict.REJECTED if click.reason == Reason.TEST_EVENT else Verdict.UNMATCHED
        return verdict, click.reason
    if parameters > MAX_PARAMETERS:
        return Verdict.REJECTED, Reason.TOO_MANY_PARAMETERS
    return terms.verdict, terms.reason


def judge_again(original: Postback, network: NetworkRules, keys: KeyRing, masker: Masker) -> Postback:
    """A stored postback through today's settings: the same request, with its own id and time of receipt."""
    terms, click = original.terms, original.click
    click_text = original.click_text
    if click.click_id is not None and click.campaign is not None:
        click_text = keys.write(click.click_id, click.campaign)
    values = [
        click_text, terms.type_text, terms.value_text, terms.currency_text,
        original.transaction_text, terms.status_text, original.time_text,
    ]  # fmt: skip
    received = Received(values, original.parameters)
    return msgspec.structs.replace(judge(received, network, keys, masker, original.request), replay=True)


def unusable(request: Request, reason: Reason, parameters: int = 0) -> Postback:
    """A request that reached an endpoint but has no readable parameters: rejected, and logged all the same."""
    return Postback(
        request, parameters, _NO_CLICK, None, NO_TERMS, None, None, verdict=Verdict.REJECTED, reason=reason
    )


# --- inside the transaction ------------------------------------------------------------------------------------


def check_window(offer: Offer, click_id: int, request_id: int, event_ms: int) -> int:
    """0, or the reason why a new conversion is outside the offer's attribution window.

    Click and request are stamps, whose difference says the age.  The sender's time counts when it gave one between the
    click and the receipt, otherwise the time of receipt.  A click that was registered after its postback has
    no age to judge, and is inside.
    """
    age_ms = (request_id - click_id) >> 22
    if age_ms < 0:
        return 0
    if event_ms and stamp_ms(click_id) <= event_ms <= stamp_ms(request_id):
        age_ms = event_ms - stamp_ms(click_id)
    if age_ms > offer.window_max_s * 1000:
        return Reason.CLICK_AFTER_WINDOW
    if age_ms < offer.window_min_s * 1000:
        return Reason.CLICK_BEFORE_WINDOW
    return 0


class Conversion(Struct, frozen=True, gc=False):
    """A stored conversion, as far as a repeat can change it."""

    conversion_id: int
    status: int
    value_micros: int
    currency: str
    channels: int
    status_time_ms: int
    network: int = 0
    campaign: int = 0
    offer: int = 0
    checksum: int | None = None
    """As it is stored; for the state in which it is stored."""


class Repeat(Struct, frozen=True, gc=False):
    """What a repeat does to the conversion it repeats."""

    verdict: Verdict
    conversion: Conversion
    """As it is afterwards."""
    reason: int = 0


_BY_THE_NETWORK = Channel.S2S | Channel.IMPORT
"""Channels on which only the network itself speaks."""


def repeat(current: Conversion, postback: Postback, dedup: Dedup) -> Repeat:
    """Decide a postback whose (click, type, transaction id) is counted already.

    - S2S that confirms what only the pixel brought: its status, and its value if it gives one, replace the pixel's.
      The pixel changes nothing that S2S said: anybody can call it.
    - A status that the sender wrote moves the conversion along ``statuses`` in every mode: pending, approved and
      reversed arrive as messages of their own.  With it comes the value of a conversion that had none.
    - A value changes in ``update`` mode only, and only by a message that is not older than the last one; a replay is
      old unless its sender gave a time.  An absent currency changes nothing.
    - An import changes nothing that is counted: it fills gaps.  The pixel changes nothing that an import said either.
    - ``hold`` keeps a repeat without transaction id for a person to decide.  (``add`` makes one more conversion of it,
      before it comes here.)
    """
    channel = postback.request.channel
    if channel == Channel.IMPORT:
        return Repeat(Verdict.DUPLICATE, current)
    seen = msgspec.structs.replace(current, channels=current.channels | channel)
    if current.channels & _BY_THE_NETWORK and channel == Channel.PIXEL:
        return Repeat(Verdict.DUPLICATE, seen)
    if current.channels == Channel.IMPORT:
        # An export says when the conversion happened, not since when it has its status.
        seen = msgspec.structs.replace(seen, status_time_ms=0)
    if current.channels == Channel.PIXEL and channel == Channel.S2S:
        after = _confirm(seen, postback)
    else:
        after = _change(seen, postback, dedup)
    before = (current.status, current.value_micros, current.currency)
    if (after.status, after.value_micros, after.currency) != before:
        return Repeat(Verdict.UPDATED, after)
    if dedup is Dedup.HOLD and not postback.transaction_id and seen.channels == current.channels:
        return Repeat(Verdict.HELD, after, Reason.REPEAT_WITHOUT_TRANSACTION_ID)
    return Repeat(Verdict.DUPLICATE, after)


def _confirm(current: Conversion, postback: Postback) -> Conversion:
    """What S2S makes of a conversion that only the pixel has seen.

    A status that S2S does not name is the default one: nobody shall take money back by calling the pixel.
    """
    terms = postback.terms
    current = msgspec.structs.replace(current, status=terms.status, status_time_ms=postback.time_ms)
    return _take_value(current, terms) if terms.value_given else current


def _change(current: Conversion, postback: Postback, dedup: Dedup) -> Conversion:
    """What a further message makes of a conversion."""
    terms = postback.terms
    status, status_time_ms = Status(current.status), current.status_time_ms
    late = 0 < postback.time_ms < status_time_ms or (postback.replay and not postback.time_ms)
    if terms.status_given:
        status, status_time_ms = settle(status, status_time_ms, Status(terms.status), postback.time_ms)
        late = late or status != terms.status
    elif dedup is Dedup.UPDATE and terms.value_given and not late and not _is_final(current):
        status_time_ms = max(status_time_ms, postback.time_ms)
    moved = msgspec.structs.replace(current, status=status, status_time_ms=status_time_ms)
    fills = terms.status_given and status != current.status and not current.value_micros
    if terms.value_given and (fills or (dedup is Dedup.UPDATE and not late)):
        return _take_value(moved, terms)
    return moved


def _is_final(current: Conversion) -> bool:
    """Taken back without a time: a time would make that weaker, and a later approval could revive it."""
    return current.status >= Status.REJECTED and not current.status_time_ms


def _take_value(current: Conversion, terms: Terms) -> Conversion:
    currency = terms.currency if terms.currency_text else current.currency
    return msgspec.structs.replace(current, value_micros=terms.value_micros, currency=currency)


def moves_status(current: Conversion, postback: Postback) -> bool:
    """Whether the status that the sender wrote changes the conversion's."""
    if not postback.terms.status_given:
        return False
    status, _ = settle(
        Status(current.status), current.status_time_ms, Status(postback.terms.status), postback.time_ms
    )
    return status != current.status


def is_another(current: Conversion, transaction_id: str, postback: Postback) -> bool:
    """In ``add`` mode: whether a repeat without transaction id is one more conversion.

    ``transaction_id``: under which the one there is was counted.  The repeat is none more when it moves the status of
    that one, or is another channel's view of it, or was imported: an import can be repeated.
    """
    if postback.request.channel == Channel.IMPORT:
        return False
    if postback.transaction_id or transaction_id or not current.channels & postback.request.channel:
        return False
    return not moves_status(current, postback)
