"""What a shop calls."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time as clock
import weakref
from pathlib import Path
from typing import List, Mapping, Optional, Union

from postbackd_client import forking
from postbackd_client.answers import Outcome
from postbackd_client.courier import Courier, Route
from postbackd_client.endpoint import Tracker, read_endpoint
from postbackd_client.payload import Amount, Conversion, Moment, encode
from postbackd_client.schedule import Schedule
from postbackd_client.sender import Hook, Hooks
from postbackd_client.spool import Limits
from postbackd_client.statistics import Health, Statistics, Tally, judge, write_prometheus
from postbackd_client.works import Works

log = logging.getLogger("postbackd_client")

_EXIT_S = 2.0


class Client:
    """Reports conversions to one tracker.  May be shared by all threads of a process, and survives forks."""

    def __init__(
        self,
        tracker: Union[str, Tracker],
        *,
        spool: Union[str, os.PathLike[str], None] = None,
        secret: str = "",
        durable: bool = False,
        limits: Limits = Limits(),  # noqa: B008 - a frozen record
        schedule: Schedule = Schedule(),  # noqa: B008 - likewise
        on_rejected: Optional[Hook] = None,
        on_unmatched: Optional[Hook] = None,
        connect_s: float = 0.5,
        total_s: float = 2.0,
        ca_file: Optional[str] = None,
        allow_http: bool = False,
        exit_s: float = _EXIT_S,
    ) -> None:
        """Raises ``EndpointError`` for a URL that cannot be.

        Nothing is opened or started before the first report, unless an ended process has left something in the spool:
        in a quiet shop that would wait for hours.

        ``tracker``: the URL of an endpoint of postbackd, a template (``endpoint``), or what ``preset`` returns.
        ``spool``: the directory in which conversions wait, one for each tracker; all processes of a shop share it.
        Without one only ``deliver`` works.
        ``secret``: signs requests as postbackd verifies them.
        ``durable``: ``conversion`` waits until the disk has it (milliseconds), so that it survives a power cut too.
        ``on_rejected``, ``on_unmatched``: called with the conversion and its outcome, in the thread that sends.
        ``exit_s``: how long the end of the interpreter may wait for what is left; the rest stays in the spool.
        """
        endpoint = read_endpoint(tracker, allow_http=allow_http)
        self._route = Route(endpoint, secret, connect_s, total_s, ca_file)
        self._directory = None if spool is None else Path(spool).absolute()
        self._durable = durable
        self._limits = limits
        self._schedule = schedule
        self._hooks = Hooks(on_rejected, on_unmatched)
        self._begin()
        forking.watch(self)
        atexit.register(_close_at_exit, weakref.ref(self), exit_s)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._idle: List[Courier] = []
        self._tally = Tally()
        self._works: Optional[Works] = None
        if self._directory is not None:
            courier = Courier(self._route)
            self._works = Works(
                self._directory, self._limits, courier, self._schedule, self._tally, self._hooks
            )
            self._works.take_up()

    # --- reporting ------------------------------------------------------------------------------------------------

    def conversion(
        self,
        click_id: str,
        type: str = "conversion",  # noqa: A002 - the field's name everywhere
        value: Amount = None,
        currency: str = "",
        transaction_id: str = "",
        status: str = "",
        time: Moment = None,
        extra: Optional[Mapping[str, str]] = None,
    ) -> None:
        """Report a conversion and return at once: it is in the spool, and a thread sends it.

        Never raises and never waits for the network or, unless the client is ``durable``, for the disk.  What cannot be
        a conversion (a float for the value, no click id) is logged and counted as ``unusable``.

        Give the order's number as ``transaction_id``: it makes a page that is loaded twice one conversion.  Without
        one, an id is made up here, once: every retry of *this* report carries it, so that an attempt whose answer was
        lost is not counted again, but a second call is a second conversion.
        """
        try:
            self.report(
                Conversion(click_id, type, value, currency, transaction_id, status, time, extra or {})
            )
        except Exception as error:  # noqa: BLE001 - whatever was given, a customer's request must not fail for it
            self._tally.count_unusable()
            log.error("a conversion was not reported: %s", error)  # noqa: TRY400 - the sentence says it all

    def report(self, conversion: Conversion) -> bool:
        """The same for a ``Conversion``; ``False`` when it was lost because there was no place for it."""
        if self._works is None:
            self._tally.count_unusable()
            log.error("this client has no spool: make it with Client(url, spool=directory)")
            return False
        self._tally.count_report()
        return self._works.report(int(clock.time()), encode(conversion), durable=self._durable)

    def deliver(self, conversion: Conversion) -> Outcome:
        """Send one conversion now, wait for the answer, and say what became of it.  For workers of queues.

        Never raises for what the tracker or the network does: then the outcome's kind is ``retry``.
        """
        with self._lock:
            courier = self._idle.pop() if self._idle else Courier(self._route)
        began = clock.monotonic()
        outcome = courier.deliver(conversion)
        with self._lock:
            self._idle.append(courier)
        if outcome.settled:
            self._tally.time_request(clock.monotonic() - began)
        self._tally.count_delivery(outcome.kind, outcome.reason)
        return outcome

    # --- waiting and ending ---------------------------------------------------------------------------------------

    def flush(self, timeout: float = 2.0) -> bool:
        """Wait until everything that was reported is settled; whether that is so."""
        return self._works is None or self._works.flush(timeout)

    def drain(self, timeout: float, *, any_url: bool = False) -> bool:
        """Take over what ended processes have left in the spool too, and wait until all of it is settled.

        ``any_url``: also what was reported to another URL than this client's, because the URL has changed.
        """
        return self._works is None or self._works.drain(timeout, any_url=any_url)

    def close(self, timeout: float = 2.0) -> bool:
        """Flush, then stop; whether everything was settled.  What was not stays in the spool for the next process."""
        settled = self._works is None or self._works.close(timeout)
        with self._lock:
            idle, self._idle = self._idle, []
        for courier in idle:
            courier.close()
        return settled

    # --- looking --------------------------------------------------------------------------------------------------

    def statistics(self) -> Statistics:
        """Counts of this process since it began, and what waits in it."""
        found = self._tally.summary()
        return found if self._works is None else self._works.complete(found, clock.time())

    def health(self) -> Health:
        """Whether all is well, and what is not."""
        trouble = "" if self._works is None else self._works.trouble
        return judge(self.statistics(), self._tally.last_error, trouble, str(self._directory))

    def prometheus(self) -> str:
        """The statistics of this process as text for Prometheus."""
        return write_prometheus(self.statistics())

    # --- forking --------------------------------------------------------------------------------------------------

    def lock_for_fork(self) -> List[threading.RLock]:
        """See ``forking``."""
        self._lock.acquire()
        held = [self._lock]
        if self._works is not None:
            held += self._works.lock_for_fork()
        return held

    def begin_in_child(self) -> None:
        """See ``forking``."""
        for courier in self._idle:
            courier.forget()
        if self._works is not None:
            self._works.forget()
        self._begin()


def _close_at_exit(reference: weakref.ref[Client], timeout: float) -> None:
    client = reference()
    if client is not None:
        client.close(timeout)
