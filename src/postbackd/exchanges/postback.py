"""A postback as the request that an endpoint wants: parameters or JSON, names of its own, a signature.

A URL may say where values go, with the macros ``{click_id}``, ``{type}``, ``{value}``, ``{currency}``,
``{transaction_id}`` and ``{status}``; a parameter whose value is not given is then left out.  A URL without any gets
the values as parameters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from secrets import token_hex
from typing import Literal
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from msgspec import Struct, field

from postbackd.core.deliveries import Outgoing
from postbackd.core.diagnosis import TEST_CLICK_ID
from postbackd.core.params import POSTBACK_NAMES
from postbackd.core.senders import Scheme
from postbackd.core.signature import HEADER, Signed, sign

Method = Literal["GET", "POST"]

FIELDS = ("click_id", "type", "value", "currency", "transaction_id", "status")
NAMES: Mapping[str, str] = {name: POSTBACK_NAMES[name][0] for name in FIELDS}
"""What an endpoint calls the fields, where it does not say otherwise."""

_MACRO = re.compile(r"\{(" + "|".join((*FIELDS, "txid")) + r")\}")
_AGENT = ("User-Agent", "postbackd-exchanges")


class OddPostback(ValueError):
    """It cannot be sent as it stands; the message says what to change."""


class Postback(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is to be said; an empty text is not said."""

    click_id: str = ""
    type: str = ""
    value: str = ""
    currency: str = ""
    transaction_id: str = ""
    status: str = ""
    extra: Mapping[str, str] = {}
    """Further parameters, under their own names."""

    def fields(self) -> dict[str, str]:
        """The fields that are said."""
        return {name: text for name in FIELDS if (text := getattr(self, name))}


class Signing(Struct, frozen=True):
    """How a request is signed."""

    scheme: Scheme
    secret: str


class Endpoint(Struct, frozen=True, kw_only=True):
    """Where postbacks go and in which form."""

    url: str
    method: Method = "GET"
    names: Mapping[str, str] = field(default_factory=lambda: NAMES)
    headers: Sequence[tuple[str, str]] = ()
    signing: Signing | None = None

    @property
    def shown(self) -> str:
        """The URL without what may be secret in it."""
        return show_url(self.url)


def mark_as_test(postback: Postback) -> Postback:
    """The same as a test: its click id is a test word, which ours log and nobody counts."""
    return msgspec.structs.replace(
        postback, click_id=TEST_CLICK_ID, transaction_id=postback.transaction_id or f"test-{token_hex(4)}"
    )


def show_url(url: str) -> str:
    """Scheme, host and path of a URL; what looks like a key, and every value of the query, is an ellipsis."""
    head, question, query = url.partition("?")
    origin = re.match(r"([a-zA-Z]+://)([^/]*)", head)
    host = origin[1] + origin[2].rpartition("@")[2] if origin else ""
    path = "/".join(
        "…" if len(part) >= 16 else part for part in head[origin.end() if origin else 0 :].split("/")
    )
    names = "&".join(f"{pair.partition('=')[0][:40]}=…" for pair in query.split("&") if pair)
    return f"{host}{path}{question}{names}"


def has_macros(url: str) -> bool:
    """Whether the URL says where values go."""
    return _MACRO.search(url) is not None


def fields_of(endpoint: Endpoint) -> frozenset[str]:
    """The fields that it has a place for."""
    if endpoint.method == "POST" or not has_macros(endpoint.url):
        return frozenset(FIELDS)
    return frozenset("transaction_id" if name == "txid" else name for name in _MACRO.findall(endpoint.url))


def write_postback(endpoint: Endpoint, postback: Postback, now_ms: int) -> Outgoing:
    """The request for a postback.  Raises ``OddPostback``."""
    url, left = _fill(endpoint.url, postback.fields())
    named = {endpoint.names[name]: text for name, text in left.items()} | dict(postback.extra)
    body = b""
    headers = [_AGENT, *endpoint.headers]
    if endpoint.method == "POST":
        headers.append(("Content-Type", "application/json"))
        body = json.dumps(named, ensure_ascii=False, separators=(",", ":")).encode()
    else:
        if has_macros(endpoint.url) and left:
            name = next(iter(left))
            raise OddPostback(f"the URL has no place for the {name}; write {{{name}}} where it goes")
        url = _append(url, urlencode(named, quote_via=quote, safe=""))
    if endpoint.signing is not None:
        url, more = sign_request(endpoint.signing, endpoint.method, url, body, now_ms)
        headers += more
    return Outgoing(endpoint.method, url, tuple(headers), body)


def _fill(url: str, fields: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The URL with its macros filled, and the fields that it has no place for."""
    used = set()

    def value_of(found: re.Match[str]) -> str:
        name = "transaction_id" if found[1] == "txid" else found[1]
        used.add(name)
        return quote(fields.get(name, ""), safe="")

    head, question, query = url.partition("?")
    head = _MACRO.sub(value_of, head)
    pairs = []
    for pair in query.split("&"):
        filled = _MACRO.sub(value_of, pair)
        if filled == pair or not filled.endswith("="):  # a macro without a value takes its parameter along
            pairs.append(filled)
    filled_url = head + (question + "&".join(pairs) if any(pairs) else "")
    return filled_url, {name: text for name, text in fields.items() if name not in used}


def _append(url: str, query: str) -> str:
    if not query:
        return url
    return f"{url}{'&' if '?' in url else '?'}{query}"


def sign_request(
    signing: Signing, method: str, url: str, body: bytes, now_ms: int, *, as_parameters: bool = False
) -> tuple[str, list[tuple[str, str]]]:
    """The URL and the headers with the signature in them.  Raises ``OddPostback``.

    ``as_parameters``: our own signature goes into the URL too, for senders that can set no header.
    """
    scheme = signing.scheme
    parts = urlsplit(url)
    time_text = str(now_ms // 1000) if scheme.kind == "request" else ""
    signature = sign(scheme, Signed(method, parts.path, parts.query, body), signing.secret, time_text)
    if signature is None:
        raise OddPostback(f"the signature covers {scheme.template}; give each with --param")
    if scheme.kind == "request" and not as_parameters:
        return url, [(HEADER, f"t={time_text},v1={signature}")]
    if scheme.header:
        return url, [(scheme.header, signature)]
    more = {"sig_time": time_text} if time_text else {}
    return _append(url, urlencode({**more, scheme.parameter: signature})), []
