"""Sends the notices that are stored, until each is delivered or too old.

A notice is stored in the transaction that raises its alarm, and settled after the receiver has answered: a process
that is killed in between sends it again, under the same id.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from postbackd.alarms.places import Places
from postbackd.core.alarm_notices import GIVEN_UP, SENT, Notice, settle
from postbackd.reports.alarms import read_notice
from postbackd.store.base import Store, StoreUnavailable
from postbackd.store.failpoints import pass_failpoint

log = logging.getLogger("postbackd.alarms")

_LOOK_EVERY_S = 5.0
"""Retries are due at times of their own; commands and other processes may also have stored something."""


class Postman:
    """Sends what is due."""

    def __init__(self, store: Store, places: Places, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._places = places
        self._now_ms = now_ms
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There is something new."""
        self._wake.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            self._wake.clear()
            try:
                await self.send_due()
            except StoreUnavailable as error:
                log.warning("the database is away (%s); notices of alarms wait", error)
            try:
                await asyncio.wait_for(self._wake.wait(), _LOOK_EVERY_S)
            except TimeoutError:
                continue

    async def send_due(self) -> int:
        """Send all that are due; returns how many were tried."""
        rows = await self._store.query("alarm_notices_due")
        due = [notice for notice in map(read_notice, rows) if notice.due_ms <= self._now_ms()]
        for notice in due:
            await self._send(notice)
        return len(due)

    async def _send(self, notice: Notice) -> None:
        pass_failpoint("before_notice")
        answer = await self._places.send(notice)
        settled = settle(notice, answer, self._now_ms())
        await self._store.settle_notices([settled])
        if settled.state == SENT:
            log.info("told %s of alarm %d (%s)", notice.place, notice.alarm, notice.said)
        elif settled.state == GIVEN_UP:
            log.error("%s was NOT told of alarm %d: %s", notice.place, notice.alarm, answer.detail)
        else:
            log.warning("%s could not be told of alarm %d yet: %s", notice.place, notice.alarm, answer.detail)
