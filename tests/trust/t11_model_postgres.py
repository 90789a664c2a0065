"""T11PG: what the store on PostgreSQL does, step by step, is what the model of T11 does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.trust.postgres import USER, Database, versions
from tests.trust.registry import Result, Size, Skip, trust_test
from tests.trust.t11_model import SOON_FOUND, compare, temporary_files_in, unsynced

if TYPE_CHECKING:
    from postbackd.store.postgres import PostgresStore

_UNSYNCED = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off"}
"""This test is about what is decided, not about the disk."""

_TEMPLATE = "trust_model"


@trust_test("T11PG", "model on PostgreSQL: clicks, postbacks, late arrivals and purges against a dict")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """Random histories on the PostgreSQL store: 0 divergences."""
    try:
        import hypothesis  # noqa: F401
    except ModuleNotFoundError as error:
        raise Skip("needs hypothesis (make test installs it)") from error
    with temporary_files_in(work_dir), unsynced(), Database(versions()[-1], _UNSYNCED) as database:
        runs = size.pick(ci=60, nightly=800, release=4_000)
        return compare(Maker(database), runs, seed, SOON_FOUND)


@dataclass
class OpenPostgres:
    """The PostgreSQL store on a database of its own, which is dropped at the end."""

    database: Database
    name: str
    store: PostgresStore
    loop: asyncio.AbstractEventLoop
    purges_whole_days = True

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        async def fetch() -> list[tuple[Any, ...]]:
            return [tuple(row) for row in await (await self.store.connection()).fetch(sql)]

        return self.loop.run_until_complete(fetch())

    def close(self) -> None:
        self.loop.run_until_complete(self.store.close())
        self.database.server.execute(f"DROP DATABASE {self.name} WITH (FORCE)")


class Maker:
    """Opens stores, each on a copy of one empty database.  A ``model_machine.StoreMaker``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._numbers = count()
        database.server.execute(f"CREATE DATABASE {_TEMPLATE} OWNER {USER}")
        asyncio.run(self._make_tables())

    async def _make_tables(self) -> None:
        await (await self._open(_TEMPLATE)).close()

    async def _open(self, name: str) -> PostgresStore:
        from postbackd.store.postgres import PostgresStore

        return await PostgresStore.open(self._database.address_of(name), create=True, write_timeout_s=30)

    def __call__(self, directory: Path, loop: asyncio.AbstractEventLoop) -> OpenPostgres:
        name = f"model{next(self._numbers)}"
        self._database.server.execute(f"CREATE DATABASE {name} OWNER {USER} TEMPLATE {_TEMPLATE}")
        return OpenPostgres(self._database, name, loop.run_until_complete(self._open(name)), loop)
