"""How often somebody may ask: a token bucket for each, in bounded memory.

Of a bucket one number is kept: when it will be full again.  A full bucket says nothing and may be forgotten; any
other is never forgotten to make room, because whoever fills the memory could give himself a new bucket that way.
When there is no room, newcomers share a few buckets among them.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

_BURST_S = 4
"""A bucket holds what comes in so many seconds: senders come in bursts, when they have waited or their queue runs
again."""

_ROUNDING_S = 1e-6
"""The sums of many parts are not exact."""

_SHARED = 1024
_PAUSE_S = 1.0
"""Between two searches for buckets that are full again."""


class RateLimit:
    """So many requests a second for each key, and more for a moment.  Time is an argument, in seconds."""

    __slots__ = ("_capacity", "_full_at", "_holds_s", "_looked", "_shared", "_spacing_s")

    def __init__(self, per_second: float, capacity: int = 65_536, burst: int | None = None) -> None:
        """``capacity``: most keys that have a bucket of their own; ``burst``: how many at once."""
        self._spacing_s = 1 / per_second
        self._holds_s = max(_BURST_S, self._spacing_s) if burst is None else burst * self._spacing_s
        self._capacity = capacity
        self._full_at: dict[str, float] = {}
        self._shared = [0.0] * _SHARED
        self._looked = 0.0

    def take(self, key: str, now: float) -> float:
        """0 when the request may pass, else the seconds after which one may."""
        full_at = self._full_at.get(key)
        if full_at is None and len(self._full_at) >= self._capacity and not self._make_room(now):
            return self._take_shared(hash(key) % _SHARED, now)
        begins = now if full_at is None or full_at < now else full_at
        wait_s = begins + self._spacing_s - now - self._holds_s
        if wait_s > _ROUNDING_S:
            return wait_s
        self._full_at[key] = begins + self._spacing_s
        return 0.0

    def charge(self, key: str, now: float, more: int) -> None:
        """Take more for what has passed, because it turned out to be many: whoever comes next waits for it.

        So a batch larger than a bucket can be sent at all, and costs what its postbacks would have cost alone.
        """
        full_at = self._full_at.get(key)
        cost_s = more * self._spacing_s
        if full_at is None:  # it passed on a shared one
            place = hash(key) % _SHARED
            self._shared[place] = max(now, self._shared[place]) + cost_s
        else:
            self._full_at[key] = max(now, full_at) + cost_s

    def _take_shared(self, place: int, now: float) -> float:
        begins = max(now, self._shared[place])
        wait_s = begins + self._spacing_s - now - self._holds_s
        if wait_s > _ROUNDING_S:
            return wait_s
        self._shared[place] = begins + self._spacing_s
        return 0.0

    def _make_room(self, now: float) -> bool:
        """Forget the buckets that are full again, at most once a second; returns whether there is room."""
        if now - self._looked >= _PAUSE_S:
            self._looked = now
            self._full_at = {key: full_at for key, full_at in self._full_at.items() if full_at > now}
        return len(self._full_at) < self._capacity

    def __len__(self) -> int:
        return len(self._full_at)


def limit_prefix(address: str) -> str:
    """What counts as one client: the /24 of a v4, the /64 of a v6 address; the text itself if it is none."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, IPv4Address):
        return address.rpartition(".")[0]
    return str(IPv6Address(int(parsed) >> 64 << 64))
