"""Keeps the node number of this process leased, and stops the mint when it is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from postbackd.core.click_id import StampMint
from postbackd.store.base import NodeLease, NodeLost, Store, StoreRefused, StoreUnavailable

log = logging.getLogger("postbackd.upkeep")

RENEW_EVERY_S = 60.0


async def keep_node(
    store: Store,
    mint: StampMint,
    lease: NodeLease,
    now_ms: Callable[[], int],
    pause_s: float = RENEW_EVERY_S,
) -> None:
    """Renew the lease until cancelled.  While the database is away the lease lasts as long as it lasts.

    A number that another process has taken over is given up at once, and another one is leased.
    """
    while True:
        await asyncio.sleep(pause_s)
        try:
            lease = await _renew(store, mint, lease, now_ms())
        except (StoreUnavailable, StoreRefused) as error:
            log.warning("the node number was not renewed (%s); it is ours for the time being", error)


async def _renew(store: Store, mint: StampMint, lease: NodeLease, now_ms: int) -> NodeLease:
    try:
        renewed = await store.renew_node(lease, now_ms)
    except NodeLost as error:
        log.warning("%s; minting stops until there is another", error)
        mint.lease(lease.node, lease.from_ms, lease.from_ms)
        renewed = await store.claim_node(lease.node, now_ms)
        log.warning("minting goes on with node number %d", renewed.node)
    mint.lease(renewed.node, renewed.from_ms, renewed.until_ms)
    return renewed
