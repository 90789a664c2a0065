"""When a delivery is tried again.

Each attempt waits for the pause before it, and up to a fifth longer: what failed together does not come back
together.  Never shorter, and no "full jitter" (anything from 0 to the pause): half of the deliveries would then be
given up after half of the promised time, and a target that asked for a pause would not get it.
"""

from __future__ import annotations

from collections.abc import Sequence

SCHEDULE_S: tuple[int, ...] = (0, 5, 30, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Pauses before the first and every further attempt: 0 s, 5 s, 30 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h.

Together 75.6 hours: a target that is down over a weekend loses nothing.
"""

JITTER = 0.2
"""The longest addition to a pause, as a part of it."""


def next_attempt(
    attempts_made: int,
    now_ms: int,
    jitter: float,
    schedule_s: Sequence[int] = (),
    retry_after_ms: int = 0,
) -> int | None:
    """When to make the next attempt; ``None`` when the schedule has no more.

    ``attempts_made``: how many there were, the one that failed now included; 0 gives the time of the first.
    ``jitter``: random, from 0 up to but not including 1.  ``schedule_s``: pauses in seconds, empty for the usual ones.
    ``retry_after_ms``: what the target asked for; the result is never earlier than that.
    """
    pauses = schedule_s or SCHEDULE_S
    if attempts_made >= len(pauses):
        return None
    pause_ms = max(pauses[attempts_made] * 1000, retry_after_ms)
    return now_ms + pause_ms + int(pause_ms * JITTER * jitter)
