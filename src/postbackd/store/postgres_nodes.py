"""Node numbers for stamps, leased in the database, so that no two processes can ever mint the same stamp.

A lease is bounded in the time *of the stamps*: its holder mints none that lie at or after ``until_ms``, and whoever has
the number next mints none before.  So it does not matter whose clock is wrong, or who was suspended for how long.
"""

from __future__ import annotations

import asyncpg

from postbackd.core.click_id import MAX_STAMP, stamp_ms
from postbackd.store.base import NodeLease, NodeLost, StoreRefused
from postbackd.store.postgres_purge import LAST_STAMP

LEASE_MS = 6 * 3_600_000
"""How long a number stays with a process that does not renew it: a database may be away for most of that time."""

FIRST_LEASE_MS = 15 * 60_000
"""The same until the first renewal, a minute later: a process that is killed soon after each start takes another number
each time, and must not take those of all others with it."""

LOCK_NODES = "SELECT pg_advisory_xact_lock(8101002)"
"""Held by whoever takes a number, until its transaction ends."""

FREE_NODE = """
SELECT g, f.until_ms FROM generate_series(0, 1023) AS g LEFT JOIN nodes AS f ON f.node = g
WHERE f.holder IS NULL OR f.until_ms <= $1 ORDER BY coalesce(f.until_ms, 0) > $1, g LIMIT 1
"""
"""The lowest number that nobody holds, or whose holder's time is over, and up to when stamps of it may exist; one that
a clock which was ahead has used up for some time is the last choice."""

TAKE_NODE = """
INSERT INTO nodes (node, holder, until_ms) VALUES ($1, $2, $3)
ON CONFLICT (node) DO UPDATE SET holder = excluded.holder, until_ms = excluded.until_ms
"""
"""A number has a new holder."""

RENEW_NODE = "UPDATE nodes SET until_ms = $3 WHERE node = $1 AND holder = $2 AND until_ms <= $3"
"""The holder goes on with its number."""

RELEASE_NODE = "UPDATE nodes SET holder = NULL, until_ms = $3 WHERE node = $1 AND holder = $2"
"""The holder needs its number no longer; it has minted stamps up to a time."""


async def claim_node(db: asyncpg.Connection, holder: str, now_ms: int) -> NodeLease:
    """Lease a number to ``holder``, a name that no other process has.  Raises ``StoreRefused`` when none is free."""
    async with db.transaction():
        await db.execute(LOCK_NODES)
        free = await db.fetchrow(FREE_NODE, now_ms)
        if free is None:
            raise StoreRefused(
                "all 1,024 node numbers are taken; stop a server, or wait until a lease has ended"
            )
        node, free_from = free
        if free_from is None:  # never leased here; the rows may have come from elsewhere
            last = await db.fetchval(LAST_STAMP, MAX_STAMP)
            free_from = stamp_ms(last) + 1 if last else 0
        until_ms = max(now_ms, free_from) + FIRST_LEASE_MS
        await db.execute(TAKE_NODE, node, holder, until_ms)
    return NodeLease(node, free_from, until_ms)


async def renew_node(db: asyncpg.Connection, holder: str, lease: NodeLease, now_ms: int) -> NodeLease:
    """The lease with a later end.  Raises ``NodeLost`` when the number has another holder."""
    until_ms = max(now_ms + LEASE_MS, lease.until_ms)
    if await db.execute(RENEW_NODE, lease.node, holder, until_ms) != "UPDATE 1":
        raise NodeLost(f"node number {lease.node} has been given to another server")
    return NodeLease(lease.node, lease.from_ms, until_ms)


async def release_node(db: asyncpg.Connection, holder: str, lease: NodeLease, minted_ms: int) -> None:
    """Give the number back; ``minted_ms``: no stamp of that time or later has been minted."""
    await db.execute(RELEASE_NODE, lease.node, holder, max(minted_ms, lease.from_ms))
