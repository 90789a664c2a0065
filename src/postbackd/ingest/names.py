"""Hands the names of unmapped parameters over to what the front door counts; runs beside requests, not within them."""

from __future__ import annotations

from postbackd.core.params import decode
from postbackd.core.unmapped import is_name
from postbackd.ingest.catalog import Snapshot
from postbackd.ingest.flow import Flow

MOST_A_MINUTE = 20
"""New names that one process notes; whoever knows a network's key could otherwise fill the database with them."""

_HOUR_MS = 3_600_000


class Names:
    """Looks at every network now and then."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._hour = 0
        self._minute = 0
        self._left = 0
        """How many may still be noted in ``_minute``."""

    def gather(self, snapshot: Snapshot, now_ms: int) -> None:
        """Note what is new; every hour all are noted again that still come."""
        minute, hour = now_ms // 60_000, now_ms // _HOUR_MS
        if minute != self._minute:
            self._minute, self._left = minute, MOST_A_MINUTE
        masker = snapshot.rulebook.masker
        for network, rules in snapshot.rulebook.networks.items():
            unmapped = rules.unmapped
            for name in map(decode, unmapped.take(self._left)):
                if is_name(name, masker):
                    self._flow.named(minute, network, name)
                    self._left -= 1
            if hour != self._hour:
                unmapped.forget()
        self._hour = hour
