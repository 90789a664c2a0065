"""What the front door counts beside the postback log: refusals and response times, by minute."""

from __future__ import annotations

from postbackd.core.histogram import bucket_of
from postbackd.store.base import FlowMinute


class Flow:
    """Counts in memory; ``take`` hands the counts over to be written with a batch."""

    def __init__(self) -> None:
        self._refusals: dict[tuple[int, str], int] = {}
        self._times: dict[tuple[int, int], list[int]] = {}

    def refused(self, minute: int, kind: str) -> None:
        """A request was refused before it became a postback or click.  ``kind`` is from a short fixed list."""
        key = (minute, kind)
        self._refusals[key] = self._refusals.get(key, 0) + 1

    def answered(self, minute: int, microseconds: int) -> None:
        """A postback was answered."""
        key = (minute, bucket_of(microseconds))
        counted = self._times.get(key)
        if counted is None:
            self._times[key] = [1, microseconds]
        else:
            counted[0] += 1
            counted[1] += microseconds

    def take(self) -> list[FlowMinute]:
        """Everything counted since the last call.  Give it back with ``put_back`` when it could not be written."""
        refusals, self._refusals = self._refusals, {}
        times, self._times = self._times, {}
        minutes = sorted({minute for minute, _ in (*refusals, *times)})
        return [
            FlowMinute(
                minute,
                {kind: count for (m, kind), count in refusals.items() if m == minute},
                {bucket: (n, total) for (m, bucket), (n, total) in times.items() if m == minute},
            )
            for minute in minutes
        ]

    def put_back(self, minutes: list[FlowMinute]) -> None:
        for flow in minutes:
            for kind, count in flow.refusals.items():
                key = (flow.minute, kind)
                self._refusals[key] = self._refusals.get(key, 0) + count
            for bucket, (count, total) in flow.response_times.items():
                counted = self._times.setdefault((flow.minute, bucket), [0, 0])
                counted[0] += count
                counted[1] += total
