"""When something is tried again: decisions only, time and chance are told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

_LONGEST_PAUSE_S = 60.0
"""A tracker that was away for a day is asked once a minute, by one conversion a process: it is back within a minute."""
_MOST_DOUBLINGS = 32


@dataclass(frozen=True)
class Schedule:
    """Waits double from the first to the longest; chance takes up to half of each, so that processes do not march
    in step."""

    first_s: float = 0.5
    longest_s: float = 3600.0
    give_up_after: timedelta = timedelta(days=7)
    """A conversion that is older and fails again is kept as dead."""

    def pause_s(self, failures: int, chance: float) -> float:
        """How long the tracker is left alone after so many failures in a row.  ``chance``: 0 to 1."""
        return self._wait_s(failures, min(_LONGEST_PAUSE_S, self.longest_s), chance)

    def postpone_s(self, attempts: int, chance: float) -> float:
        """How long one conversion waits that fails while others do not, after so many attempts."""
        return self._wait_s(attempts, self.longest_s, chance)

    def is_over(self, age_s: float) -> bool:
        return age_s > self.give_up_after.total_seconds()

    def _wait_s(self, times: int, longest_s: float, chance: float) -> float:
        doubled = self.first_s * float(1 << min(max(times, 1) - 1, _MOST_DOUBLINGS))
        return min(doubled, longest_s) * (1 - chance / 2)
