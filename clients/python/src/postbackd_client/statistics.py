"""What has become of what was reported, counted in this process; as records for programs and as text for Prometheus."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Deque, Dict, Mapping, Optional, Sequence, Tuple

from postbackd_client.answers import (
    ACCEPTED,
    DELIVERED,
    DUPLICATE,
    HELD,
    REFUSED,
    REJECTED,
    RETRY,
    UNMATCHED,
    UPDATED,
)

OUTCOMES = (ACCEPTED, DUPLICATE, UPDATED, HELD, UNMATCHED, REJECTED, DELIVERED, REFUSED)
_REMEMBERED = 1000
_OLD_S = 300.0
"""What has waited so long says that something is wrong: a tracker that works is told within a second."""


@dataclass(frozen=True)
class Statistics:
    """Counts since this process began, and what waits in it now."""

    reported: int
    """Calls of ``conversion``."""
    sent: Mapping[str, int]
    """Outcome -> conversions that are settled."""
    requests: int
    """Requests that were answered: a batch is one."""
    failed: int
    """Requests that had no answer, or one that says "again"."""
    waiting: int
    in_memory: int
    """Of those that wait: what the disk did not take."""
    oldest_age_s: float
    dropped: int
    """Lost: there was no place, or they gave way to newer ones."""
    dead: int
    """Refused for good or given up; kept in ``dead.ndjson``."""
    unusable: int
    """Calls that named no conversion, such as a float for the value."""
    damaged: int
    """Files of the spool that could not be read."""
    foreign: int
    """Files that ended processes have left for another URL; they are not sent."""
    latency_p50_s: float
    latency_p95_s: float
    latency_p99_s: float
    latency_sum_s: float


@dataclass(frozen=True)
class Health:
    """Whether all is well, and what is not."""

    ok: bool
    """Whether conversions are kept and sent now; what went wrong earlier is told, and does not change it."""
    problems: Tuple[str, ...]
    """Each in one sentence that names the next step."""
    waiting: int
    oldest_age_s: float
    last_error: str
    """Of the last attempt, empty when it succeeded."""


@dataclass
class Tally:
    """Counts while they grow."""

    reported: int = 0
    unusable: int = 0
    dead: int = 0
    failed: int = 0
    requests: int = 0
    latency_sum_s: float = 0.0
    last_error: str = ""
    sent: Dict[str, int] = field(default_factory=Counter)
    latencies: Deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def count_report(self) -> None:
        with self.lock:
            self.reported += 1

    def count_unusable(self) -> None:
        with self.lock:
            self.unusable += 1

    def count_delivery(self, kind: str, reason: str) -> None:
        """What became of one that did not go through the spool."""
        with self.lock:
            if kind == RETRY:
                self.failed += 1
                self.last_error = reason
            else:
                self.sent[kind] = self.sent.get(kind, 0) + 1
                self.last_error = ""

    def time_request(self, seconds: float) -> None:
        with self.lock:
            self.requests += 1
            self.latency_sum_s += seconds
            self.latencies.append(seconds)

    def summary(self) -> Statistics:
        """All but what is known of the spool; the latencies are those of the last thousand requests."""
        with self.lock:
            times = sorted(self.latencies)
            return Statistics(
                reported=self.reported,
                sent=dict(self.sent),
                requests=self.requests,
                failed=self.failed,
                waiting=0,
                in_memory=0,
                oldest_age_s=0.0,
                dropped=0,
                dead=self.dead,
                unusable=self.unusable,
                damaged=0,
                foreign=0,
                latency_p50_s=percentile(times, 0.5),
                latency_p95_s=percentile(times, 0.95),
                latency_p99_s=percentile(times, 0.99),
                latency_sum_s=self.latency_sum_s,
            )


def percentile(times: Sequence[float], share: float) -> float:
    """Of sorted times; 0 where there are none."""
    return times[min(len(times) - 1, int(len(times) * share))] if times else 0.0


def judge(found: Statistics, last_error: str, trouble: str, directory: Optional[str]) -> Health:
    """What the figures mean."""
    problems = []
    if trouble:
        problems.append(f"The spool takes nothing ({trouble}): make room in {directory}.")
    if found.dropped:
        problems.append(f"{found.dropped} conversions were lost: give the spool a larger or another disk.")
    if found.damaged:
        problems.append(
            f"{found.damaged} files of the spool cannot be read: look at *.damaged in {directory}."
        )
    if found.foreign:
        problems.append(
            f"{found.foreign} files in {directory} are for another URL: postbackd-client drain --any-url."
        )
    if found.unusable:
        problems.append(f"{found.unusable} calls named no conversion: the log says why.")
    if found.oldest_age_s > _OLD_S:
        why = f" ({last_error})" if last_error else ""
        problems.append(f"The oldest of {found.waiting} has waited {found.oldest_age_s:.0f} s{why}.")
    if found.dead:
        problems.append(
            f"{found.dead} were refused or given up: postbackd-client dead --spool {directory} says why."
        )
    ok = not trouble and found.oldest_age_s <= _OLD_S
    return Health(ok, tuple(problems), found.waiting, found.oldest_age_s, last_error)


def write_prometheus(found: Statistics) -> str:
    """The text format of Prometheus 0.0.4, for a page of your own or a textfile collector."""
    name = "postbackd_client"
    lines = [f"# TYPE {name}_conversions_total counter"]
    lines += [f'{name}_conversions_total{{outcome="{word}"}} {found.sent.get(word, 0)}' for word in OUTCOMES]
    for metric, kind, value in (
        ("reported_total", "counter", found.reported),
        ("requests_failed_total", "counter", found.failed),
        ("dropped_total", "counter", found.dropped),
        ("dead_total", "counter", found.dead),
        ("unusable_total", "counter", found.unusable),
        ("waiting", "gauge", found.waiting),
        ("waiting_in_memory", "gauge", found.in_memory),
        ("oldest_waiting_seconds", "gauge", round(found.oldest_age_s, 3)),
    ):
        lines += [f"# TYPE {name}_{metric} {kind}", f"{name}_{metric} {value}"]
    lines.append(f"# TYPE {name}_request_seconds summary")
    for quantile, seconds in (
        ("0.5", found.latency_p50_s),
        ("0.95", found.latency_p95_s),
        ("0.99", found.latency_p99_s),
    ):
        lines.append(f'{name}_request_seconds{{quantile="{quantile}"}} {seconds:.6f}')
    lines.append(f"{name}_request_seconds_sum {found.latency_sum_s:.6f}")
    lines.append(f"{name}_request_seconds_count {found.requests}")
    return "\n".join(lines) + "\n"
