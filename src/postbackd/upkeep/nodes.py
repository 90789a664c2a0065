"""The node number of this process: leased, renewed, and given back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from postbackd.core.click_id import StampMint, stamp_ms
from postbackd.store.base import NodeLease, NodeLost, Store, StoreRefused, StoreUnavailable

log = logging.getLogger("postbackd.upkeep")

RENEW_EVERY_S = 60.0


class NodeNumber:
    """A lease of the store, and the mint that keeps to it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lease: NodeLease | None = None
        self.mint = StampMint(0)

    async def claim(self, wanted: int, now_ms: int, after: int = 0) -> None:
        """Lease a number, for stamps behind ``after``.  Raises ``StoreRefused`` when none is free."""
        lease = await self._store.claim_node(wanted, now_ms)
        from_ms = max(lease.from_ms, stamp_ms(after) + 1) if after else lease.from_ms
        self._use(NodeLease(lease.node, from_ms, lease.until_ms))

    def _use(self, lease: NodeLease) -> None:
        self._lease = lease
        self.mint.lease(lease.node, lease.from_ms, lease.until_ms)

    async def keep(self, now_ms: Callable[[], int], pause_s: float = RENEW_EVERY_S) -> None:
        """Renew the lease until cancelled.  While the database is away the lease lasts as long as it lasts.

        A number that another process has taken over is given up at once, and another one is leased.
        """
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self._renew(now_ms())
            except (StoreUnavailable, StoreRefused) as error:
                log.warning("the node number was not renewed (%s)", error)

    async def _renew(self, now_ms: int) -> None:
        lease = self._lease
        assert lease is not None
        try:
            self._use(await self._store.renew_node(lease, now_ms))
        except NodeLost as error:
            log.warning("%s; minting stops until there is another", error)
            self.mint.lease(lease.node, lease.from_ms, lease.from_ms)
            await self.claim(lease.node, now_ms)
            log.warning("minting goes on with another node number")

    async def release(self) -> None:
        """Give the number back."""
        if self._lease is None:
            return
        try:
            await self._store.release_node(self._lease, self.mint.next_ms)
        except StoreUnavailable as error:
            log.warning("the node number was not given back (%s); it is free when its lease has ended", error)
