"""That the linter for distributed tables finds what it is for: a statement that breaks each of its rules.

Every statement that the contract sends to a distributed database is held against these rules as it was sent
(``tests.citus_server.keeping_to_the_rules``), and ``test_citus`` holds those against them that are written down.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from postbackd.store import postgres_turn, postgres_write
from postbackd.store.postgres import PostgresStore
from tests.citus_rules import broken_rules
from tests.citus_server import keeping_to_the_rules, sent
from tests.postgres_server import ADDRESS, VERSIONS
from tests.store.contract import World, citus_kind

BROKEN = {
    "INSERT INTO clicks (click_id, bucket) SELECT * FROM unnest($1::bigint[], $2::smallint[])": "what it selects",
    "INSERT INTO clicks (click_id) VALUES ($1) ON CONFLICT (click_id, bucket) DO NOTHING": "not say on which shard",
    "INSERT INTO clicks (click_id, bucket) VALUES ($1, $2) ON CONFLICT (click_id) DO NOTHING": "without the bucket",
    "INSERT INTO clicks (click_id, bucket) VALUES ($1, $2) ON CONFLICT DO NOTHING": "without the bucket",
    "INSERT INTO click_rollups (clicks) SELECT count(*) FROM clicks": "writes into click_rollups",
    "UPDATE deliveries SET state = 2 WHERE bucket = $1 RETURNING xmax": "reads a system column",
    "SELECT ctid FROM clicks": "reads a system column",
    "SELECT 1 FROM deliveries WHERE bucket = ANY ($1) FOR UPDATE": "locks rows of several shards",
    "SELECT 1 FROM deliveries WHERE bucket = $1 FOR UPDATE SKIP LOCKED": "nobody has locked",
    "WITH new AS (INSERT INTO clicks (bucket) VALUES (1) RETURNING 1) SELECT * FROM new": "a common table",
    "SELECT 1 FROM clicks AS c JOIN unnest($1::bigint[]) AS w ON w = c.click_id": "joins an array",
    "SELECT 1 FROM targets AS t CROSS JOIN LATERAL (SELECT 1 FROM deliveries) AS d": "joins laterally",
    "UPDATE deliveries SET bucket = 1 WHERE number = $1": "moves a row to another shard",
    "UPDATE deliveries SET due_ms = 1, bucket = 1 WHERE number = $1": "moves a row to another shard",
    "UPDATE deliveries AS d SET due_ms = 1 FROM targets AS t WHERE t.id = d.target": "changes rows by a join",
    "UPDATE attempts SET at_ms = extract(epoch FROM now()) WHERE bucket = 1": "something else each time",
    "DELETE FROM clicks WHERE random() < 0.5": "something else each time",
    "SELECT 1 FROM conversions AS v JOIN clicks AS c ON c.click_id = v.click_id": "something else than the bucket",
    "SELECT 1 FROM conversions AS v LEFT JOIN clicks AS c ON c.click_id = v.click_id": "something else than the bucket",
    "SELECT 1 FROM clicks AS c JOIN users AS u ON u.id = c.offer": "joins a table of the coordinator",
    "SELECT 1 FROM offers AS o LEFT JOIN clicks AS c ON c.offer = o.id": "keeps rows of a small table",
    "SELECT 1 FROM clicks AS c WHERE NOT EXISTS (SELECT 1 FROM conversions WHERE click_id = c.click_id)": "elsewhere",
    "SELECT EXISTS (SELECT 1 FROM conversions AS v WHERE v.click_id = c.click_id) FROM clicks AS c": "elsewhere",
    "SELECT 1 FROM targets AS t WHERE EXISTS (SELECT 1 FROM deliveries AS d WHERE d.target = t.id)": "not distributed",
    "SELECT (SELECT v.type FROM conversions AS v WHERE v.bucket = c.bucket LIMIT 1) FROM clicks AS c": "with a limit",
    "SELECT network, count(*) FROM postbacks GROUP BY GROUPING SETS ((network), ())": "grouping sets",
    "SELECT 1 FROM clicks TABLESAMPLE SYSTEM (1)": "takes a sample",
}  # fmt: skip
"""A statement that breaks a rule -> a part of what is said of it."""


@pytest.mark.parametrize("statement", BROKEN)
def test_a_statement_that_breaks_a_rule_is_found(statement: str) -> None:
    assert any(BROKEN[statement] in words for words in broken_rules(statement)), broken_rules(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO clicks (click_id, bucket) VALUES ($1, $2), ($3, $4) ON CONFLICT (click_id, bucket) DO NOTHING",
        "SELECT 1 FROM conversions WHERE bucket = $1 AND click_id = $2 FOR UPDATE",
        "SELECT 1 FROM conversions AS v JOIN clicks AS c ON c.click_id = v.click_id AND c.bucket = v.bucket",
        "SELECT 1 FROM clicks AS c LEFT JOIN offers AS o ON o.id = c.offer",
        "SELECT (SELECT max(click_id) FROM clicks), (SELECT value FROM settings WHERE name = 'last_stamp')",
        "SELECT request_id FROM postbacks UNION SELECT conversion_id FROM conversions",
        "INSERT INTO alarm_hours (clicks) VALUES ($1) ON CONFLICT (hour) DO UPDATE SET clicks = excluded.clicks",
        "SELECT sum(clicks) FROM click_rollups",
        "CREATE TABLE clicks_20250101 (LIKE clicks INCLUDING ALL)",
    ],
)
def test_a_statement_that_keeps_to_the_rules_is_let_through(statement: str) -> None:
    assert broken_rules(statement) == []


def test_the_statements_for_one_server_are_found_and_those_for_shards_are_not() -> None:
    assert broken_rules(postgres_write.ADD_CONVERSIONS.sql)
    assert not broken_rules(postgres_write.ADD_CONVERSIONS.values_sql(2))
    for name in (
        "FIND_CLICKS",
        "FIND_CONVERSIONS",
        "LOCK_CONVERSIONS",
        "CHANGE_POSTBACKS",
        "TAKE_PIXEL_CONVERSIONS",
    ):
        assert broken_rules(getattr(postgres_write, name)), name
    for name in ("FIND_WORK", "SETTLE_AND_FINISH", "CLAIM"):
        assert broken_rules(getattr(postgres_turn, name)), name


@pytest.mark.skipif(not VERSIONS or bool(ADDRESS), reason="no server of our own writes its statements down")
def test_a_statement_that_is_sent_is_seen_as_it_was_sent(tmp_path: Path) -> None:
    world = World(citus_kind(VERSIONS[0]), tmp_path)
    click = world.click()
    joined = "SELECT 1 FROM clicks AS c\nJOIN unnest($1::bigint[]) AS w ON w = c.click_id"
    try:
        with pytest.raises(AssertionError, match="joins an array"), keeping_to_the_rules(VERSIONS[0]):
            world.run(_ask(world, joined))
        with keeping_to_the_rules(VERSIONS[0]):
            world.send(click, "txid=T")
    finally:
        world.close()


async def _ask(world: World, statement: str) -> None:
    store = world.store
    assert isinstance(store, PostgresStore)
    await (await store.connection()).fetch(statement, [1])


def test_what_tests_send_past_all_rules_is_told_apart() -> None:
    assert sent("|track|LOG:  statement: DELETE FROM clicks\n") == set()
