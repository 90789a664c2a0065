"""Every path that writes a money row leaves it with its checksum, and a damaged row is found and named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from postbackd.core.checksum import CONVERSION_COLUMNS, carry, checksum
from postbackd.core.click_id import write_stamp
from postbackd.core.model import Channel
from postbackd.core.retention import DAY_MS, Class
from postbackd.store.postgres import PostgresStore
from postbackd.store.postgres_sealing import PostgresSealer
from postbackd.store.postgres_verify import PostgresReader
from postbackd.store.sealing_rows import SqliteSealer, Writer, accept, seal
from postbackd.store.sqlite import SqliteStore
from postbackd.store.sqlite_file import FILE_NAME
from postbackd.store.sqlite_verify import SqliteReader, open_to_read
from postbackd.store.verifying import Damage, Progress, Reader, verify
from tests.store.contract import World


async def _reader_of(world: World) -> Reader:
    if isinstance(world.store, PostgresStore):
        return PostgresReader(await world.store.connection())
    return SqliteReader(open_to_read(world.directory / FILE_NAME, alone=False))


async def _look(world: World) -> tuple[list[Damage], int, int]:
    reader = await _reader_of(world)
    damages, rows, unsealed = [], 0, 0
    async for found in verify(reader):
        if isinstance(found, Progress):
            rows, unsealed = rows + found.rows, unsealed + found.unsealed
        else:
            damages.append(found)
    if isinstance(reader, SqliteReader):
        await reader.close()
    return damages, rows, unsealed


def look(world: World) -> tuple[list[Damage], int, int]:
    """Damages, money rows read, and how many of them have no checksum and need none."""
    return world.run(_look(world))


def execute(world: World, sql: str) -> None:
    world.run(world.kind.execute(world.store, sql))


def fill(world: World) -> None:
    """Every way in which a money row comes to be or changes."""
    click = world.click()
    world.send(click, "txid=counted&value=1.25")
    world.send(click, "txid=pending&value=2&status=pending")
    world.send(click, "txid=pending&status=approved")  # status change
    world.send(click, "txid=pending&status=reversed")
    world.send(click, "txid=value&value=3", "update")
    world.send(click, "txid=value&value=4.5&currency=EUR", "update")  # value change
    world.send(click, "value=5", "add")
    world.send(click, "value=5", "add")  # another conversion under a key of its own
    world.send(click, "txid=value&value=9", channel=Channel.PIXEL)  # channels alone
    other = world.click()
    world.send(other, "value=6", channel=Channel.PIXEL)
    world.send(other, "txid=named&value=7")  # rename of a pixel conversion
    late = world.make_click()
    world.send(late, "txid=late&value=8")
    world.write([late])  # late match
    world.send(world.click(), "txid=ä€&type=größer&value=0.000001")


def test_every_path_leaves_the_right_checksum(world: World) -> None:
    fill(world)
    damages, rows, unsealed = look(world)
    assert damages == []
    assert rows >= 12
    assert unsealed == 0


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE conversions SET value_micros = value_micros + 1 WHERE transaction_id = 'counted'",
        "UPDATE conversions SET currency = 'EUR' WHERE transaction_id = 'counted'",
        "UPDATE conversions SET status = 1 WHERE transaction_id = 'counted'",
        "UPDATE conversions SET transaction_id = 'other' WHERE transaction_id = 'counted'",
        "UPDATE conversions SET checksum = checksum + 1 WHERE transaction_id = 'counted'",
        "UPDATE conversions SET checksum = NULL WHERE transaction_id = 'counted'",
    ],
)
def test_a_changed_conversion_is_found_and_named(world: World, change: str) -> None:
    fill(world)
    (row,) = world.query("conversions_of_transaction", transaction_id="counted")
    execute(world, change)
    (damage,) = look(world)[0]
    assert damage.where == "conversions"
    assert damage.conversion == write_stamp(row["conversion_id"])


def test_a_changed_history_is_found_and_named(world: World) -> None:
    fill(world)
    (row,) = world.query("conversions_of_transaction", transaction_id="value")
    execute(
        world,
        f"UPDATE conversion_history SET value_micros_to = 1 WHERE conversion_id = {row['conversion_id']} "
        "AND value_micros_to = 4500000",
    )
    (damage,) = look(world)[0]
    assert (damage.where, damage.conversion) == ("conversion_history", write_stamp(row["conversion_id"]))


def test_rows_that_vanished_are_missed_by_the_log(world: World) -> None:
    if world.kind.name == "citus":
        pytest.skip("distributed tables are not compared with the log")
    fill(world)
    (row,) = world.query("conversions_of_transaction", transaction_id="counted")
    execute(world, "DELETE FROM conversions WHERE transaction_id = 'counted'")
    execute(world, "DELETE FROM conversion_history WHERE value_micros_to = 4500000")
    damages, _, _ = look(world)
    assert [damage.where for damage in damages] == ["log", "log"]
    assert damages[0].conversion == write_stamp(row["conversion_id"])


def test_a_change_of_a_damaged_conversion_does_not_hide_the_damage(world: World) -> None:
    click = world.click()
    world.send(click, "txid=T&value=2&status=pending")
    execute(world, "UPDATE conversions SET value_micros = 9000000")
    world.send(click, "txid=T&status=approved")
    damages, _, _ = look(world)
    assert [damage.where for damage in damages] == ["conversions"]
    assert "value_micros 9000000" in damages[0].detail


def test_rows_from_before_are_counted_and_sealed_once(world: World) -> None:
    fill(world)
    last = world.run(world.store.last_stamp())
    execute(world, "UPDATE conversions SET checksum = NULL")
    execute(world, "UPDATE conversion_history SET checksum = NULL")
    execute(world, f"INSERT INTO settings (name, value) VALUES ('unsealed_to', {last}) "
            f"ON CONFLICT (name) DO UPDATE SET value = {last}")  # fmt: skip
    damages, rows, unsealed = look(world)
    assert damages == []
    assert unsealed == rows
    (row,) = world.query("conversions_of_transaction", transaction_id="counted")
    assert world.run(_accept(world, write_stamp(row["conversion_id"]))) == [], "nothing is wrong with it"
    assert world.query("accepted_rows") == []
    assert world.run(_seal(world)) == rows
    assert look(world) == ([], rows, 0)
    execute(world, "UPDATE conversions SET checksum = NULL WHERE transaction_id = 'counted'")
    assert len(look(world)[0]) == 1


def test_what_a_damaged_row_says_is_accepted_and_changes_go_on_from_there(world: World) -> None:
    fill(world)
    for name in ("counted", "value"):
        execute(world, f"UPDATE conversions SET value_micros = 7000001 WHERE transaction_id = '{name}'")
    (row,) = world.query("conversions_of_transaction", transaction_id="counted")
    conversion = write_stamp(row["conversion_id"])
    (accepted,) = world.run(_accept(world, conversion))
    assert "value_micros 7000001" in accepted.detail
    (left,) = look(world)[0]
    assert left.conversion != conversion, "the others stay what they are"
    assert world.query("accepted_rows") == [{"conversion": conversion, "at_ms": 5}]
    assert world.run(_accept(world, conversion)) == []
    execute(world, "UPDATE conversions SET status = 1 WHERE transaction_id = 'counted'")
    assert len(look(world)[0]) == 2, "damage that comes later is found"


async def _accept(world: World, conversion: str) -> Sequence[Damage]:
    async with _sealing(world) as (reader, writer):
        return await accept(reader, writer, conversion, 5)


async def _seal(world: World) -> int:
    async with _sealing(world) as (reader, writer):
        return sum([count async for count in seal(reader, writer)])


@asynccontextmanager
async def _sealing(world: World) -> AsyncIterator[tuple[Reader, Writer]]:
    reader = await _reader_of(world)
    store = world.store
    if isinstance(store, SqliteStore):
        yield reader, SqliteSealer(store.connection)
        await reader.close()
        return
    assert isinstance(store, PostgresStore)
    other = await PostgresStore.open(store._dsn, create=False)
    try:
        yield reader, PostgresSealer(await other.connection())
    finally:
        await other.close()


def test_a_checksum_is_carried_from_state_to_state() -> None:
    before = (1, "sale", "T", 2, 1, 1, 1, 1, 5_000_000, "USD", 1, 0)
    after = (*before[:2], "erased", *before[3:])
    assert len(before) == len(CONVERSION_COLUMNS)
    assert carry(checksum(before), before, after) == checksum(after)
    assert carry(checksum(before) ^ 4, before, after) == checksum(after) ^ 4
    assert carry(None, before, after) is None
    assert -(1 << 31) <= checksum(before) < 1 << 31


def test_verifying_beside_a_writer_changes_nothing_and_finds_nothing(world: World) -> None:
    fill(world)

    async def together() -> list[Damage]:
        damages, _, _ = await _look(world)
        return damages

    assert world.run(asyncio.wait_for(together(), 30)) == []


def test_a_conversion_that_retention_deleted_is_not_missed_by_the_log(world: World) -> None:
    """The log may be kept for longer than conversions, and a change may be younger than what it changed."""
    click = world.click()
    world.send(click, "txid=old&value=1")
    world.now_ms += 800 * DAY_MS
    world.send(click, "txid=old&value=2", "update")  # the conversion is old, the change is not
    young = world.click()
    world.send(young, "txid=young")
    for class_ in (Class.CLICKS, Class.CONVERSIONS):
        while world.run(world.store.purge_class(class_, world.now_ms - 700 * DAY_MS, 100)):
            continue
    assert world.conversions(click) == []
    assert look(world)[0] == []
    execute(world, "DELETE FROM conversions WHERE transaction_id = 'young'")
    if world.kind.name != "citus":
        assert [damage.where for damage in look(world)[0]] == ["log"]
