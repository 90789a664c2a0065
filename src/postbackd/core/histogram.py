"""Buckets for response times: log-spaced, eight a doubling, from 16 microseconds to just over 67 seconds.

A bucket is a small integer, so that a minute of response times is a few dozen rows, and a percentile read from
the buckets is at most one eighth too high and never too low.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import TypeVar

Bucket = TypeVar("Bucket", int, str)

_LINEAR_BITS = 3
"""2**3 equal steps a doubling: an upper edge is at most 1/8 above any time in its bucket."""

_FIRST_BITS = 5
"""``bit_length`` of 16, the first edge: shorter times than 16 microseconds share bucket 0."""

LAST_BUCKET = 1 + 22 * 8 - 1
"""Ends at 2**26 microseconds, 67 s: longer than any limit of the front door lets a request take."""


def bucket_of(us: int) -> int:
    """The bucket of a time in microseconds.  Negative times (a clock set back) fall into bucket 0."""
    if us < 16:
        return 0
    doubling = us.bit_length() - _FIRST_BITS
    bucket = 1 + (doubling << _LINEAR_BITS) + ((us >> (doubling + 1)) & 7)
    return bucket if bucket < LAST_BUCKET else LAST_BUCKET  # noqa: FURB136  a call would cost the hot path


def upper_us(bucket: int) -> int:
    """The edge in microseconds that every time in the bucket stays below (``LAST_BUCKET`` also holds all longer)."""
    if bucket <= 0:
        return 16
    doubling, step = divmod(bucket - 1, 8)
    return (step + 9) << (doubling + 1)


def holding(counts: Mapping[Bucket, int], share: float) -> Bucket | None:
    """The bucket that holds the last of the ``share`` (0..1) smallest; ``None`` without any."""
    total = sum(counts.values())
    wanted, seen = max(1, min(total, ceil(round(share * total, 6)))), 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= wanted:
            return bucket
    return None


def percentile_us(counts: Mapping[int, int], share: float) -> int | None:
    """The upper edge of the bucket that holds the ``share`` (0..1) smallest of the times; ``None`` without any."""
    bucket = holding(counts, share)
    return None if bucket is None else upper_us(bucket)
