"""When visitors come: by the hour of their clocks, by weekday, a little more every day, with better days and worse."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from random import Random

from postbackd.market.cast import CampaignRole

HOUR_MS = 3_600_000
HOURS = 30 * 24
"""Of the simulated month."""

_BY_HOUR = (
    *(0.45, 0.30, 0.22, 0.18, 0.18, 0.25, 0.42, 0.65, 0.82, 0.92, 0.98, 1.02),
    *(1.10, 1.08, 1.00, 0.98, 1.02, 1.10, 1.22, 1.38, 1.52, 1.50, 1.18, 0.78),
)
_BY_WEEKDAY = (0.96, 0.98, 1.00, 1.01, 1.03, 1.06, 1.10)
"""From Monday."""

_GROWTH = 0.006
"""A day."""


class Rhythm:
    """How many visits each campaign gets in each hour, in a month (or so many hours) with about so many in all."""

    def __init__(
        self, seed: int, from_ms: int, campaigns: Sequence[CampaignRole], visits: int, hours: int = HOURS
    ) -> None:
        self._seed = seed
        self._from_ms = from_ms
        self._campaigns = campaigns
        total = sum(self._weight(role, hour) for role in campaigns for hour in range(hours))
        self._scale = visits / total

    def expected(self, role: CampaignRole, hour: int) -> float:
        """Visits of a campaign in an hour, counted from the beginning; it may be one beyond the month."""
        return self._scale * self._weight(role, hour)

    def _weight(self, role: CampaignRole, hour: int) -> float:
        day = hour // 24
        if day < role.from_day:
            return 0.0
        moment_ms = self._from_ms + (hour + role.offset_h) * HOUR_MS
        local = datetime.fromtimestamp(moment_ms / 1000, UTC)
        luck = 0.9 + 0.2 * Random(f"{self._seed}/{role.slug}/{day}").random()
        growth = 1 + _GROWTH * min(day, HOURS // 24)
        return role.share * _BY_HOUR[local.hour] * _BY_WEEKDAY[local.weekday()] * luck * growth
