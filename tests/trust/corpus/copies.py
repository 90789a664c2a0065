"""The same conversion, written in every way in which senders and the hops between them write it (T4)."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.trust.corpus import wire

KEYS_A_CLICK = 5

_NAMES = {
    "click_id": ("click_id", "clickid", "cid", "subid", "sub_id", "aff_sub", "s2"),
    "type": ("type", "event", "goal", "et"),
    "value": ("value", "payout", "revenue", "amount", "sum"),
    "currency": ("currency", "cur"),
    "transaction_id": ("txid", "transaction_id", "tid", "order_id"),
}
"""Names that an endpoint takes by default."""

_VALUES = ("12.5", "12.50", "12.500000", "+12.50", " 12.50 ")
"""One amount."""

_LOOK_ALIKES = {"1": "1iIlL", "0": "0oO"}


@dataclass(frozen=True)
class Key:
    """What is counted once."""

    number: int
    click_id: str
    type: str | None
    transaction_id: str | None


def make_keys(click_ids: Sequence[str]) -> list[Key]:
    """Five keys a click, told apart by type, by transaction id, and by the case of a transaction id."""
    keys: list[Key] = []
    for click_id in click_ids:
        word = _letters(len(keys))
        for type_, transaction_id in (
            (None, f"Order-{word}"),
            (None, f"order-{word}"),
            ("sale", f"Order-{word}"),
            ("sale", None),
            (None, None),
        ):
            keys.append(Key(len(keys), click_id, type_, transaction_id))
    return keys


def _letters(number: int) -> str:
    """A number in letters: digits could be taken for a phone number and be replaced by a hash."""
    return chr(97 + number // 676 % 26) + chr(97 + number // 26 % 26) + chr(97 + number % 26)


def storm(keys: Sequence[Key], copies: int, draw: random.Random, at_once: int = 50) -> Iterator[Key]:
    """Every key ``copies`` times; the copies of ``at_once`` keys are shuffled, so that they meet on their way."""
    for first in range(0, len(keys), at_once):
        together = [key for key in keys[first : first + at_once] for _ in range(copies)]
        draw.shuffle(together)
        yield from together


def write_copy(key: Key, endpoint: str, draw: random.Random) -> bytes:
    """One request that says the key."""
    fields = _spell(key, draw)
    names = list(fields)
    draw.shuffle(names)
    fields = {name: fields[name] for name in names}
    return draw.choice((_query, _query, _form, _split, _chunked_form, _object, _array, _lines))(
        fields, endpoint, draw
    )


def _spell(key: Key, draw: random.Random) -> dict[str, str]:
    fields = {
        _name("click_id", draw): _spell_id(key.click_id, draw),
        _name("value", draw): draw.choice(_VALUES),
    }
    if draw.random() < 0.5:
        fields[_name("currency", draw)] = draw.choice(("USD", "usd", " USD"))
    if key.type is not None:
        fields[_name("type", draw)] = draw.choice(
            (key.type, key.type.upper(), key.type.title(), f" {key.type} ")
        )
    elif draw.random() < 0.3:
        fields[_name("type", draw)] = draw.choice(("", "conversion", "CONVERSION"))
    if key.transaction_id is not None:
        fields[_name("transaction_id", draw)] = draw.choice(("{}", "{}", " {}", "{} ")).format(
            key.transaction_id
        )
    for _ in range(draw.randrange(3)):
        fields[f"extra{draw.randrange(100)}"] = draw.choice(("", "x", "a b&c=d", "\u00fc"))
    return fields


def _name(field: str, draw: random.Random) -> str:
    name = draw.choice(_NAMES[field])
    return name.upper() if draw.random() < 0.1 else name


def _spell_id(click_id: str, draw: random.Random) -> str:
    """The id with its case changed, dashes inserted, or characters that read alike exchanged."""
    kind = draw.randrange(5)
    if kind == 0:
        return click_id.upper()
    if kind == 1:
        return "".join(c.upper() if draw.random() < 0.5 else c for c in click_id)
    if kind == 2:
        cuts = sorted(draw.sample(range(1, len(click_id)), draw.randrange(1, 5)))
        return "-".join(click_id[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True))
    if kind == 3:
        return "".join(draw.choice(_LOOK_ALIKES.get(c, c)) for c in click_id)
    return click_id


# --- ways to send -------------------------------------------------------------------------------------


def _encode(text: str, draw: random.Random, much: float) -> str:
    out = []
    for byte in text.encode():
        character = chr(byte)
        plain = character.isascii() and (character.isalnum() or character in "-._~")
        if character == " " and draw.random() < 0.5:
            out.append("+")
        elif plain and draw.random() >= much:
            out.append(character)
        else:
            out.append(f"%{byte:02X}" if draw.random() < 0.5 else f"%{byte:02x}")
    return "".join(out)


def _pairs(fields: dict[str, str], draw: random.Random) -> str:
    much = draw.choice((0.0, 0.0, 0.2, 1.0))
    name_much = draw.choice((0.0, 0.0, 0.1))
    return "&".join(
        f"{_encode(name, draw, name_much)}={_encode(text, draw, much)}" for name, text in fields.items()
    )


def _query(fields: dict[str, str], endpoint: str, draw: random.Random) -> bytes:
    return wire.get(f"{endpoint}?{_pairs(fields, draw)}")


_FORM = "application/x-www-form-urlencoded"


def _form(fields: dict[str, str], endpoint: str, draw: random.Random) -> bytes:
    return wire.post(endpoint, _FORM, _pairs(fields, draw).encode())


def _split(fields: dict[str, str], endpoint: str, draw: random.Random) -> bytes:
    """Some parameters in the query string, the others in the body."""
    cut = draw.randrange(1, len(fields))
    items = list(fields.items())
    body = _pairs(dict(items[cut:]), draw).encode()
    return wire.post(f"{endpoint}?{_pairs(dict(items[:cut]), draw)}", _FORM, body)


def _chunked_form(fields: dict[str, str], endpoint: str, draw: random.Random) -> bytes:
    body = _pairs(fields, draw).encode()
    cut = draw.randrange(1, len(body))
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:cut], body[cut:]))
    head = (
        f"POST {endpoint} HTTP/1.1\r\nHost: a\r\nContent-Type: {_FORM}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    return head.encode() + chunks + b"0\r\n\r\n"


def _json(fields: dict[str, str], draw: random.Random) -> str:
    document: dict[str, object] = dict(fields)
    for name in document:
        if name.lower() in _NAMES["value"] and draw.random() < 0.5:
            document[name] = 12.5
    return json.dumps(document, ensure_ascii=draw.random() < 0.5)


def _object(fields: dict[str, str], endpoint: str, draw: random.Random) -> bytes:
    return wire.post(endpoint, "application/json", _json(fields, draw).encode())


def _array(fields: dict[str, str], endpoint: str, draw: random.Random) -> bytes:
    return wire.post(endpoint, "application/json", f" [{_json(fields, draw)}]".encode())


def _lines(fields: dict[str, str], endpoint: str, draw: random.Random) -> bytes:
    return wire.post(endpoint, "application/x-ndjson", f"{_json(fields, draw)}\n".encode())
