"""The schema on PostgreSQL: numbered migrations with checksums, applied by one process at a time.

A migration is never changed once it has been released: its checksum is kept with it, and another one is refused.  A
migration only adds what a program of the version before can leave alone; one that cannot keep to that says so in its
first line (``-- needs: N``, the oldest schema number whose programs can still be used beside it), so that servers of
two versions run side by side during an upgrade, or are refused with a line that says which to run.

Who runs already does not ask again.  So each session carries the schema number that its program knows in its name, and
such a migration waits for those that know too little, or is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from time import monotonic
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


OLDER_PROGRAMS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name ~ '^postbackd( [0-9]+)?$'
  AND coalesce(substring(application_name FROM '[0-9]+$')::integer, 2) < $1
"""
"""Sessions of programs that know less than this schema number; those that say no number know 2."""

_PATIENCE_S = 10.0
"""A server that is being replaced ends its sessions sooner."""


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


def session_name() -> str:
    """What our sessions are called on the server; says which schema number this program knows."""
    return f"postbackd {migrations()[-1].number}"


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


async def migrate(db: asyncpg.Connection, patience_s: float = _PATIENCE_S) -> Sequence[Migration]:
    """Apply what is pending, all or nothing; returns it.  Raises ``StoreRefused``.

    ``patience_s``: how long programs may take to end that could not be used beside it.
    """
    await _wait_for_older_programs(db, patience_s)
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


async def _wait_for_older_programs(db: asyncpg.Connection, patience_s: float) -> None:
    state = await read_state(db)
    known = state.applied[-1][0] if state.applied else 0
    needs = max((migration.needs for migration in state.pending), default=0)
    if not known or needs <= known:
        return
    deadline = monotonic() + patience_s
    while sessions := await db.fetchval(OLDER_PROGRAMS, needs):
        if monotonic() > deadline:
            raise StoreRefused(
                f"an older postbackd is using the database ({sessions} connections), and would damage what schema "
                f"{needs} adds; stop every server of that version, then start this one"
            )
        await asyncio.sleep(0.2)
