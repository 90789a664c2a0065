"""What only a database server can do to a store: break connections, make two nodes meet, forget a partition."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from postbackd.core.click_id import MAX_STAMP, StampMint, first_stamp_at, stamp_ms
from postbackd.core.model import Channel, Source
from postbackd.core.retention import Class
from postbackd.ingest import front_door
from postbackd.store import postgres, postgres_schema
from postbackd.store.base import Batch, Erasing, NodeLease, NodeLost, StoreAway, StoreRefused, Written
from postbackd.store.postgres import PostgresStore
from postbackd.store.postgres_connection import WRITING, connect
from postbackd.store.postgres_nodes import FIRST_LEASE_MS, LEASE_MS
from postbackd.store.postgres_partitions import (
    PURGED,
    TABLES,
    list_partitions,
    make_partitions,
    partition_of,
    partitions_ahead,
)
from postbackd.store.postgres_verify import PostgresReader
from postbackd.store.postgres_write import PostgresTransaction
from postbackd.store.queries import STATEMENTS
from postbackd.store.verifying import Damage, verify
from postbackd.upkeep.nodes import RENEW_EVERY_S, NodeNumber
from postbackd.upkeep.rollups import RollupKeeper
from tests.postgres_server import VERSIONS, new_database, server
from tests.store.contract import ANY_PARAMETERS, NOW_MS, World, postgres_kind, words

pytestmark = pytest.mark.skipif(not VERSIONS, reason="no PostgreSQL 15 or newer was found")

DAY_MS = 86_400_000


@pytest.fixture
def address() -> str:
    return new_database(VERSIONS[0])


@pytest.fixture
def world(address: str, tmp_path: Path) -> Iterator[World]:
    made = World(postgres_kind(VERSIONS[0], address), tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def questioned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """For questions, which change nothing."""
    made = World(postgres_kind(VERSIONS[0], new_database(VERSIONS[0])), tmp_path_factory.mktemp("questioned"))
    yield made
    made.close()


def store_of(world: World) -> PostgresStore:
    assert isinstance(world.store, PostgresStore)
    return world.store


def on(address: str, work: Callable[[PostgresStore], Awaitable[Any]], *, create: bool = True) -> Any:
    """The answer of some work on a store of its own."""

    async def whole() -> Any:
        store = await PostgresStore.open(address, create=create)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(whole())


def sql(address: str, statement: str) -> list[tuple[Any, ...]]:
    async def whole() -> list[tuple[Any, ...]]:
        db = await asyncpg.connect(address)
        try:
            return [tuple(row) for row in await db.fetch(statement)]
        finally:
            await db.close()

    return asyncio.run(whole())


def refusal(address: str, *, create: bool = True) -> str:
    with pytest.raises(StoreRefused) as refused:
        asyncio.run(PostgresStore.open(address, create=create))
    line = str(refused.value)
    assert "\n" not in line
    return line


# --- connections that break ------------------------------------------------------------------------------------


class Breaking:
    """A connection that breaks at one statement: before it reaches the server, or after its answer was made."""

    def __init__(self, db: Any, statement: str, *, done: bool) -> None:
        self._db, self._statement, self._done = db, statement, done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    async def execute(self, query: str, *values: Any) -> str:
        if query != self._statement:
            return str(await self._db.execute(query, *values))
        if self._done:
            await self._db.execute(query, *values)
        self._db.terminate()
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")


def break_at(world: World, statement: str, *, done: bool) -> None:
    store = store_of(world)
    db = world.run(store._writers[0].open())
    store._writers[0]._db = Breaking(db, statement, done=done)


@pytest.mark.parametrize("done", [True, False], ids=["committed", "not committed"])
def test_a_connection_that_breaks_at_the_commit_is_settled_by_the_log(world: World, done: bool) -> None:
    click = world.click()
    first = world.send(click, "txid=T0")
    break_at(world, "COMMIT", done=done)
    said = world.settle(world.make(click, "txid=T0"), world.make(click, "txid=T1"), world.make("nothing"))
    assert [s.verdict for s in said] == ["duplicate", "accepted", "unmatched"]
    assert said[0].conversion == first.conversion
    assert len(world.conversions(click)) == 2
    assert [row["verdict"] for row in world.query("log")] == [5, 1, 2, 1]


@pytest.mark.parametrize("done", [True, False], ids=["committed", "not committed"])
def test_clicks_and_own_ids_are_stored_once_when_the_connection_breaks(world: World, done: bool) -> None:
    earlier = world.click(own_id="mine")
    break_at(world, "COMMIT", done=done)
    clicks = [world.make_click(own_id="mine"), world.make_click(), world.make_click(own_id="new")]
    written = world.write(clicks, [world.make(clicks[1], "txid=T")])
    assert list(written.clicks) == [earlier.stamp, clicks[1].stamp, clicks[2].stamp]
    assert written.outcomes[0].verdict.word == "accepted"


def test_a_session_that_the_server_ends_is_opened_again_and_nothing_is_lost(
    world: World, address: str
) -> None:
    click = world.click()
    for n in range(3):
        pid = world.run(store_of(world)._writers[0].open()).get_server_pid()
        sql(address, f"SELECT pg_terminate_backend({pid}, 5000)")
        assert world.send(click, f"txid=T{n}").verdict == "accepted"
    assert len(world.conversions(click)) == 3


def test_a_write_that_takes_too_long_is_given_up_and_its_session_is_ended(world: World, address: str) -> None:
    click = world.click()
    world.send(click, "txid=first")
    store_of(world)._writers[0].timeout_s = 0.3

    async def blocked() -> float:
        other = await asyncpg.connect(address)
        await other.execute("BEGIN; LOCK TABLE conversions")
        began = time.monotonic()
        with pytest.raises(StoreAway):
            await world.store.write(Batch((), [world.make(click, "txid=T")]), world.rulebook)
        took = time.monotonic() - began
        await other.execute("ROLLBACK")
        await other.close()
        return took

    assert world.run(blocked()) < 2
    store_of(world)._writers[0].timeout_s = 5
    world.run(world.store.recover())
    assert world.send(click, "txid=T").verdict == "accepted"
    assert len(world.conversions(click)) == 2


def test_transactions_that_got_in_each_others_way_are_tried_again(world: World) -> None:
    click = world.click()
    store = store_of(world)._writers[0]
    write_once = store._write_once
    failures = iter([asyncpg.DeadlockDetectedError("deadlock"), asyncpg.SerializationError("serialization")])

    async def failing(*arguments: Any, **more: Any) -> Written:
        for failure in failures:
            raise failure
        return await write_once(*arguments, **more)

    store._write_once = failing  # type: ignore[method-assign]
    assert world.send(click, "txid=T").verdict == "accepted"
    assert next(failures, None) is None
    assert len(world.conversions(click)) == 1


def test_a_real_deadlock_of_two_nodes_is_survived(world: World, address: str) -> None:
    """Two transactions that hold what the other wants; the server ends one of them, which is tried again."""
    clicks = [world.click() for _ in range(2)]
    for click in clicks:
        world.send(click, "txid=T&status=pending")

    async def meet() -> list[str]:
        other = await asyncpg.connect(address)
        await other.execute("BEGIN")
        await other.execute("UPDATE conversions SET channels = channels WHERE click_id = $1", clicks[1].stamp)
        batch = Batch((), [world.make(click, "txid=T&status=approved") for click in clicks])
        writing = asyncio.ensure_future(world.store.write(batch, world.rulebook))
        # The store holds the first row and waits for the second; now the other one wants the first.
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        watcher = await asyncpg.connect(address)
        while not await watcher.fetchval(waiting):
            continue
        try:
            await other.execute(
                "UPDATE conversions SET channels = channels WHERE click_id = $1", clicks[0].stamp
            )
            await other.execute("COMMIT")
        except asyncpg.DeadlockDetectedError:
            await other.execute("ROLLBACK")
        written = await writing
        for db in (other, watcher):
            await db.close()
        return [words(outcome).verdict for outcome in written.outcomes]

    store_of(world)._writers[0].timeout_s = 20
    assert world.run(meet()) == ["updated", "updated"]


# --- two nodes meet --------------------------------------------------------------------------------------------


def test_a_click_and_its_postback_that_did_not_see_each_other_are_matched_soon(
    world: World, address: str
) -> None:
    plain, own = world.make_click(), world.make_click(own_id="mine")

    async def meet() -> None:
        other = await asyncpg.connect(address)
        await make_partitions(other, {partition_of("clicks", plain.stamp)})
        await other.execute("BEGIN")
        tx = PostgresTransaction(other)
        await tx.add_clicks([plain])
        await tx.claim_own_ids({"mine": own.stamp})
        await tx.add_clicks([own])
        assert list(await tx.take_waiting([f"#{plain.stamp}", "=mine"])) == []
        batch = Batch((), [world.make(plain, "txid=T"), world.make("mine", "txid=T")])
        written = await world.store.write(batch, world.rulebook)
        assert [words(outcome).verdict for outcome in written.outcomes] == ["unmatched"] * 2
        await other.execute("COMMIT")
        await other.close()

    world.run(meet())
    assert world.conversions(plain) == []
    assert world.run(world.store.match_waiting(world.rulebook, NOW_MS - 1000)) == 2
    assert [len(world.conversions(click)) for click in (plain, own)] == [1, 1]
    assert world.run(world.store.match_waiting(world.rulebook, NOW_MS - 1000)) == 0


def test_pixel_and_s2s_on_two_nodes_at_once_are_one_conversion(world: World, address: str) -> None:
    clicks = [world.click() for _ in range(40)]
    pixels = [Batch((), [world.make(click, "value=5", channel=Channel.PIXEL)]) for click in clicks]
    postbacks = [Batch((), [world.make(click, "value=5&txid=T")]) for click in clicks]

    async def meet() -> None:
        other = await PostgresStore.open(address, create=True)
        for pixel, postback in zip(pixels, postbacks, strict=True):
            await asyncio.gather(
                other.write(pixel, world.rulebook), world.store.write(postback, world.rulebook)
            )
        await other.close()

    world.run(meet())
    found = [world.conversions(click) for click in clicks]
    assert [len(rows) for rows in found] == [1] * 40
    assert {(rows[0]["transaction_id"], rows[0]["channels"]) for rows in found} == {("T", 3)}


def test_changes_on_two_nodes_at_once_are_all_in_the_history(world: World, address: str) -> None:
    click = world.click()
    world.send(click, "txid=T&value=1", "update")
    changes = [world.make(click, f"txid=T&value={n}", "update") for n in range(2, 42)]

    async def meet() -> None:
        other = await PostgresStore.open(address, create=True)
        for here, there in zip(changes[::2], changes[1::2], strict=True):
            await asyncio.gather(
                world.store.write(Batch((), [here]), world.rulebook),
                other.write(Batch((), [there]), world.rulebook),
            )
        await other.close()

    world.run(meet())
    (row,) = world.conversions(click)
    history = world.query("history", conversion_id=row["conversion_id"])
    steps = {(change["value_micros_from"], change["value_micros_to"]) for change in history}
    assert len(history) == 40
    value, path = 1_000_000, 0
    for start, end in sorted(steps, key=lambda step: step[0]):
        path += end - start
    assert value + path == row["value_micros"]


def test_several_servers_may_make_the_tables_at_once(address: str) -> None:
    async def together() -> list[PostgresStore]:
        return list(await asyncio.gather(*(PostgresStore.open(address, create=True) for _ in range(6))))

    async def whole() -> set[bytes]:
        stores = await together()
        keys = {(await store.load_catalog()).privacy_key for store in stores}
        for store in stores:
            await store.close()
        return keys

    assert len(asyncio.run(whole())) == 1


def test_a_change_of_the_catalog_is_heard_before_it_is_asked_for(
    world: World, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_ASK_GENERATION_EVERY_S", 1e9)
    before = world.run(world.store.catalog_generation())
    on(address, lambda store: store.save(Source(id=0, name="from elsewhere")))

    async def hear() -> int:
        await (await store_of(world).connection()).fetchval("SELECT 1")  # what was told comes with the answer
        return await world.store.catalog_generation()

    assert world.run(hear()) == before + 1


def test_a_change_that_was_not_heard_is_asked_for(
    world: World, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert front_door._TICK_S + postgres._ASK_GENERATION_EVERY_S < 1, "that is how often a node looks"
    before = world.run(world.store.catalog_generation())
    monkeypatch.setattr(store_of(world), "_hear_of_change", lambda *_: None)
    monkeypatch.setattr(postgres, "_ASK_GENERATION_EVERY_S", 0)
    on(address, lambda store: store.save(Source(id=0, name="from elsewhere")))
    assert world.run(world.store.catalog_generation()) == before + 1


# --- node numbers ----------------------------------------------------------------------------------------------


def claim(world: World, address: str, now_ms: int = NOW_MS) -> NodeLease:
    """The lease of another process."""
    lease: NodeLease = on(address, lambda store: store.claim_node(0, now_ms))
    return lease


def test_two_nodes_never_share_a_number(world: World, address: str) -> None:
    leases = [claim(world, address) for _ in range(5)]
    assert [lease.node for lease in leases] == [0, 1, 2, 3, 4]


def test_many_nodes_that_start_at_once_get_a_number_each(address: str) -> None:
    async def whole() -> list[int]:
        stores = [await PostgresStore.open(address, create=True) for _ in range(8)]
        leases = await asyncio.gather(*(store.claim_node(0, NOW_MS) for store in stores))
        for store in stores:
            await store.close()
        return sorted(lease.node for lease in leases)

    assert asyncio.run(whole()) == list(range(8))


def test_a_number_given_back_is_given_out_again_for_later_stamps(world: World, address: str) -> None:
    lease = world.run(world.store.claim_node(0, NOW_MS))
    mint = StampMint(lease.node)
    mint.lease(lease.node, lease.from_ms, lease.until_ms)
    last = [mint.mint(NOW_MS) for _ in range(10_000)][-1]
    world.run(world.store.release_node(lease, mint.next_ms))
    late = claim(world, address, NOW_MS - 3_600_000)
    assert late.node != lease.node  # for a clock that is behind, its stamps would lie in the future
    again = claim(world, address, NOW_MS + 60_000)
    assert again.node == lease.node
    successor = StampMint(again.node)
    successor.lease(again.node, again.from_ms, again.until_ms)
    assert successor.mint(NOW_MS - 3_600_000) > last


def test_a_number_whose_holder_is_gone_is_given_out_when_its_time_is_over(world: World, address: str) -> None:
    first = claim(world, address)
    assert claim(world, address, first.until_ms - 1).node != first.node
    taken = claim(world, address, first.until_ms)
    assert (taken.node, taken.from_ms) == (first.node, first.until_ms)


def test_a_number_is_short_lived_until_its_holder_has_shown_that_it_lives(world: World, address: str) -> None:
    """A process that is killed after each start, every two seconds, would have all 1,024 within six hours."""
    lease = claim(world, address)
    assert lease.until_ms - NOW_MS == FIRST_LEASE_MS < 1024 * 2000 / 2
    assert lease.until_ms - NOW_MS > 2 * RENEW_EVERY_S * 1000

    async def renew(store: PostgresStore) -> NodeLease:
        return await store.renew_node(await store.claim_node(0, NOW_MS), NOW_MS + 60_000)

    renewed: NodeLease = on(address, renew)
    assert renewed.until_ms == NOW_MS + 60_000 + LEASE_MS


class Watched(StampMint):
    """Tells when it was given another node number."""

    def __init__(self, node: int) -> None:
        super().__init__(node)
        self.first, self.leased = node, asyncio.Event()

    def lease(self, node: int, from_ms: int, until_ms: int) -> None:
        super().lease(node, from_ms, until_ms)
        if node != self.first:
            self.leased.set()


def test_a_lost_lease_stops_minting_until_there_is_another(world: World, address: str) -> None:
    number = NodeNumber(world.store)
    world.run(number.claim(0, NOW_MS))
    lease = number._lease
    assert lease is not None
    mint = number.mint = Watched(lease.node)
    mint.lease(lease.node, lease.from_ms, lease.until_ms)
    assert mint.may_mint(NOW_MS)
    assert not mint.may_mint(lease.until_ms)
    late_ms = lease.until_ms + 5
    successor = claim(world, address, late_ms)
    assert successor.node == lease.node
    with pytest.raises(NodeLost, match="another server"):
        world.run(world.store.renew_node(lease, late_ms))

    async def keep() -> None:
        keeping = asyncio.ensure_future(number.keep(lambda: late_ms, pause_s=0))
        async with asyncio.timeout(10):
            await mint.leased.wait()
        keeping.cancel()
        await asyncio.wait([keeping])

    world.run(keep())
    assert mint.mint(late_ms) >> 12 & 0x3FF != successor.node


def test_when_all_numbers_are_taken_another_server_is_refused(world: World, address: str) -> None:
    sql(address, f"INSERT INTO nodes SELECT n, 'somebody', {NOW_MS + 1} FROM generate_series(0, 1023) AS n")
    with pytest.raises(StoreRefused, match="1,024"):
        world.run(world.store.claim_node(0, NOW_MS))


# --- partitions ------------------------------------------------------------------------------------------------


def test_partitions_cover_all_of_time_without_gap_or_overlap() -> None:
    for table in TABLES:
        stamp, count = 0, 0
        while stamp < MAX_STAMP and count < 3000:
            partition = partition_of(table, stamp)
            assert partition.first == stamp
            assert partition_of(table, partition.end - 1) == partition
            stamp, count = partition.end, count + 1


def test_partitions_are_made_ahead(address: str) -> None:
    now_ms = int(time.time() * 1000)

    async def names(store: PostgresStore) -> set[str]:
        db = await store.connection()
        return {partition.name for table in TABLES for partition in await list_partitions(db, table)}

    made = on(address, names)
    assert {partition.name for partition in partitions_ahead(now_ms)} <= made
    assert {partition_of(table, first_stamp_at(now_ms + 3 * DAY_MS)).name for table in TABLES} <= made


def test_a_missing_partition_is_made_by_the_write_that_needs_it(world: World, address: str) -> None:
    world.now_ms = int(time.time() * 1000) + 400 * DAY_MS
    click = world.click(age_s=300 * 86_400)
    assert world.send(click, "txid=T").verdict in ("accepted", "rejected")
    for table in ("clicks", "postbacks"):
        assert len(sql(address, f"SELECT 1 FROM {table}")) == 1


def test_two_nodes_may_miss_the_same_partition(world: World, address: str) -> None:
    world.now_ms += 900 * DAY_MS
    batches = [Batch([world.make_click()]) for _ in range(6)]

    async def meet() -> int:
        stores = [await PostgresStore.open(address, create=True) for _ in batches]
        await asyncio.gather(*(s.write(b, world.rulebook) for s, b in zip(stores, batches, strict=True)))
        for store in stores:
            await store.close()
        return len(await world.store.query("names"))

    world.run(meet())
    assert len(sql(address, "SELECT 1 FROM clicks")) == 6


def test_a_purge_drops_whole_days_and_what_is_interrupted_is_finished(world: World, address: str) -> None:
    for day in range(4):
        world.click(age_s=(20 + day) * 86_400)

    def days() -> int:
        (found,) = sql(
            address, "SELECT count(*) FROM pg_class WHERE relname ~ '^clicks_2025' AND relkind = 'r'"
        )
        return int(found[0])

    before = days()
    partition = partition_of("clicks", first_stamp_at(world.now_ms - 22 * DAY_MS))
    sql(address, f"COMMENT ON TABLE {partition.name} IS '{PURGED}'")
    sql(address, f"ALTER TABLE clicks DETACH PARTITION {partition.name}")
    assert days() == before
    world.run(store_of(world).tend())
    assert days() == before - 1
    while world.run(world.store.purge(world.now_ms - 10 * DAY_MS, 100)):
        continue
    assert sql(address, "SELECT 1 FROM clicks") == []
    assert days() == before - 4


def test_facts_that_a_killed_purge_left_behind_go_with_the_next(world: World, address: str) -> None:
    click = world.click()
    world.send(click, "txid=T&value=1")
    keeper = RollupKeeper(world.store, UTC, lambda: world.now_ms)
    assert world.run(keeper.catch_up())
    before_ms = NOW_MS + 90 * DAY_MS
    while world.run(world.store.purge_class(Class.CLICKS, before_ms, 100)):
        pass
    for partition in sql(address, "SELECT DISTINCT tableoid::regclass::text FROM conversions"):
        sql(address, f"DROP TABLE {partition[0]}")
    assert sql(address, "SELECT conversion_id FROM conversion_facts")
    while world.run(world.store.purge_class(Class.CONVERSIONS, before_ms, 100)):
        pass
    assert not sql(address, "SELECT conversion_id FROM conversion_facts")


def test_a_day_that_was_purged_can_be_written_to_again(world: World) -> None:
    click = world.click(age_s=20 * 86_400)
    while world.run(world.store.purge(world.now_ms - 10 * DAY_MS, 100)):
        continue
    world.write([click])
    assert len(world.query("click", click_id=click.stamp)) == 1


# --- the schema --------------------------------------------------------------------------------------------------


def test_an_empty_database_is_refused_without_leave_to_make_tables(address: str) -> None:
    assert "postbackd serve" in refusal(address, create=False)
    assert sql(address, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace") == []


def test_a_database_of_another_program_is_refused_and_not_touched(address: str) -> None:
    sql(address, "CREATE TABLE theirs (id integer)")
    assert "another program" in refusal(address)
    assert sql(address, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [
        ("theirs",)
    ]


def test_a_migration_with_another_text_is_refused(address: str) -> None:
    on(address, lambda store: store.last_stamp())
    sql(address, "UPDATE schema_migrations SET checksum = 'other'")
    assert "another text" in refusal(address)


def test_a_newer_schema_is_used_if_it_says_that_it_can_be_and_refused_if_not(address: str) -> None:
    on(address, lambda store: store.last_stamp())
    newest = postgres_schema.migrations()[-1].number
    sql(
        address,
        f"INSERT INTO schema_migrations (number, name, checksum, needs) VALUES ({newest + 1}, 'x', 'y', {newest})",
    )
    on(address, lambda store: store.last_stamp())
    sql(address, f"UPDATE schema_migrations SET needs = {newest + 1} WHERE number = {newest + 1}")
    assert "newer postbackd" in refusal(address)


def test_a_migration_that_fails_leaves_nothing_behind(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    good = postgres_schema.migrations()
    bad = postgres_schema.Migration(
        len(good) + 1, "bad", "CREATE TABLE more (id integer); SELECT 1 / 0", "c", 1
    )
    with monkeypatch.context() as patch:
        patch.setattr(postgres_schema, "migrations", lambda: (*good, bad))
        assert "division by zero" in refusal(address)
    assert sql(address, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace") == []
    on(address, lambda store: store.last_stamp())


def test_a_migration_waits_until_servers_have_ended_that_do_not_know_what_it_adds(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def migrate_beside(name: str) -> int:
        db = await asyncpg.connect(address)
        other = await asyncpg.connect(address, server_settings={"application_name": name})
        try:
            return len(await postgres_schema.migrate(db, patience_s=0))
        finally:
            await other.close()
            await db.close()

    before = postgres_schema.migrations()[:2]
    with monkeypatch.context() as patch:
        patch.setattr(postgres_schema, "migrations", lambda: before)
        assert asyncio.run(migrate_beside("postbackd")) == 2
    for older in ("postbackd", "postbackd 5"):
        with pytest.raises(StoreRefused, match="stop every server of that version"):
            asyncio.run(migrate_beside(older))
    assert len(sql(address, "SELECT number FROM schema_migrations")) == 2
    pending = len(postgres_schema.migrations()) - len(before)
    assert asyncio.run(migrate_beside(postgres_schema.session_name())) == pending
    assert asyncio.run(migrate_beside("postbackd")) == 0  # nothing is pending any more
    on(address, lambda store: store.last_stamp())
    named = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"
    asked = on(address, lambda store: store._ask(lambda db: db.fetchval(named)))
    assert asked == postgres_schema.session_name()


# --- the server --------------------------------------------------------------------------------------------------


def test_commits_wait_for_the_disk_whatever_the_default_of_the_server_is(address: str) -> None:
    name = address.partition("?")[0].rpartition("/")[2]
    sql(address, f"ALTER DATABASE {name} SET synchronous_commit = off")

    async def look(store: PostgresStore) -> list[str]:
        return [
            await db.fetchval("SHOW synchronous_commit")
            for db in (await store._writers[0].open(), await store.connection())
        ]

    assert on(address, look) == ["on", "on"]


def test_a_database_in_another_encoding_is_refused() -> None:
    running = server(VERSIONS[0])
    running.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
    assert "UTF8" in refusal(running.address("latin"))


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    line = refusal("postgresql://user:geheim@127.0.0.1:1/name?password=geheim")
    assert "geheim" not in line
    assert "127.0.0.1:1/name" in line


async def _plan(address: str, statement: str, *values: Any) -> str:
    db = await connect(address, WRITING)
    try:
        rows = await db.fetch(f"EXPLAIN (ANALYZE, COSTS off, TIMING off) {statement}", *values)
        return "\n".join(row[0] for row in rows)
    finally:
        await db.close()


def test_a_look_up_touches_only_the_days_between_which_its_stamps_lie(world: World, address: str) -> None:
    from postbackd.store.postgres_write import FIND_CLICKS

    clicks = [world.click(age_s=day * 86_400) for day in range(30)]
    stamps = [click.stamp for click in clicks[3:5]]
    plan = asyncio.run(_plan(address, FIND_CLICKS, stamps, [0, 0], min(stamps), max(stamps)))
    touched = [line for line in plan.splitlines() if "Scan using" in line and "clicks_" in line]
    assert len(touched) == 2
    assert "Seq Scan on clicks" not in plan


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_question_can_be_asked(questioned: World, name: str) -> None:
    rows = questioned.query(name, **ANY_PARAMETERS)
    assert all(isinstance(value, (int, str, type(None))) for row in rows for value in row.values())


def test_stamps_of_the_distant_future_find_their_partition() -> None:
    for table in TABLES:
        assert partition_of(table, MAX_STAMP).end > MAX_STAMP - (40 << 22) * DAY_MS
    assert stamp_ms(MAX_STAMP) > 0


def test_a_server_of_the_version_before_goes_on_beside_a_migration(world: World, address: str) -> None:
    click = world.click()
    world.send(click, "txid=before")
    newest = postgres_schema.migrations()[-1].number
    for table in ("clicks", "conversions", "postbacks", "waiting", "networks"):
        sql(address, f"ALTER TABLE {table} ADD COLUMN added text")
    sql(
        address,
        f"INSERT INTO schema_migrations (number, name, checksum, needs) VALUES ({newest + 1}, 'x', 'y', {newest})",
    )
    later = world.click()
    said = [world.send(c, f"txid={n}").verdict for n, c in enumerate((click, later, click))]
    assert said == ["accepted"] * 3
    assert world.send(click, "txid=before").verdict == "duplicate"
    assert len(world.query("log")) == 5
    assert len(world.run(world.store.load_catalog()).networks) == 4


# --- erasure beside another node ---------------------------------------------------------------------------------


def test_repeats_and_changes_on_another_node_during_erasures_count_nothing_twice(
    world: World, address: str
) -> None:
    clicks = [world.click() for _ in range(60)]
    for number, click in enumerate(clicks):
        world.send(click, f"txid=T{number}&value=1&status=pending", "update")
    repeats = [
        world.make(click, f"txid=T{number}&value={2 + again}&status=approved", "update")
        for again in range(2)
        for number, click in enumerate(clicks)
    ]

    async def meet() -> list[Any]:
        other = await PostgresStore.open(address, create=True)
        wanted = [Erasing("click_id", f"r{click.stamp}", [click.stamp], (), NOW_MS) for click in clicks]
        masker = world.rulebook.masker

        async def erase_all() -> None:
            for one in wanted:
                await world.store.erase(one, masker)

        async def repeat_all() -> None:
            for repeat in repeats:
                await other.write(Batch((), [repeat]), world.rulebook)

        await asyncio.gather(erase_all(), repeat_all())
        await erase_all()  # the next pass
        await other.close()
        return [found async for found in verify(PostgresReader(await store_of(world).connection()))]

    found = world.run(meet())
    assert [damage for damage in found if isinstance(damage, Damage)] == []
    assert [len(world.conversions(click)) for click in clicks] == [1] * 60


def test_an_erasure_that_goes_on_cleans_every_partition(world: World, address: str) -> None:
    click = world.click()
    world.send(click, "txid=T")
    wanted = Erasing("transaction_id", "r", [click.stamp], (), NOW_MS)
    world.run(world.store.erase(wanted, world.rulebook.masker))
    files = "SELECT relfilenode FROM pg_class WHERE oid = (SELECT tableoid FROM conversions LIMIT 1)"
    before = sql(address, files)
    again = Erasing("transaction_id", "r", (), (), NOW_MS)  # the id finds nothing any more
    world.run(world.store.scrub(again, everywhere=True, rewrite=True))
    assert sql(address, files) != before


def test_what_the_server_has_noted_of_a_table_for_its_plans_forgets_an_erased_person_too(
    world: World, address: str
) -> None:
    mark = "Marker-of-a-person"
    clicks = [world.click(f"{mark}-o{number}", subs=(f"{mark}-s{number}",)) for number in range(40)]
    for number, click in enumerate(clicks):
        world.send(click, f"txid={mark}-{number}&value=1")
    for number in range(40):
        world.send(f"{mark}-unknown{number}", f"txid={mark}&value=1")
    facts = (
        "conversion_id, click_id, network, campaign, offer, type, status, value_micros, currency, channels"
    )
    sql(
        address,
        f"INSERT INTO conversion_facts ({facts}, rung, sub1) "
        f"SELECT {facts}, '', '{mark}' || conversion_id FROM conversions",
    )
    sql(address, "ANALYZE")
    noted = (
        "SELECT DISTINCT tablename FROM pg_stats "
        f"WHERE concat(histogram_bounds::text, most_common_vals::text) LIKE '%{mark}%' ORDER BY 1"
    )
    tables = {table.partition("_2")[0] for (table,) in sql(address, noted)}
    wanted_tables = {"clicks", "own_ids", "conversions", "postbacks", "waiting", "conversion_facts"}
    assert tables == wanted_tables  # the control
    waiting = [row[0] for row in sql(address, "SELECT request_id FROM postbacks WHERE click_id IS NULL")]
    wanted = Erasing("click_id", "r", [click.stamp for click in clicks], waiting, NOW_MS)
    world.run(world.store.erase(wanted, world.rulebook.masker))
    world.run(world.store.scrub(wanted, everywhere=False, rewrite=True))
    assert sql(address, noted) == []
