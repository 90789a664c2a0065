"""What a store promises.  Two stores (SQLite, PostgreSQL) keep these promises; one contract suite checks both.

Every verb is a coroutine, so that one calling code serves an embedded and a remote database; the embedded
store never suspends.  Foreign exceptions stay behind this door: callers see ``StoreUnavailable`` (try again
later, nothing is known about the last write), ``StoreRefused`` (an operator must act; says what to do) and
``CatalogConflict`` (the user asked for something that contradicts what is stored).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import Struct

from postbackd.core.model import Catalog, CatalogEntry, Click, Postback
from postbackd.core.rulebook import Rulebook
from postbackd.core.verdicts import Verdict


class StoreUnavailable(Exception):
    """The write or read failed or timed out.  What was asked may or may not have happened; asking again is safe."""


class StoreRefused(Exception):
    """The store cannot be used until an operator acts: damaged, from a newer version, in use by another server."""


class CatalogConflict(Exception):
    """A catalog change contradicts what is stored (name taken, still referenced); says what to do."""


class FlowMinute(Struct, frozen=True):
    """What the front door counted in one minute, apart from the postback log."""

    minute: int
    refusals: dict[str, int]
    response_times: dict[int, tuple[int, int]]
    """histogram bucket -> (count, total microseconds)"""


class Batch(Struct, frozen=True):
    """Requests that are committed together."""

    clicks: Sequence[Click] = ()
    postbacks: Sequence[Postback] = ()
    flow: Sequence[FlowMinute] = ()


class Outcome(Struct, frozen=True, gc=False):
    """What became of one postback."""

    verdict: Verdict
    reason: int = 0
    conversion_id: int | None = None


class Written(Struct, frozen=True):
    """The answers to one batch, in its order."""

    clicks: Sequence[int]
    """The stamp under which each click is stored: its own, or the first one's when its own id was known already."""
    outcomes: Sequence[Outcome]


class Store(Protocol):
    """The database, behind one door."""

    async def write(self, batch: Batch, rulebook: Rulebook) -> Written:
        """Commit the batch as one transaction, synced to disk before this returns.

        The unique key of the conversions decides what is counted.  Clicks are written before postbacks are
        matched.  Raises ``StoreUnavailable`` when it is not known whether the batch was stored.
        """
        ...

    async def load_catalog(self) -> Catalog: ...

    async def catalog_generation(self) -> int:
        """Grows with every change of the catalog; cheap enough to ask several times a second."""
        ...

    async def save(self, entry: CatalogEntry) -> CatalogEntry:
        """Insert (``id`` 0) or replace a catalog entry; returns it with its id."""
        ...

    async def remove(self, entry: CatalogEntry, now_ms: int) -> None:
        """Take an entry out of the catalog; its row stays, so that reports keep its name."""
        ...

    async def recover(self) -> None:
        """Close, reopen and prove that a write reaches the disk.  Raises ``StoreUnavailable`` while it does not."""
        ...

    async def last_stamp(self) -> int:
        """The largest stamp stored, 0 when there is none."""
        ...

    async def query(self, name: str, /, **parameters: Any) -> list[dict[str, Any]]:
        """Run one of the named read-only statements of ``store.queries``."""
        ...

    async def purge(self, before_ms: int, limit: int) -> int:
        """Delete up to ``limit`` clicks and log rows made before ``before_ms``; returns how many.  Conversions stay."""
        ...

    async def close(self) -> None: ...
