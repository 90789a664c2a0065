"""The named statements."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

import apsw
import pytest

from postbackd.store.queries import STATEMENTS
from postbackd.store.sqlite_database import ask

ANY = {
    "click_id": 1, "request_id": 1, "conversion_id": 1, "transaction_id": "A-1", "own_id": "mine",
}  # fmt: skip


@pytest.fixture
def db() -> Iterator[apsw.Connection]:
    connection = apsw.Connection(":memory:")
    connection.execute(files("postbackd.store").joinpath("migrations/sqlite/0001_first.sql").read_text())
    yield connection
    connection.close()


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_fits_the_schema_only_reads_and_ends_its_sentence(db: apsw.Connection, name: str) -> None:
    db.execute("PRAGMA query_only = ON")
    rows = ask(db, name, **ANY)
    assert all(not any(row.values()) for row in rows)
    assert STATEMENTS[name].sentence.endswith(".")


def test_the_log_is_read_by_its_key_and_a_click_by_its_indexes(db: apsw.Connection) -> None:
    for name, forbidden in [("log", "TEMP B-TREE"), ("log_from", "TEMP B-TREE"), ("log_of_click", "SCAN p")]:
        statement = STATEMENTS[name]
        plan = db.execute(f"EXPLAIN QUERY PLAN {statement.sql}", {**statement.defaults, **ANY}).fetchall()
        assert not any(forbidden in str(row[-1]) for row in plan), plan
