"""The right to make request ids for an import, beside a running server and other imports.

A request id has to be unique in the deployment, for ever.  On a server database a node number is leased for each page
of rows and given back.  An embedded database does not lease: there imports have a number of their own, which no server
of this directory uses, and a lock file in the directory lets one import at a time make ids and write what they are for.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from postbackd.core.click_id import MAX_NODE, StampMint
from postbackd.store.base import Store

LOCK_NAME = "import.lock"

_PAUSE_S = 0.005


class ImportTurns:
    """Turns of one import."""

    def __init__(self, store: Store, directory: Path, server_node: int) -> None:
        """``directory``: the data directory; ``server_node``: the number that its server uses."""
        self._store = store
        self._directory = directory
        self._node = MAX_NODE if server_node != MAX_NODE else MAX_NODE - 1

    @asynccontextmanager
    async def take(self, now_ms: int) -> AsyncIterator[StampMint]:
        """A mint whose ids nobody else makes, while this lasts.  ``now_ms``: milliseconds since 1970."""
        file = os.open(self._directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            await _lock(file)
            async with self._lease(now_ms) as mint:
                yield mint
        finally:
            os.close(file)

    @asynccontextmanager
    async def _lease(self, now_ms: int) -> AsyncIterator[StampMint]:
        lease = await self._store.claim_node(self._node, now_ms)
        mint = StampMint(lease.node)
        mint.lease(lease.node, lease.from_ms, lease.until_ms)
        try:
            yield mint
        finally:
            await self._store.release_node(lease, mint.next_ms)


async def _lock(file: int) -> None:
    """Wait without holding up the event loop: whoever has it may be another task of this process."""
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            await asyncio.sleep(_PAUSE_S)
