"""What a postback says beside its ids: type, value, currency, status; and how its transaction id and time are read.

A field that makes the postback unusable raises ``Refusal``.  A field that is merely doubtful is replaced by its
default and reported as a warning, because refusing would lose a conversion:

- an unfilled macro as type or transaction id counts as absent (``macro_literal``);
- an unknown status word counts as pending (``status_unknown``);
- an unreadable or impossible time is replaced by the time of receipt (``timestamp_out_of_range``).

A value is never guessed: unreadable money refuses the postback (``value_invalid``), an unknown currency holds it.
A negative value is read as its magnitude on a rejection or reversal, where some senders write it so, and is
refused everywhere else.

Most postbacks of a network say the same few things ("a sale, 12.50, USD"), so the reading of the four texts is
remembered: a look-up replaces the most expensive part of judging.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from msgspec.structs import replace

from postbackd.core.diagnosis import Reason
from postbackd.core.macros import looks_like_macro
from postbackd.core.model import Network, Terms
from postbackd.core.money import CURRENCIES, read_micros
from postbackd.core.params import MAX_LENGTHS, POSTBACK_NAMES, FieldMap
from postbackd.core.privacy import Masker
from postbackd.core.statuses import TAKEN_BACK, Status, read_status
from postbackd.core.unmapped import Unmapped
from postbackd.core.verdicts import Verdict

DEFAULT_TYPE = "conversion"

TIME_SLACK_MS = 86_400_000
"""A sender's time may lie this far ahead (local times written as UTC) before it is disbelieved."""

OLDEST_TIME_MS = 1_262_304_000_000
"""2010-01-01: an older time is a zero or a mistaken unit."""

_REMEMBERED = 16_384
"""Different readings that a network's rules remember (about 5 MB); at this many they start over."""

NO_TERMS = Terms(None, None, None, None)


class Refusal(Exception):
    """The postback cannot be used as it is."""

    def __init__(self, reason: Reason, verdict: Verdict = Verdict.REJECTED) -> None:
        super().__init__(reason.word)
        self.reason = reason
        self.verdict = verdict


class NetworkRules:
    """A network as its postbacks are judged: its settings and the parameter names they imply."""

    __slots__ = (
        "_remembered",
        "currency",
        "field_map",
        "id",
        "personal_data",
        "statuses",
        "types",
        "unmapped",
    )

    def __init__(self, network: Network) -> None:
        self.id = network.id
        self.currency = network.currency
        self.personal_data = network.personal_data
        self.unmapped = Unmapped()
        self.field_map = FieldMap(POSTBACK_NAMES, network.fields, self.unmapped)
        self.types = frozenset(word.casefold() for word in network.types)
        self.statuses: Mapping[str, str] = {w.casefold(): s for w, s in network.statuses.items()}
        self._remembered: dict[tuple[str | None, ...], Terms] = {}

    def read_terms(
        self, type_: str | None, value: str | None, currency: str | None, status: str | None, masker: Masker
    ) -> Terms:
        """What the four texts of a postback mean to this network.  ``masker`` is the deployment's."""
        texts = (type_, value, currency, status)
        terms = self._remembered.get(texts)
        if terms is None:
            terms = _read_terms(self, texts, masker)
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            if sum(len(text) for text in texts if text) <= 100:
                self._remembered[texts] = terms
        return terms


def _read_terms(network: NetworkRules, texts: tuple[str | None, ...], masker: Masker) -> Terms:
    names = ("type", "value", "currency", "status")
    finds = tuple(
        (name, str(kind))
        for text, name in zip(texts, names, strict=True)
        if text is not None and (kind := masker.find(text)) is not None
    )
    type_text, value_text, currency_text, status_text = (
        None if text is None else keep_text(masker, text, name)
        for text, name in zip(texts, names, strict=True)
    )
    if finds and network.personal_data == "drop":
        found = {name for name, _ in finds}
        type_text, value_text, currency_text, status_text = (
            None if name in found else text
            for text, name in zip((type_text, value_text, currency_text, status_text), names, strict=True)
        )
    terms = Terms(type_text, value_text, currency_text, status_text, finds=finds)
    try:
        type_, warning = _read_type(type_text, network)
        currency = _read_currency(currency_text) if currency_text else network.currency
        status, flagged = _read_status(status_text, network)
        micros = _read_value(value_text, currency, status) if value_text else 0
    except Refusal as refusal:
        return replace(terms, verdict=refusal.verdict, reason=refusal.reason)
    return replace(
        terms, type=type_, value_micros=micros, currency=currency, status=status, reason=warning or flagged
    )


def keep_text(masker: Masker, text: str, field: str) -> str:
    """The text as it may be written and logged: personal data replaced, over-long text cut.

    It is cut one character past its limit, so that the length check still sees that it was too long.
    """
    return masker.mask(text)[: MAX_LENGTHS[field] + 1]


def _read_type(text: str | None, network: NetworkRules) -> tuple[str, int]:
    if not text:
        text = DEFAULT_TYPE
    _check_length(text, "type")
    if looks_like_macro(text):
        return DEFAULT_TYPE, Reason.MACRO_LITERAL
    type_ = text.strip().casefold() or DEFAULT_TYPE
    if network.types and type_ not in network.types:
        raise Refusal(Reason.TYPE_NOT_ALLOWED)
    return type_, 0


def read_transaction_id(text: str) -> tuple[str, int]:
    """The transaction id, empty for an unfilled macro, and a warning.  Raises ``Refusal``."""
    _check_length(text, "transaction_id")
    if looks_like_macro(text):
        return "", Reason.MACRO_LITERAL
    return text.strip(), 0


def _read_currency(text: str) -> str:
    _check_length(text, "currency")
    if text in CURRENCIES:
        return text
    code = text.strip().upper()
    if code not in CURRENCIES:
        raise Refusal(Reason.CURRENCY_UNKNOWN, Verdict.HELD)
    return code


def _read_status(text: str | None, network: NetworkRules) -> tuple[Status, int]:
    if not text:
        return Status.APPROVED, 0
    _check_length(text, "status")
    status = read_status(text, network.statuses)
    if status is None:
        return Status.PENDING, Reason.STATUS_UNKNOWN
    return status, 0


def _read_value(text: str, currency: str, status: Status) -> int:
    _check_length(text, "value")
    micros = read_micros(text, currency)
    if micros is None:
        raise Refusal(Reason.VALUE_MACRO_LITERAL if looks_like_macro(text) else Reason.VALUE_INVALID)
    if micros < 0:
        if status not in TAKEN_BACK:
            raise Refusal(Reason.VALUE_INVALID)
        micros = -micros
    return micros


def read_event_time(text: str, now_ms: int) -> tuple[int, int]:
    """The sender's time in ms since 1970, 0 when it cannot be believed, and a warning.  Raises ``Refusal``."""
    _check_length(text, "time")
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
