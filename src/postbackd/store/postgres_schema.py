"""The schema on PostgreSQL: numbered migrations with checksums, applied by one process at a time.

A migration is never changed once it has been released: its checksum is kept with it, and another one is refused.  A
migration only adds what a program of the version before can leave alone; one that cannot keep to that says so in its
first line (``-- needs: N``, the oldest schema number whose programs can still be used beside it), so that servers of
two versions run side by side during an upgrade, or are refused with a line that says which to run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import NamedTuple

import asyncpg

from postbackd.store.base import StoreRefused
from postbackd.store.failpoints import pass_failpoint

LOCK_SCHEMA = "SELECT pg_advisory_xact_lock(8101000)"
"""Held by whoever changes the schema, until its transaction ends."""

FIND_TABLES = """
SELECT to_regclass('schema_migrations') IS NOT NULL,
       EXISTS (SELECT 1 FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = current_schema()::regnamespace)
"""
"""Whether any migration has been applied, and whether there is any table, ours or not."""

MAKE_LIST = """
CREATE TABLE schema_migrations (
    number integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    needs integer NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
"""The list of what has been applied."""

APPLIED = "SELECT number, name, checksum, needs FROM schema_migrations ORDER BY number"
"""What has been applied, oldest first."""

NOTE_APPLIED = "INSERT INTO schema_migrations (number, name, checksum, needs) VALUES ($1, $2, $3, $4)"
"""One more has been applied."""


class Migration(NamedTuple):
    """One step of the schema."""

    number: int
    name: str
    sql: str
    checksum: str
    needs: int
    """Programs that know this schema number, or a later one, can be used when this step has been applied."""


@cache
def migrations() -> tuple[Migration, ...]:
    """The steps that this program knows, oldest first."""
    folder = resources.files("postbackd.store") / "migrations" / "postgres"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda f: f.name)
    return tuple(_read(file.name, file.read_text("utf-8")) for file in files)


def _read(file_name: str, sql: str) -> Migration:
    number, _, name = file_name.removesuffix(".sql").partition("_")
    needs = re.match(r"-- needs: (\d+)\n", sql)
    return Migration(
        int(number),
        name,
        sql,
        hashlib.sha256(sql.encode()).hexdigest(),
        int(needs[1]) if needs else 1,
    )


class SchemaState(NamedTuple):
    """How the schema of a database stands to this program."""

    applied: Sequence[tuple[int, str]]
    """(number, name), oldest first."""
    pending: Sequence[Migration]


async def read_state(db: asyncpg.Connection) -> SchemaState:
    """What has been applied and what is to come.  Raises ``StoreRefused`` when this program cannot use the database."""
    known = {migration.number: migration for migration in migrations()}
    ours, any_table = await db.fetchrow(FIND_TABLES)
    if not ours:
        if any_table:
            raise StoreRefused("the database holds tables of another program; name an empty one in --store")
        return SchemaState((), migrations())
    applied = [tuple(row) for row in await db.fetch(APPLIED)]
    newest = max(known)
    for number, name, checksum, needs in applied:
        if number in known and known[number].checksum != checksum:
            raise StoreRefused(
                f"migration {number} ({name}) was applied with another text than this program has; "
                "run the version that made the database"
            )
        if number not in known and needs > newest:
            raise StoreRefused(
                f"the database was made by a newer postbackd (schema {number}, this one knows {newest}); "
                "run the newer version"
            )
    have = {row[0] for row in applied}
    pending = [migration for number, migration in sorted(known.items()) if number not in have]
    return SchemaState([(number, name) for number, name, _, _ in applied], pending)


async def migrate(db: asyncpg.Connection) -> Sequence[Migration]:
    """Apply what is pending, all or nothing; returns it.  Raises ``StoreRefused``."""
    async with db.transaction():
        await db.execute(LOCK_SCHEMA)
        state = await read_state(db)
        if state.pending and not state.applied:
            await db.execute(MAKE_LIST)
        for migration in state.pending:
            await db.execute(migration.sql)
            pass_failpoint("mid_migration")
            await db.execute(
                NOTE_APPLIED, migration.number, migration.name, migration.checksum, migration.needs
            )
    return state.pending
