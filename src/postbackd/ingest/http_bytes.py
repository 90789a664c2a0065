"""How the bytes of a request look before the parser reads them: which are plain, and what is made plain."""

from __future__ import annotations

import re
from collections.abc import Mapping

from postbackd.core.sender_rules import TOKEN_HEADER
from postbackd.core.signature import HEADERS
from postbackd.core.tracing import HEADER

TRACE_HEADER = HEADER.encode()

PLAIN_LINE = re.compile(rb"GET (/[A-Za-z0-9/?&=%._~:@!$'()*+,;-]{0,4000}) HTTP/1\.1\r\n")
"""A request line of characters that RFC 3986 allows and nobody reads in two ways."""

HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
"""RFC 9112 section 3.2: anything else must be refused."""

_UPGRADE = re.compile(rb"(\r\n)upgrade(:)", re.IGNORECASE)


def make_plain(data: bytes) -> bytes:
    """What the parser would not read the way we want it read, at the start of a message.

    Bytes beyond ASCII in the request line, which many senders forget to encode, are percent-encoded.  An offer to
    upgrade is renamed: some clients offer HTTP/2 on every request, and going on in HTTP/1.1 is a valid answer
    (RFC 9110 section 7.8), but the parser would stop and leave the body to be taken for the next request.
    """
    line, separator, rest = data.partition(b"\r\n")
    if not line.isascii():
        line = b"".join(bytes((byte,)) if byte < 0x80 else b"%%%02X" % byte for byte in line)
    if separator:
        head, blank, body = (separator + rest).partition(b"\r\n\r\n")
        rest = _UPGRADE.sub(rb"\1x-offer\2", head) + blank + body
    return line + rest


KEPT = frozenset(
    {
        b"authorization",
        b"dnt",
        b"forwarded",
        b"sec-gpc",
        TRACE_HEADER,
        b"user-agent",
        b"x-forwarded-for",
        TOKEN_HEADER,
        *(name.encode() for name in HEADERS),
    }
)
"""The headers whose values a request keeps: who sends it, on whose behalf, within which trace.

Only the trace is stored, and only as long as a delivery carries it."""

NO_HEADERS: Mapping[bytes, bytes] = {}


def keep_header(kept: Mapping[bytes, bytes], name: bytes, value: bytes) -> Mapping[bytes, bytes]:
    """``kept`` with one more header; a doubled one is the list that both make (RFC 9110 section 5.3)."""
    earlier = kept.get(name)
    return {**kept, name: value if earlier is None else b"%b, %b" % (earlier, value)}
