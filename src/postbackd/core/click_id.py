"""Click ids: 128 bits, time-ordered, self-verifying, written as 26 characters of Crockford base32.

    milliseconds since 2020-01-01 (42) | node (10) | sequence (12) | campaign (24) | keyed check (40)

The first 64 bits are the *stamp*: unique in a deployment, stored as the integer key of clicks, requests and
conversions.  Stamp and campaign are what the check signs (BLAKE2b with a secret key, 40 bits kept).  Which
key signs follows from the time in the stamp, so that verifying costs one keyed hash however often
the keys were rotated, and the full id can be written again from stamp and campaign alone.

Reading folds case, takes ``I L`` as ``1`` and ``O`` as ``0`` and skips dashes, because networks change case and
some insert or strip dashes.  ``spec/vectors/click_id.json`` holds cases for other implementations.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from hmac import compare_digest

from postbackd.core.model import SigningKey

EPOCH_MS = 1_577_836_800_000
"""2020-01-01T00:00:00Z in milliseconds since 1970."""

MAX_STAMP = (1 << 63) - 1
"""Stamps stay below 2**63 (until the year 2089), so that they fit a signed 64-bit column."""

MAX_NODE = (1 << 10) - 1
MAX_CAMPAIGN = (1 << 24) - 1
TEXT_LENGTH = 26
STAMP_TEXT_LENGTH = 13

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PYTHON_DIGITS = "0123456789abcdefghijklmnopqrstuv"


def _reading_table() -> bytes:
    """Byte -> digit that ``int(text, 32)`` reads; every byte that is no digit of ours becomes ``~``."""
    table = bytearray(b"~" * 256)
    for ours, theirs in zip(_ALPHABET, _PYTHON_DIGITS, strict=True):
        table[ord(ours)] = table[ord(ours.upper())] = ord(theirs)
    for look_alikes, digit in (("iIlL", "1"), ("oO", "0")):
        for character in look_alikes:
            table[ord(character)] = ord(digit)
    return bytes(table)


_READING = _reading_table()
_PAIRS = tuple(a + b for a in _ALPHABET for b in _ALPHABET)


_TRIPLES = tuple(pair + c for pair in _PAIRS for c in _ALPHABET)


def _write_base32(number: int, length: int) -> str:
    triples = []
    for _ in range((length + 2) // 3):
        triples.append(_TRIPLES[number & 0x7FFF])
        number >>= 15
    triples.reverse()
    return "".join(triples)[-length:]


def write_stamp(stamp: int) -> str:
    """A stamp as 13 characters: the form of request ids and conversion ids."""
    return _write_stamp_start(stamp >> 15) + _TRIPLES[stamp & 0x7FFF]


@lru_cache(maxsize=64)
def _write_stamp_start(high: int) -> str:
    """The first ten characters, which the stamps of several milliseconds share."""
    return _write_base32(high, STAMP_TEXT_LENGTH - 3)


def read_stamp(text: str) -> int | None:
    """The stamp that 13 characters say, or ``None`` when they are no stamp."""
    number = _read_base32(text, STAMP_TEXT_LENGTH)
    return number if number is not None and number <= MAX_STAMP else None


def _read_base32(text: str, length: int) -> int | None:
    if len(text) != length:
        text = text.replace("-", "")
        if len(text) != length:
            return None
    try:
        return int(text.encode("ascii").translate(_READING), 32)
    except ValueError:  # not ASCII, or a character that is no digit
        return None


def read_unverified(text: str) -> int | None:
    """The 128-bit number that the text spells, its check not looked at; ``None`` when it has not the shape."""
    number = _read_base32(text, TEXT_LENGTH)
    return number if number is not None and number >> 128 == 0 else None


def stamp_ms(stamp: int) -> int:
    """When the stamp was made, in milliseconds since 1970."""
    return (stamp >> 22) + EPOCH_MS


def first_stamp_at(ms: int) -> int:
    """The smallest stamp that can have been made at or after ``ms`` (milliseconds since 1970)."""
    return max(0, ms - EPOCH_MS) << 22


class KeyRing:
    """The signing keys of a deployment: writes click ids and tells ours from all others."""

    __slots__ = ("_active_from", "_newest", "_newest_from", "_signers")

    def __init__(self, keys: Iterable[SigningKey]) -> None:
        """``keys`` in any order; at least one, and one of them active from the beginning of time."""
        ordered = sorted(keys, key=lambda key: (key.active_from_ms, key.id))
        if not ordered:
            raise ValueError("a key ring needs at least one signing key")
        self._active_from = [key.active_from_ms for key in ordered]
        self._signers = [None if key.retired else blake2b(key=key.secret, digest_size=5) for key in ordered]
        self._newest_from = (self._active_from[-1] - EPOCH_MS) << 46
        """The first 88 bits of an id from which on the newest key signs."""
        self._newest = self._signers[-1]

    def _check(self, head: int) -> bytes | None:
        """The 5 check bytes over the first 88 bits; ``None`` when the key of that time is retired."""
        if head >= self._newest_from:
            signer = self._newest
        else:
            signer = self._signers[max(0, bisect_right(self._active_from, (head >> 46) + EPOCH_MS) - 1)]
        if signer is None:
            return None
        hasher = signer.copy()
        hasher.update(head.to_bytes(11, "big"))
        return hasher.digest()

    def write(self, stamp: int, campaign: int) -> str:
        """The click id of a stamp and a campaign, 26 characters."""
        head = stamp << 24 | campaign
        check = self._check(head)
        if check is None:
            check = bytes(5)
        return _write_base32(head << 40 | int.from_bytes(check, "big"), TEXT_LENGTH)

    def is_retired(self, stamp: int) -> bool:
        """Whether the key that signed ids of this time verifies nothing any more."""
        return self._check(stamp << 24) is None

    def verify(self, text: str) -> tuple[int, int] | None:
        """``(stamp, campaign)`` when this deployment issued the id, else ``None``.  Touches no database."""
        number = _read_base32(text, TEXT_LENGTH)
        if number is None or number >> 128:
            return None
        head = number >> 40
        check = self._check(head)
        if check is None or not compare_digest(check, (number & 0xFF_FFFF_FFFF).to_bytes(5, "big")):
            return None
        return head >> 24, head & MAX_CAMPAIGN


class MintStopped(Exception):
    """The lease of the node number has ended: the next stamp could be another process's too."""


_RESERVE = 60_000 << 12
"""Stamps kept back, a minute of them: a request that was let in gets all it needs."""


class StampMint:
    """Makes stamps: never the same twice, never going back, whatever the clock does.

    4,096 stamps fit a millisecond; a burst beyond that borrows from the next one.
    """

    __slots__ = ("_last", "_node", "_until")

    def __init__(self, node: int, last: int = 0) -> None:
        """``last``: the largest stamp already stored, so that a clock set back cannot repeat one."""
        if not 0 <= node <= MAX_NODE:
            raise ValueError(f"node must be 0..{MAX_NODE}, not {node}")
        self._node = node << 12
        self._last = self._key_of(last)
        self._until = self._key_of(MAX_STAMP)

    @staticmethod
    def _key_of(stamp: int) -> int:
        """Milliseconds and sequence of a stamp, without its node."""
        return stamp >> 22 << 12 | stamp & 0xFFF

    def lease(self, node: int, from_ms: int, until_ms: int) -> None:
        """From now on use this node number, for stamps of ``from_ms`` and later, before ``until_ms``."""
        if not 0 <= node <= MAX_NODE:
            raise ValueError(f"node must be 0..{MAX_NODE}, not {node}")
        if node << 12 != self._node:
            self._node, self._last = node << 12, -1
        self._last = max(self._last, ((from_ms - EPOCH_MS) << 12) - 1)
        self._until = (until_ms - EPOCH_MS) << 12

    def may_mint(self, now_ms: int) -> bool:
        """Whether there are stamps left for a request of ``now_ms``, however many it needs."""
        return max((now_ms - EPOCH_MS) << 12, self._last) < self._until - _RESERVE

    @property
    def next_ms(self) -> int:
        """No stamp of this time or later has been minted."""
        return (self._last >> 12) + 1 + EPOCH_MS

    def mint(self, now_ms: int) -> int:
        """A new stamp for ``now_ms`` (milliseconds since 1970).  Raises ``MintStopped``, see ``may_mint``."""
        key = (now_ms - EPOCH_MS) << 12
        if key <= self._last:
            key = self._last + 1
        if key >= self._until:
            raise MintStopped
        self._last = key
        return key >> 12 << 22 | self._node | key & 0xFFF
