"""Where conversions go, and the request that carries one: decisions only, nothing is sent here.

A URL without placeholders is an endpoint of postbackd: a form by POST (so that nothing stands in the access logs of
proxies), or many conversions as one JSON array.  A URL with placeholders is a template for any tracker:

    https://track.example/postback?cid={click_id}&payout={value}&txid={transaction_id}&sub1={sub1}

Placeholders are the fields of a conversion and the names of its extra parameters.  Values are percent-encoded, the
template is not.  A query parameter for which there is no value is left out, and so is the type ``conversion``, which
says no more than that there is one.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Dict, List, NamedTuple, Sequence, Union
from urllib.parse import quote, urlencode, urlsplit

from postbackd_client.answers import POSTBACKD, SILENT, Meaning
from postbackd_client.payload import DEFAULT_TYPE, FIELDS, Conversion

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_LIKE = "https://track.example.com/p/KEY"
_FORM = "application/x-www-form-urlencoded"
_JSON = "application/json"
_SHORT_NAMES = {"transaction_id": "txid"}
"""A shorter name that postbackd accepts as well: every byte is one of a payload that is kept small."""


class EndpointError(ValueError):
    """A URL to which nothing could be sent; says what to write instead."""


class Tracker(NamedTuple):
    """A URL or template, and how the tracker behind it says that it took nothing."""

    url: str
    meaning: Meaning = SILENT


class Request(NamedTuple):
    """One request, but for its headers."""

    method: str
    path: str
    query: str = ""
    body: bytes = b""
    content_type: str = ""

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path


@dataclass(frozen=True)
class Endpoint:
    """A tracker's address, read and checked once.  Its text is a secret: whoever has it can report conversions."""

    secure: bool
    host: str
    port: int
    path: str = field(repr=False)
    query: str = field(repr=False)
    is_template: bool
    meaning: Meaning = field(repr=False)

    @property
    def place(self) -> str:
        """What of it may stand in a log."""
        return self.host if self.port in (80, 443) else f"{self.host}:{self.port}"

    @property
    def fingerprint(self) -> str:
        """Tells it from others, and tells nothing of the URL: what waits for one tracker is not sent to another."""
        whole = f"{self.secure} {self.host} {self.port} {self.path}?{self.query}"
        return hashlib.sha256(whole.encode("utf-8")).hexdigest()[:10]

    @property
    def takes_batches(self) -> bool:
        return not self.is_template

    def request(self, conversion: Conversion) -> Request:
        """The request that reports one conversion."""
        texts = conversion.texts()
        if texts.get("type") == DEFAULT_TYPE:
            del texts["type"]
        if self.is_template:
            return Request("GET", _fill(self.path, texts), _fill_query(self.query, texts))
        body = urlencode({_SHORT_NAMES.get(name, name): text for name, text in texts.items()})
        return Request("POST", self.path, self.query, body.encode("ascii"), _FORM)

    def batch(self, texts: Sequence[str]) -> Request:
        """The request that reports many, each as ``payload.encode`` has written it."""
        return Request(
            "POST", self.path, self.query, f"[{','.join(texts)}]".encode("utf-8", "surrogateescape"), _JSON
        )


def read_endpoint(tracker: Union[str, Tracker], *, allow_http: bool = False) -> Endpoint:
    """Read a URL or template.  Raises ``EndpointError``.

    Plain http is refused beyond this machine: the URL is a password, and so is the answer's word that all is stored.
    ``allow_http`` is for a network of one's own, where something else encrypts.
    """
    url, meaning = (tracker, SILENT) if isinstance(tracker, str) else tracker
    start, _, _ = url.partition("{")
    if any(c.isspace() or not c.isprintable() for c in url):
        raise EndpointError("the URL has white space or control characters in it")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise EndpointError(f"the URL must be like {_LIKE} ({error})") from error
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise EndpointError(f"the URL must be like {_LIKE}, or a template of such")
    if len(start) < len(f"{parts.scheme}://{parts.netloc}"):
        raise EndpointError(
            "a placeholder cannot stand in the host: every conversion goes to the same tracker"
        )
    if parts.username is not None or parts.fragment or "#" in url:
        raise EndpointError("the URL must have no user name and no fragment (#)")
    secure = parts.scheme == "https"
    if not secure and not allow_http and not _is_this_machine(parts.hostname):
        raise EndpointError("use https: the URL is a password (allow_http=True for a network of your own)")
    is_template = "{" in url or "}" in url
    if is_template:
        _check_template(parts.path + "?" + parts.query)
    return Endpoint(
        secure=secure,
        host=_write_host(parts.hostname),
        port=port if port is not None else 443 if secure else 80,
        path=_ascii(parts.path) or "/",
        query=_ascii(parts.query),
        is_template=is_template,
        meaning=meaning if is_template else POSTBACKD,
    )


def _write_host(host: str) -> str:
    try:
        return host.encode("idna").decode("ascii") if not host.isascii() else host
    except UnicodeError as error:
        raise EndpointError(f"{host} is no name of a host") from error


def _ascii(text: str) -> str:
    """Letters beyond ASCII percent-encoded, everything else as it stands."""
    return text if text.isascii() else "".join(c if c.isascii() else quote(c) for c in text)


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _check_template(text: str) -> None:
    names = _PLACEHOLDER.findall(text)
    rest = _PLACEHOLDER.sub("", text)
    if "{" in rest or "}" in rest:
        raise EndpointError(
            "a placeholder is a name in braces, such as {click_id}; there is something else in braces"
        )
    if "click_id" not in names:
        found = ", ".join(f"{{{name}}}" for name in names)
        known = ", ".join(f"{{{name}}}" for name in FIELDS)
        raise EndpointError(f"the template has no {{click_id}} (it has {found}); fields are {known}")


def _fill(template: str, texts: Dict[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: quote(texts.get(found[1], ""), safe=""), template)


def _fill_query(template: str, texts: Dict[str, str]) -> str:
    kept: List[str] = []
    for pair in template.split("&"):
        names = _PLACEHOLDER.findall(pair)
        if not names or any(texts.get(name) for name in names):
            kept.append(_fill(pair, texts))
    return "&".join(kept)
