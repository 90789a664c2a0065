"""Turns of deliverers on PostgreSQL: how their statements are planned, once, perhaps for tables that have just begun,
and two that meet."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from postbackd.core.click_id import first_stamp_at
from postbackd.core.deliveries import DeliveryState, Message
from postbackd.store import postgres_outbox, postgres_turn
from postbackd.store.base import Turn
from postbackd.store.postgres import PostgresStore
from postbackd.store.postgres_write import PostgresTransaction
from tests.postgres_server import VERSIONS
from tests.store.contract import NOW_MS, World, postgres_kind
from tests.store.test_contract_outbox import LEASE_MS, ME, OTHER, Desk

pytestmark = pytest.mark.skipif(not VERSIONS, reason="no PostgreSQL 15 or newer was found")

STATEMENTS = {
    name: sql
    for module in (postgres_outbox, postgres_turn)
    for name, sql in vars(module).items()
    if name.isupper() and isinstance(sql, str) and re.search(r"\$\d", sql) and "number = ANY" not in sql
}
STATEMENTS.pop("RELEASE")  # once a stop, over all that waits

_READ = re.compile(
    r"(\w+ Scan)\b[^\n]* on (?:clicks|conversions|deliveries|outbox)(?:_\w+)?\b[^\n]*\n *([^\n]*)"
)


@pytest.fixture(scope="module", params=[(version, known) for version in VERSIONS for known in (False, True)])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A database whose tables are empty, and the planner has never looked at them, or knows it."""
    version, known = request.param
    made = World(postgres_kind(version), tmp_path_factory.mktemp("world") / "data")
    if known:
        made.run(_analyze(made))
    yield made
    made.close()


async def _analyze(world: World) -> None:
    assert isinstance(world.store, PostgresStore)
    await (await world.store.connection()).execute("VACUUM ANALYZE")


async def explain(world: World, sql: str) -> str:
    """How the session that takes turns runs a statement, whatever its values are."""
    assert isinstance(world.store, PostgresStore)
    db, now = await world.store._deliverer.open(), first_stamp_at(world.now_ms)
    given = [
        f"'{{{now}}}'" if type_.name == "int8[]" else f"{now}" if type_.name == "int8" else "NULL"
        for type_ in (await db.prepare(sql)).get_parameters()
    ]
    await db.execute(f"PREPARE asked AS {sql}")
    try:
        return "\n".join(line for (line,) in await db.fetch(f"EXPLAIN EXECUTE asked ({', '.join(given)})"))
    finally:
        await db.execute("DEALLOCATE asked")


def reads_whole(plan: str) -> list[str]:
    """The parts of a plan that go through a table or an index from end to end; the oldest events are its beginning."""
    reads = [(scan, condition) for scan, condition in _READ.findall(plan)]
    return [
        f"{scan}: {condition}" for scan, condition in reads if not re.search(r"Index Cond: .* = ", condition)
    ]


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_turn_looks_rows_up_however_young_the_tables_are(world: World, name: str) -> None:
    plan = world.run(explain(world, STATEMENTS[name]))
    found = reads_whole(plan)
    if name == "FIND_WORK":  # the beginning of the outbox, in its order
        found = [one for one in found if "Index Scan: " not in one]
    assert not found, plan


def test_a_statement_that_reads_an_index_from_end_to_end_is_noticed(world: World) -> None:
    sql = "SELECT 1 FROM deliveries WHERE click_id BETWEEN $1 AND $2 AND state < 2"
    assert reads_whole(world.run(explain(world, sql)))


# --- two that meet ---------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = World(postgres_kind(VERSIONS[0]), tmp_path / "data")
    yield Desk(made)
    made.close()


WAITS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


async def meet(desk: Desk, first: Turn, second: Turn) -> None:
    """The second turn waits for a row that the first has, which is committed only then."""
    store = desk.world.store
    assert isinstance(store, PostgresStore)
    db, watcher = [await asyncpg.connect(store._dsn) for _ in range(2)]
    try:
        await db.execute(postgres_outbox.BEGIN_PLANNING if first.planned else "BEGIN")
        await postgres_outbox.take_turn(db, PostgresTransaction(db), first)
        waiting = asyncio.create_task(store.take_turn(second))
        async with asyncio.timeout(20):
            while not await db.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            ):
                assert not waiting.done()
                await asyncio.sleep(0)
        await db.execute("COMMIT")
        await waiting
    finally:
        for one in (db, watcher):
            await one.close()


@pytest.mark.parametrize("planned_first", [True, False])
def test_a_retraction_planned_beside_the_end_of_its_conversion_is_neither_early_nor_forgotten(
    desk: Desk, planned_first: bool
) -> None:
    click = desk.world.click()
    desk.world.send(click, "txid=T&value=5")
    desk.plan()
    (first,) = desk.claim()
    desk.world.send(click, "txid=T&status=reversed")
    events = desk.look().events
    owed = [desk.owe(event, Message.RETRACTION) for event in events]
    plans = Turn(holder=OTHER, now_ms=NOW_MS, planned=events, owed=owed)
    settles = Turn(holder=ME, now_ms=NOW_MS, settled=[desk.settled(first, DeliveryState.DELIVERED)])
    turns = (plans, settles) if planned_first else (settles, plans)
    desk.world.run(meet(desk, *turns))
    (second,) = desk.claim(OTHER)
    assert (second.owed.message, second.told) == (Message.RETRACTION, True)
    assert desk.states(click) == ["delivered", "waiting"]


def test_of_two_that_claim_the_same_one_gets_it(desk: Desk) -> None:
    desk.world.send(desk.world.click(), "txid=T")
    desk.plan()
    claims = [
        Turn(holder=holder, now_ms=NOW_MS, lease_ms=LEASE_MS, rooms={desk.target.id: 9})
        for holder in (ME, OTHER)
    ]
    desk.world.run(meet(desk, *claims))
    (row,) = desk.world.query("deliveries")
    assert row["holder"] == ME
    assert desk.claim(OTHER) == []


def test_an_event_that_two_plan_at_the_same_time_becomes_a_delivery_once(desk: Desk) -> None:
    click = desk.world.click()
    desk.world.send(click, "txid=T")
    events = desk.look().events
    turns = [
        Turn(holder=holder, now_ms=NOW_MS, planned=events, owed=[desk.owe(event) for event in events])
        for holder in (ME, OTHER)
    ]
    desk.world.run(meet(desk, *turns))
    assert desk.states(click) == ["waiting"]
