"""What happened, according to the fields of a postback: type, transaction id, value, currency, status, time.

A field that makes the postback unusable raises ``Refusal``.  A field that is merely doubtful is replaced by its
default and reported as a warning, because refusing would lose a conversion:

- an unfilled macro as type or transaction id counts as absent (``macro_literal``);
- an unknown status word counts as pending (``status_unknown``);
- an unreadable or impossible time is replaced by the time of receipt (``timestamp_out_of_range``).

A value is never guessed: unreadable money refuses the postback (``value_invalid``), an unknown currency holds it.
A negative value is read as its magnitude on a rejection or reversal, where some senders write it so, and is
refused everywhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from postbackd.core.diagnosis import Reason
from postbackd.core.macros import looks_like_macro
from postbackd.core.model import Event, Fields, Network
from postbackd.core.money import CURRENCIES, read_micros
from postbackd.core.params import MAX_LENGTHS, POSTBACK_NAMES, FieldMap
from postbackd.core.statuses import Status, read_status
from postbackd.core.verdicts import Verdict

DEFAULT_TYPE = "conversion"

TIME_SLACK_MS = 86_400_000
"""A sender's time may lie this far ahead (local times written as UTC) before it is disbelieved."""

OLDEST_TIME_MS = 1_262_304_000_000
"""2010-01-01: an older time is a zero or a mistaken unit."""

_TAKEN_BACK = frozenset({Status.REJECTED, Status.REVERSED})


class Refusal(Exception):
    """The postback cannot be used as it is."""

    def __init__(self, reason: Reason, verdict: Verdict = Verdict.REJECTED) -> None:
        super().__init__(reason.word)
        self.reason = reason
        self.verdict = verdict


class NetworkRules:
    """A network as its postbacks are judged: its settings and the parameter names they imply."""

    __slots__ = ("currency", "field_map", "id", "statuses", "types")

    def __init__(self, network: Network) -> None:
        self.id = network.id
        self.currency = network.currency
        self.field_map = FieldMap(POSTBACK_NAMES, network.fields)
        self.types = frozenset(word.casefold() for word in network.types)
        self.statuses: Mapping[str, str] = {w.casefold(): s for w, s in network.statuses.items()}


def read_event(fields: Fields, network: NetworkRules, now_ms: int) -> tuple[Event, int]:
    """The event and a warning (0 for none).  Raises ``Refusal``."""
    warning = 0
    type_, transaction_id, currency = DEFAULT_TYPE, "", network.currency
    status, micros, time_ms = Status.APPROVED, 0, 0
    if fields.type:
        type_, warning = _read_type(fields.type, network)
    elif network.types and type_ not in network.types:
        raise Refusal(Reason.TYPE_NOT_ALLOWED)
    if fields.transaction_id:
        transaction_id, flagged = _read_transaction_id(fields.transaction_id)
        warning = warning or flagged
    if fields.currency:
        currency = _read_currency(fields.currency)
    if fields.status:
        status, flagged = _read_status(fields.status, network)
        warning = warning or flagged
    if fields.value:
        micros = _read_value(fields.value, currency, status)
    if fields.time:
        time_ms, flagged = _read_time(fields.time, now_ms)
        warning = warning or flagged
    event = Event(
        type_, transaction_id, micros, bool(fields.value), currency, status, bool(fields.status), time_ms
    )
    return event, warning


def _read_type(text: str, network: NetworkRules) -> tuple[str, int]:
    _check_length(text, "type")
    if looks_like_macro(text):
        return DEFAULT_TYPE, Reason.MACRO_LITERAL
    type_ = text.strip().casefold() or DEFAULT_TYPE
    if network.types and type_ not in network.types:
        raise Refusal(Reason.TYPE_NOT_ALLOWED)
    return type_, 0


def _read_transaction_id(text: str) -> tuple[str, int]:
    _check_length(text, "transaction_id")
    if looks_like_macro(text):
        return "", Reason.MACRO_LITERAL
    return text.strip(), 0


def _read_currency(text: str) -> str:
    if text in CURRENCIES:
        return text
    code = text.strip().upper()
    if code not in CURRENCIES:
        raise Refusal(Reason.CURRENCY_UNKNOWN, Verdict.HELD)
    return code


def _read_status(text: str, network: NetworkRules) -> tuple[Status, int]:
    status = read_status(text, network.statuses)
    if status is None:
        return Status.PENDING, Reason.STATUS_UNKNOWN
    return status, 0


def _read_value(text: str, currency: str, status: Status) -> int:
    micros = read_micros(text, currency)
    if micros is None:
        raise Refusal(Reason.VALUE_MACRO_LITERAL if looks_like_macro(text) else Reason.VALUE_INVALID)
    if micros < 0:
        if status not in _TAKEN_BACK:
            raise Refusal(Reason.VALUE_INVALID)
        micros = -micros
    return micros


def _read_time(text: str, now_ms: int) -> tuple[int, int]:
    time_ms = read_time(text)
    if time_ms is None or not OLDEST_TIME_MS <= time_ms <= now_ms + TIME_SLACK_MS:
        return 0, Reason.TIMESTAMP_OUT_OF_RANGE
    return time_ms, 0


def read_time(text: str) -> int | None:
    """Milliseconds since 1970 from seconds, milliseconds or ISO 8601 (UTC when it names no zone)."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        if len(text) > 13:
            return None
        number = int(text)
        return number if len(text) == 13 else number * 1000
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return int(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def _check_length(text: str, field: str) -> None:
    if len(text) > MAX_LENGTHS[field]:
        raise Refusal(Reason.FIELD_TOO_LONG)
