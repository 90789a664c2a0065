"""Passwords: hashed slowly, a few at a time, and as slowly where there is nothing to compare with."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
from concurrent.futures import ThreadPoolExecutor

from postbackd.admin.problems import Problem

LOG_N, R, P = 15, 8, 3
"""scrypt with 32 MB and about 0.2 s of one core: one of the settings that OWASP's Password Storage Cheat Sheet
calls equivalent.

Not Argon2id, which the same page names first: it is in ``hashlib`` of no Python that we support, and in
``cryptography`` only where that was built with OpenSSL 3.2 or newer.  The settings are stored with each hash, so that
they can be raised.
"""

_SALT_BYTES, _HASH_BYTES = 16, 32

AT_ONCE = 2
"""Hashes that are computed at the same time: 64 MB, and the cores of a small machine."""

WAITING = 16
"""More that may wait: what comes then is told to come again."""


def hash_password(password: str) -> str:
    """What is stored; takes long."""
    salt = os.urandom(_SALT_BYTES)
    return _write(salt, _scrypt(password, salt, LOG_N, R, P))


def _write(salt: bytes, digest: bytes) -> str:
    texts = (base64.b64encode(part).decode("ascii") for part in (salt, digest))
    return f"scrypt${LOG_N}${R}${P}${'$'.join(texts)}"


def _scrypt(password: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    n = 1 << log_n
    room = 128 * r * (n + p + 2)
    return hashlib.scrypt(
        password.encode("utf-8", "surrogatepass"), salt=salt, n=n, r=r, p=p, maxmem=room, dklen=_HASH_BYTES
    )


def matches(password: str, stored: str) -> bool:
    """Whether this is the password; takes long."""
    _, log_n, r, p, salt, digest = stored.split("$")
    found = _scrypt(password, base64.b64decode(salt), int(log_n), int(r), int(p))
    return hmac.compare_digest(found, base64.b64decode(digest))


def is_old(stored: str) -> bool:
    """Whether it was hashed with other settings than today's."""
    return not stored.startswith(f"scrypt${LOG_N}${R}${P}$")


NOBODYS = _write(bytes(_SALT_BYTES), bytes(_HASH_BYTES))
"""What is compared with where there is no user: takes as long, and matches nothing."""


class Passwords:
    """Hashes in threads, ``AT_ONCE``; raises ``Problem`` when too many wait."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, "passwords")
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """See ``hash_password``."""
        self._enter()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, hash_password, password)
        finally:
            self._waiting -= 1

    async def match(self, password: str, stored: str) -> bool:
        """See ``matches``."""
        self._enter()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, matches, password, stored)
        finally:
            self._waiting -= 1

    def _enter(self) -> None:
        if self._waiting >= AT_ONCE + WAITING:
            raise Problem(
                503, "too many people are signing in at this moment; try again", headers={"Retry-After": "2"}
            )
        self._waiting += 1
