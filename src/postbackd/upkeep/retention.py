"""Deletes what is older than it has to be kept, in steps so short that a running server hardly notices."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from time import perf_counter

from msgspec import Struct

from postbackd.core.retention import Class, Due, Keep, Seen, brake, jumped
from postbackd.store.base import Store

log = logging.getLogger("postbackd.upkeep")

STEP_ROWS = 500
"""Rows of a kind in one transaction: a few milliseconds of the only writer's time."""

_SHORTEST_PAUSE_S = 0.01
_PAUSE_SHARE = 2
"""The pause after a step, in lengths of that step: two thirds of the time belong to the server."""

_LAST_PURGES = 100

ORDER = (Class.ATTEMPTS, Class.POSTBACKS, Class.CLICKS, Class.CONVERSIONS, Class.COUNTS)
"""A conversion goes after its click."""


async def purge(store: Store, before_ms: int) -> AsyncIterator[int]:
    """Delete clicks and log rows made before ``before_ms``; yields how many went with each step.

    May be stopped at any step and run again.
    """
    async for purged in _steps(lambda: store.purge(before_ms, STEP_ROWS)):
        yield purged


async def _steps(step: Callable[[], Awaitable[int]]) -> AsyncIterator[int]:
    while True:
        started = perf_counter()
        purged = await step()
        if not purged:
            return
        yield purged
        await asyncio.sleep(max(_SHORTEST_PAUSE_S, _PAUSE_SHARE * (perf_counter() - started)))


class Plan(Struct, frozen=True):
    """What a purge by the settings would do now."""

    due: Sequence[Due]
    held: str | None
    """Why it does not go on by itself."""
    notable: bool
    """Whether the time may be noted as one at which a purge looked."""

    @property
    def rows(self) -> int:
        """All that would go."""
        return sum(one.rows for one in self.due)


async def plan(store: Store, keep: Keep, now_ms: int, drift_ms: int = 0) -> Plan:
    """What is due, class by class, and whether the brake holds it."""
    due = []
    for class_ in ORDER:
        before_ms = keep.before_ms(class_, now_ms)
        if before_ms is not None and before_ms > 0:
            due.append(Due(class_, before_ms, *await store.count_old(class_, before_ms)))
    clock = await store.query("purge_clock")
    largest: dict[Class, int] = {}
    for row in await store.query("purges", limit=_LAST_PURGES):
        if row["class"] in set(Class):
            class_ = Class(row["class"])
            largest[class_] = max(largest.get(class_, 0), row["rows"])
    seen = Seen(clock[0]["at_ms"] if clock else None, largest, drift_ms)
    held = None if _unbraked() else brake(due, seen, now_ms)
    return Plan(due, held, seen.clock_ms is None or jumped(seen, now_ms) is None)


def _unbraked() -> bool:
    """``POSTBACKD_UNSAFE_PURGE``: for negative controls of the trust campaign only; deletes by any clock."""
    return os.environ.get("POSTBACKD_UNSAFE_PURGE") == "1"


async def carry_out(
    store: Store, planned: Plan, now_ms: int, stopping: Callable[[], bool] = lambda: False
) -> Mapping[Class, int]:
    """Delete what was planned; returns about how many rows of each class went."""
    deleted: dict[Class, int] = {}
    for one in planned.due:
        if not one.rows and one.class_ is not Class.CONVERSIONS:
            continue
        step = _step(store, one)
        async for purged in _steps(step):
            deleted[one.class_] = deleted.get(one.class_, 0) + purged
            if stopping():
                break
    await store.note_purge(now_ms, deleted)
    return deleted


def _step(store: Store, due: Due) -> Callable[[], Awaitable[int]]:
    return lambda: store.purge_class(due.class_, due.before_ms, STEP_ROWS)


async def run(
    store: Store, keep: Keep, now_ms: int, drift_ms: int, stopping: Callable[[], bool], said: str | None
) -> str | None:
    """One purge by the settings; returns why it was held, and says so once."""
    planned = await plan(store, keep, now_ms, drift_ms)
    if planned.held is not None:
        if planned.held != said:
            log.warning(
                "nothing was purged: %s; look with 'postbackd purge --dry-run', then 'postbackd purge --yes-delete %d'",
                planned.held,
                planned.rows,
            )
        return planned.held
    if planned.notable or planned.rows:
        deleted = await carry_out(store, planned, now_ms, stopping)
        if deleted:
            log.info("purged %s", ", ".join(f"{rows} {class_}" for class_, rows in deleted.items()))
    return None
