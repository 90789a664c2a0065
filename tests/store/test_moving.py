"""From the embedded database into PostgreSQL: all of it, once, and again after more has come."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import apsw
import pytest

from postbackd.core.deliveries import DeliveryState
from postbackd.core.model import Channel
from postbackd.store.base import StoreRefused, Turn
from postbackd.store.moving import CATALOG, WHOLE, Step, open_mover
from postbackd.store.postgres import PostgresStore
from postbackd.store.queries import STATEMENTS
from postbackd.store.sqlite_file import FILE_NAME
from postbackd.upkeep.rollups import RollupKeeper
from tests.postgres_server import VERSIONS, new_database
from tests.store.contract import ANY_PARAMETERS, KINDS, NOW_MS, World
from tests.store.test_contract_outbox import Desk

pytestmark = pytest.mark.skipif(not VERSIONS, reason="no PostgreSQL 15 or newer was found")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(KINDS[0], tmp_path / "data")
    yield made
    made.close()


@pytest.fixture
def address() -> str:
    return new_database(VERSIONS[0])


def fill(world: World) -> None:
    """Clicks of many days, and every kind of postback that leaves something behind."""
    for day in range(40):
        click = world.click(age_s=day * 86_400 + 60, subs=("ä",), country="DE")
        world.send(click, f"txid=T{day}&value=12.5{day % 10}&status=pending")
        if day % 3 == 0:
            world.send(click, f"txid=T{day}&status=approved")
        if day % 5 == 0:
            world.send(click, "", channel=Channel.PIXEL)
    world.click("own id", age_s=100)
    world.send("own id", "txid=own&currency=EUR&value=7")
    world.send("somebody", "txid=waits")
    world.send("rubbish", "txid=X", "hold")


def move(directory: Path, address: str) -> tuple[list[Step], list[str]]:
    async def work() -> tuple[list[Step], list[str]]:
        mover = await open_mover(directory, address)
        try:
            await mover.prepare()
            return [step async for step in mover.copy()], list(await mover.verify())
        finally:
            await mover.close()

    return asyncio.run(work())


def everything(world: World, address: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What every question is answered here and there."""

    async def there() -> dict[str, Any]:
        store = await PostgresStore.open(address, create=False)
        try:
            answers: dict[str, Any] = {name: await store.query(name, **_ANY) for name in STATEMENTS}
            answers["catalog"] = await store.load_catalog(removed=True)
            return answers
        finally:
            await store.close()

    here: dict[str, Any] = {name: world.query(name, **_ANY) for name in STATEMENTS}
    here["catalog"] = world.run(world.store.load_catalog(removed=True))
    return here, asyncio.run(there())


_ANY = {**ANY_PARAMETERS, "limit": 10_000}


def sort_of(answer: Any) -> Any:
    return sorted(map(repr, answer)) if isinstance(answer, list) else answer


def assert_the_same(world: World, address: str) -> None:
    here, there = everything(world, address)
    for name, answer in here.items():
        assert sort_of(answer) == sort_of(there[name]), name


def test_a_copy_answers_every_question_alike(world: World, address: str) -> None:
    fill(world)
    steps, differences = move(world.directory, address)
    assert differences == []
    assert sum(step.rows for step in steps if step.copied) > 100
    assert_the_same(world, address)


def test_a_second_copy_takes_only_what_has_changed(world: World, address: str) -> None:
    fill(world)
    move(world.directory, address)
    steps, _ = move(world.directory, address)
    assert [step for step in steps if step.copied] == []
    world.now_ms += 86_400_000
    click = world.click(age_s=3 * 86_400)
    world.send(click, "txid=late&value=1")
    steps, differences = move(world.directory, address)
    assert differences == []
    assert {step.table for step in steps if step.copied} == {
        "clicks", "conversions", "postbacks", "rollup_marks",
    }  # fmt: skip
    assert_the_same(world, address)


def test_deliveries_go_with_their_attempts_and_count_on(world: World, address: str) -> None:
    desk = Desk(world)
    click = world.click(source_click_id="S1")
    for number in range(4):
        world.send(click, f"txid={number}")
    desk.plan()
    world.send(click, "txid=5")
    first, second = desk.claim(room=2)
    desk.settle(first, DeliveryState.DELIVERED)
    _, differences = move(world.directory, address)
    assert differences == []
    assert_the_same(world, address)
    desk.settle(second, DeliveryState.DEAD, reason="gone")
    steps, differences = move(world.directory, address)
    assert {step.table for step in steps if step.copied} == {"deliveries", "attempts"}
    assert_the_same(world, address)

    async def go_on() -> set[int]:
        store = await PostgresStore.open(address, create=True)
        try:
            events = (await store.look([], NOW_MS, 10)).events
            turn = Turn(
                holder="x", now_ms=NOW_MS, planned=events, owed=[desk.owe(event) for event in events],
                rooms={desk.target.id: 10}, lease_ms=1,
            )  # fmt: skip
            return {delivery.number for delivery in await store.take_turn(turn)}
        finally:
            await store.close()

    numbers = asyncio.run(go_on())
    assert len(numbers) == 3
    assert max(numbers) > max(row["number"] for row in desk.rows(click))


@pytest.mark.parametrize("query", ["txid=T&status=rejected", "txid=T&value=2.60", "txid=T&currency=EUR"])
def test_a_conversion_that_changed_meanwhile_is_taken_again(world: World, address: str, query: str) -> None:
    click = world.click(age_s=86_400)
    world.send(click, "txid=T&value=2.50&status=pending", "update")
    move(world.directory, address)
    world.send(click, query, "update")
    _, differences = move(world.directory, address)
    assert differences == []
    assert_the_same(world, address)


def test_what_is_purged_here_goes_there(world: World, address: str) -> None:
    fill(world)
    move(world.directory, address)
    while world.run(world.store.purge(world.now_ms - 20 * 86_400_000, 1000)):
        continue
    _, differences = move(world.directory, address)
    assert differences == []
    assert_the_same(world, address)


def test_a_copy_that_was_interrupted_goes_on(world: World, address: str) -> None:
    fill(world)

    async def begin() -> None:
        mover = await open_mover(world.directory, address)
        await mover.prepare()
        steps = mover.copy()
        for _ in range(10):
            await anext(steps)
        await steps.aclose()  # type: ignore[attr-defined]  # an async generator
        await mover.close()

    asyncio.run(begin())
    steps, differences = move(world.directory, address)
    assert differences == []
    assert sum(step.copied for step in steps) == len([step for step in steps if step.rows]) - 10
    assert_the_same(world, address)


def test_two_copies_into_one_database_do_not_meet(world: World, address: str) -> None:
    world.click()

    async def begin() -> None:
        mover = await open_mover(world.directory, address)
        await mover.prepare()
        steps = mover.copy()
        await anext(steps)
        with pytest.raises(StoreRefused, match="somebody else is copying"):
            await asyncio.to_thread(move, world.directory, address)
        await steps.aclose()  # type: ignore[attr-defined]  # an async generator
        await mover.close()

    asyncio.run(begin())
    assert move(world.directory, address)[1] == []


def test_a_database_with_other_data_is_refused_and_not_touched(
    world: World, address: str, tmp_path: Path
) -> None:
    other = World(KINDS[0], tmp_path / "other")
    other.click()
    move(other.directory, address)
    other.close()
    with pytest.raises(StoreRefused, match="other data"):
        move(world.directory, address)


def test_a_database_on_which_a_server_has_run_is_refused(world: World, address: str) -> None:
    move(world.directory, address)

    async def serve() -> None:
        import time

        store = await PostgresStore.open(address, create=True)
        await store.claim_node(0, int(time.time() * 1000))
        await store.close()

    asyncio.run(serve())
    with pytest.raises(StoreRefused, match="a server has run"):
        move(world.directory, address)


def test_no_table_of_a_server_with_an_admin_role_stops_a_copy(world: World, address: str) -> None:
    """A row in each, of whatever: what is written there does not matter to a copy."""
    fill(world)
    assert world.run(RollupKeeper(world.store, UTC, lambda: world.now_ms).catch_up())
    db = open_database(world)
    for table in (*CATALOG, *WHOLE):
        if table.name.startswith("alarm") or table.name in ("users", "tokens", "audit", "views"):
            types = {row[1]: row[2] for row in db.execute(f"PRAGMA table_info({table.name})")}
            plain = {"INTEGER": 1, "TEXT": "x", "BLOB": b"x"}
            values = ["owner" if column == "role" else plain[types[column]] for column in table.columns]
            marks = ", ".join("?" * len(values))
            db.execute(f"INSERT INTO {table.name} ({', '.join(table.columns)}) VALUES ({marks})", values)
    db.close()
    _, differences = move(world.directory, address)
    assert differences == []
    steps, _ = move(world.directory, address)
    assert [step for step in steps if step.copied] == []


def open_database(world: World) -> apsw.Connection:
    return apsw.Connection(str(world.directory / FILE_NAME))
