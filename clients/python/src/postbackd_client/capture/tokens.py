"""What is kept, as text: ids with the time of their click, signed when a visitor carries it.

    1:click_id:0cmfxxv01zzzzg001a1e618bfz:1795000060:gclid:Cj0KCQiA:1795000060:SIGNATURE

The characters are those that every framework lets through in a cookie without quoting it.  Each id has the time at
which it was captured inside the signature: a cookie that a browser keeps longer than it was told to is old all the
same.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Optional
from urllib.parse import quote, unquote

CLICK_ID = "click_id"
_VERSION = "1"
_LARGEST_TEXT = 3_800
"""Characters; browsers drop cookies of more than 4,096 with their name (RFC 6265bis, section 5.6)."""
_MOST_DIGITS = 15
_PURPOSE = b"postbackd-client capture 1"


@dataclass(frozen=True)
class Entry:
    """One id, and when it was captured (seconds since 1970)."""

    value: str
    at: int


Record = Mapping[str, Entry]
"""Ids by name: `click_id`, and those of ad platforms under their own names."""


def write(record: Record) -> str:
    """The record as text.  What would not fit into a cookie is left out, the oldest first, the click id last."""
    entries = sorted(record.items(), key=lambda item: (item[0] != CLICK_ID, -item[1].at))
    text = _VERSION
    for name, entry in entries:
        part = f":{name}:{quote(entry.value, safe='')}:{entry.at}"
        if len(text) + len(part) <= _LARGEST_TEXT:
            text += part
    return text


def read(text: object) -> Record:
    """What ``write`` wrote; nothing of a text that it did not write.  Never raises."""
    if not isinstance(text, str) or len(text) > _LARGEST_TEXT or not text.isascii():
        return {}
    version, *fields = text.split(":")
    if version != _VERSION or len(fields) % 3:
        return {}
    record: dict[str, Entry] = {}
    for name, value, at in zip(fields[::3], fields[1::3], fields[2::3]):
        if not at.isdigit() or len(at) > _MOST_DIGITS:
            return {}
        record[name] = Entry(unquote(value, errors="replace"), int(at))
    return record


class Signer:
    """Signs with the first of its secrets, believes what any of them signed."""

    def __init__(self, secrets: Sequence[bytes], purpose: str) -> None:
        """``purpose`` (the name of the cookie) goes into the keys: a cookie under another name says nothing."""
        self._keys = [
            hmac.new(secret, _PURPOSE + b" " + purpose.encode(), hashlib.sha256).digest()
            for secret in secrets
        ]

    def sign(self, body: str) -> str:
        """The body with its signature."""
        return f"{body}:{_signature(self._keys[0], body)}"

    def verify(self, text: str) -> Optional[str]:
        """The body, or ``None`` when none of the secrets signed it.  Never raises."""
        body, _, signature = text.rpartition(":")
        if not text.isascii():
            return None
        return body if _any_equal((_signature(key, body) for key in self._keys), signature) else None


def _signature(key: bytes, body: str) -> str:
    digest = hmac.new(key, body.encode("ascii"), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def _any_equal(expected: Iterable[str], given: str) -> bool:
    return any(hmac.compare_digest(one, given) for one in expected)
