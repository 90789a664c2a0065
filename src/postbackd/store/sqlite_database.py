"""One ``apsw`` connection as the catalog and the questions use it.  Nothing here suspends the event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import apsw

from postbackd.store.database import ConstraintViolated, Seals
from postbackd.store.keys import initialise as initialise_keys
from postbackd.store.queries import STATEMENTS

_COLUMNS: Mapping[str, str] = {
    "networks.name": "network_name_once",
    "networks.key": "network_key_once",
    "sources.name": "source_name_once",
    "offers.name": "offer_name_once",
    "campaigns.name": "campaign_name_once",
    "campaigns.slug": "campaign_slug_once",
    "targets.name": "target_name_once",
    "rules.name": "rule_name_once",
    "alarms.kind, alarms.scope, alarms.subject": "alarm_lasts_once",
}
"""For a unique key SQLite names the columns -> what the schema calls it."""


class SqliteDatabase:
    """``store.catalog.Database`` over one connection."""

    bytes_table = "settings"
    on_server = False

    def __init__(self, db: apsw.Connection, seals: Seals | None = None) -> None:
        self._db = db
        self.seals = seals

    async def rows(self, sql: str, *values: Any) -> Sequence[Sequence[Any]]:
        try:
            return self._db.execute(sql, values).fetchall()
        except apsw.ConstraintError as error:
            named = str(error).rpartition(": ")[2]
            raise ConstraintViolated(_COLUMNS.get(named, named)) from error

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("COMMIT")


async def initialise(db: apsw.Connection, seals: Seals | None) -> None:
    """Give a new database its first keys, and seal those of an old one: nothing of what was in clear is left."""
    before = db.pragma("secure_delete")
    db.pragma("secure_delete", 1)
    try:
        was_in_clear = await initialise_keys(SqliteDatabase(db, seals))
    finally:
        db.pragma("secure_delete", before)
    if was_in_clear:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def ask(db: apsw.Connection, name: str, **parameters: Any) -> list[dict[str, Any]]:
    """The rows of a named statement, column name -> value.  An unknown name is a ``KeyError``."""
    statement = STATEMENTS[name]
    cursor = db.execute(statement.sql, {**statement.defaults, **parameters})
    try:
        columns = [column[0] for column in cursor.get_description()]
    except apsw.ExecutionCompleteError:  # a statement without rows has no description left
        return []
    return [dict(zip(columns, row, strict=True)) for row in cursor]
