"""How the statements of a deliverer's turn are planned: once, perhaps for tables that have just begun."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from postbackd.core.click_id import first_stamp_at
from postbackd.store import postgres_outbox, postgres_turn
from postbackd.store.postgres import PostgresStore
from tests.postgres_server import VERSIONS
from tests.store.contract import World, postgres_kind

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


@pytest.fixture(scope="module", params=VERSIONS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(postgres_kind(request.param), tmp_path_factory.mktemp("world") / "data")
    yield made
    made.close()


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
    sql = "SELECT 1 FROM deliveries WHERE conversion_id = ANY ($1::bigint[]) AND click_id BETWEEN $2 AND $3"
    assert reads_whole(world.run(explain(world, sql)))
