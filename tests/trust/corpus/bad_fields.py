"""Every field of every request missing, empty, doubled, over-long, not text, or hostile (T19)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, quote_from_bytes

from tests.trust.corpus import wire

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"

POSTBACK_FIELDS = ("click_id", "type", "value", "currency", "txid", "status", "time", "unmapped")
CLICK_FIELDS = ("source_click_id", "cost", "country", "sub1", "sub10", "unmapped")

TEXTS: dict[str, bytes] = {
    "empty": b"",
    "space": b" ",
    "white space": b"\t\n\x0b\x0c\r\xc2\xa0\xe2\x80\x8b",
    "nul": b"a\x00b",
    "only nul": b"\x00",
    "controls": bytes(range(1, 32)) + b"\x7f",
    "crlf": b"a\r\nX-Injected: 1\r\n\r\nHTTP/1.1 200 OK",
    "latin 1": b"caf\xe9",
    "not utf-8": b"\xff\xfe\xfd",
    "cut utf-8": b"\xe2\x82",
    "overlong utf-8": b"\xc0\xaf\xe0\x80\xaf",
    "surrogates": b"\xed\xa0\x80\xed\xb0\x80",
    "byte order mark": b"\xef\xbb\xbf12.50",
    "beyond unicode": b"\xf4\x90\x80\x80",
    "emoji": "\U0001f4b8".encode(),
    "right to left": "\u202e12.50\u202c".encode(),
    "combining": ("e" + "\u0301" * 200).encode(),
    "other digits": "\u0661\u0662.\u0665".encode(),
    "macro": b"{click_id}",
    "macro dollar": b"${SUBID}",
    "macro bracket": b"[CLICK_ID]",
    "macro underscores": b"__CLICKID__",
    "macro hash": b"#s2#",
    "300 characters": b"a" * 300,
    "5,000 characters": b"a" * 5_000,
    "5,000 digits": b"9" * 5_000,
    "5,000 digits after a dot": b"1." + b"0" * 5_000 + b"1",
    "4,000 percent signs": b"%" * 4_000,
    "5,000 commas": b"1," * 2_500,
    "nan": b"NaN",
    "infinity": b"-Infinity",
    "1e999": b"1e999",
    "minus nothing": b"-",
    "minus": b"-12.50",
    "hexadecimal": b"0x7fffffff",
    "2 to the 63": b"9223372036854775808",
    "minus 2 to the 63": b"-9223372036854775809",
    "nested": b"[" * 4_000,
    "json": b'{"a":[1,2,{"b":null}]}',
    "sql": b"'; DROP TABLE conversions; --",
    "format": b"%s%n{0.__class__}{{x}}",
    "path": b"../../../../etc/passwd",
    "markup": b"<script>alert(1)</script>",
    "year 0": b"0000-00-00T00:00:00Z",
    "year 9999": b"9999-12-31T23:59:59.999999999+14:00",
    "e-mail": b"someone@mail.example",
}
"""Name -> bytes of a value."""

_DEEP = 100_000

JSON_VALUES: dict[str, str] = {
    "null": "null",
    "true": "true",
    "number": "12.5",
    "exponent": "1e3",
    "1e999": "1e999",
    "nan": "NaN",
    "infinity": "-Infinity",
    "minus zero": "-0",
    "5,000 digits": "9" * 5_000,
    "5,000 decimals": "0." + "9" * 5_000,
    "list": "[1,2]",
    "empty list": "[]",
    "object": '{"a":1}',
    "lone surrogate": '"\\ud800"',
    "reversed surrogates": '"\\udc00\\ud800"',
    "nul": '"a\\u0000b"',
    "controls": '"\\u0001\\u001f\\u007f\\u0085"',
    "raw newline": '"a\nb"',
    "bad escape": '"\\x41"',
    "nested 1,000": "[" * 1_000 + "]" * 1_000,
    "nested 30,000": "[" * 30_000 + "]" * 30_000,
}
"""Name -> JSON text of a value, some of it no JSON."""

BODIES: dict[str, tuple[str, bytes]] = {
    "nothing": (JSON, b""),
    "open brackets": (JSON, b"[" * 60_000),
    "open brackets, a batch": ("application/x-ndjson", b"[" * _DEEP),
    "open objects": (JSON, b'{"a":' * 12_000),
    "nested array of 100,000": (JSON, b"[" * _DEEP + b"]" * _DEEP),
    "cut object": (JSON, b'{"click_id":"a"'),
    "two objects": (JSON, b'{"click_id":"a"}{"click_id":"b"}'),
    "doubled name": (JSON, b'{"click_id":"a","click_id":"b"}'),
    "number name": (JSON, b'{1:"a"}'),
    "text": (JSON, b'"click_id"'),
    "number": (JSON, b"12"),
    "null": (JSON, b"null"),
    "empty array": (JSON, b"[]"),
    "array of arrays": (JSON, b"[[],[[]],[{}]]"),
    "array of everything": (JSON, b'[null,true,1,1e999,"a",[],{},{"click_id":null}]'),
    "array of 10,001": (JSON, b"[" + b"1," * 10_000 + b"1]"),
    "not utf-8": (JSON, b'{"click_id":"\xff\xfe"}'),
    "utf-16": (JSON, '{"click_id":"a"}'.encode("utf-16")),
    "utf-8 with mark": (JSON, b'\xef\xbb\xbf{"click_id":"a"}'),
    "nul": (JSON, b"\x00" * 100),
    "lines, some broken": ("application/x-ndjson", b'{"click_id":"a"}\n{broken\n\n[1]\n"x"\n'),
    "line ends only": ("application/x-ndjson", b"\n\r\n\n"),
    "form called json": (JSON, b"click_id=a&value=1"),
    "json called form": (FORM, b'{"click_id":"a"}'),
    "multipart": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="click_id"\r\n\r\na',
    ),
    "gzip": (FORM, b"\x1f\x8b\x08\x00" + b"\x00" * 60),
    "binary": ("application/octet-stream", bytes(range(256)) * 10),
    "no content type": ("", b"click_id=a"),
    "long content type": ("a" * 4_000, b"click_id=a"),
    "ampersands": (FORM, b"&" * 60_000),
    "equals": (FORM, b"=" * 60_000),
    "10,000 parameters": (FORM, b"&".join(b"a%d=1" % n for n in range(7_000))),
    "more than 64 kB": (FORM, b"click_id=" + b"a" * 70_000),
    "more than 1 MB": (JSON, b"[" + b'"a",' * 300_000 + b'"a"]'),
}
"""Name -> content type and body."""


@dataclass(frozen=True)
class Bad:
    """One request with something wrong in it."""

    name: str
    raw: bytes


def bad_requests(endpoint: str, click_path: str, click_id: str) -> Iterator[Bad]:
    """Every field, every text, every form."""
    fields = {"click_id": click_id, "type": "sale", "value": "1.50", "txid": "bad", "status": "approved"}
    for field in POSTBACK_FIELDS:
        yield from _one_field(endpoint, fields, field)
    for field in CLICK_FIELDS:
        for name, text in TEXTS.items():
            yield Bad(f"click {field} {name}", wire.get(f"{click_path}?{field}={quote_from_bytes(text)}"))
            yield Bad(
                f"click json {field} {name}", _json_post(click_path, {field: text.decode("utf-8", "replace")})
            )
    for name, (content_type, body) in BODIES.items():
        yield Bad(f"body {name}", wire.post(endpoint, content_type, body))
        yield Bad(f"click body {name}", wire.post(click_path, content_type, body))
    yield from _structure(endpoint, click_id)


def _one_field(endpoint: str, fields: dict[str, str], field: str) -> Iterator[Bad]:
    others = {name: value for name, value in fields.items() if name != field}
    rest = "&".join(f"{name}={quote(value)}" for name, value in others.items())
    yield Bad(f"{field} missing", wire.get(f"{endpoint}?{rest}"))
    yield Bad(f"{field} doubled", wire.get(f"{endpoint}?{rest}&{field}=a&{field}=b&{field}=c"))
    yield Bad(f"{field} without value", wire.get(f"{endpoint}?{rest}&{field}"))
    for name, text in TEXTS.items():
        pair = f"{rest}&{field}={quote_from_bytes(text)}"
        raw_pair = f"{rest}&{field}=".encode() + text
        yield Bad(f"{field} {name} query", wire.get(f"{endpoint}?{pair}"))
        yield Bad(f"{field} {name} pixel", wire.get(f"{endpoint}/pixel.gif?{pair}"))
        yield Bad(f"{field} {name} form", wire.post(endpoint, FORM, raw_pair))
        yield Bad(
            f"{field} {name} json", _json_post(endpoint, others | {field: text.decode("utf-8", "replace")})
        )
    known = json.dumps(others)[:-1]
    for name, value in JSON_VALUES.items():
        document = f'{known},"{field}":{value}}}'.encode()
        yield Bad(f"{field} {name} json value", wire.post(endpoint, JSON, document))
        yield Bad(f"{field} {name} array", wire.post(endpoint, JSON, b"[" + document + b"]"))


def _json_post(path: str, document: dict[str, str]) -> bytes:
    return wire.post(path, JSON, json.dumps(document).encode())


def _structure(endpoint: str, click_id: str) -> Iterator[Bad]:
    """Query strings that are wrong as a whole."""
    for name, query in {
        "nothing": "",
        "only ampersands": "&" * 3_000,
        "only equals": "=" * 3_000,
        "33 parameters": "&".join(f"a{n}=1" for n in range(33)) + f"&click_id={click_id}",
        "1,500 parameters": "&".join(f"a{n}=1" for n in range(1_000)),
        "semicolons": f"click_id={click_id};value=1",
        "question marks": f"click_id={click_id}?value=1?",
        "encoded names": f"%63lick_id={click_id}&v%61lue=1",
        "brackets": f"click_id[]={click_id}&value[a]=1",
        "fragment": f"click_id={click_id}#value=1",
        "bad escapes": f"click_id={click_id}&value=%&txid=%z1&type=%u0041",
        "encoded twice": f"click_id={quote(quote(click_id + ' '))}",
        "plus": f"click_id=+{click_id}+&value=+1+",
    }.items():
        yield Bad(f"query {name}", wire.get(f"{endpoint}?{query}"))
