"""Signatures of postbacks: what is signed, how it is compared, and when a signed time is too old.

A scheme says what a network signs and where it puts the signature:

- ``request``: our own.  HMAC over method, path, sorted parameters, the hash of the body, and the time.
- ``fields``: a hash over some values and the secret, written next to each other (md5 of fields, most often).
- ``url``: HMAC over the whole URL as the network calls it, without the signature itself.
- ``query``: HMAC over the parameters, sorted by name and encoded as a form.

A repeat of a signed request says the same as the first one, because everything that counts is signed: the unique key
of the conversions answers it as a duplicate, for as long as the conversion is kept.  Where the scheme signs a time,
the same bytes are refused when the time has passed.  So nothing has to be remembered here, and a sender's own retry
never fails.

Secrets and signatures are compared as bytes, in a time that does not depend on where they differ.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote, quote_plus

from postbackd.core.diagnosis import Reason
from postbackd.core.params import BodyMalformed, Received, decode, decode_form, read_json_body
from postbackd.core.senders import SIGNATURE, Scheme

HEADER = "x-postback-signature"
"""``t=1750000000,v1=<hex>``: time and signature of our own scheme; a sender that rotates may give several ``v1``."""

TIME = "sig_time"
"""Beside ``sig``: the parameters of our own scheme, for senders that can set no header."""

HEADERS = (HEADER, "x-ayetstudios-security-hash", "x-signature")
"""Headers that may hold a signature; others are not kept."""

MAX_WINDOW_S = 86_400

HASHES = ("md5", "sha1", "sha256", "sha512")

_MARK = "postbackd-v1"
"""Begins the text that our own scheme signs, so that it cannot be mistaken for any other."""

_UNRESERVED = "-._~"
_PLAIN = re.compile(r"[A-Za-z0-9._~-]*")
_PLACEHOLDER = re.compile(r"\{([A-Za-z0-9_.\[\]-]{1,64})\}")
_SECRET = "secret"  # noqa: S105 - the name of a placeholder
_LONGEST_SIGNATURE = 512


class SchemeError(ValueError):
    """A scheme that cannot be followed; says what is wrong."""


class Signed:
    """What is known of a request whose signature or token is looked at."""

    __slots__ = ("_fields", "body", "content_type", "headers", "method", "path", "query")

    def __init__(
        self,
        method: str,
        path: str,
        query: str,
        body: bytes = b"",
        headers: Mapping[bytes, bytes] | None = None,
        content_type: bytes = b"",
    ) -> None:
        """``path`` and ``query`` as they were asked for, percent-encoding included; ``headers`` by lower-case name."""
        self.method = method
        self.path = path
        self.query = query
        self.body = body
        self.headers: Mapping[bytes, bytes] = headers or {}
        self.content_type = content_type
        self._fields: dict[str, str] | None = None

    @property
    def fields(self) -> Mapping[str, str]:
        """Parameter -> value, decoded: those of a form or a JSON object, then those of the query; the first of each."""
        if self._fields is None:
            pairs = (*_body_pairs(self.body), *read_pairs(self.query))
            self._fields = dict(reversed(pairs))
        return self._fields


def _body_pairs(body: bytes) -> Iterable[tuple[str, str]]:
    start = body.lstrip()[:1]
    if not start or start == b"[":
        return ()
    if start != b"{":
        return read_pairs(decode_form(body))
    try:
        content = read_json_body(body)
    except BodyMalformed:
        return ()
    return Received([], 0, "", content).pairs() if isinstance(content, dict) else ()


class Verified(NamedTuple):
    """What a look at a signature found."""

    reason: int
    """0, or why the request is not genuine: a ``Reason``."""
    signed_ms: int = 0
    """The signed time, 0 where none is signed."""
    print: str = ""
    """A short text, equal for equal requests: whoever repeats one can make it no other."""


MISSING = Verified(Reason.SIGNATURE_MISSING)
INVALID = Verified(Reason.SIGNATURE_INVALID)
OUT_OF_TIME = Verified(Reason.TIMESTAMP_OUT_OF_RANGE)


def check_scheme(scheme: Scheme) -> None:
    """Raise ``SchemeError`` for a scheme that cannot be followed."""
    if not 1 <= scheme.window_s <= MAX_WINDOW_S:
        raise SchemeError(f"the time window must be 1 s to {MAX_WINDOW_S} s")
    if scheme.header and scheme.header not in HEADERS:
        raise SchemeError(f"the header must be one of {', '.join(HEADERS)}")
    if not re.fullmatch(r"[A-Za-z0-9_.\[\]-]{1,64}", scheme.parameter):
        raise SchemeError(f"{scheme.parameter!r} cannot be the name of a parameter")
    if scheme.kind == "fields":
        names = _PLACEHOLDER.findall(scheme.template)
        if not scheme.keyed and _SECRET not in names:
            raise SchemeError("the template names no {secret}: anybody could sign")
        if not signed_names(scheme):
            raise SchemeError("the template names no parameter; write it like {sub_id}{txid}{secret}")
    elif scheme.template:
        raise SchemeError("a template belongs to md5-fields and its like only")
    elif not scheme.keyed:
        raise SchemeError("without a template the hash must be keyed (HMAC)")
    if scheme.kind == "url" and not re.fullmatch(r"https?://[^/\s?#]+", scheme.base):
        raise SchemeError("say which address the network calls, such as --signed-url https://track.example")


# --- what is signed ----------------------------------------------------------------------------------------------


def write_canonical(signed: Signed, time_text: str) -> bytes:
    """What our own scheme signs: six lines.

    Parameters are those of the query but the signature and its time, decoded, encoded again with capitals (RFC 3986),
    and sorted by name and value, so that no difference of encoding on the way matters.
    """
    pairs = sorted(
        (_encode(name), _encode(value))
        for name, value in read_pairs(signed.query)
        if name not in (SIGNATURE, TIME)
    )
    query = "&".join(f"{name}={value}" for name, value in pairs)
    body_hash = hashlib.sha256(signed.body).hexdigest()
    lines = (_MARK, signed.method, signed.path, query, body_hash, time_text)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _encode(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else quote(text, safe=_UNRESERVED)


def signed_names(scheme: Scheme) -> Sequence[str]:
    """The parameters that a scheme of kind ``fields`` signs."""
    return [name for name in _PLACEHOLDER.findall(scheme.template) if name != _SECRET]


def read_pairs(query: str) -> Iterable[tuple[str, str]]:
    """The parameters of a query or form, decoded."""
    for pair in query.split("&"):
        if pair:
            name, _, value = pair.partition("=")
            yield decode(name), decode(value)


def _message(scheme: Scheme, signed: Signed, secret: str) -> bytes | None:
    """What the other schemes sign; ``None`` when a value for it is not there."""
    if scheme.kind == "fields":
        return _fill(scheme.template, signed.fields, secret)
    kept = [pair for pair in signed.query.split("&") if pair and pair.partition("=")[0] != scheme.parameter]
    if scheme.kind == "url":
        query = f"?{'&'.join(kept)}" if kept else ""
        return f"{scheme.base}{signed.path}{query}".encode("utf-8", "surrogatepass")
    named = dict(read_pairs("&".join(kept)))  # the last of a doubled name, as PHP reads them
    pairs = (f"{quote_plus(name)}={quote_plus(named[name])}" for name in sorted(named))
    return "&".join(pairs).encode("utf-8", "surrogatepass")


def _fill(template: str, fields: Mapping[str, str], secret: str) -> bytes | None:
    parts = _PLACEHOLDER.split(template)
    for index in range(1, len(parts), 2):
        value = secret if parts[index] == _SECRET else fields.get(parts[index])
        if value is None:
            return None
        parts[index] = value
    return "".join(parts).encode("utf-8", "surrogatepass")


# --- signing and verifying ---------------------------------------------------------------------------------------


def sign(scheme: Scheme, signed: Signed, secret: str, time_text: str = "") -> str | None:
    """The signature of a request as text; ``None`` when the request lacks a value that is signed."""
    message = _write_message(scheme, signed, secret, time_text)
    return None if message is None else _digest(scheme, message, secret)


def _write_message(scheme: Scheme, signed: Signed, secret: str, time_text: str) -> bytes | None:
    if scheme.kind == "request":
        return write_canonical(signed, time_text)
    return _message(scheme, signed, secret)


def _digest(scheme: Scheme, message: bytes, secret: str) -> str:
    if scheme.keyed:
        digest = hmac.digest(secret.encode(), message, scheme.hash)
    else:
        digest = hashlib.new(scheme.hash, message, usedforsecurity=False).digest()
    return digest.hex() if scheme.encoding == "hex" else base64.b64encode(digest).decode("ascii")


def verify(scheme: Scheme, secrets: Sequence[str], signed: Signed, now_ms: int) -> Verified:
    """Whether the request was signed with one of the secrets, at a time near ``now_ms`` where a time is signed.

    Whether all that counts of it was signed is another question: ``core.one_reading``.
    """
    given, time_text = _find_signatures(scheme, signed)
    if not given:
        return MISSING
    if any(len(text) > _LONGEST_SIGNATURE for text in given):
        return INVALID
    wanted = _sign_with_all(scheme, signed, secrets, time_text)
    found = False
    for text in given:
        for right in wanted:
            found |= equal(_plain(text, scheme), right)
    if not found:
        return INVALID
    if scheme.kind != "request":
        return Verified(0, 0, _shorten(_plain(given[0], scheme).encode()))
    if not (time_text.isascii() and time_text.isdigit() and len(time_text) in (10, 13)):
        return OUT_OF_TIME
    signed_ms = int(time_text) * (1 if len(time_text) == 13 else 1000)
    if abs(now_ms - signed_ms) > scheme.window_s * 1000:
        return OUT_OF_TIME
    # Of what is signed, not of the signatures: to those, anybody can add one that is wrong, or take one away.
    return Verified(0, signed_ms, _shorten(write_canonical(signed, time_text)))


def _shorten(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _sign_with_all(scheme: Scheme, signed: Signed, secrets: Sequence[str], time_text: str) -> list[str]:
    """The signatures that would be right; the text is written once, where the secret is not part of it."""
    if scheme.keyed and f"{{{_SECRET}}}" not in scheme.template:
        message = _write_message(scheme, signed, "", time_text)
        return [] if message is None else [_digest(scheme, message, secret) for secret in secrets]
    signatures = (sign(scheme, signed, secret, time_text) for secret in secrets)
    return [signature for signature in signatures if signature is not None]


def _plain(text: str, scheme: Scheme) -> str:
    return text.lower() if scheme.encoding == "hex" else text


def _find_signatures(scheme: Scheme, signed: Signed) -> tuple[list[str], str]:
    """The signatures that the request carries, and the time that goes with them."""
    if scheme.kind == "request":
        header = signed.headers.get(HEADER.encode())
        if header is not None:
            return _read_header(header.decode("latin-1"))
    elif scheme.header:
        text = signed.headers.get(scheme.header.encode(), b"").decode("latin-1").strip()
        return ([text] if text else []), ""
    of_query = dict(reversed(list(read_pairs(signed.query)))) if scheme.kind == "request" else signed.fields
    text = of_query.get(scheme.parameter, "").strip()
    return ([text] if text else []), of_query.get(TIME, "").strip()


def _read_header(text: str) -> tuple[list[str], str]:
    """``t=…,v1=…[,v1=…]``; what else it holds is for later versions."""
    signatures, time_text = [], ""
    for part in text.split(",")[:8]:
        name, _, value = part.strip().partition("=")
        if name == "v1" and value:
            signatures.append(value.strip())
        elif name == "t":
            time_text = value.strip()
    return signatures, time_text


def equal(given: str, right: str) -> bool:
    """Whether two texts are the same, in a time that tells nothing of where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), right.encode("utf-8", "surrogatepass"))
