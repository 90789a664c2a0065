"""An ``Outgoing`` as the bytes of an HTTP/1.1 request, and where they go.

The text was checked when it was made; it is checked again here, because what goes wrong here lets a macro's value
choose the host, or smuggle a second request.  Refused is whatever two programs could read differently: user and
password, backslashes, control characters and spaces, a fragment, IPv4 addresses in octal, hexadecimal or short form.
Names are kept as names: they are looked up by ``delivery.resolver``, and judged by their addresses.

No message holds more of a URL than its host: the rest may contain secrets.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from msgspec import Struct

from postbackd import __version__
from postbackd.core.deliveries import Outgoing

MAX_URL = 16 * 1024

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^/?#]*)([/?][!-\"$-~]*)?")
_HEAD = re.compile(r"[^/?#]*//[^/?#]*")
_ORIGIN = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?", re.IGNORECASE)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_LOOKS_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""As the last label of a host: resolvers read such a host as an IPv4 address (WHATWG URL, "ends in a number")."""

_METHOD = re.compile(r"[A-Z]{1,16}")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\t -~]*")
_OURS = frozenset(
    (
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
"""Headers that say how the message itself is written."""

_WITH_BODY = ("POST", "PUT", "PATCH")
_AGENT = f"User-Agent: postbackd/{__version__}\r\n"


class OddRequest(Exception):
    """The request cannot be sent as it stands; the message says what to change."""


class Place(Struct, frozen=True, gc=False):
    """Where a request goes; connections are kept by this."""

    tls: bool
    host: str
    """A name in lower case without a dot at its end, or an address without brackets."""
    port: int
    literal: bool
    """Whether the host is an address: nothing has to be looked up."""
    header: str
    """The value of ``Host``."""

    @property
    def origin(self) -> str:
        """With what a URL to it begins."""
        return f"{'https' if self.tls else 'http'}://{self.header}"


def write_request(request: Outgoing, encoding: str = "identity") -> tuple[Place, bytes]:
    """Where the request goes and its bytes.  Raises ``OddRequest``.

    ``encoding``: in which the answer may come.
    """
    match = _URL.fullmatch(request.url) if len(request.url) <= MAX_URL else None
    if match is None:
        raise OddRequest(_what_is_odd(request.url))
    origin, target = match.groups()
    place = read_origin(origin)
    if target is None:
        target = "/"
    elif target[0] == "?":
        target = "/" + target
    if not _METHOD.fullmatch(request.method):
        raise OddRequest(f"{request.method[:20]!r} is no method; use GET or POST")
    lines = [f"{request.method} {target} HTTP/1.1\r\nHost: {place.header}\r\n"]
    named = False
    for name, value in request.headers:
        lower = name.lower()
        _check_header(name, lower, value)
        named = named or lower == "user-agent"
        lines.append(f"{name}: {value}\r\n")
    if not named:
        lines.append(_AGENT)
    if request.body or request.method in _WITH_BODY:
        lines.append(f"Content-Length: {len(request.body)}\r\n")
    lines.append(f"Accept: */*\r\nAccept-Encoding: {encoding}\r\n\r\n")
    return place, "".join(lines).encode("ascii") + request.body


def _check_header(name: str, lower: str, value: str) -> None:
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise OddRequest(f"the header {name[:40]!r} has a character that no header may have")
    if lower in _OURS:
        raise OddRequest(f"the header {name} is written by postbackd itself; take it out of the target")


def _what_is_odd(url: str) -> str:
    if len(url) > MAX_URL:
        return f"the URL is longer than {MAX_URL // 1024} kB"
    if any(not "!" <= character <= "~" for character in url):
        return "the URL has a space, a control character or one beyond ASCII; percent-encode it"
    if "#" in url:
        return "the URL has a fragment (#...), which is never sent; write %23"
    return "the URL is not of the form https://host/path"


@lru_cache(maxsize=4096)
def read_origin(origin: str) -> Place:
    """Scheme, host and port, such as ``https://shop.example:8443``.  Raises ``OddRequest``."""
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        raise OddRequest(_what_is_odd_about(origin))
    tls = match[1].lower() == "https"
    usual = 443 if tls else 80
    port = int(match[3] or usual)
    if not 0 < port < 65536:
        raise OddRequest(f"{port} is no port")
    host, literal = _read_host(match[2].lower())
    written = f"[{host}]" if ":" in host else host
    return Place(tls, host, port, literal, written if port == usual else f"{written}:{port}")


def read_place(url: str) -> Place:
    """Where a URL goes, whatever stands behind its host (macros, say).  Raises ``OddRequest``."""
    origin = _HEAD.match(url)
    return read_origin(origin[0] if origin else url)


def _what_is_odd_about(origin: str) -> str:
    scheme, colon, authority = origin.partition("://")
    if not colon:
        return "the URL does not begin with https:// or http://"
    if scheme.lower() not in ("http", "https"):
        return f"the URL begins with {scheme[:20]}://; use https:// or http://"
    if "@" in authority:
        return "the URL has a user or password before its host; send them in a header"
    if not authority:
        return "the URL has no host"
    return "the host of the URL has a character that no host may have; write names beyond ASCII as xn--..."


def _read_host(text: str) -> tuple[str, bool]:
    """The host, and whether it is an address."""
    if text[0] == "[":
        try:
            return str(IPv6Address(text[1:-1])), True
        except AddressValueError:
            raise OddRequest(f"{text} is no IPv6 address") from None
    host = text.removesuffix(".")
    labels = host.split(".")
    if _LOOKS_NUMERIC.fullmatch(labels[-1]):
        try:
            return str(IPv4Address(host)), True
        except AddressValueError:
            raise OddRequest(f"{host} is no IPv4 address; write four decimal numbers") from None
    if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise OddRequest(f"{host[:80]!r} is no host name")
    return host, False
