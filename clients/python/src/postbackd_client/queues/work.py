"""The worker: takes jobs from a source, sends each, and settles it by what became of it.

Each thread has a source of its own and does one job after another, so nothing is taken that is not being sent soon.
While the tracker is away the threads rest for longer and longer, and the jobs stay where they are; one job that fails
on its own is put off and holds up nobody.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional

from postbackd_client.answers import RETRY, Outcome, no_answer
from postbackd_client.client import Client
from postbackd_client.payload import Conversion, PayloadError
from postbackd_client.queues.loading import QueueError
from postbackd_client.queues.settling import ASIDE, GIVE_UP_S, LATER, decide, read, tell
from postbackd_client.queues.sources import Job, Source, SourceAway

log = logging.getLogger("postbackd_client.queues")

_FAILURES_BEFORE_REST = 3
_LONGEST_REST_S = 30.0
_LOOK_AGAIN_S = 0.5
"""While it rests a thread looks so often whether another one got an answer."""
_WAIT_S = 1.0
"""For a job, before a thread looks whether it is to stop."""


class Pace:
    """How long to rest before the next job: shared by all threads, since they all ask the same tracker."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self._rests = 0
        self._decided_at = float("-inf")
        self._rests_until = float("-inf")

    def note(self, outcome: Outcome, began: float, now: float) -> None:
        """Learn from an outcome; both moments are monotonic.

        Of requests that were under way when a rest was decided, none makes it longer: they met the same trouble.
        """
        with self._lock:
            if outcome.kind != RETRY:
                self._failures = self._rests = 0
                self._rests_until = float("-inf")
                return
            self._failures += 1
            asked_s = min(outcome.retry_after_s or 0.0, _LONGEST_REST_S)
            if began < self._decided_at or (self._failures < _FAILURES_BEFORE_REST and not asked_s):
                return
            self._decided_at = now
            self._rests_until = now + max(asked_s, min(2.0 ** min(self._rests, 10), _LONGEST_REST_S))
            self._rests += 1

    def rest_s(self, now: float) -> float:
        with self._lock:
            return max(0.0, self._rests_until - now)


@dataclass(frozen=True)
class Plan:
    """How a worker works."""

    threads: int = 8
    give_up_s: float = GIVE_UP_S
    until_empty: bool = False
    """End when nothing is waiting; what was put off is left for the next run."""
    tell_every_s: float = 10.0


class Worker:
    """Drains a queue until it is told to stop."""

    def __init__(
        self,
        open_source: Callable[[], Source],
        client: Client,
        plan: Plan,
        say: Callable[[str], None],
    ) -> None:
        """``say``: takes the line of figures."""
        self._open_source = open_source
        self._client = client
        self._plan = plan
        self._say = say
        self._pace = Pace()
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._trouble: Optional[Exception] = None
        self._depth_source: Optional[Source] = None

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set; what is being sent then is brought to its end.  Raises ``QueueError``."""
        threads = [
            threading.Thread(target=self._work, args=(stop,), name=f"postbackd-client-work-{number}")
            for number in range(self._plan.threads)
        ]
        for thread in threads:
            thread.start()
        told: Dict[str, int] = {}
        while any(thread.is_alive() for thread in threads):
            self._join(threads, stop, self._plan.tell_every_s)
            counts = self.counts()
            if counts != told:  # a quiet worker says nothing
                told = counts
                self._say(self._line(stop.is_set()))
        if self._depth_source is not None:
            self._depth_source.close()
        if self._trouble is not None:
            raise self._trouble

    def _join(self, threads: List[threading.Thread], stop: threading.Event, limit_s: float) -> None:
        """Wait for the end of the threads, or so long; wakes at once when told to stop."""
        ends = time.monotonic() + limit_s
        for thread in threads:
            while thread.is_alive() and (left := ends - time.monotonic()) > 0:
                thread.join(left if stop.is_set() else min(left, 0.2))

    def counts(self) -> Dict[str, int]:
        """What became of the jobs so far: the kinds of outcomes, ``later`` and ``aside``."""
        with self._lock:
            return dict(self._counts)

    # --- one thread -----------------------------------------------------------------------------------------------

    def _work(self, stop: threading.Event) -> None:
        away_s = 0.5
        while not stop.is_set():
            try:
                if self._drain(stop):
                    return
                away_s = 0.5
            except SourceAway as error:  # noqa: PERF203 - this loop is one of minutes
                log.warning("%s; trying again in %.1f s", error, away_s)
                stop.wait(away_s * random.uniform(0.5, 1.0))  # noqa: S311 - threads come back one by one
                away_s = min(away_s * 2, _LONGEST_REST_S)
            except Exception as error:  # noqa: BLE001 - told by run(), where the other threads have ended
                self._trouble = error
                stop.set()

    def _drain(self, stop: threading.Event) -> bool:
        """Do jobs until told to stop; true: nothing is left and that was all."""
        source = self._open_source()
        try:
            while not stop.is_set():
                if rest_s := self._pace.rest_s(time.monotonic()):
                    stop.wait(min(rest_s, _LOOK_AGAIN_S))
                    continue
                jobs = source.take(_WAIT_S)
                if not jobs and self._plan.until_empty:
                    return True
                for job in jobs:
                    if stop.is_set():
                        break  # close() gives the rest back
                    self._do(source, job)
            return False
        finally:
            source.close()

    def _do(self, source: Source, job: Job) -> None:
        try:
            conversion = read(job.text)
        except PayloadError as error:
            log.warning("a job is no conversion and was put aside: %s", error)
            source.put_aside(job, f"no conversion: {error}")
            self._count(ASIDE)
            return
        began = time.monotonic()
        outcome = self._deliver(conversion)
        self._pace.note(outcome, began, time.monotonic())
        roll = random.random()  # noqa: S311 - spreads retries, guards nothing
        step = decide(outcome, job.tries, job.age_s, roll, self._plan.give_up_s)
        if step.kind == LATER:
            source.put_off(job, step.wait_s)
            self._count(LATER)
        elif step.kind == ASIDE:
            log.warning("transaction %s was put aside: %s", conversion.transaction_id, step.reason)
            source.put_aside(job, step.reason)
            self._count(ASIDE)
        else:
            tell(outcome, conversion)
            source.settle(job)
            self._count(outcome.kind)

    def _deliver(self, conversion: Conversion) -> Outcome:
        try:
            return self._client.deliver(conversion)
        except Exception:
            log.exception("transaction %s could not be sent", conversion.transaction_id)
            return no_answer("an error of the client; its log has more")

    def _count(self, kind: str) -> None:
        with self._lock:
            self._counts[kind] += 1

    # --- the line of figures --------------------------------------------------------------------------------------

    def _line(self, at_once: bool) -> str:
        done = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.counts().items()))
        depth = "" if at_once else self._depth()
        return f"{done or 'nothing done yet'}{depth}"

    def _depth(self) -> str:
        """What is in the queue; nothing when it cannot be asked now."""
        try:
            if self._depth_source is None:
                self._depth_source = self._open_source()
            depth = self._depth_source.depth()
        except (SourceAway, QueueError):
            self._depth_source = None
            return "; the queue does not say how much is waiting"
        return f"; in the queue: {depth['waiting']:,} waiting, {depth['later']:,} later, {depth['aside']:,} aside"
