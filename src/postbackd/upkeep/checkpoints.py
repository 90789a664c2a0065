"""Keeps the write-ahead log of the embedded store short."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from postbackd.store.base import StoreUnavailable

log = logging.getLogger("postbackd.upkeep")

_LOOK_EVERY_S = 0.1

_PAUSE_S = 1.0
"""Before the next try after one that failed."""


class Checkpointed(Protocol):
    """A store with a log that has to be copied into its database now and then."""

    @property
    def wants_checkpoint(self) -> bool: ...

    async def checkpoint(self) -> None: ...


async def keep_log_short(store: Checkpointed) -> None:
    """Checkpoint whenever the store wants it, until cancelled.  Says of a lasting failure once that it lasts."""
    said = ""
    while True:
        await asyncio.sleep(_PAUSE_S if said else _LOOK_EVERY_S)
        if not store.wants_checkpoint:
            continue
        try:
            await store.checkpoint()
        except Exception as error:
            text = str(error)
            if text != said:
                log.warning(
                    "a checkpoint failed (%s); trying again",
                    error,
                    exc_info=not isinstance(error, StoreUnavailable),
                )
            said = text
        else:
            said = ""
