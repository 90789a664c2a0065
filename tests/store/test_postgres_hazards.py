"""What an attack on the store found once, and must not find again."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from postbackd.core.click_id import first_stamp_at, stamp_ms
from postbackd.core.model import Channel, Click
from postbackd.core.privacy import mask_password
from postbackd.ingest.spool import FOLDER, Spool, SpoolOfAnother
from postbackd.settings import Settings
from postbackd.store import postgres_write
from postbackd.store.base import Batch, StoreAway
from postbackd.store.postgres import PostgresStore
from postbackd.store.postgres_partitions import partition_of
from postbackd.store.postgres_writer import BEGIN, BEGIN_ALONE
from tests.ingest.test_spool import LIMIT, make, numbers
from tests.postgres_server import VERSIONS, new_database
from tests.store.contract import KINDS, NOW_MS, World, postgres_kind, words
from tests.store.test_moving import move
from tests.store.test_postgres import on, sql, store_of

needs_server = pytest.mark.skipif(not VERSIONS, reason="no PostgreSQL 15 or newer was found")

DAY_MS = 86_400_000


@pytest.fixture
def address() -> str:
    if not VERSIONS:
        pytest.skip("no PostgreSQL 15 or newer was found")
    return new_database(VERSIONS[0])


@pytest.fixture
def world(address: str, tmp_path: Path) -> Iterator[World]:
    made = World(postgres_kind(VERSIONS[0], address), tmp_path)
    yield made
    made.close()


def test_a_postback_by_an_own_id_makes_the_partition_that_its_click_needs(world: World, address: str) -> None:
    click = world.click(own_id="mine", age_s=20 * 86_400)
    for table in ("conversions", "conversion_history"):
        for name, *_ in sql(
            address, f"SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = '{table}'::regclass"
        ):
            sql(address, f"DROP TABLE {name}")
    assert world.send("mine", "txid=T&status=pending").verdict == "accepted"
    assert world.send("mine", "txid=T&status=approved").verdict == "updated"
    assert len(world.conversions(click)) == 1


def test_any_number_of_postbacks_may_wait_for_one_click(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_write, "MOST_WAITING", 10)
    for start in range(0, 35, 7):
        world.settle(*[world.make("mine", f"txid={n}") for n in range(start, start + 7)])
    click = world.click(own_id="mine")
    found = [len(world.conversions(click))]
    late = world.now_ms + 90 * 60_000  # however old they are
    while world.run(world.store.match_waiting(world.rulebook, late)):
        found.append(len(world.conversions(click)))
    assert found == [10, 20, 30, 35]


def test_a_late_pixel_beside_the_s2s_postback_of_the_same_sale_is_one_conversion(
    world: World, address: str
) -> None:
    clicks = [world.make_click() for _ in range(15)]
    for click in clicks:
        world.send(click, "value=5", channel=Channel.PIXEL)
    batches = [Batch((), [world.make(click, "value=5&txid=T1")]) for click in clicks]

    async def meet() -> None:
        other = await PostgresStore.open(address, create=True)
        await other.write(Batch(clicks), world.rulebook)
        for batch in batches:
            await asyncio.gather(
                world.store.match_waiting(world.rulebook, NOW_MS - DAY_MS),
                other.write(batch, world.rulebook),
            )
        await other.close()

    world.run(meet())
    world.run(world.store.match_waiting(world.rulebook, NOW_MS - DAY_MS))
    found = [world.conversions(click) for click in clicks]
    assert [[row["transaction_id"] for row in rows] for rows in found] == [["T1"]] * 15


def test_the_databases_default_isolation_does_not_matter(address: str, tmp_path: Path) -> None:
    name = address.partition("?")[0].rpartition("/")[2]
    sql(address, f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")

    async def look(store: PostgresStore) -> str:
        return str(await (await store._writers[0].open()).fetchval("SHOW default_transaction_isolation"))

    assert on(address, look) == "read committed"


def test_a_batch_that_an_old_session_commits_at_last_is_answered_as_it_was_stored(world: World) -> None:
    click = world.click()
    batch = Batch((), [world.make(click, "txid=T"), world.make("nobody", "txid=T")])
    first = world.run(world.store.write(batch, world.rulebook))
    again = world.run(world.store.write(batch, world.rulebook))
    assert [words(outcome) for outcome in again.outcomes] == [words(outcome) for outcome in first.outcomes]
    assert len(world.query("log")) == 2


def test_an_own_id_whose_click_is_purged_meanwhile_is_claimed_again(world: World) -> None:
    world.click(own_id="mine", age_s=60)
    click = world.make_click(own_id="mine")

    async def claim() -> list[int]:
        store = store_of(world)
        tx_type = store._writers[0]._transaction
        claimed = 0

        class Vanishing(tx_type):  # type: ignore[misc, valid-type]
            async def find_own_ids(self, own_ids: Any) -> Any:
                nonlocal claimed
                claimed += 1
                if claimed == 1:
                    await self._db.execute("DELETE FROM own_ids WHERE own_id = 'mine'")
                    return {}
                return await super().find_own_ids(own_ids)

        store._writers[0]._transaction = Vanishing
        written = await store.write(Batch([click]), world.rulebook)
        return list(written.clicks)

    assert world.run(claim()) == [click.stamp]


# --- a database that hangs -----------------------------------------------------------------------------------------


def test_a_question_that_hangs_is_given_up_and_the_next_one_is_answered(world: World, address: str) -> None:
    async def hang() -> tuple[float, int]:
        db = await store_of(world).connection()
        (backend,) = sql_in_thread(
            address, f"SELECT pid FROM pg_stat_activity WHERE pid = {db.get_server_pid()}"
        )
        os.kill(backend, signal.SIGSTOP)
        began = time.monotonic()
        try:
            store_of(world)._asker.timeout_s = 0.5
            results = await asyncio.gather(
                *(world.store.query("names") for _ in range(3)), return_exceptions=True
            )
        finally:
            os.kill(backend, signal.SIGCONT)
        assert any(isinstance(result, StoreAway) for result in results)
        return time.monotonic() - began, len(await world.store.query("names"))

    def sql_in_thread(address: str, statement: str) -> list[int]:
        import threading

        found: list[int] = []
        thread = threading.Thread(target=lambda: found.extend(row[0] for row in sql(address, statement)))
        thread.start()
        thread.join()
        return found

    took, names = world.run(hang())
    assert took < 5
    assert names > 0


def test_a_missing_partition_behind_a_lock_ends_the_write_and_loses_nothing(
    world: World, address: str
) -> None:
    world.now_ms += 500 * DAY_MS
    click = world.make_click()

    async def blocked() -> float:
        other = await asyncpg.connect(address)
        await other.execute("BEGIN; LOCK TABLE clicks IN SHARE UPDATE EXCLUSIVE MODE")
        began = time.monotonic()
        with pytest.raises(StoreAway):
            await world.store.write(Batch([click]), world.rulebook)
        took = time.monotonic() - began
        await other.execute("ROLLBACK")
        await other.close()
        return took

    assert world.run(blocked()) < 8
    world.write([click])
    assert len(world.query("click", click_id=click.stamp)) == 1


def test_who_runs_alone_and_who_does_not(world: World) -> None:
    from postbackd.store.postgres_writer import _has_to_run_alone

    click = world.click()
    pixel = world.make(click, "value=5", channel=Channel.PIXEL)
    named = world.make(click, "value=5&txid=T", channel=Channel.PIXEL)
    assert [_has_to_run_alone(batch) for batch in (
        Batch([click]), Batch((), [world.make(click)]), Batch((), [named]), Batch((), [pixel]), Batch(arrived=["#1"]),
    )] == [False, False, False, True, True]  # fmt: skip
    assert BEGIN != BEGIN_ALONE


# --- tables that are not ours to drop ------------------------------------------------------------------------------


def test_a_partition_that_an_operator_detached_is_never_dropped(world: World, address: str) -> None:
    click = world.click()
    world.send(click, "txid=T")
    name = partition_of("conversions", click.stamp).name
    sql(address, f"ALTER TABLE conversions DETACH PARTITION {name}")
    with pytest.raises(StoreAway, match="attach it again"):
        world.send(click, "txid=T")
    world.run(store_of(world).tend())
    assert len(sql(address, f"SELECT 1 FROM {name}")) == 1
    bounds = partition_of("conversions", click.stamp)
    sql(
        address,
        f"ALTER TABLE conversions ATTACH PARTITION {name} FOR VALUES FROM ({bounds.first}) TO ({bounds.end})",
    )
    assert world.send(click, "txid=T").verdict == "duplicate"


def test_a_table_that_only_looks_like_a_partition_is_left_alone(world: World, address: str) -> None:
    sql(address, "CREATE TABLE clicks_20240101 AS SELECT 1 AS kept")
    world.run(store_of(world).tend())
    assert sql(address, "SELECT kept FROM clicks_20240101") == [(1,)]


def test_a_purge_that_was_interrupted_can_be_run_again(world: World, address: str) -> None:
    for day in range(3):
        world.click(age_s=(20 + day) * 86_400)

    async def interrupt() -> None:
        reader = await asyncpg.connect(address)
        await reader.execute("BEGIN; SELECT count(*) FROM clicks")
        other = await PostgresStore.open(address, create=True)
        purging = asyncio.ensure_future(other.purge(world.now_ms - 10 * DAY_MS, 100))
        watcher = await asyncpg.connect(address)
        pending = "SELECT count(*) FROM pg_inherits WHERE inhdetachpending"
        async with asyncio.timeout(20):
            while not await watcher.fetchval(pending):
                continue
        purging.cancel()
        await asyncio.wait([purging])
        await other.close()
        await reader.execute("ROLLBACK")
        for db in (reader, watcher):
            await db.close()

    world.run(interrupt())
    while world.run(world.store.purge(world.now_ms - 10 * DAY_MS, 100)):
        continue
    assert sql(address, "SELECT 1 FROM clicks") == []


# --- copies ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[World]:
    made = World(KINDS[0], tmp_path / "data")
    yield made
    made.close()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE conversions SET value_micros = CASE value_micros WHEN 20000000 THEN 30000000 ELSE 20000000 END",
        "UPDATE conversions SET currency = CASE currency WHEN 'AUD' THEN 'AED' ELSE 'AUD' END",
        "UPDATE conversions SET status = 4 WHERE transaction_id = 'A'",
        "UPDATE conversions SET value_micros = 3000000000000 WHERE transaction_id = 'A'",
    ],
)
def test_a_copy_notices_every_change_of_a_conversion(embedded: World, address: str, change: str) -> None:
    for name, value, currency in (("A", 20, "AUD"), ("B", 30, "AED")):
        embedded.send(embedded.click(), f"txid={name}&value={value}&currency={currency}")
    move(embedded.directory, address)
    embedded.run(KINDS[0].execute(embedded.store, change))
    _, differences = move(embedded.directory, address)
    assert differences == []
    columns = "click_id, value_micros, currency, status"
    here = embedded.run(_rows(embedded, f"SELECT {columns} FROM conversions ORDER BY 1"))
    assert sql(address, f"SELECT {columns} FROM conversions ORDER BY 1") == here


async def _rows(world: World, statement: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in world.store.connection.execute(statement)]  # type: ignore[attr-defined]


def test_stamps_after_a_copy_lie_behind_those_before_it(embedded: World, address: str) -> None:
    click = embedded.click(age_s=0)
    move(embedded.directory, address)
    lease = on(address, lambda store: store.claim_node(0, NOW_MS - 5000))
    assert first_stamp_at(lease.from_ms) > click.stamp
    assert lease.from_ms == stamp_ms(click.stamp) + 1


# --- messages and files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "password", ["s3cret", "s3cr#et", "s3cr/et", "s3c?ret", "[s3cret", "s3c@ret", "s3:ret"]
)
def test_a_password_is_in_no_message_whatever_it_holds(password: str) -> None:
    dsn = f"postgresql://user:{password}@127.0.0.1:1/track?sslmode=disable"
    assert mask_password(dsn) == "postgresql://user@127.0.0.1:1/track"
    assert Settings(store=dsn).place == "postgresql://user@127.0.0.1:1/track"
    from tests.store.test_postgres import refusal

    line = refusal(dsn)
    assert "s3c" not in line
    assert "ret" not in line.replace("percent-encode special characters", "").replace("secret", "")


def test_a_spool_goes_into_no_other_database_than_the_one_it_was_kept_for(tmp_path: Path) -> None:
    spool = Spool(tmp_path, LIMIT, "one")
    spool.keep([], [make(0)])
    spool.close()
    with pytest.raises(SpoolOfAnother):
        Spool(tmp_path, LIMIT, "another")
    spool = Spool(tmp_path, LIMIT, "one")
    assert numbers(spool.read(10)) == [0]
    spool.drop()
    assert Spool(tmp_path, LIMIT, "another").empty


def test_a_record_of_another_version_is_put_aside_and_the_next_is_read(tmp_path: Path) -> None:
    spool = Spool(tmp_path, LIMIT)
    spool.keep([Click(1, 1, 1, 0)], [])
    segment = next((tmp_path / FOLDER).glob("*.spool"))
    strange = segment.read_bytes()
    spool.close()
    from zlib import crc32

    payload = b"\x81\xa5other\x01"
    record = b"pbS1" + len(payload).to_bytes(4, "big") + crc32(payload).to_bytes(4, "big") + payload
    segment.write_bytes(strange + record + strange)
    spool = Spool(tmp_path, LIMIT)
    batch = spool.read(10)
    assert batch is not None
    assert len(batch.clicks) == 2
    assert [path.read_bytes() for path in (tmp_path / FOLDER).glob("*.unreadable")] == [payload]
    spool.drop()
    assert spool.empty
