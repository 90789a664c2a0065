"""The signature that postbackd verifies: HMAC-SHA256 over method, path, parameters, body and time.

Six lines are signed: a mark, the method, the path, the parameters (decoded, encoded again with capitals by RFC 3986,
sorted by name and value), the SHA-256 of the body in hex, and the time in seconds.  Cases that every implementation has
to pass are in ``spec/vectors/signatures.json``.
"""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import quote, unquote_to_bytes

HEADER = "X-Postback-Signature"
_MARK = "postbackd-v1"
_LEFT_OUT = ("sig", "sig_time")
"""The signature and its time, where a sender puts them among the parameters."""
_UNRESERVED = "-._~"


def write_canonical(method: str, path: str, query: str, body: bytes, time_text: str) -> bytes:
    """What is signed.  ``path`` and ``query`` as they are sent, percent-encoding included."""
    pairs = sorted(
        (_encode_again(name), _encode_again(value))
        for name, _, value in (pair.partition("=") for pair in query.split("&") if pair)
        if _decode(name).decode("utf-8", "replace") not in _LEFT_OUT
    )
    parameters = "&".join(f"{name}={value}" for name, value in pairs)
    lines = (_MARK, method, path, parameters, hashlib.sha256(body).hexdigest(), time_text)
    return "\n".join(lines).encode("utf-8")


def _decode(text: str) -> bytes:
    return unquote_to_bytes(text.replace("+", " "))


def _encode_again(text: str) -> str:
    return quote(_decode(text), safe=_UNRESERVED)


def write_signature(secret: str, method: str, path: str, query: str, body: bytes, now_s: int) -> str:
    """The value of the header ``X-Postback-Signature``; ``secret`` is the text that ``postbackd`` has shown once."""
    message = write_canonical(method, path, query, body, str(now_s))
    return f"t={now_s},v1={hmac.new(secret.encode('utf-8'), message, hashlib.sha256).hexdigest()}"
