"""What the front door notes beside the postback log, by minute: refusals, response times, finds of personal data, and
names of parameters that no field claims."""

from __future__ import annotations

from collections import Counter

from postbackd.core.histogram import bucket_of
from postbackd.store.base import FlowMinute


class Flow:
    """Counts in memory; ``take`` hands the counts over to be written with a batch."""

    def __init__(self) -> None:
        self._refusals: dict[tuple[int, str], int] = {}
        self._finds: dict[tuple[int, int, str, str], int] = {}
        self._names: set[tuple[int, int, str]] = set()
        self._times: dict[tuple[int, int], list[int]] = {}
        self._minute = 0
        self._latest_us: list[int] = []
        """Response times in ``_minute`` that have not been sorted into ``_times`` yet: together that is cheaper."""

    def refused(self, minute: int, kind: str) -> None:
        """A request was refused before it became a postback or click.  ``kind`` is from a short fixed list."""
        key = (minute, kind)
        self._refusals[key] = self._refusals.get(key, 0) + 1

    def found(self, minute: int, network: int, field: str, kind: str) -> None:
        """Somebody sent personal data; ``network`` 0: with a click."""
        key = (minute, network, field, kind)
        self._finds[key] = self._finds.get(key, 0) + 1

    def named(self, minute: int, network: int, name: str) -> None:
        """A network sends a parameter of this name, and no field claims it."""
        self._names.add((minute, network, name))

    def answered(self, minute: int, microseconds: int) -> None:
        """A postback was answered."""
        if minute != self._minute:
            self._sort_times()
            self._minute = minute
        self._latest_us.append(microseconds)

    def _sort_times(self) -> None:
        latest, self._latest_us = self._latest_us, []
        for microseconds, count in Counter(latest).items():
            self._add_times(self._minute, bucket_of(microseconds), count, count * microseconds)

    def _add_times(self, minute: int, bucket: int, count: int, total_us: int) -> None:
        counted = self._times.setdefault((minute, bucket), [0, 0])
        counted[0] += count
        counted[1] += total_us

    def take(self) -> list[FlowMinute]:
        """Everything counted since the last call.  Give it back with ``put_back`` when it could not be written."""
        self._sort_times()
        refusals, self._refusals = self._refusals, {}
        times, self._times = self._times, {}
        finds, self._finds = self._finds, {}
        names, self._names = self._names, set()
        minutes = sorted({key[0] for counted in (refusals, times, finds, names) for key in counted})
        return [
            FlowMinute(
                minute,
                {kind: count for (m, kind), count in refusals.items() if m == minute},
                {bucket: (n, total) for (m, bucket), (n, total) in times.items() if m == minute},
                {key[1:]: count for key, count in finds.items() if key[0] == minute},
                sorted(key[1:] for key in names if key[0] == minute),
            )
            for minute in minutes
        ]

    def put_back(self, minutes: list[FlowMinute]) -> None:
        for flow in minutes:
            for kind, count in flow.refusals.items():
                key = (flow.minute, kind)
                self._refusals[key] = self._refusals.get(key, 0) + count
            for found, count in flow.finds.items():
                self._finds[flow.minute, *found] = self._finds.get((flow.minute, *found), 0) + count
            self._names.update((flow.minute, *name) for name in flow.names)
            for bucket, (count, total) in flow.response_times.items():
                self._add_times(flow.minute, bucket, count, total)
