"""Keeps the alarms: looks every minute, sends what has to be told.  One keeper at a time, among many processes.

Who keeps them holds a lease in the database; another process takes over when it ends.  Should two of them look at once
all the same (a process that was stopped for minutes goes on), the one that is overtaken stores nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from secrets import token_hex

from postbackd.alarms.notices import Postman
from postbackd.alarms.places import Places
from postbackd.alarms.watch import Overtaken, Watch
from postbackd.core.alarm_troubles import MachineFacts
from postbackd.core.alarms import Said
from postbackd.store.base import Store, StoreUnavailable
from postbackd.store.database import ConstraintViolated

log = logging.getLogger("postbackd.alarms")

LOOK_EVERY_S = 60.0

LEASE_MS = 180_000
"""Three looks: a keeper that misses one is still the keeper."""

_FORGET_EVERY = 60
"""Looks."""

KEEP_DAYS = 30
"""How long ended alarms and words are kept when nothing else is said."""

_DAY_MS = 86_400_000


class AlarmKeeper:
    """The work of alarms in one admin process."""

    def __init__(
        self,
        store: Store,
        places: Places,
        now_ms: Callable[[], int],
        *,
        server: str,
        machine: Callable[[], MachineFacts] = MachineFacts,
        keep_days: int = KEEP_DAYS,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        """``store``: its own, or one that may be asked beside others.  ``machine``: looks at disks and files, quickly.

        ``server``: what notices call this installation.  ``keep_days``: for ended alarms, 0 for ever.
        """
        self._store = store
        self._places = places
        self._now_ms = now_ms
        self._server = server
        self._machine = machine
        self._keep_days = keep_days
        self._look_every_s = look_every_s
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{token_hex(4)}"
        self._postman = Postman(store, places, now_ms)
        self._watch: Watch | None = None
        self._looks = 0

    async def run(self) -> None:
        """Keep the alarms until cancelled; the lease is given back then."""
        sending: asyncio.Task[None] | None = None
        try:
            while True:
                kept = await self._look_whatever_comes()
                if kept and sending is None:
                    sending = asyncio.create_task(self._postman.run())
                elif not kept and sending is not None:
                    sending.cancel()
                    sending = None
                await asyncio.sleep(self._look_every_s)
        finally:
            if sending is not None:
                sending.cancel()
                await asyncio.wait([sending])
            await self._give_back()

    async def _look_whatever_comes(self) -> bool:
        """One look; whoever is to find what is wrong must not end because something is."""
        try:
            return await self.look()
        except Exception:
            log.exception("a look for alarms failed; the next one is in a minute")
            self._watch = None
            return True

    async def look(self) -> bool:
        """One look, if the alarms are ours to keep; whether they are.  Raises nothing that a later look may mend."""
        now_ms = self._now_ms()
        try:
            if not await self._store.hold_alarms(self._holder, now_ms, now_ms + LEASE_MS):
                self._watch = None
                return False
            if self._watch is None:
                self._watch = await Watch.load(self._store, self._holder, self._places.names, self._server)
            machine = await asyncio.to_thread(self._machine)
            changes = await self._watch.look(machine, now_ms)
            if self._looks % _FORGET_EVERY == 0:
                await self._watch.forget(now_ms - self._keep_days * _DAY_MS if self._keep_days else 0, now_ms)
            self._looks += 1
        except (Overtaken, ConstraintViolated):
            self._watch = None
            return False
        except StoreUnavailable as error:
            # What was counted in memory and not stored would be counted twice: begin from what is stored.
            self._watch = None
            log.warning("the database is away (%s); alarms look again in a minute", error)
            return True
        for change in changes:
            if change.alarm.ended_ms is not None:
                log.warning("alarm %d is over: %s", change.alarm.id, change.alarm.seen)
            elif change.tell is Said.RAISED:
                log.warning("ALARM %d: %s", change.alarm.id, change.alarm.seen)
        self._postman.wake()
        return True

    async def send_due(self) -> int:
        """Send what is due now, for those who cannot wait."""
        return await self._postman.send_due()

    async def _give_back(self) -> None:
        try:
            await self._store.hold_alarms(self._holder, self._now_ms(), 0)
        except StoreUnavailable as error:
            log.info("the lease of alarms ends by itself (%s)", error)
