"""One connection to a database, as the functions that both stores share see it, and a change of the catalog on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol


class ConstraintViolated(Exception):
    """A row contradicts a constraint of the schema."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name
        """What the schema calls the constraint."""


class Seals(Protocol):
    """What seals secrets and opens them; see ``postbackd.sealing``.  Raises ``StoreRefused``."""

    seals_new: bool
    """A new database is sealed from its beginning."""
    seals_old: bool
    """One that is still in clear is sealed when it is opened to be written: nobody else uses it meanwhile."""

    def begin(self) -> None:
        """Make sure that there is a key, before anything is sealed with it."""
        ...

    def seal(self, text: str, purpose: str) -> str: ...

    def open(self, sealed: str, purpose: str) -> str: ...

    def reseal(self, sealed: str, purpose: str) -> str:
        """The same secret, sealed with the newest key."""
        ...


class Database(Protocol):
    """One connection, as far as the catalog needs it.  Its errors are the store's; only one has a name here."""

    bytes_table: str
    """The table of named values that are bytes."""

    on_server: bool
    """Whether it has the tables that only databases of several nodes need."""

    seals: Seals | None
    """``None``: what is sealed cannot be opened."""

    async def rows(self, sql: str, *values: Any) -> Sequence[Sequence[Any]]:
        """Run a statement whose parameters are written ``?``; returns its rows.  Raises ``ConstraintViolated``."""
        ...

    def changing(self) -> AbstractAsyncContextManager[None]:
        """A transaction in which nobody else changes the catalog."""
        ...

    def reading(self) -> AbstractAsyncContextManager[None]:
        """A transaction whose statements all see the same."""
        ...


GENERATION = "SELECT value FROM settings WHERE name = 'catalog_generation'"
"""How often the catalog has changed."""

RAISE_GENERATION = """
INSERT INTO settings (name, value) VALUES ('catalog_generation', 1)
ON CONFLICT (name) DO UPDATE SET value = settings.value + 1
"""
"""Tell every reader that the catalog has changed."""


async def generation(db: Database) -> int:
    """Grows with every change of the catalog; 0 for a database without one."""
    rows = await db.rows(GENERATION)
    return int(rows[0][0]) if rows else 0


@asynccontextmanager
async def changing(db: Database) -> AsyncIterator[None]:
    """One transaction that raises the catalog generation when it succeeds."""
    async with db.changing():
        await db.rows(RAISE_GENERATION)
        yield
