"""When a host is left alone for a while, and how much it is asked at a time.  Plain logic: times are arguments.

A ``Breaker`` opens after failures in a row: no connection, no answer in time, 5xx.  A 4xx is an answer and no failure
of the host.  While it is open nothing is sent; then one request probes.  The pauses double, up to a limit that is
short enough for a repaired target to be found again, and nothing is ever switched off for good.  Every change
of state is returned, so that whoever asks can store and report it.

A ``Pace`` is the number of requests at once: halved when the host says that it is too much (429, 502, 504), grown
again by one for every round of answers that came through, as TCP does.
"""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct

THRESHOLD = 5
FIRST_PAUSE_MS = 5_000
LONGEST_PAUSE_MS = 300_000
PROBE_PATIENCE_MS = 60_000
"""A probe of which nothing is heard (its deliverer may have died) is repeated after this."""


class BreakerState(IntEnum):
    """The number is stored."""

    CLOSED = 1
    """Requests go out."""
    OPEN = 2
    """None does until a time."""
    HALF_OPEN = 3
    """One is on its way to see whether the host is back."""

    @property
    def word(self) -> str:
        """What people see."""
        return self.name.lower().replace("_", "-")


class BreakerChange(Struct, frozen=True):
    """A breaker has changed its state."""

    state: BreakerState
    at_ms: int
    until_ms: int = 0
    """Nothing is sent before, while the state is ``OPEN``."""
    reason: str = ""
    """The failure that opened it."""
    failures: int = 0
    """Failures in a row, the last one included."""


class Breaker:
    """For one host."""

    def __init__(
        self,
        *,
        threshold: int = THRESHOLD,
        first_pause_ms: int = FIRST_PAUSE_MS,
        longest_pause_ms: int = LONGEST_PAUSE_MS,
    ) -> None:
        self._threshold = threshold
        self._first_pause_ms = first_pause_ms
        self._longest_pause_ms = longest_pause_ms
        self._pause_ms = 0
        """The last pause; 0: there has been none since it closed."""
        self.state = BreakerState.CLOSED
        self.failures = 0
        self.until_ms = 0
        self.reason = ""

    def restore(self, change: BreakerChange) -> None:
        """Go on where an earlier run stopped; a probe that was on its way then is made again at once."""
        self.state = BreakerState.CLOSED if change.state is BreakerState.CLOSED else BreakerState.OPEN
        self.failures, self.reason = change.failures, change.reason
        self.until_ms = change.until_ms
        self._pause_ms = min(max(change.until_ms - change.at_ms, 0), self._longest_pause_ms)

    def allows(self, now_ms: int) -> bool:
        """Whether a request may go out now; does not take the place of the probe (see ``start``)."""
        return self.state is BreakerState.CLOSED or now_ms >= self.until_ms

    def start(self, now_ms: int) -> BreakerChange | None:
        """A request goes out that was allowed.  After a pause it is the probe, and no other is allowed beside it."""
        if self.state is BreakerState.CLOSED:
            return None
        self.until_ms = now_ms + PROBE_PATIENCE_MS
        if self.state is BreakerState.HALF_OPEN:
            return None
        return self._change(BreakerState.HALF_OPEN, now_ms)

    def succeeded(self, now_ms: int) -> BreakerChange | None:
        """The host answered; also an answer to a request that was on its way when the breaker opened counts."""
        self.failures = self.until_ms = self._pause_ms = 0
        self.reason = ""
        return None if self.state is BreakerState.CLOSED else self._change(BreakerState.CLOSED, now_ms)

    def failed(self, now_ms: int, reason: str) -> BreakerChange | None:
        """The host did not answer, or with 5xx.  Late failures of an open breaker do not lengthen its pause."""
        self.failures += 1
        if self.state is BreakerState.OPEN or (
            self.state is BreakerState.CLOSED and self.failures < self._threshold
        ):
            return None
        self.reason = reason
        doubled = max(self._first_pause_ms, 2 * self._pause_ms)
        self._pause_ms = min(doubled, self._longest_pause_ms)
        self.until_ms = now_ms + self._pause_ms
        return self._change(BreakerState.OPEN, now_ms)

    def _change(self, state: BreakerState, now_ms: int) -> BreakerChange:
        self.state = state
        return BreakerChange(state, now_ms, self.until_ms, self.reason, self.failures)


class Pace:
    """How many requests may be on their way to one host at the same time."""

    def __init__(self, most: int, *, rest_ms: int = 1_000) -> None:
        """``most``: the limit of the target.  ``rest_ms``: answers within it say the same thing once."""
        self._most = max(1, most)
        self._rest_ms = rest_ms
        self._size = float(self._most)
        self._slowed_ms: int | None = None

    @property
    def at_once(self) -> int:
        """At least 1: a host that is paused is the breaker's and Retry-After's business."""
        return int(self._size)

    @property
    def slowed(self) -> bool:
        """Whether it is below the target's own limit."""
        return self._size < self._most

    def set_most(self, most: int) -> None:
        """The target's limit was changed."""
        whole = not self.slowed
        self._most = max(1, most)
        self._size = float(self._most) if whole else min(self._size, float(self._most))

    def slow_down(self, now_ms: int) -> bool:
        """The host said that it is too much: half.  True when that changed something, to be reported.

        All that were on their way say so together, which is one message and not as many halvings.
        """
        if self._slowed_ms is not None and now_ms - self._slowed_ms < self._rest_ms:
            return False
        self._slowed_ms = now_ms
        before = self.at_once
        self._size = max(1.0, self._size / 2)
        return self.at_once != before

    def went_well(self) -> None:
        """An answer came through: one more at once after as many answers as there are at once."""
        self._size = min(float(self._most), self._size + 1 / self._size)
