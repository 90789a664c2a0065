"""A PostgreSQL database is backed up as it is at one moment, and comes back into either store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from postbackd.core.deliveries import DeliveryState
from postbackd.store.queries import STATEMENTS
from postbackd.store.sqlite import SqliteStore
from tests.cli.conftest import Run
from tests.postgres_server import VERSIONS, new_database
from tests.store.contract import ANY_PARAMETERS, World, postgres_kind
from tests.store.test_contract_outbox import Desk
from tests.store.test_moving import assert_the_same, everything, sort_of
from tests.store.test_moving import fill as fill_many_days

pytestmark = pytest.mark.skipif(not VERSIONS, reason="no PostgreSQL 15 or newer was found")


@pytest.fixture
def address() -> str:
    return new_database(VERSIONS[0])


@pytest.fixture
def world(tmp_path: Path, address: str) -> Iterator[World]:
    made = World(postgres_kind(VERSIONS[0], address), tmp_path / "unused")
    fill(made)
    yield made
    made.close()


def fill(world: World) -> None:
    """As for a move, with deliveries."""
    desk = Desk(world)
    fill_many_days(world)
    desk.plan()
    (first, *_) = desk.claim(room=2)
    desk.settle(first, DeliveryState.DELIVERED)
    world.send(world.click(), "txid=in the outbox")


@pytest.fixture
def backup(run: Run, world: World, address: str, tmp_path: Path) -> str:
    (tmp_path / "backups").mkdir()
    ran = run("backup", "--store", address, "--backup-dir", str(tmp_path / "backups"), "--json").json
    assert ran["kept_in"] == "postgresql"
    assert ran["money_rows"] > 40
    return str(ran["path"])


def test_it_comes_back_as_an_embedded_database(
    run: Run, world: World, address: str, backup: str, tmp_path: Path
) -> None:
    run("restore", backup, "--to", str(tmp_path / "new"))

    async def answers() -> dict[str, object]:
        store = await SqliteStore.open(tmp_path / "new", create=False)
        try:
            found: dict[str, object] = {
                name: await store.query(name, **{**ANY_PARAMETERS, "limit": 10_000}) for name in STATEMENTS
            }
            found["catalog"] = await store.load_catalog(removed=True)
            return found
        finally:
            await store.close()

    here, _ = everything(world, address)
    restored = asyncio.run(answers())
    for name, answer in here.items():
        assert sort_of(answer) == sort_of(restored[name]), name
    run("verify", "--data", str(tmp_path / "new"))


def test_it_comes_back_into_an_empty_database(run: Run, world: World, backup: str) -> None:
    other = new_database(VERSIONS[0])
    run("restore", backup, "--to", other)
    assert_the_same(world, other)
    run("verify", "--store", other)


def test_it_does_not_come_back_into_a_database_that_is_used(run: Run, world: World, backup: str) -> None:
    other = World(postgres_kind(VERSIONS[0], new := new_database(VERSIONS[0])), Path("unused"))
    other.click()
    assert "holds other data" in run("restore", backup, "--to", new, code=1).err
    other.close()
