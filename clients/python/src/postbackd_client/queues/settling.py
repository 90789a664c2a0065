"""What becomes of one job of a queue: settled, again later, or put aside.  The same for every queue.

A job is *put aside* (dead letter, failed registry: whatever the queue has) when sending it again changes nothing and
the tracker has no record of it: an unreadable text, a refused request, one that was tried for days.  What the tracker
has judged (``rejected`` and ``unmatched`` included) is settled: it is in the tracker's log, can be repaired there, and
is told here in a line of the log.

Nothing here knows a queue, and the time and a random number are arguments.
"""

from __future__ import annotations

import json
import logging
import random
from dataclasses import dataclass
from typing import Optional

from postbackd_client.answers import REFUSED, REJECTED, UNMATCHED, Outcome
from postbackd_client.client import Client
from postbackd_client.payload import Conversion, PayloadError, decode

log = logging.getLogger("postbackd_client.queues")

LADDER_S = (5, 30, 120, 600, 1_800, 3_600)
"""Pauses before the second try, the third …; from then on the last one."""

GIVE_UP_S = 7 * 86_400.0
"""After that a job is put aside: a tracker that was away for a week needs a person."""

SETTLED, LATER, ASIDE = "settled", "later", "aside"

_JITTER = 0.25


class NotYet(Exception):
    """The tracker could not take it: to be sent again after ``wait_s``."""

    def __init__(self, reason: str, wait_s: float) -> None:
        super().__init__(reason, wait_s)
        self.reason = reason
        self.wait_s = wait_s

    def __str__(self) -> str:
        return f"{self.reason}; again in {self.wait_s:.0f} s"


class NotCounted(Exception):
    """Sending it again changes nothing; says why, and belongs where a person looks."""


@dataclass(frozen=True)
class Step:
    """What to do with a job."""

    kind: str
    """``SETTLED``, ``LATER`` or ``ASIDE``."""
    reason: str = ""
    wait_s: float = 0.0


def read(text: str) -> Conversion:
    """The conversion of a job.  Raises ``PayloadError``.

    It has to name its transaction: one made up here would be another after a worker was killed, and the sale would be
    counted twice.
    """
    conversion = decode(text)
    if not json.loads(text, parse_int=str, parse_float=str).get("transaction_id"):
        raise PayloadError(
            "there is no transaction_id in it: without one, a job that comes again is another sale"
        )
    return conversion


def decide(outcome: Outcome, tries: int, age_s: float, roll: float, give_up_s: float = GIVE_UP_S) -> Step:
    """What an outcome means for its job.  ``tries``: before this one; ``roll``: from 0 to 1, for the jitter."""
    if outcome.kind == REFUSED:
        return Step(ASIDE, f"refused: {outcome.reason} (look at the tracker's URL and secret)")
    if outcome.settled:
        return Step(SETTLED, outcome.reason)
    if age_s > give_up_s:
        return Step(ASIDE, f"given up after {age_s / 86_400:.1f} days: {outcome.reason}")
    return Step(LATER, outcome.reason, pause_s(tries, roll, outcome.retry_after_s))


def pause_s(tries: int, roll: float, asked_s: Optional[float] = None) -> float:
    """How long to wait after a try that failed: as the ladder says, and no less than the tracker asked for."""
    pause = LADDER_S[min(tries, len(LADDER_S) - 1)] * (1 - _JITTER + 2 * _JITTER * roll)
    return max(pause, asked_s or 0.0)


def tell(outcome: Outcome, conversion: Conversion) -> None:
    """A line of the log for what the tracker took and could not count."""
    if outcome.kind in (REJECTED, UNMATCHED):
        log.warning(
            "transaction %s: %s, %s (the tracker's request %s)",
            conversion.transaction_id,
            outcome.kind,
            outcome.reason or "without a reason",
            outcome.request_id or "-",
        )


def deliver(client: Client, text: str, tries: int = 0) -> Outcome:
    """Send the conversion of a job, for the worker of a framework that counts tries and repeats by its own means.

    Raises ``NotYet`` when it is to be repeated, ``NotCounted`` when it never should be.
    """
    try:
        conversion = read(text)
    except PayloadError as error:
        raise NotCounted(f"this job is no conversion: {error}") from error
    outcome = client.deliver(conversion)
    tell(outcome, conversion)
    step = decide(outcome, tries, 0.0, random.random())  # noqa: S311 - spreads retries, guards nothing
    if step.kind == LATER:
        raise NotYet(step.reason, step.wait_s)
    if step.kind == ASIDE:
        raise NotCounted(step.reason)
    return outcome
