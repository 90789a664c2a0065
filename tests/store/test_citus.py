"""What the statements for a distributed database must keep to, and how a batch is divided.

Citus itself is not in Debian.  The contract runs on stand-ins for its functions, which record the distribution
(``tests.citus_server``), and on a real cluster when ``POSTBACKD_TEST_POSTGRES`` names one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from postbackd.core.buckets import BUCKETS, bucket_of_stamp, bucket_of_text
from postbackd.core.click_id import StampMint
from postbackd.store import (
    citus,
    citus_turn,
    erasure,
    postgres_outbox,
    postgres_purge,
    postgres_write,
    postgres_writer,
)
from postbackd.store.base import Batch, StoreRefused
from postbackd.store.postgres import FIND_ARRIVED, PostgresStore
from postbackd.store.postgres_asking import Asking
from postbackd.store.postgres_connection import _on_one_shard, connect
from postbackd.store.postgres_insert import Insert
from postbackd.store.postgres_schema import migrations
from postbackd.store.postgres_snapshot import copy_to_file
from postbackd.store.postgres_writer import Writer
from postbackd.store.queries import STATEMENTS as QUESTIONS
from tests.citus_rules import LOCAL, broken_rules
from tests.citus_server import CITUS_FUNCTIONS
from tests.postgres_server import VERSIONS, new_database
from tests.store.contract import World, citus_kind
from tests.store.test_postgres import on, sql

needs_server = pytest.mark.skipif(not VERSIONS, reason="no PostgreSQL 15 or newer was found")


def collect() -> dict[str, str]:
    """Every statement that can run on distributed tables, by its name."""
    found: dict[str, str] = {"FIND_ARRIVED": FIND_ARRIVED}
    for module in (citus, postgres_purge, postgres_writer):
        found |= {
            name: value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)
        }
    for name, value in vars(postgres_write).items():
        if isinstance(value, Insert):
            found[name] = value.values_sql(2)
        elif (
            name.isupper() and isinstance(value, str) and not hasattr(citus, name) and name not in _ONE_SERVER
        ):
            found[name] = value
    in_bucket = {
        "click": "click_id = 1 AND bucket = 1", "and_click": "AND click_id = 1 AND bucket = 1",
        "and_bucket_of_text": "AND bucket = 1", "columns": "click_id, bucket", "key": "own_id, bucket",
        "values": "?, ?", "requests": "1",
    }  # fmt: skip
    for name, value in vars(erasure).items():
        if name.isupper() and isinstance(value, str) and name not in ("ERASED_TEXT", "ADD_ERASURE"):
            found[f"erasure {name}"] = value.format(**in_bucket)
    for name, value in (vars(postgres_outbox) | vars(citus_turn)).items():
        if name.isupper() and name != "CLAIMABLE":
            if isinstance(value, Insert):
                found[f"outbox {name}"] = value.values_sql(2)
            elif isinstance(value, str) and " " in value and not name.endswith("_COLUMNS"):
                found[f"outbox {name}"] = value
    return found


_ONE_SERVER = ("CHANGE_POSTBACKS", "_WANTED_CONVERSIONS")
"""Statements of the write path that have a twin of another name for distributed tables; most have one of the same."""

STATEMENTS = collect()

ALL_SHARDS = {
    "CHANGE_POSTBACK": "a replay does not know the bucket in which its row lies",
    "FIND_OUTCOMES": "asked only after a connection broke, and when the spool is emptied",
    "FIND_POSTBACKS": "replays, and postbacks that waited for their click",
    "FIND_ARRIVED": "every few seconds, over what waits",
    "LAST_STAMP": "once a start",
    "PURGE_ROWS": "a purge",
    "PURGE_ATTEMPTS": "a purge",
    "COUNT_ATTEMPTS": "a purge",
    "WAITING_DELIVERY": "a purge",
    "WAITING_EVENT": "a purge",
    "erasure LOG_OF_CLICK": "an erasure: a log row given its click by a replay lies where it lay",
    "erasure LOG_DATA": "an erasure",
    "erasure ERASE_LOG": "an erasure",
    "erasure FORGET_WAITING_REQUEST": "an erasure",
    "ANY_ROW": "a purge, on one day",
    "outbox FIND_EVENTS": "a deliverer takes the oldest, wherever they are",
    "outbox FIND_DUE": "one question a turn",
    "outbox FIND_CLAIMABLE": "a target's deliveries are of many clicks; inside, each shard asks itself",
    "outbox RELEASE": "once a stop",
    "outbox SEND_NOW": "an operator's command",
    "outbox FIND_ENDED": "an operator's command",
    "outbox CANCEL": "an operator's command",
}
"""Statements that go to every shard, and why that is right."""


def touches(statement: str) -> list[str]:
    return [table for table in citus.DISTRIBUTED if re.search(rf"\b{table}\b", statement)]


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_goes_to_one_shard_or_says_why_not(name: str) -> None:
    statement = STATEMENTS[name]
    if not touches(statement) or name in ("HAS_CITUS", "IS_DISTRIBUTED", "SHARD_OF_BUCKETS"):
        return
    assert name in ALL_SHARDS or re.search(r"\bbucket\b", statement), statement


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_uses_nothing_that_a_distributed_database_refuses_or_is_slow_at(name: str) -> None:
    assert broken_rules(STATEMENTS[name]) == []


def test_a_question_uses_nothing_that_a_distributed_database_refuses() -> None:
    assert len(QUESTIONS) > 100
    broken = {name: broken_rules(_on_one_shard(question.sql)) for name, question in QUESTIONS.items()}
    assert {name: rules for name, rules in broken.items() if rules} == {}


SCHEMA = " ".join(migration.sql for migration in migrations())


def test_every_unique_key_of_a_distributed_table_holds_the_bucket() -> None:
    for table in citus.DISTRIBUTED:
        (body,) = re.findall(rf"CREATE TABLE {table} \((.*?)\n\)", SCHEMA, re.DOTALL)
        keys = re.findall(r"(?:PRIMARY KEY|UNIQUE) \(([^)]*)\)", body)
        assert keys, table
        assert all("bucket" in key for key in keys), table
        changed = re.findall(rf"ALTER TABLE {table} [^;]*", SCHEMA)
        assert not [step for step in changed if re.search(r"UNIQUE|PRIMARY|CHECK", step)], table
    assert not re.findall(r"CREATE UNIQUE INDEX \w+ ON (?:" + "|".join(citus.DISTRIBUTED) + r")\b", SCHEMA)


def test_no_foreign_key_leads_to_or_from_a_distributed_table_and_small_tables_refer_to_their_like() -> None:
    bodies = dict(re.findall(r"CREATE TABLE (\w+) \((.*?)\n\)", SCHEMA, re.DOTALL))
    assert len(bodies) == SCHEMA.count("CREATE TABLE ")
    for table, body in bodies.items():
        for named in re.findall(r"REFERENCES (\w+)", body):
            assert table not in citus.DISTRIBUTED
            assert (table in citus.REFERENCE) == (named in citus.REFERENCE), (table, named)
    assert "REFERENCES" not in "".join(re.findall(r"ALTER TABLE [^;]*", SCHEMA))


def test_a_column_that_is_added_names_its_constraints() -> None:
    """Citus refuses one without a name."""
    for step in re.findall(r"ALTER TABLE [^;]*", SCHEMA):
        for kind in re.findall(r"(\S+) \S+\s+(?:CHECK \(|UNIQUE\b|PRIMARY\b)", step):
            assert kind == "CONSTRAINT", step


def test_every_table_is_said_to_lie_somewhere_in_the_page_about_citus() -> None:
    page = (Path(__file__).parents[2] / "deploy" / "citus" / "README.md").read_text("utf-8")
    listed = {
        where: set(re.findall(r"\w+", names))
        for names, where in re.findall(
            r"^\| ([a-z_0-9, ]+) \| (distributed|reference|on the coordinator)", page, re.MULTILINE
        )
    }
    assert listed == {
        "distributed": set(citus.DISTRIBUTED),
        "reference": set(citus.REFERENCE),
        "on the coordinator": LOCAL | {"schema_migrations"},
    }


def test_a_report_finds_the_click_of_a_postback_on_its_shard(world: World) -> None:
    click = world.click()
    world.send(click, "txid=T")
    (row,) = world.query("postbacks_by_offer")
    assert (row["key"], row["count"]) == (world.offer.id, 1)


def test_sessions_that_write_to_shards_do_not_insist_on_plans_without_values(world: World) -> None:
    store = world.store
    assert isinstance(store, PostgresStore)
    sessions = (store._writers[0], store._writers[-1], store._deliverer)
    assert [world.run(_plan_cache_mode(session)) for session in sessions] == ["auto"] * 3


def test_a_backup_of_one_moment_is_refused_with_the_next_step(world: World, tmp_path: Path) -> None:
    """Citus has no snapshot over its machines: a copy could hold a conversion and miss its click."""
    store = world.store
    assert isinstance(store, PostgresStore)
    with pytest.raises(StoreRefused, match="citus_create_restore_point"):
        world.run(copy_to_file(store._dsn, tmp_path / "copy"))
    assert not (tmp_path / "copy").exists()


async def _plan_cache_mode(session: Writer | Asking) -> str:
    return str(await (await session.open()).fetchval("SHOW plan_cache_mode"))


# --- buckets -----------------------------------------------------------------------------------------------------


def test_buckets_never_change() -> None:
    stamps = (0, 1, 1 << 22, (1 << 63) - 1, 722104798412800123)
    assert [bucket_of_stamp(stamp) for stamp in stamps] == [0, 1, 1, 1022, 123]
    assert [bucket_of_text(text) for text in ("", "mine", "ü")] == [0, 915, 469]


@pytest.mark.parametrize("a_millisecond", [1, 7, 500])
def test_stamps_go_evenly_round_the_buckets_alone_and_in_bursts(a_millisecond: int) -> None:
    mint = StampMint(3)
    counts = [0] * BUCKETS
    for number in range(BUCKETS * a_millisecond):
        counts[bucket_of_stamp(mint.mint(1_750_000_000_000 + number // a_millisecond))] += 1
    assert set(counts) == {a_millisecond}


@needs_server
def test_the_database_computes_the_same_bucket() -> None:
    stamps = [StampMint(n).mint(1_750_000_000_000 + n * 37) for n in range(50)]
    rows = sql(
        new_database(VERSIONS[0]),
        f"SELECT s, ((s >> 22) + s) & 1023 FROM unnest(ARRAY{stamps}::bigint[]) AS s",
    )
    assert [(stamp, bucket_of_stamp(stamp)) for stamp in stamps] == rows


# --- a batch in parts --------------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    if not VERSIONS:
        pytest.skip("no PostgreSQL 15 or newer was found")
    made = World(citus_kind(VERSIONS[0]), tmp_path)
    yield made
    made.close()


def test_a_batch_is_divided_by_shard_and_keeps_its_order(world: World) -> None:
    shards = [bucket % 32 for bucket in range(BUCKETS)]
    clicks = [world.make_click(age_s=n % 7) for n in range(200)]
    postbacks = [world.make(click, "txid=T") for click in clicks for _ in range(2)]
    of_clicks, of_postbacks = citus.parts_of(Batch(clicks, postbacks), shards)
    assert len(of_clicks) == 32
    assert sorted(index for part in of_postbacks.values() for index in part) == list(range(400))
    for shard, part in of_postbacks.items():
        assert part == sorted(part)
        assert {shards[bucket_of_stamp(clicks[index // 2].stamp)] for index in part} == {shard}


def test_a_large_batch_over_many_shards_is_answered_in_its_order(world: World) -> None:
    clicks = [world.make_click(age_s=n % 7) for n in range(300)]
    postbacks = [world.make(click, f"txid={n}") for n, click in enumerate(clicks)]
    unknown = [world.make("nothing") for _ in range(5)]
    written = world.write(
        clicks, [*postbacks, *unknown, *[world.make(click, "txid=0") for click in clicks[:3]]]
    )
    assert list(written.clicks) == [click.stamp for click in clicks]
    said = [outcome.verdict.word for outcome in written.outcomes]
    assert said == ["accepted"] * 300 + ["unmatched"] * 5 + ["duplicate"] + ["accepted"] * 2
    assert [outcome.conversion_id for outcome in written.outcomes[:300]] == [
        postback.request.request_id for postback in postbacks
    ]


def test_tables_are_distributed_together_and_the_catalog_is_everywhere(world: World) -> None:
    store = world.store
    assert isinstance(store, PostgresStore)
    recorded = world.run(_recorded(store))
    assert {name for name, kind, _, _ in recorded if kind == "reference"} == set(citus.REFERENCE)
    spread = {name: (column, group) for name, kind, column, group in recorded if kind == "distributed"}
    assert set(spread) == set(citus.DISTRIBUTED)
    assert spread.pop("clicks") == ("bucket", "default")
    assert set(spread.values()) == {("bucket", "clicks")}


async def _recorded(store: PostgresStore) -> list[tuple[str, str, str, str]]:
    db = await store.connection()
    rows = await db.fetch("SELECT relation, kind, dist_column, colocated FROM stub_distribution")
    return [tuple(row) for row in rows]


@needs_server
def test_without_the_extension_distributing_is_refused_with_the_next_step() -> None:
    address = new_database(VERSIONS[0])

    async def spread(store: PostgresStore) -> None:
        with pytest.raises(StoreRefused, match="CREATE EXTENSION citus"):
            await citus.distribute(await store.connection())

    on(address, spread)


@needs_server
def test_distributing_before_the_tables_are_made_is_refused_with_the_next_step() -> None:
    address = new_database(VERSIONS[0])

    async def spread() -> None:
        db = await connect(address, {})
        await db.execute("SET check_function_bodies = off;" + CITUS_FUNCTIONS)
        try:
            with pytest.raises(StoreRefused, match="db migrate"):
                await citus.distribute(db)
        finally:
            await db.close()

    asyncio.run(spread())
