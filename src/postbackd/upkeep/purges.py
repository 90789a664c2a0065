"""Retention while a server runs: what has to go is deleted now and then."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from postbackd.core.retention import Keep
from postbackd.store.base import Store, StoreRefused, StoreUnavailable
from postbackd.upkeep import retention

log = logging.getLogger("postbackd.upkeep")


class PurgeSchedule:
    """Purges in a thread of their own, over a connection of their own: nobody who answers requests waits for them."""

    def __init__(
        self,
        open_store: Callable[[], Coroutine[Any, Any, Store]],
        keep: Keep,
        stand_back: Callable[[], None],
        now_ms: Callable[[], int],
    ) -> None:
        """``stand_back``: lets the calling thread come after all others."""
        self._open_store = open_store
        self._keep = keep
        self._stand_back = stand_back
        self._now_ms = now_ms
        self._stopping = threading.Event()
        self._held: str | None = None
        """Why the last one was held, when that has been said."""

    async def keep(self, every_s: float) -> None:
        """Purge every so often, until cancelled."""
        began = self._now_ms() - _running_ms()
        try:
            while True:
                await asyncio.sleep(every_s)
                drift_ms = self._now_ms() - _running_ms() - began
                try:
                    self._held = await asyncio.to_thread(self._purge, drift_ms)
                except (StoreUnavailable, StoreRefused) as error:
                    log.warning("nothing was purged (%s); trying again", error)
        finally:
            self._stopping.set()

    def _purge(self, drift_ms: int) -> str | None:
        self._stand_back()
        return asyncio.run(self._purge_once(drift_ms))

    async def _purge_once(self, drift_ms: int) -> str | None:
        store = await self._open_store()
        try:
            return await retention.run(
                store, self._keep, self._now_ms(), drift_ms, self._stopping.is_set, self._held
            )
        finally:
            await store.close()


def _running_ms() -> int:
    """Milliseconds of a clock that nobody sets and that goes on while the machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
