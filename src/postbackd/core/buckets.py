"""Buckets: by which number rows are spread over the shards of a distributed database.

Everything that is stored of one click has the click's bucket, so that one postback is the business of one shard.  The
bucket is part of every unique key there, so it must follow from the key alone, for ever: never change these functions.
"""

from __future__ import annotations

from zlib import crc32

BUCKETS = 1024


def bucket_of_stamp(stamp: int) -> int:
    """The bucket of a click, or of a request that speaks of none: 0 to 1023.

    Its milliseconds and its sequence count up, so their sum goes evenly round the buckets.  In SQL:
    ``((stamp >> 22) + stamp) & 1023``.
    """
    return ((stamp >> 22) + stamp) & (BUCKETS - 1)


def bucket_of_text(text: str) -> int:
    """The bucket of a caller's own id.  Raises ``UnicodeEncodeError`` for what is no text."""
    return crc32(text.encode()) & (BUCKETS - 1)
