"""Checksums of rows that are money: what a conversion says, and each change of it.

A database finds a page that was torn, not a bit that flipped in the middle of a number.  So each of these rows carries
a checksum over what it says, and ``postbackd verify`` computes it again.

CRC-32 over the MessagePack form of the columns: of accidents it misses one in four thousand million, and takes a
quarter of a microsecond and four bytes a row.  It is no protection against somebody who means it: whoever can write
the row can write this too.

Whoever changes such a row by other ways than ``store.write`` takes the new checksum from ``carry``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import msgspec

CONVERSION_COLUMNS = (
    "click_id",
    "type",
    "transaction_id",
    "conversion_id",
    "network",
    "campaign",
    "offer",
    "status",
    "value_micros",
    "currency",
    "channels",
    "status_time_ms",
)
"""What the checksum of a conversion covers, in this order: everything that it says."""

CHANGE_COLUMNS = (
    "request_id",
    "conversion_id",
    "status_from",
    "status_to",
    "status_word",
    "value_micros_from",
    "value_micros_to",
)
"""The same of a change of a conversion."""

_encode = msgspec.msgpack.Encoder().encode

_SIGN, _RANGE = 1 << 31, 1 << 32


def checksum(columns: Sequence[Any]) -> int:
    """The checksum of a row with these columns, as a signed number of 32 bits.

    Pass them in the order of ``CONVERSION_COLUMNS`` or ``CHANGE_COLUMNS``.
    """
    value = crc32(_encode(columns))
    return value - _RANGE if value & _SIGN else value


def carry(stored: int | None, before: Sequence[Any], after: Sequence[Any]) -> int | None:
    """The checksum of a row that changes from ``before`` to ``after``; ``stored``: what it carried until now.

    Of a sound row it is ``checksum(after)``.  A row that was damaged before stays recognisable: the change does not
    hide it.  A row that was never sealed (``None``) stays so.
    """
    if stored is None:
        return None
    value = (stored ^ checksum(before) ^ checksum(after)) & (_RANGE - 1)
    return value - _RANGE if value & _SIGN else value
