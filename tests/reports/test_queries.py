"""The named statements."""

from __future__ import annotations

from collections.abc import Iterator

import apsw
import pytest

from postbackd.store.queries import STATEMENTS
from postbackd.store.sqlite_database import ask
from postbackd.store.sqlite_file import migrations
from tests.store.contract import ANY_PARAMETERS


@pytest.fixture
def db() -> Iterator[apsw.Connection]:
    connection = apsw.Connection(":memory:")
    for migration in migrations():
        connection.execute(migration)
    yield connection
    connection.close()


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_fits_the_schema_only_reads_and_ends_its_sentence(db: apsw.Connection, name: str) -> None:
    db.execute("PRAGMA query_only = ON")
    rows = ask(db, name, **ANY_PARAMETERS)
    made = name == "alarm_names_since"  # since when there is this schema
    assert made or all(not any(row.values()) for row in rows)
    assert STATEMENTS[name].sentence.endswith(".")


def test_the_log_is_read_by_its_key_and_a_click_by_its_indexes(db: apsw.Connection) -> None:
    for name, forbidden in [("log", "TEMP B-TREE"), ("log_from", "TEMP B-TREE"), ("log_of_click", "SCAN p")]:
        statement = STATEMENTS[name]
        plan = db.execute(
            f"EXPLAIN QUERY PLAN {statement.sql}", {**statement.defaults, **ANY_PARAMETERS}
        ).fetchall()
        assert not any(forbidden in str(row[-1]) for row in plan), plan


@pytest.mark.parametrize("name", ["deliveries", "deliveries_from", "resendable"])
def test_deliveries_are_read_in_the_order_of_their_key(db: apsw.Connection, name: str) -> None:
    statement = STATEMENTS[name]
    plan = db.execute(
        f"EXPLAIN QUERY PLAN {statement.sql}", {**statement.defaults, **ANY_PARAMETERS}
    ).fetchall()
    assert not any("TEMP B-TREE" in str(row[-1]) for row in plan), plan


def test_what_is_overdue_is_found_by_its_index(db: apsw.Connection) -> None:
    plan = db.execute(f"EXPLAIN QUERY PLAN {STATEMENTS['overdue'].sql}", ANY_PARAMETERS).fetchall()
    assert any("deliveries_due" in str(row[-1]) for row in plan), plan
