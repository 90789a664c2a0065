"""One-time codes that a telephone makes: TOTP (RFC 6238) with SHA-1, six digits and steps of 30 s.

These are the parameters that every authenticator understands; many ignore others.  SHA-1 is sound within HMAC.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable
from urllib.parse import quote

STEP_S = 30
DIGITS = 6
SEED_BYTES = 20
"""As long as the hash (RFC 4226, section 4, R6)."""

WINDOW = 1
"""Steps that a clock may be wrong by, either way (RFC 6238, section 5.2)."""


def write_seed(seed: bytes) -> str:
    """A seed as people type it: base32."""
    return base64.b32encode(seed).decode("ascii").rstrip("=")


def code_at(seed: str, step: int, digits: int = DIGITS) -> str:
    """The code of one step (RFC 4226, section 5.3)."""
    key = base64.b32decode(seed + "=" * (-len(seed) % 8))
    digest = hmac.digest(key, step.to_bytes(8, "big"), "sha1")
    offset = digest[-1] & 15
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFF_FFFF
    return str(number % 10**digits).zfill(digits)


def find_step(seed: str, code: str, now_ms: int, after: int) -> int | None:
    """The step whose code this is, later than ``after``: a code is taken once, and no older one behind it."""
    now = now_ms // 1000 // STEP_S
    found = None
    for step in range(now - WINDOW, now + WINDOW + 1):
        if (
            hmac.compare_digest(code_at(seed, step).encode(), code.encode("utf-8", "replace"))
            and step > after
        ):
            found = step
    return found


def write_uri(seed: str, name: str, issuer: str) -> str:
    """What authenticators read from a QR code."""
    label = quote(f"{issuer}:{name}", safe=":")
    return f"otpauth://totp/{label}?secret={seed}&issuer={quote(issuer)}&algorithm=SHA1&digits={DIGITS}&period={STEP_S}"


def clean_code(text: str) -> str:
    """A code as it was typed, without the spaces in it; recovery codes in capitals."""
    return "".join(text.split()).replace("-", "").upper()


def write_recovery(values: Iterable[bytes]) -> list[str]:
    """Codes for somebody who has lost the telephone, of ten random bytes each: 80 bits."""
    texts = (base64.b32encode(value).decode("ascii") for value in values)
    return [f"{text[:4]}-{text[4:8]}-{text[8:12]}-{text[12:]}" for text in texts]
