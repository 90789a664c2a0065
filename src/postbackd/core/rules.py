"""What becomes of a postback: the decisions, in the order in which they are made.

``judge`` runs before the database is asked and either settles a postback or makes it ready to be matched.
``check_window`` and ``repeat`` run inside the transaction, when the click and, for a repeat, the conversion are
known.  Nothing here touches a database, a clock or a socket.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from postbackd.core.click_id import KeyRing, stamp_ms
from postbackd.core.click_ref import NEVER_AN_OWN_ID, find_click
from postbackd.core.diagnosis import Reason
from postbackd.core.event import NetworkRules, Refusal, read_event
from postbackd.core.model import ClickRef, Dedup, Event, Fields, Offer, Postback, Request
from postbackd.core.params import MAX_LENGTHS, MAX_PARAMETERS, Received
from postbackd.core.privacy import Masker
from postbackd.core.statuses import Status, settle
from postbackd.core.verdicts import Verdict

_MASKED_FROM = 6
"""No e-mail address, phone number, card number or IP address is shorter than this many characters."""

_NO_CLICK = ClickRef()
_NO_FIELDS = Fields()


def judge(
    received: Received, network: NetworkRules, keys: KeyRing, masker: Masker, request: Request
) -> Postback:
    """One postback, settled or ready to be matched.

    Promise: never raises for anything a sender can send, and what it returns holds no personal data.
    """
    click_text = received.values[0]
    verified = keys.verify(click_text) if click_text else None
    if verified is not None:
        click = ClickRef(*verified)
        fields = _kept_fields(received, masker, None)
    else:
        click = find_click(received, keys, masker, request.now_ms)
        if click.click_id is not None and received.values[4] and keys.verify(received.values[4]):
            received.values[4] = None  # it was the click id, not a transaction id
        fields = _kept_fields(received, masker, click_text)
    if click.click_id is None and click.own_id is None:
        reason = click.reason
        verdict = Verdict.REJECTED if reason == Reason.TEST_EVENT else Verdict.UNMATCHED
        return Postback(request, received.parameters, fields, click, None, verdict, reason)
    if received.parameters > MAX_PARAMETERS:
        reason = Reason.TOO_MANY_PARAMETERS
        return Postback(request, received.parameters, fields, click, None, Verdict.REJECTED, reason)
    try:
        event, warning = read_event(fields, network, request.now_ms)
    except Refusal as refusal:
        verdict, reason = refusal.verdict, refusal.reason
        return Postback(request, received.parameters, fields, click, None, verdict, reason)
    return Postback(request, received.parameters, fields, click, event, 0, warning)


def judge_again(original: Postback, network: NetworkRules, keys: KeyRing, masker: Masker) -> Postback:
    """A stored postback through today's settings: the same request, with its own id and time of receipt."""
    fields, click = original.fields, original.click
    click_text = fields.click_id
    if click.click_id is not None and click.campaign is not None:
        click_text = keys.write(click.click_id, click.campaign)
    values = [
        click_text, fields.type, fields.value, fields.currency,
        fields.transaction_id, fields.status, fields.time,
    ]  # fmt: skip
    received = Received(values, original.parameters)
    return replace(judge(received, network, keys, masker, original.request), replay=True)


def unusable(request: Request, reason: Reason, parameters: int = 0) -> Postback:
    """A request that reached an endpoint but has no readable parameters: rejected, and logged all the same."""
    return Postback(request, parameters, _NO_FIELDS, _NO_CLICK, None, Verdict.REJECTED, reason)


def _kept_fields(received: Received, masker: Masker, click_text: str | None) -> Fields:
    """The fields as they may be written and logged: personal data replaced, over-long text cut.

    ``click_text`` is kept only when the id does not verify as it stands; otherwise the stamp says it.
    """
    _, type_, value, currency, transaction_id, status, time = received.values
    if click_text is not None:
        click_text = _keep(masker, click_text, "click_id")
    if type_ is not None and len(type_) >= _MASKED_FROM:
        type_ = _keep(masker, type_, "type")
    if value is not None and len(value) >= _MASKED_FROM:
        value = _keep(masker, value, "value")
    if currency is not None and len(currency) >= _MASKED_FROM:
        currency = _keep(masker, currency, "currency")
    if transaction_id is not None and len(transaction_id) >= _MASKED_FROM:
        transaction_id = _keep(masker, transaction_id, "transaction_id")
    if status is not None and len(status) >= _MASKED_FROM:
        status = _keep(masker, status, "status")
    if time is not None:
        time = _keep(masker, time, "time")
    return Fields(click_text, type_, value, currency, transaction_id, status, time)


def _keep(masker: Masker, text: str, field: str) -> str:
    """Masked, and cut one character past the limit, so that the length check still sees that it was too long."""
    return masker.mask(text)[: MAX_LENGTHS[field] + 1]


# --- inside the transaction ------------------------------------------------------------------------------------


def check_window(offer: Offer, click_id: int, received_ms: int, event: Event) -> int:
    """0, or the reason why a new conversion is outside the offer's attribution window.

    The sender's time counts when it gave one between the click and the receipt, otherwise the time of receipt.
    A click that was registered after its postback has no age to judge, and is inside.
    """
    clicked_ms = stamp_ms(click_id)
    if clicked_ms > received_ms:
        return 0
    happened_ms = event.time_ms if clicked_ms <= event.time_ms <= received_ms else received_ms
    age_ms = happened_ms - clicked_ms
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


class Repeat(Struct, frozen=True, gc=False):
    """What a repeat does to the conversion it repeats."""

    verdict: Verdict
    conversion: Conversion
    """As it is afterwards."""


def repeat(current: Conversion, event: Event, channel: int, dedup: Dedup) -> Repeat:
    """Decide a postback whose (click, type, transaction id) is counted already.

    A status that the sender wrote moves the conversion along ``statuses`` in every mode: pending, approved and
    reversed arrive as messages of their own.  A value changes in ``update`` mode only, and not by a message that
    the statuses call late.  ``hold`` keeps a repeat without transaction id for a person to decide, ``add`` never
    comes here with one (see ``counted_as``).
    """
    channels = current.channels | channel
    status, status_time_ms = current.status, current.status_time_ms
    if event.status_given:
        status, status_time_ms = settle(
            Status(status), status_time_ms, Status(event.status), event.time_ms
        )
    late = event.status_given and status != event.status
    value, currency = current.value_micros, current.currency
    if dedup is Dedup.UPDATE and event.value_given and not late:
        value, currency = event.value_micros, event.currency
    after = Conversion(current.conversion_id, status, value, currency, channels, status_time_ms)
    if (status, value, currency) != (current.status, current.value_micros, current.currency):
        return Repeat(Verdict.UPDATED, after)
    if dedup is Dedup.HOLD and not event.transaction_id and channels == current.channels:
        return Repeat(Verdict.HELD, after)
    return Repeat(Verdict.DUPLICATE, after)
