"""The verbs of a store that concern the catalog and the secrets in it: the same for every store.

A store says how it asks a database, and how it changes one; what is asked is in ``catalog``, ``keys`` and ``sealed``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from postbackd.core.model import Catalog, CatalogEntry, SigningKey
from postbackd.store import catalog, keys, sealed
from postbackd.store.base import SealedValue
from postbackd.store.database import Database, generation
from postbackd.store.people import People

_T = TypeVar("_T")

Work = Callable[[Database], Coroutine[Any, Any, _T]]


class CatalogVerbs:
    """See ``store.base.Store`` for what each verb promises."""

    @abstractmethod
    async def _read_catalog(self, work: Work[_T]) -> _T:
        """Ask small questions.  Raises ``StoreUnavailable``."""

    @abstractmethod
    async def _change_catalog(self, work: Work[_T]) -> _T:
        """The same for what changes something, and may take longer."""

    async def load_catalog(self, *, removed: bool = False) -> Catalog:
        return await self._read_catalog(lambda db: catalog.load_catalog(db, removed=removed))

    async def catalog_generation(self) -> int:
        return await self._read_catalog(generation)

    async def save(self, entry: CatalogEntry) -> CatalogEntry:
        (saved,) = await self.change_catalog([entry], (), 0)
        return saved

    async def change_catalog(
        self,
        saves: Sequence[CatalogEntry],
        removals: Sequence[CatalogEntry],
        now_ms: int,
        *,
        if_generation: int | None = None,
    ) -> Sequence[CatalogEntry]:
        return await self._change_catalog(
            lambda db: catalog.change_catalog(db, saves, removals, now_ms, if_generation)
        )

    async def rotate_signing_key(
        self, secret: bytes, *, now_ms: int, active_from_ms: int, keep: int
    ) -> Sequence[SigningKey]:
        return await self._change_catalog(
            lambda db: keys.rotate_signing_key(
                db, secret, now_ms=now_ms, active_from_ms=active_from_ms, keep=keep
            )
        )

    @property
    def people(self) -> People:
        return People(self._read_catalog, self._change_catalog)

    async def list_sealed(self) -> Sequence[SealedValue]:
        return await self._read_catalog(sealed.list_values)

    async def seal_all(self) -> int:
        return await self._change_catalog(sealed.seal_all)
