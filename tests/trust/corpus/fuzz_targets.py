"""What atheris feeds bytes to: ``python -m tests.trust.corpus.fuzz_targets TARGET [libFuzzer options]`` (T19).

Each target states what may be raised and what must hold of the result; anything else ends the process, and libFuzzer
keeps the bytes.  ``planted`` has a mistake on purpose: a fuzzer that does not find it would prove nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

atheris: Any = import_module("atheris")  # has no types, and is there only where it can be installed

with atheris.instrument_imports(include=["postbackd.core"]):
    from postbackd.core import click_id, diagnosis, macros, money, params, privacy, terms
    from postbackd.core.model import Network, Request, SigningKey
    from postbackd.core.rules import judge

KEYS = click_id.KeyRing([SigningKey(id=1, secret=b"k" * 32, active_from_ms=0)])
MASKER = privacy.Masker(b"m" * 32)
RULES = terms.NetworkRules(Network(id=1, name="n", key="k" * 22))
MAP = params.FieldMap(params.POSTBACK_NAMES)
NOW_MS = 1_800_000_000_000
REQUEST = Request(click_id.StampMint(0).mint(NOW_MS), 1, 1, 10, NOW_MS)


def _text(data: bytes) -> str:
    """As the front door decodes what it takes from a request line or form body."""
    return data.decode("utf-8", "replace")


def _is_clean(text: str) -> bool:
    """Nothing that a database, a log or a header cannot carry: no controls, no lone surrogates."""
    return not any(ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000 for c in text)


def _check_received(received: params.Received) -> None:
    for value in received.values:
        assert value is None or _is_clean(value)
    assert received.parameters >= 0
    for name, value in received.pairs():
        assert _is_clean(name)
        assert _is_clean(value)


def query(data: bytes) -> None:
    """Any text is a query string."""
    received = MAP.read_query(_text(data))
    _check_received(received)
    judge(received, RULES, KEYS, MASKER, REQUEST)


def body(data: bytes) -> None:
    """A body is JSON or malformed; an object has fields."""
    try:
        content = params.read_json_body(data)
    except params.BodyMalformed:
        _check_received(MAP.read_form("a=1", _text(data)))
        return
    if isinstance(content, dict):
        received = MAP.read_json("click_id=x", content)
        _check_received(received)
        judge(received, RULES, KEYS, MASKER, REQUEST)


def macro(data: bytes) -> None:
    """An offer URL is refused or fills to printable ASCII without white space."""
    text = _text(data)
    assert macros.looks_like_macro(text) in (True, False)
    try:
        template = macros.compile_url("https://shop.example/" + text)
    except macros.MacroError:
        return
    url = template.fill(dict.fromkeys(macros.KNOWN, text))
    assert url.isascii()
    assert url.isprintable()
    assert " " not in url
    assert url.startswith("https://shop.example/")


def identify(data: bytes) -> None:
    """What verifies is what we write; everything else is diagnosed."""
    text = _text(data)
    click_id.read_stamp(text)
    found = KEYS.verify(text)
    if found is not None:
        assert KEYS.verify(KEYS.write(*found)) == found
    finding = diagnosis.diagnose_click_id(text, KEYS, NOW_MS)
    if finding.repaired:
        assert finding.stamp is not None
        assert finding.campaign is not None


def forge(data: bytes) -> None:
    """No change of an id that we wrote verifies as another one."""
    stamp = int.from_bytes(data[:8], "big") & click_id.MAX_STAMP
    campaign = int.from_bytes(data[8:11], "big")
    text = KEYS.write(stamp, campaign)
    assert KEYS.verify(text.upper()) == (stamp, campaign)
    if len(data) >= 13:
        place = data[11] % len(text)
        changed = text[:place] + chr(data[12] & 127) + text[place + 1 :]
        assert KEYS.verify(changed) in (None, (stamp, campaign))


def amount(data: bytes) -> None:
    """Money is unreadable or an integer within the bounds of a column, and is written as it is read."""
    micros = money.read_micros(_text(data), "USD")
    if micros is not None:
        assert abs(micros) <= money.MAX_MICROS
        assert money.read_micros(money.write_micros(micros), "USD") == micros
    moment = terms.read_time(_text(data))
    assert moment is None or isinstance(moment, int)


def mask(data: bytes) -> None:
    """What was masked once is not masked again, and nothing grows without bound."""
    text = params.clean(_text(data))
    masked = MASKER.mask(text)
    assert len(masked) <= max(len(text), 32)
    if masked != text:
        assert MASKER.mask(masked) == masked


def planted(data: bytes) -> None:
    """A mistake that only a fuzzer guided by coverage finds in seconds."""
    if data[:1] == b"{" and data[1:2] == b"c" and data[2:3] == b"}":
        raise RuntimeError("planted")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "query": query,
    "body": body,
    "macros": macro,
    "click id": identify,
    "forged id": forge,
    "money and time": amount,
    "personal data": mask,
    "planted": planted,
}


def main() -> None:
    """Fuzz one target until libFuzzer's options say stop; a finding ends the process with another status than 0."""
    target = TARGETS[sys.argv.pop(1)]
    if target is planted:
        target = atheris.instrument_func(planted)
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
