"""From the bytes of a request to canonical fields: which parameter means what.

Names are matched as written, then in lower case.  Of several names for one field the first in the list wins, an
empty value only when no other name has a value; of a doubled name the first wins.  Nothing else is kept of a
request: parameters that no field claims are counted and forgotten, but for the names of some (``core.unmapped``).

A network's or source's own names replace the default names of that field, and take a name away from any other
field that has it by default.

Two texts that differ as sent differ as read, for they may be the keys of two conversions: nothing is replaced by a
common sign.  Bytes that are not UTF-8 are read as Windows-1252, one character each, and what a database, a log or a
header cannot carry stays percent-encoded (so it reads as if it had been encoded twice, which it may have been).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Struct

from postbackd.core.unmapped import Unmapped

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

_WHITE_SPACE = b" \t\r\n"
"""What JSON calls white space, and what senders put around a form."""

_EMPTY_RANK = 1000
"""Added to the rank of a name whose value is empty, so that any value wins over it."""

_CONTROLS = {
    code: "".join(f"%{byte:02X}" for byte in chr(code).encode("utf-8", "surrogatepass"))
    for code in (
        *range(32), 127, *range(128, 160), *range(0x2028, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000)
    )
}  # fmt: skip
"""Characters that a database, a log or a header cannot carry are written as a URL would carry them; also those that
begin a new line, or turn the direction of what is read."""

_WINDOWS_1252 = {code: bytes((code,)).decode("cp1252", "ignore") or chr(code) for code in range(128, 160)}
"""Where Windows-1252 differs from Latin-1; its five empty places stay controls (WHATWG Encoding)."""


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


_ESCAPED_AMPERSAND = "amp;"

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""What some write before a text in UTF-8."""


def clean(text: str) -> str:
    """The text with control characters and lone surrogates percent-encoded."""
    return text if text.isprintable() else text.translate(_CONTROLS)


def decode(text: str) -> str:
    """A query or form text with ``+`` and percent escapes decoded, as UTF-8 or else as Windows-1252."""
    if "+" in text:
        text = text.replace("+", " ")
    if "%" in text:
        encoded = unquote_to_bytes(text)
        try:
            text = encoded.decode("utf-8")
        except UnicodeDecodeError:
            text = encoded.decode("latin-1").translate(_WINDOWS_1252)
    return clean(text)


def windows_1252(text: str) -> str:
    """A text that was read as Latin-1, as Windows-1252; no byte is lost."""
    return text if text.isascii() else text.translate(_WINDOWS_1252)


def decode_form(body: bytes) -> str:
    """A form body as text; when it is not UTF-8, bytes beyond ASCII are percent-encoded, for ``decode`` to read."""
    body = body.strip(_WHITE_SPACE)
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(chr(byte) if byte < 0x80 else f"%{byte:02X}" for byte in body)


class FieldMap:
    """Which parameter name means which canonical field, for one network or source."""

    __slots__ = ("_known", "_size", "_slots", "_unmapped", "names")

    def __init__(
        self,
        defaults: Mapping[str, tuple[str, ...]],
        own: Mapping[str, Iterable[str]] | None = None,
        unmapped: Unmapped | None = None,
    ) -> None:
        """``own`` maps canonical fields to names; a field not in ``defaults`` is a ``KeyError``.

        ``unmapped`` is told of names that no field claims.
        """
        mapped = {field: tuple(names) for field, names in (own or {}).items()}
        if unknown := mapped.keys() - defaults.keys():
            raise KeyError(f"no such field: {', '.join(sorted(unknown))}")
        taken = {name for names in mapped.values() for name in names}
        self.names: dict[str, tuple[str, ...]] = {
            field: mapped[field] if field in mapped else tuple(n for n in names if n not in taken)
            for field, names in defaults.items()
        }
        self._size = len(self.names)
        self._unmapped = unmapped
        self._known = frozenset[str]() if unmapped is None else unmapped.known
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
            slot = self._slots.get(name) or self._find_slot(name)
            if slot is None:
                continue
            text = _json_text(value)
            if text is not None:
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
                slot = self._find_slot(name, pair)
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

    def _find_slot(self, name: str, pair: str = "") -> tuple[int, int] | None:
        """A name written in capitals or, where it is the name of a ``pair``, percent-encoded or out of a page.

        A URL copied from the source of a web page has ``&amp;`` where ``&`` was: no name of anybody begins with that.
        """
        if name in self._known:
            return None
        plain = decode(name) if pair and ("%" in name or "+" in name) else name
        slot = self._slots.get(plain) or self._slots.get(plain.lower().removeprefix(_ESCAPED_AMPERSAND))
        if (
            slot is None and self._unmapped is not None and len(pair) != len(name)
        ):  # a name alone may be a value
            self._unmapped.meet(name)
        return slot


def _put(values: list[str | None], ranks: list[int], slot: tuple[int, int], text: str) -> None:
    """Take the text unless a better name has given one already."""
    index, rank = slot
    if not text:
        rank += _EMPTY_RANK
    if rank < ranks[index]:
        ranks[index] = rank
        values[index] = text


# --- JSON ------------------------------------------------------------------------------------------------------

_JSON = msgspec.json.Decoder(float_hook=str)
"""A number with a fraction or exponent stays the text it was sent as: money never becomes a float."""

_RAW_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_MARK = re.compile(_STRING + rb'|["]|,|[\[{]++|[\]}]++', re.DOTALL)
"""A whole string, a quote that nothing closes, or what stands outside strings: a comma, a run of brackets."""

_MEMBER = re.compile(rb"\s*(" + _STRING + rb")\s*:\s*", re.DOTALL)
_NUMBER = re.compile(rb"-?[0-9]+")
_CLOSING = bytes.maketrans(b"[{", b"]}")

_MOST_PARTS = 10_000
"""Into how many parts a body is split that cannot be decoded as a whole; takes some 10 ms."""

_OVERLONG = "nested " + "[" * 300
"""Stands for a value that is nested too deeply to be decoded: longer than any field, as the value itself is."""


def read_json_body(body: bytes) -> Any:
    """The value that a JSON text spells, numbers with a fraction as text.  Raises ``BodyMalformed``.

    One odd value does not spoil the rest: an item of an array that cannot be read is ``None``, and a member of an
    object that the decoder has no room for (nested more than some 990 deep, a whole number of more than 4,300
    digits) is a text.
    """
    try:
        return _read_value(body)
    except BodyMalformed:
        body = body.strip(_WHITE_SPACE)
        if body[:1] != b"[":
            raise
    try:
        return [_read_item(bytes(item)) for item in _RAW_ITEMS.decode(body)]
    except (msgspec.DecodeError, RecursionError) as error:
        items = [_read_item(item) for item in _split(body)]
        if not any(isinstance(item, dict) for item in items):
            raise BodyMalformed(str(error)[:200]) from error
        return items


def _read_value(text: bytes) -> Any:
    try:
        return _JSON.decode(text)
    except (msgspec.ValidationError, RecursionError):
        # JSON as far as it was read, but too much for the decoder
        text = text.strip(_WHITE_SPACE)
        if text[:1] != b"{":
            raise BodyMalformed("a value is too long or nested too deeply") from None
        return _read_members(text)
    except (msgspec.DecodeError, ValueError) as error:
        raise BodyMalformed(str(error)[:200]) from error


def _read_item(text: bytes) -> Any:
    """An item of an array, ``None`` when it is malformed: its neighbours count all the same."""
    try:
        return _read_value(text)
    except BodyMalformed:
        return None


def _read_members(text: bytes) -> dict[str, Any]:
    """An object, one member at a time."""
    members: dict[str, Any] = {}
    for member in _split(text):
        try:
            members.update(_JSON.decode(b"{%b}" % member))
        except (msgspec.ValidationError, RecursionError):
            name, value = _read_large_member(member)
            members[name] = value
        except (msgspec.DecodeError, ValueError) as error:
            raise BodyMalformed(str(error)[:200]) from error
    return members


def _read_large_member(member: bytes) -> tuple[str, str]:
    """A number of any length as it is written, and what is nested too deeply as a text that says so."""
    name = _MEMBER.match(member)
    if name is None:
        raise BodyMalformed("a member without a name")
    value = member[name.end() :].strip(_WHITE_SPACE)
    try:
        decoded = str(_JSON.decode(name[1]))
    except (msgspec.DecodeError, ValueError) as error:
        raise BodyMalformed(str(error)[:200]) from error
    if _NUMBER.fullmatch(value):
        return decoded, value.decode("ascii")
    if value[:1] not in (b"[", b"{"):
        raise BodyMalformed("a value that is none")
    return decoded, _OVERLONG


def _split(text: bytes) -> list[bytes]:
    """The texts between the commas of an array or object.  Raises ``BodyMalformed`` when it does not close."""
    parts: list[bytes] = []
    start = 1
    for end in _find_ends(text):
        if len(parts) == _MOST_PARTS:
            raise BodyMalformed("too many values, and one of them cannot be read")
        parts.append(text[start:end])
        start = end + 1
    if start != len(text):
        raise BodyMalformed("something stands behind the end")
    if len(parts) == 1 and not parts[0].strip(_WHITE_SPACE):
        return []
    if not all(part.strip(_WHITE_SPACE) for part in parts):
        raise BodyMalformed("nothing stands between two commas")
    return parts


def _find_ends(text: bytes) -> Iterator[int]:
    """Where the parts of an array or object end: its own commas, and last its bracket.

    Brackets are matched in a list instead of by recursion: 100,000 of them are as harmless as one.
    """
    awaited = bytearray()
    for found in _MARK.finditer(text):
        mark = found[0]
        if mark == b",":
            if len(awaited) == 1:
                yield found.start()
        elif mark == b'"':
            break
        elif mark[0] in b"[{":
            awaited += mark.translate(_CLOSING)
        elif mark[0] in b"]}":
            if awaited[-len(mark) :][::-1] != mark:
                break
            del awaited[-len(mark) :]
            if not awaited:
                yield found.end() - 1
                return
    raise BodyMalformed("a string or bracket is not closed")


def _json_text(value: Any) -> str | None:
    """A JSON value as the text that a query string would carry; ``None`` for null.

    A list or an object where a single value belongs is ``nested`` and its JSON: a text that is no amount, word or
    macro, and as different as what was sent.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return clean(str(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    try:
        return clean(f"nested {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}")
    except RecursionError:
        return _OVERLONG
