"""From the bytes of a request to canonical fields: which parameter means what.

Names are matched as written, then in lower case.  Of several names for one field the first in the list wins, an
empty value only when no other name has a value; of a doubled name the first wins.  Nothing else is kept of a
request: parameters that no field claims are counted and forgotten.

A network's or source's own names replace the default names of that field, and take a name away from any other
field that has it by default.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Struct

POSTBACK_NAMES: Mapping[str, tuple[str, ...]] = {
    "click_id": ("click_id", "clickid", "cid", "subid", "sub_id", "aff_sub", "s2"),
    "type": ("type", "event", "goal", "et"),
    "value": ("value", "payout", "revenue", "amount", "sum"),
    "currency": ("currency", "cur"),
    "transaction_id": ("txid", "transaction_id", "tid", "order_id"),
    "status": ("status",),
    "time": ("time", "timestamp"),
}
"""Canonical field of a postback -> names accepted by default, first found wins."""

CLICK_NAMES: Mapping[str, tuple[str, ...]] = {
    "source_click_id": ("source_click_id",),
    "cost": ("cost",),
    "country": ("country",),
    **{f"sub{n}": (f"sub{n}",) for n in range(1, 11)},
}
"""Canonical field of a click -> names accepted by default."""

MAX_PARAMETERS = 32

MAX_LENGTHS: Mapping[str, int] = {
    "click_id": 255,
    "type": 64,
    "value": 64,
    "currency": 16,
    "transaction_id": 128,
    "status": 64,
    "time": 64,
}
"""Longest text a postback field may have, in characters."""

MAX_CLICK_TEXT = 255
"""Longest text kept of a click parameter; networks cap a sub id at 50, 100 or 255."""

_EMPTY_RANK = 1000
"""Added to the rank of a name whose value is empty, so that any value wins over it."""

_CONTROLS = dict.fromkeys((*range(32), 127, *range(128, 160), *range(55296, 57344)), "�")
"""Characters that a database, a log or a header cannot carry become U+FFFD."""


class BodyMalformed(Exception):
    """The body is not what its content type says."""


class Received(Struct, gc=False):
    """What one request said: a value per canonical field, in the order of the field map."""

    values: list[str | None]
    parameters: int
    query: str = ""
    body: dict[str, Any] | None = None

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Every parameter, mapped or not, decoded: for the search for a click id in the wrong field."""
        for name, value in (self.body or {}).items():
            yield clean(name), _json_text(value) or ""
        for pair in self.query.split("&")[: MAX_PARAMETERS * 2]:
            name, _, text = pair.partition("=")
            yield decode(name), decode(text)


def clean(text: str) -> str:
    """The text without control characters and lone surrogates."""
    return text if text.isprintable() else text.translate(_CONTROLS)


def decode(text: str) -> str:
    """A query or form text with ``+`` and percent escapes decoded; what is not UTF-8 becomes U+FFFD."""
    if "+" in text:
        text = text.replace("+", " ")
    if "%" in text:
        text = unquote_to_bytes(text).decode("utf-8", "replace")
    return clean(text)


class FieldMap:
    """Which parameter name means which canonical field, for one network or source."""

    __slots__ = ("_size", "_slots", "names")

    def __init__(
        self, defaults: Mapping[str, tuple[str, ...]], own: Mapping[str, Iterable[str]] | None = None
    ) -> None:
        """``own`` maps canonical fields to names; a field not in ``defaults`` is a ``KeyError``."""
        mapped = {field: tuple(names) for field, names in (own or {}).items()}
        if unknown := mapped.keys() - defaults.keys():
            raise KeyError(f"no such field: {', '.join(sorted(unknown))}")
        taken = {name for names in mapped.values() for name in names}
        self.names: dict[str, tuple[str, ...]] = {
            field: mapped[field] if field in mapped else tuple(n for n in names if n not in taken)
            for field, names in defaults.items()
        }
        self._size = len(self.names)
        self._slots: dict[str, tuple[int, int]] = {}
        for index, names in enumerate(self.names.values()):
            for rank, name in enumerate(names):
                self._slots.setdefault(name, (index, rank))
                self._slots.setdefault(name.lower(), (index, rank))

    def read_query(self, query: str) -> Received:
        """The fields of a query string or form body."""
        values: list[str | None] = [None] * self._size
        return Received(values, self._fill(values, query), query)

    def read_form(self, query: str, form: str) -> Received:
        """The fields of a form body and, where it says nothing, of the query string."""
        both = f"{form}&{query}" if query else form
        return self.read_query(both)

    def read_json(self, query: str, body: dict[str, Any]) -> Received:
        """The fields of a JSON object and, where it says nothing, of the query string."""
        values: list[str | None] = [None] * self._size
        ranks = [_EMPTY_RANK * 2] * self._size
        for name, value in body.items():
            text = _json_text(value)
            slot = self._slots.get(name) or self._slots.get(name.lower())
            if slot is None or text is None:
                continue
            _put(values, ranks, slot, text)
        from_query: list[str | None] = [None] * self._size
        parameters = len(body) + self._fill(from_query, query)
        for index, found in enumerate(from_query):
            if found is not None and not values[index]:
                values[index] = found
        return Received(values, parameters, query, body)

    def _fill(self, values: list[str | None], query: str) -> int:
        """Put the values of a query string into ``values``; returns how many parameters it has."""
        slots = self._slots
        ranks = [_EMPTY_RANK * 2] * self._size
        parameters = 0
        encoded = "%" in query or "+" in query or not query.isprintable()
        for pair in query.split("&"):
            name, _, text = pair.partition("=")
            slot = slots.get(name)
            if slot is None:
                if not pair:
                    continue
                slot = self._find_slot(name)
            parameters += 1
            if slot is None:
                continue
            if parameters > MAX_PARAMETERS:
                break
            if encoded:
                text = decode(text)
            index, rank = slot  # as _put, without the call
            if not text:
                rank += _EMPTY_RANK
            if rank < ranks[index]:
                ranks[index] = rank
                values[index] = text
        return parameters

    def _find_slot(self, name: str) -> tuple[int, int] | None:
        """A name written in capitals or percent-encoded."""
        if "%" in name or "+" in name:
            name = decode(name)
        return self._slots.get(name) or self._slots.get(name.lower())


def _put(values: list[str | None], ranks: list[int], slot: tuple[int, int], text: str) -> None:
    """Take the text unless a better name has given one already."""
    index, rank = slot
    if not text:
        rank += _EMPTY_RANK
    if rank < ranks[index]:
        ranks[index] = rank
        values[index] = text


_JSON = msgspec.json.Decoder(float_hook=str)
"""A number with a fraction or exponent stays the text it was sent as: money never becomes a float."""


def read_json_body(body: bytes) -> Any:
    """The value that a JSON text spells, numbers with a fraction as text.  Raises ``BodyMalformed``."""
    try:
        return _JSON.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BodyMalformed(str(error)[:200]) from error


def _json_text(value: Any) -> str | None:
    """A JSON value as the text that a query string would carry; ``None`` for null."""
    if value is None:
        return None
    if isinstance(value, str):
        return clean(str(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return "[nested]"  # a list or an object where a single value belongs
