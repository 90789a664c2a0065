"""Reads the first message of a TLS client (RFC 8446 section 4.1.2) as far as the protocols that it offers (ALPN).

Pure and distrustful: any bytes may come.  What is read here only chooses which certificate is shown; the handshake is
OpenSSL's, which reads the same bytes again and judges them by itself.
"""

from __future__ import annotations

from msgspec import Struct

LARGEST_HELLO = 16 * 1024
"""Bytes of a first message, records and all.  Those of today have 0.3 to 2 kB."""

MOST_RECORDS = 64
"""A message may be cut into records of a byte each, which nobody does who means well."""

_RECORD, _MESSAGE = 5, 4
_HANDSHAKE, _CLIENT_HELLO, _MAJOR_VERSION = 22, 1, 3
_LONGEST_RECORD = 2**14
_BEFORE_SESSION = 34
"""Version and random."""

_ALPN = 16


class More(Struct, frozen=True):
    """The message is not whole yet."""

    wanted: int
    """So many bytes there are at least; with fewer there is no need to look again."""


class _Cut(Exception):
    """A field goes beyond its end."""


def read_protocols(seen: bytes) -> tuple[bytes, ...] | More | None:
    """The protocols that a client offers, from all that it sent so far.

    ``None``: this is not, or will never become, a first message that can be read.
    """
    try:
        body = _gather(seen)
        return body if isinstance(body, More) else _find_protocols(body)
    except _Cut:
        return None


def _gather(seen: bytes) -> bytes | More:
    """The message out of its records (RFC 8446 section 5.1)."""
    body, at = b"", 0
    for _ in range(MOST_RECORDS):
        if len(seen) < at + _RECORD:
            return _more(at + _RECORD, seen)
        length = int.from_bytes(seen[at + 3 : at + 5])
        if seen[at] != _HANDSHAKE or seen[at + 1] != _MAJOR_VERSION or not 0 < length <= _LONGEST_RECORD:
            raise _Cut
        end = at + _RECORD + length
        body += seen[at + _RECORD : end]
        if body[0:1] not in (b"", bytes((_CLIENT_HELLO,))):
            raise _Cut
        if len(body) >= _MESSAGE:
            whole = _MESSAGE + int.from_bytes(body[1:_MESSAGE])
            if whole > LARGEST_HELLO:
                raise _Cut
            if len(body) >= whole:
                return body[_MESSAGE:whole]
        if len(seen) < end:
            return _more(end, seen)
        at = end
    raise _Cut


def _more(wanted: int, seen: bytes) -> More:
    if len(seen) > LARGEST_HELLO:
        raise _Cut
    return More(wanted)


def _find_protocols(body: bytes) -> tuple[bytes, ...]:
    _, rest = _take(body, _BEFORE_SESSION)
    for width in (1, 2, 1):  # session, suites, compression
        _, rest = _take_vector(rest, width)
    if not rest:
        return ()  # a client that knows no extensions
    extensions, _ = _take_vector(rest, 2)
    found: tuple[bytes, ...] | None = None
    while extensions:
        kind, extensions = _take(extensions, 2)
        value, extensions = _take_vector(extensions, 2)
        if int.from_bytes(kind) == _ALPN:
            if found is not None:
                raise _Cut  # twice: whoever reads the other one sees something else
            found = _read_names(value)
    return found or ()


def _read_names(value: bytes) -> tuple[bytes, ...]:
    """Of RFC 7301 section 3.1."""
    names, rest = _take_vector(value, 2)
    found = []
    while names:
        name, names = _take_vector(names, 1)
        found.append(name)
    if rest or not all(found):
        raise _Cut
    return tuple(found)


def _take_vector(text: bytes, width: int) -> tuple[bytes, bytes]:
    length, rest = _take(text, width)
    return _take(rest, int.from_bytes(length))


def _take(text: bytes, length: int) -> tuple[bytes, bytes]:
    if len(text) < length:
        raise _Cut
    return text[:length], text[length:]
