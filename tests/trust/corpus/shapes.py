"""Postbacks in the shapes in which real networks send them, and what happens to them on the way (T20).

The shapes come from the product's presets (each with its public sources): parameter names, macros, status words and
methods of a network.  ``mutate`` then does what networks, trackers and people do to a postback.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

from tests.trust.corpus import wire

_PRESETS = Path(__file__).parents[3] / "src" / "postbackd" / "presets" / "presets.json"
_QUERY_PAIR = re.compile(r"[?&]([A-Za-z_]+)=([^&]*)")
_DEFAULT_NAMES = {
    "click_id": "cid",
    "value": "payout",
    "currency": "currency",
    "transaction_id": "txid",
    "status": "status",
    "type": "goal",
    "time": "timestamp",
}


@dataclass(frozen=True)
class Shape:
    """How one network writes its postbacks."""

    preset: str
    names: dict[str, str]
    """Canonical field -> parameter name."""
    extras: tuple[str, ...]
    """Parameters that nobody maps."""
    statuses: tuple[str, ...]
    posts: bool


def load_shapes() -> list[Shape]:
    """One shape for each network of the presets whose postback is known."""
    presets = json.loads(_PRESETS.read_text("utf-8"))["presets"]
    return [_shape(p) for p in presets if p["kind"] in ("network", "mmp") and p.get("fields")]


def _shape(preset: dict[str, object]) -> Shape:
    fields = preset["fields"]
    others = preset.get("others") or {}
    statuses = preset.get("statuses") or {"approved": "", "pending": "", "rejected": ""}
    assert isinstance(fields, dict)
    assert isinstance(others, dict)
    assert isinstance(statuses, dict)
    url = str(preset.get("postback_url") or "")
    names_of = {macro: name for name, macro in _QUERY_PAIR.findall(url)}
    names = {field: names_of.get(macro, _DEFAULT_NAMES[field]) for field, macro in fields.items()}
    return Shape(str(preset["id"]), names, tuple(others), tuple(statuses), "POST" in str(preset["method"]))


# --- values -------------------------------------------------------------------------------------------


def fill(shape: Shape, click_id: str, number: int, draw: random.Random) -> dict[str, str]:
    """One postback of this shape as its network would send it, by canonical field."""
    makers: dict[str, Callable[[], str]] = {
        "click_id": lambda: click_id,
        "value": lambda: draw.choice(
            ("12.50", "0.8", "3", "149.000000", f"{draw.randrange(1, 90_000) / 100:.2f}")
        ),
        "currency": lambda: draw.choice(("USD", "EUR", "usd", "GBP")),
        "transaction_id": lambda: _transaction_id(number, draw),
        "status": lambda: draw.choice(shape.statuses),
        "type": lambda: draw.choice(("sale", "lead", "ftd", "Registration", "install")),
        "time": lambda: draw.choice(
            ("1767225600", "1767225600123", "2026-01-01T00:00:00Z", "2026-01-01 00:00:00")
        ),
    }
    return {field: makers[field]() for field in shape.names}


def _transaction_id(number: int, draw: random.Random) -> str:
    """Unique by its letters; a network's own form around them."""
    word = "".join(chr(97 + int(digit)) for digit in str(number))
    return draw.choice(
        (f"102{word}", f"AB-{word}", f"{word}:1", f"{word}{draw.randbytes(4).hex()}", word.upper() + "_u")
    )


# --- what happens on the way --------------------------------------------------------------------------

Fields = dict[str, str]
_FOREIGN = "5f0c8a52-3b1e-4c7d-9c57-0d1f6a4b2e10"


def _without(field: str) -> Callable[[Fields, random.Random], None]:
    def change(fields: Fields, draw: random.Random) -> None:
        fields.pop(field, None)

    return change


def _as(field: str, *texts: str) -> Callable[[Fields, random.Random], None]:
    def change(fields: Fields, draw: random.Random) -> None:
        fields[field] = draw.choice(texts)

    return change


def _cut(fields: Fields, draw: random.Random) -> None:
    fields["click_id"] = fields.get("click_id", "")[: draw.randrange(8, 26)]


def _alter(fields: Fields, draw: random.Random) -> None:
    text = fields.get("click_id", "")
    if text:
        place = draw.randrange(len(text))
        fields["click_id"] = text[:place] + draw.choice("23456789abcdefgh") + text[place + 1 :]


def _respell(fields: Fields, draw: random.Random) -> None:
    text = fields.get("click_id", "")
    again = (
        text.upper(),
        quote(quote(text + " ")),
        f'"{text}"',
        f" {text} ",
        f"{text[:8]}-{text[8:]}",
        f"{text}_suffix",
    )
    fields["click_id"] = draw.choice(again)


def _move(fields: Fields, draw: random.Random) -> None:
    """The click id in a parameter that nobody expects it in."""
    fields[draw.choice(("transaction_id", "externalref", "sub1"))] = fields.pop("click_id", "")


_LITERALS = (
    "{clickid}",
    "[CLICK_ID]",
    "${SUBID}",
    "__CLICKID__",
    "REPLACE_ME",
    "%7Bclickid%7D",
    "#s2#",
    "!!!clickRef!!!",
)

MUTATIONS: tuple[Callable[[Fields, random.Random], None], ...] = (
    _cut,
    _alter,
    _respell,
    _move,
    _without("click_id"),
    _without("transaction_id"),
    _without("value"),
    _as("click_id", "", "null", "0", "test", _FOREIGN, *_LITERALS),
    _as(
        "value",
        "",
        "NaN",
        "$12.50",
        "12,50",
        "1,234",
        "-3",
        "1e3",
        "free",
        "{payout}",
        "9" * 40,
        "0.30000000000000004",
    ),
    _as("currency", "", "XXX", "Dollar", "{currency}", "$", "eur "),
    _as("status", "", "2", "-1", "whatever", "{status}", "REFUNDED", "chargeback"),
    _as("type", "", "x" * 70, "{goal}", "\u043f\u0440\u043e\u0434\u0430\u0436\u0430"),
    _as("time", "", "yesterday", "0", "99999999999999", "{timestamp}", "2026-13-40"),
    _as("transaction_id", "", "{txid}", "y" * 130, "someone@mail.example", "\u0000"),
)


def mutate(fields: Fields, draw: random.Random) -> Fields:
    """The fields after none to three of the things that happen."""
    changed = dict(fields)
    for _ in range(draw.choice((0, 1, 1, 2, 3))):
        draw.choice(MUTATIONS)(changed, draw)
    return changed


def write(shape: Shape, fields: Fields, endpoint: str, draw: random.Random) -> bytes:
    """The request, in one of the ways in which the network or a hop sends it."""
    pairs = [(shape.names.get(field, field), text) for field, text in fields.items()]
    pairs += [(name, draw.choice(("7", "A name", "", "{" + name + "}"))) for name in shape.extras]
    draw.shuffle(pairs)
    if draw.random() < 0.03:
        pairs += [(f"more{number}", "1") for number in range(40)]
    if draw.random() < 0.05:
        pairs.append(draw.choice(pairs))
    if shape.posts and draw.random() < 0.5:
        return _post(pairs, endpoint, draw)
    return wire.get(f"{endpoint}?{urlencode(pairs)}")


def _post(pairs: list[tuple[str, str]], endpoint: str, draw: random.Random) -> bytes:
    form, document = urlencode(pairs).encode(), json.dumps(dict(pairs)).encode()
    content_type = draw.choice(("application/x-www-form-urlencoded", "application/json", "text/plain", ""))
    body = document if "json" in content_type else form
    if draw.random() < 0.1:
        body = draw.choice((form, document, document[:-5]))
    return wire.post(endpoint, content_type, body)
