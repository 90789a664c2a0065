"""The shelf in a PostgreSQL database: sealed rows, and a lease by the clock of the server.

A lease and no advisory lock, because it can be checked in the transaction that writes: a holder that was suspended, and
whose time was over, changes nothing any more.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from secrets import token_hex
from typing import Protocol, TypeVar

import asyncpg

from postbackd.store.base import StoreAway, StoreRefused, StoreUnavailable
from postbackd.store.failpoints import pass_failpoint
from postbackd.store.postgres_connection import AWAY, connect_durably, disconnect, unavailable
from postbackd.store.shelf import NotHeld, check_name

T = TypeVar("T")

LEASE_S = 40
"""What a holder that was killed keeps others waiting; longer than any single step of an order takes."""

_TIMEOUT_S = 5.0

LOAD = "SELECT sealed FROM certificate_documents WHERE name = $1"
"""One document."""

TAKE = """
INSERT INTO certificate_holder (holder, until) VALUES ($1, clock_timestamp() + make_interval(secs => $2))
ON CONFLICT (only_row) DO UPDATE SET holder = excluded.holder, until = excluded.until
WHERE certificate_holder.holder = excluded.holder OR certificate_holder.until < clock_timestamp()
RETURNING 1
"""
"""The shelf has a holder for some more time: the one who asks, unless it is another's."""

CHECK = "SELECT 1 FROM certificate_holder WHERE holder = $1 AND until > clock_timestamp() FOR SHARE"
"""Whether somebody is the holder; nobody else becomes it before this transaction has ended."""

SAVE = """
INSERT INTO certificate_documents (name, sealed) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed
"""
"""A document is replaced."""

REMOVE = "DELETE FROM certificate_documents WHERE name = $1"
"""A document is needed no longer."""

LET_GO = "DELETE FROM certificate_holder WHERE holder = $1"
"""The holder is done."""


class Seal(Protocol):
    """Seals texts with a key that is not in the database; see ``sealing``."""

    def seal(self, secret: str) -> str: ...
    def open(self, sealed: str) -> str:
        """Raises ``ValueError`` when it was sealed with another key."""
        ...


class PostgresShelf:
    """See ``store.shelf.Shelf``.  Connects when it is first asked, and again after the server was away."""

    def __init__(self, dsn: str, seal: Seal) -> None:
        self._dsn = dsn
        self._seal = seal
        self._db: asyncpg.Connection | None = None
        self._asking = asyncio.Lock()
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{token_hex(4)}"

    async def load(self, name: str) -> bytes | None:
        check_name(name)
        sealed = await self._ask(lambda db: db.fetchval(LOAD, name))
        if sealed is None:
            return None
        try:
            return self._seal.open(sealed).encode("ascii")
        except ValueError as error:
            raise StoreUnavailable(
                "the certificate in the database was sealed with another key; give every node the same "
                "POSTBACKD_SECRET_KEY"
            ) from error

    async def save(self, name: str, document: bytes) -> None:
        check_name(name)
        sealed = self._seal.seal(document.decode("ascii"))
        pass_failpoint(f"shelf_before_{name}")
        await self._change(lambda db: db.execute(SAVE, name, sealed))
        pass_failpoint(f"shelf_after_{name}")

    async def remove(self, name: str) -> None:
        await self._change(lambda db: db.execute(REMOVE, name))

    async def hold(self) -> bool:
        return bool(await self._ask(lambda db: db.fetchval(TAKE, self._holder, float(LEASE_S))))

    async def let_go(self) -> None:
        await self._ask(lambda db: db.execute(LET_GO, self._holder))

    async def close(self) -> None:
        if self._db is not None:
            with suppress(StoreUnavailable):  # the lease ends by itself
                await self.let_go()
        db, self._db = self._db, None
        await disconnect(db)

    async def _change(self, change: Callable[[asyncpg.Connection], Awaitable[object]]) -> None:
        async def work(db: asyncpg.Connection) -> None:
            async with db.transaction():
                if not await db.fetchval(CHECK, self._holder):
                    raise NotHeld("another node looks after the certificate")
                await change(db)

        await self._ask(work)

    async def _ask(self, question: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        async with self._asking:
            timer: asyncio.TimerHandle | None = None
            try:
                if self._db is None or self._db.is_closed():
                    self._db = await connect_durably(self._dsn, {})
                timer = asyncio.get_running_loop().call_later(_TIMEOUT_S, self._db.terminate)
                return await question(self._db)
            except (asyncpg.PostgresError, *AWAY) as error:
                raise unavailable(error) from error
            except StoreRefused as error:
                raise StoreAway(str(error)) from error
            finally:
                if timer is not None:
                    timer.cancel()
