"""Has the partitions of the next days made before they are needed."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from postbackd.store.base import StoreUnavailable

log = logging.getLogger("postbackd.upkeep")

_EVERY_S = 600.0


class Partitioned(Protocol):
    """A store whose tables grow by partitions."""

    async def tend(self) -> None: ...


async def keep_partitions_ahead(store: Partitioned) -> None:
    """Tend the store now and then, until cancelled.  A partition that is missing all the same is made by the write."""
    while True:
        await asyncio.sleep(_EVERY_S)
        try:
            await store.tend()
        except StoreUnavailable as error:
            log.warning("partitions were not made ahead (%s); trying again", error)
