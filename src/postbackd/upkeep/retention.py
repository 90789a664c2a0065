"""Deletes what is older than it has to be kept, in steps so short that a running server hardly notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import perf_counter

from postbackd.store.base import Store

STEP_ROWS = 500
"""Rows of a kind in one transaction: a few milliseconds of the only writer's time."""

_SHORTEST_PAUSE_S = 0.01
_PAUSE_SHARE = 2
"""The pause after a step, in lengths of that step: two thirds of the time belong to the server."""


async def purge(store: Store, before_ms: int) -> AsyncIterator[int]:
    """Delete clicks and log rows made before ``before_ms``; yields how many went with each step.

    May be stopped at any step and run again.
    """
    while True:
        started = perf_counter()
        purged = await store.purge(before_ms, STEP_ROWS)
        if not purged:
            return
        yield purged
        await asyncio.sleep(max(_SHORTEST_PAUSE_S, _PAUSE_SHARE * (perf_counter() - started)))
