"""Spans of time as people write them: ``90s``, ``24h``, ``7d``, a date, a date and time; all in UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from msgspec import Struct

from postbackd.core.click_id import MAX_STAMP, first_stamp_at

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
"""Letter of a duration -> seconds."""

_DURATION = re.compile(r"([0-9]{1,9})\s*([smhdw])", re.IGNORECASE)


class Period(Struct, frozen=True):
    """From ``since_ms`` (included) to ``until_ms`` (not included), milliseconds since 1970; ``None`` is unbounded."""

    since_ms: int | None = None
    until_ms: int | None = None

    def stamps(self) -> dict[str, int]:
        """The bounds as stamps, for the statements of ``store.queries``."""
        since = 0 if self.since_ms is None else first_stamp_at(self.since_ms)
        until = MAX_STAMP if self.until_ms is None else first_stamp_at(self.until_ms)
        return {"since": min(since, MAX_STAMP), "until": min(until, MAX_STAMP)}

    def minutes(self) -> dict[str, int]:
        """The bounds in whole minutes since 1970, both ends rounded down."""
        since = 0 if self.since_ms is None else self.since_ms // 60_000
        until = 1 << 53 if self.until_ms is None else -(-self.until_ms // 60_000)
        return {"since": since, "until": until}


def read_duration(text: str) -> int:
    """Seconds of ``30d``, ``24h``, ``15m``, ``0s``, ``2w``.  Raises ``ValueError`` with what to write."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no duration; write a number and s, m, h, d or w, such as 30d")
    return int(match[1]) * SECONDS[match[2].lower()]


def write_duration(seconds: int) -> str:
    """The shortest text that ``read_duration`` reads as this many seconds."""
    letter = next((unit for unit in "dhm" if seconds and seconds % SECONDS[unit] == 0), "s")
    return f"{seconds // SECONDS[letter]}{letter}"


def read_moment(text: str, now_ms: int) -> int:
    """Milliseconds since 1970 of a date, a date and time (UTC unless it names a zone), or a duration before now.

    Raises ``ValueError`` with what to write.
    """
    if _DURATION.fullmatch(text.strip()):
        return max(0, now_ms - read_duration(text) * 1000)
    try:
        moment = datetime.fromisoformat(text.strip())
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0, int(moment.timestamp() * 1000))
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is no time; write 2026-11-23, 2026-11-23T14:00 (UTC), or how long ago, such as 7d"
        ) from None
