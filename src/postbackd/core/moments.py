"""How a moment is written, wherever a person or another program reads it."""

from __future__ import annotations

from datetime import UTC, datetime


def write_moment(ms: int) -> str:
    """ISO 8601 in UTC to the millisecond, ``2026-11-23T12:00:00.000Z``."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
