"""What is reported: one conversion, and the small text that stands for it in the spool and in every queue.

The text is one flat JSON object whose names are the ones that postbackd accepts, so that a batch is nothing but such
texts between brackets, and any language can write one:

    {"click_id":"…","type":"sale","value":"12.50","currency":"USD","transaction_id":"A-1001","time":"1750000000"}

Nothing here knows a network, a file or a tracker other than postbackd.
"""

from __future__ import annotations

import json
import re
import secrets
import time as clock
from dataclasses import dataclass, field
from datetime import datetime, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Dict, Mapping, Optional, Union

Amount = Union[str, int, Decimal, None]
Moment = Union[str, int, datetime, None]

FIELDS = ("click_id", "type", "value", "currency", "transaction_id", "status", "time")
"""The names of the text, in their order; every other name is an ``extra``."""

LIMITS: Mapping[str, int] = MappingProxyType(
    {
        "click_id": 255,
        "type": 64,
        "value": 64,
        "currency": 16,
        "transaction_id": 128,
        "status": 64,
        "time": 64,
    }
)
"""Longest texts that postbackd takes (its HTTP reference, Limits); what is longer would only be rejected there."""

DEFAULT_TYPE = "conversion"
"""What a conversion is that has no type; says no more than that there is one."""
MOST_EXTRA = 20
_LONGEST_EXTRA = 255
_LARGEST_EXPONENT = 64
"""A Decimal beyond it is no sum of money, and writing it out would take seconds: it has as many digits."""
_MINTED_BYTES = 10
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class PayloadError(ValueError):
    """A conversion that nobody could count, or a text that is none; says what to give instead."""


@dataclass(frozen=True)
class Conversion:
    """One conversion, whole from the moment it is made.

    ``value`` is decimal text, ``Decimal`` or ``int``, never a float: a float has no exact cents.  ``time`` is when it
    happened (seconds since 1970, ISO 8601 text or an aware ``datetime``), and the time of the call when it is left out.

    ``transaction_id`` is what makes two reports of one sale one conversion: give the order's number, so that a page
    that is loaded twice counts once.  When it is left out one is made up *here*, once, and stays with the conversion
    through spool, queues and retries: an attempt whose answer was lost is then repeated under the same key and is
    counted once.  Two calls without one are two conversions.

    ``extra`` are further parameters, text by name, for templates of other trackers or names that a network has mapped.
    """

    click_id: str
    type: str = DEFAULT_TYPE
    value: Amount = None
    currency: str = ""
    transaction_id: str = ""
    status: str = ""
    time: Moment = None
    extra: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make every field the text that is sent.  Raises ``PayloadError``."""
        settle = object.__setattr__
        settle(self, "value", _amount_text(self.value))
        settle(self, "time", _moment_text(self.time))
        if not self.type:
            settle(self, "type", DEFAULT_TYPE)
        if self.transaction_id in (None, ""):
            settle(self, "transaction_id", secrets.token_hex(_MINTED_BYTES))
        for name, longest in LIMITS.items():
            _check_text(name, getattr(self, name), longest)
        if not self.click_id:
            raise PayloadError(
                "a conversion needs the click id that came with the visitor; without one, send nothing"
            )
        if self.extra:
            settle(self, "extra", MappingProxyType(_checked_extra(self.extra)))

    def texts(self) -> Dict[str, str]:
        """Name -> text of all that is there: the fields in their order, then the extras."""
        texts = {name: text for name in FIELDS if (text := getattr(self, name))}
        texts.update(self.extra)
        return texts

    def __reduce__(self) -> Any:
        return decode, (encode(self),)


def _amount_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, (bool, float)):
        raise PayloadError(
            f'the value is a {type(value).__name__}: give it as text ("12.50"), Decimal or int, '
            "because a float has no exact cents"
        )
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Decimal):
        if not value.is_finite() or abs(value.adjusted()) > _LARGEST_EXPONENT:
            raise PayloadError("the value is no number of a currency")
        return format(value, "f")
    raise PayloadError(f'the value is a {type(value).__name__}: give it as text ("12.50"), Decimal or int')


def _moment_text(moment: Any) -> str:
    if moment is None or moment == "":
        return str(int(clock.time()))
    if isinstance(moment, str):
        return moment
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise PayloadError("the time has no zone: give datetime.now(timezone.utc), or seconds since 1970")
        return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(moment, int) and not isinstance(moment, bool):
        return str(moment)
    raise PayloadError(f"the time is a {type(moment).__name__}: give seconds since 1970 or an aware datetime")


def _check_text(name: str, text: Any, longest: int) -> None:
    if not isinstance(text, str):
        raise PayloadError(f"{name} is a {type(text).__name__}: give it as text")
    if len(text) > longest:
        raise PayloadError(f"{name} has {len(text)} characters; {longest} are possible")
    if not text.isascii() and _LONE_SURROGATE.search(text):
        raise PayloadError(f"{name} is no text that can be sent: it was decoded from bytes that are no UTF-8")


def _checked_extra(extra: Mapping[str, str]) -> Dict[str, str]:
    if len(extra) > MOST_EXTRA:
        raise PayloadError(f"{len(extra)} extra parameters; {MOST_EXTRA} are possible")
    for name, text in extra.items():
        if name in FIELDS or not name:
            raise PayloadError(f"{name!r} cannot be an extra parameter: it is a field of every conversion")
        _check_text("the name of an extra parameter", name, _LONGEST_EXTRA)
        _check_text(f"extra parameter {name}", text, _LONGEST_EXTRA)
    return dict(extra)


_write = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def encode(conversion: Conversion) -> str:
    """The text that stands for a conversion: compact JSON on one line."""
    return _write(conversion.texts())


def decode(text: str) -> Conversion:
    """The conversion of a text that ``encode``, or a program in another language, has written.

    Raises ``PayloadError`` when the text is none.  A number is taken as the text it was written as.
    """
    try:
        found = json.loads(text, parse_float=str, parse_int=str)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"this is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise PayloadError("a conversion is one JSON object with at least a click_id")
    known: Dict[str, Any] = {name: found.pop(name) for name in FIELDS if found.get(name) is not None}
    rest = {name: value for name, value in found.items() if value is not None}
    if "click_id" not in known:
        raise PayloadError("there is no click_id in it")
    return Conversion(**known, extra=rest)


def read_time(conversion: Conversion) -> Optional[float]:
    """When it happened in seconds since 1970, as far as its time is a number of seconds."""
    text = str(conversion.time)
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None
