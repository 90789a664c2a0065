"""The thread that empties the spool: takes, sends, settles, and waits when the tracker cannot be reached.

One failure stops all sending for a while, because it is the tracker that fails, not the conversion: after the pause one
conversion goes ahead alone.  Only when that one keeps failing is it put aside, so that others may try their luck.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
from dataclasses import dataclass
from time import monotonic, time
from typing import Callable, Optional, Sequence, Tuple

from postbackd_client import dead
from postbackd_client.answers import REFUSED, REJECTED, RETRY, UNMATCHED, Outcome
from postbackd_client.bell import Bell
from postbackd_client.courier import Courier
from postbackd_client.payload import Conversion, PayloadError, decode
from postbackd_client.schedule import Schedule
from postbackd_client.segment import Row
from postbackd_client.spool import Spool, Taken
from postbackd_client.statistics import Tally

log = logging.getLogger("postbackd_client")

Hook = Callable[[Conversion, Outcome], None]

_LARGEST_BATCH = 200
"""In one transaction of the tracker, and read here within a millisecond: callers share the interpreter with this
thread."""
_BATCH_FROM = 10
_SINGLES = 32
_SINGLY_FOR = 1000
_PUT_ASIDE_AFTER = 3
_ADOPT_EVERY_S = 10.0
_SAY_EVERY_S = 60.0
_UNWRITABLE_S = 5.0


@dataclass(frozen=True)
class Hooks:
    """Called from the thread that sends; what they raise is logged."""

    on_rejected: Optional[Hook] = None
    """For ``rejected`` and ``refused``: nobody will count this one."""
    on_unmatched: Optional[Hook] = None


class Sender:
    """Everything but ``wake``, ``hurry`` and ``stop`` is for its own thread."""

    def __init__(
        self, spool: Spool, courier: Courier, schedule: Schedule, tally: Tally, hooks: Hooks
    ) -> None:
        self._spool = spool
        self._courier = courier
        self._schedule = schedule
        self._tally = tally
        self._hooks = hooks
        self._woken = Bell()
        """Something may be sent."""
        self._interrupted = Bell()
        """A pause is over, whatever is left of it."""
        self._stopping = False
        self._failures = 0
        self._paused_until = 0.0
        self._singly = 0
        self._adopt_at = 0.0
        self._said_at = 0.0
        self.progress = threading.Condition()
        """Told after each turn."""

    # --- from other threads ---------------------------------------------------------------------------------------

    def wake(self) -> None:
        self._woken.ring()

    def hurry(self) -> None:
        """Try at once, whatever was to be waited for."""
        self._paused_until = 0.0
        self._adopt_at = 0.0
        self._interrupted.ring()
        self._woken.ring()

    def stop(self) -> None:
        self._stopping = True
        self.hurry()

    # --- the loop -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        while not self._stopping:
            try:
                self._turn()
            except Exception:
                log.exception("sending failed in a way that it should not; going on")
                self._interrupted.silence()
                self._interrupted.wait(1.0)
            self._tell()
        self._courier.close()

    def _turn(self) -> None:
        left_s = self._paused_until - monotonic()
        if left_s > 0:
            self._interrupted.wait(left_s)
            return
        self._adopt()
        self._woken.silence()
        taken = self._spool.take(time(), self._limit())
        if taken is None:
            self._rest()
        else:
            self._send(taken)

    def _limit(self) -> int:
        if self._failures:
            return 1
        return _LARGEST_BATCH if self._courier.route.endpoint.takes_batches else _SINGLES

    def _rest(self) -> None:
        until_due_s = self._spool.next_due_s() - time()
        until_adopting_s = self._adopt_at - monotonic()
        wait_s = min(until_due_s, until_adopting_s)
        if wait_s > 0 and not self._stopping:
            self._tell()
            self._woken.wait(wait_s)

    def _tell(self) -> None:
        with self.progress:
            self.progress.notify_all()

    def _adopt(self) -> None:
        if monotonic() < self._adopt_at:
            return
        self._adopt_at = monotonic() + _ADOPT_EVERY_S * (1 + random.random())  # noqa: S311 - guards nothing
        if self._spool.adopt():
            self._adopt_at = 0.0

    # --- sending --------------------------------------------------------------------------------------------------

    def _send(self, taken: Taken) -> None:
        route = self._courier.route
        if len(taken.rows) >= _BATCH_FROM and route.endpoint.takes_batches and not self._singly:
            self._send_batch(taken)
            return
        for row in taken.rows:
            if self._stopping or not self._send_one(taken, row):
                self._spool.leave(taken)
                return
            self._singly = max(0, self._singly - 1)

    def _send_one(self, taken: Taken, row: Row) -> bool:
        """Whether the next may follow."""
        try:
            conversion = decode(row.payload)
        except PayloadError as error:
            self._bury(row, Outcome(REFUSED, reason=str(error)))
            return self._settle(Taken(taken.source, [row]))
        began = monotonic()
        outcome = self._courier.deliver(conversion)
        if not outcome.settled:
            self._fail(Taken(taken.source, [row]), outcome)
            return False
        self._tally.time_request(monotonic() - began)
        self._conclude(row, outcome)
        self._succeed()
        return self._settle(Taken(taken.source, [row]))

    def _send_batch(self, taken: Taken) -> None:
        began = monotonic()
        outcomes = self._courier.deliver_batch([row.payload for row in taken.rows])
        if len(outcomes) != len(taken.rows):
            self._spool.leave(taken)
            if outcomes[0].kind == RETRY:
                self._fail(taken, outcomes[0])
            else:  # one of them may spoil the rest, or the tracker takes none: each goes alone
                log.warning("%s; sending one at a time for a while", outcomes[0].reason)
                self._singly = _SINGLY_FOR
            return
        self._tally.time_request(monotonic() - began)
        for row, outcome in zip(taken.rows, outcomes):
            self._conclude(row, outcome)
        self._succeed()
        self._settle(taken)

    # --- what became of it ----------------------------------------------------------------------------------------

    def _succeed(self) -> None:
        if self._failures:
            log.info("%s answers again", self._courier.route.endpoint.place)
            if self._failures >= _PUT_ASIDE_AFTER:
                self._spool.hasten()
        self._failures = 0
        self._tally.last_error = ""

    def _conclude(self, row: Row, outcome: Outcome) -> None:
        """Count what is settled, keep what nobody took, and tell who wants to know."""
        self._tally.sent[outcome.kind] = self._tally.sent.get(outcome.kind, 0) + 1
        log.debug("%s %s %s", outcome.kind, outcome.reason, outcome.request_id)
        if outcome.kind == REFUSED:
            self._bury(row, outcome)
        elif outcome.kind == REJECTED:
            log.warning("a conversion was rejected: %s (request %s)", outcome.reason, outcome.request_id)
            self._call(self._hooks.on_rejected, row, outcome)
        elif outcome.kind == UNMATCHED:
            log.warning("a conversion matches no click: %s (request %s)", outcome.reason, outcome.request_id)
            self._call(self._hooks.on_unmatched, row, outcome)

    def _fail(self, taken: Taken, outcome: Outcome) -> None:
        """There was no answer, or one that asks for another try."""
        self._failures += 1
        self._tally.failed += 1
        self._tally.last_error = outcome.reason
        wait_s = self._schedule.pause_s(self._failures, random.random())  # noqa: S311 - guards nothing
        self._paused_until = monotonic() + max(wait_s, outcome.retry_after_s or 0.0)
        self._interrupted.silence()
        self._say(outcome)
        if len(taken.rows) > 1:
            self._spool.leave(taken)
            return
        row = taken.rows[0]
        if self._schedule.is_over(time() - row.made_s):
            given_up = Outcome(REFUSED, outcome.status, reason=f"given up: {outcome.reason}")
            self._conclude(row, given_up)
            self._settle(taken, ())
        elif row.attempts or self._failures >= _PUT_ASIDE_AFTER:
            due_s = time() + self._schedule.postpone_s(row.attempts + 1, random.random())  # noqa: S311 - as above
            self._settle(taken, ((row, due_s),))
        else:
            self._spool.leave(taken)

    def _settle(self, taken: Taken, postponed: Sequence[Tuple[Row, float]] = ()) -> bool:
        """Whether that could be noted.  If not, they stay where they are, and are not tried again at once."""
        try:
            self._spool.settle(taken, postponed)
        except sqlite3.Error as error:
            self._spool.leave(taken)
            self._paused_until = max(self._paused_until, monotonic() + _UNWRITABLE_S)
            log.warning("the spool cannot be written: %s", error)
            return False
        return True

    def _say(self, outcome: Outcome) -> None:
        """The first failure, and once a minute while it lasts."""
        if monotonic() - self._said_at > _SAY_EVERY_S or not self._said_at:
            self._said_at = monotonic()
            log.warning(
                "%s: %s; %d conversions wait and are sent as soon as it works",
                self._courier.route.endpoint.place,
                outcome.reason,
                self._spool.waiting,
            )

    def _bury(self, row: Row, outcome: Outcome) -> None:
        self._tally.dead += 1
        log.error("a conversion was given up: %s; it is kept in %s", outcome.reason, dead.NAME)
        try:
            dead.bury(self._spool.directory, int(time()), outcome.reason, outcome.status, row.payload)
        except OSError as error:
            log.error("a dead conversion could not be kept: %s", error)  # noqa: TRY400 - one line says it
        self._call(self._hooks.on_rejected, row, outcome)

    def _call(self, hook: Optional[Hook], row: Row, outcome: Outcome) -> None:
        if hook is None:
            return
        try:
            hook(decode(row.payload), outcome)
        except PayloadError as error:
            log.error("a hook of the client was not called: %s", error)  # noqa: TRY400 - one line says it
        except BaseException:
            log.exception("a hook of the client failed")
