"""Lists in pages: each page names a cursor that leads to the next one.

A cursor holds the key of the last row, so that rows which are added or removed meanwhile are neither shown twice nor
left out.  It is opaque to clients and may change its form with any version.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any, Generic, TypeVar, cast

import msgspec
from msgspec import Struct

from postbackd.admin.problems import Problem

T = TypeVar("T")

MAX_ITEMS = 1000
"""Of one page."""

_LARGEST = 1 << 62
"""No key of a row is larger, and no database takes a number of more than 64 bits."""


class Page(Struct, Generic[T], frozen=True):
    """Some items of a list, in its order."""

    items: list[T]
    next: str | None = None
    """Give it as ``cursor`` to see the items behind these; nothing: these are the last ones."""


def write_cursor(*key: Any) -> str:
    """The cursor behind a row with this key (numbers, text)."""
    return urlsafe_b64encode(msgspec.json.encode(key)).decode("ascii").rstrip("=")


def read_cursor(text: str, type_: type[T]) -> T:
    """The key as a tuple of this type.  Raises ``Problem``."""
    try:
        key: Any = msgspec.json.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=type_)
    except (ValueError, msgspec.DecodeError) as error:
        raise _strange_cursor() from error
    if any(isinstance(part, int) and abs(part) > _LARGEST for part in key):
        raise _strange_cursor()
    return cast(T, key)


def _strange_cursor() -> Problem:
    return Problem(400, "this cursor is none of ours; leave it out to begin anew", field="cursor")
