"""Spool, sender and their two threads, which start with the first report."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Callable, Dict, List

from postbackd_client.bell import Bell
from postbackd_client.courier import Courier
from postbackd_client.schedule import Schedule
from postbackd_client.sender import Hooks, Sender
from postbackd_client.spool import Limits, Spool
from postbackd_client.statistics import Statistics, Tally

log = logging.getLogger("postbackd_client")

_SYNC_EVERY_S = 0.02
"""What a power cut may cost a client that is not durable, beside the time of a sync."""
_LOOK_EVERY_S = 0.5
"""How often files are tended while nothing is reported."""
_STOP_S = 0.5


class Works:
    def __init__(
        self,
        directory: Path,
        limits: Limits,
        courier: Courier,
        schedule: Schedule,
        tally: Tally,
        hooks: Hooks,
    ) -> None:
        self._spool = Spool(directory, limits, courier.route.endpoint.fingerprint)
        self._courier = courier
        self._sender = Sender(self._spool, courier, schedule, tally, hooks)
        self._tally = tally
        self._lock = threading.RLock()
        self._threads: Dict[str, threading.Thread] = {}
        self._running = False
        self._starting = False
        self._stirred = Bell()
        """Something was added that the disk does not have yet."""
        self._urgent = Bell()
        """Somebody waits for the disk."""
        self._stopping = False

    @property
    def trouble(self) -> str:
        return self._spool.trouble

    # --- from the shop's threads ----------------------------------------------------------------------------------

    def report(self, made_s: int, payload: str, *, durable: bool) -> bool:
        """Whether there was place for it."""
        if not self._running:
            self._start()
        place = self._spool.append(made_s, payload)
        if durable:
            self._urgent.ring()
        self._stirred.ring()
        self._sender.wake()
        if durable and place is not None:
            self._spool.wait_synced(place)
        return place is not None

    def take_up(self) -> None:
        """Start at once where an ended process has left something."""
        if self._spool.leftovers.wait():
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._running or self._starting or self._stopping:
                return
            self._starting = True  # a signal handler may report in the middle of this
            try:
                self._start_threads()
                self._running = True
            except RuntimeError as error:
                # An interpreter that is ending starts none, nor does a machine that has too many: then the spool keeps
                # what is reported, and the next report tries again.
                log.debug("no thread could be started: %s", error)
            finally:
                self._starting = False

    def _start_threads(self) -> None:
        """Each once, also when an earlier try got as far as the first: two senders would send everything twice."""
        for name, target in (("keeper", self._keep), ("sender", self._sender.run)):
            if name not in self._threads:
                thread = threading.Thread(target=target, name=f"postbackd-client-{name}", daemon=True)
                thread.start()
                self._threads[name] = thread

    # --- the keeper's thread --------------------------------------------------------------------------------------

    def _keep(self) -> None:
        """Files are brought to the disk, followed by others, and mended here, so that no caller has to wait for it."""
        while not self._stopping:
            self._stirred.wait(_LOOK_EVERY_S)
            self._urgent.wait(_SYNC_EVERY_S)
            try:
                self._spool.tend()
            except Exception:
                log.exception("tending the spool failed in a way that it should not; going on")

    # --- waiting and ending ---------------------------------------------------------------------------------------

    def flush(self, timeout_s: float) -> bool:
        """Whether everything was settled in time."""
        if not self._spool.waiting:
            return True
        return self._wait(lambda: not self._spool.waiting, timeout_s)

    def drain(self, timeout_s: float, *, any_url: bool) -> bool:
        """The same for what ended processes have left."""
        leftovers = self._spool.leftovers
        searches = leftovers.ask(any_tracker=any_url)
        return self._wait(lambda: leftovers.searches > searches and not self._spool.waiting, timeout_s)

    def _wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        self._start()
        self._spool.hasten()
        self._sender.hurry()
        with self._sender.progress:
            return self._sender.progress.wait_for(condition, timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Flush and stop.  A request that is under way is not waited for longer than that: its conversion stays."""
        ends = monotonic() + timeout_s
        settled = self.flush(timeout_s)
        with self._lock:
            self._stopping = True
        self._sender.stop()
        self._stirred.ring()
        self._urgent.ring()
        for thread in self._threads.values():
            if thread is not threading.current_thread():  # a hook may close the client
                thread.join(max(_STOP_S, ends - monotonic()))
        self._spool.close()
        return settled

    # --- looking --------------------------------------------------------------------------------------------------

    def complete(self, found: Statistics, now_s: float) -> Statistics:
        """With what is known of the spool."""
        oldest_s = self._spool.oldest_s()
        return replace(
            found,
            waiting=self._spool.waiting,
            in_memory=self._spool.memory.waiting,
            oldest_age_s=0.0 if oldest_s is None else max(0.0, now_s - oldest_s),
            dropped=self._spool.dropped,
            damaged=self._spool.leftovers.damaged,
            foreign=self._spool.leftovers.foreign,
        )

    # --- forking --------------------------------------------------------------------------------------------------

    def lock_for_fork(self) -> List[threading.RLock]:
        return self._spool.lock_all()

    def forget(self) -> None:
        """In a forked child: everything here is the parent's."""
        self._spool.forget()
        self._courier.forget()
