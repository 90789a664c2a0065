"""Connections to PostgreSQL: the settings of a session, what is refused, and foreign errors in the store's words."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg

from postbackd.core.privacy import mask_password
from postbackd.store.base import StoreAway, StoreNotReached, StoreRefused
from postbackd.store.database import ConstraintViolated, Seals
from postbackd.store.postgres_schema import session_name
from postbackd.store.queries import STATEMENTS
from postbackd.store.statement import CLICK_OF_POSTBACK, REQUEST_OF_POSTBACK

OLDEST_SERVER = 150_000
"""PostgreSQL 15."""

_CONNECT_TIMEOUT_S = 3.0

_SESSION: Mapping[str, str] = {
    "client_encoding": "UTF8",
    "timezone": "UTC",
    # Whoever waited for a lock has to see what was committed meanwhile, whatever the database's default is.
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "idle_in_transaction_session_timeout": "60000",
    "tcp_user_timeout": "10000",
}

WRITING: Mapping[str, str] = {
    # A node that is lost in the middle of a transaction must not keep the others waiting for long.
    "idle_in_transaction_session_timeout": "5000",
    # The statements of the write path are planned once, for looking up single rows by their keys: whatever the planner
    # knows of a table that has just begun, anything else would be wrong a minute later.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
"""Settings of the session that writes."""

WRITING_TO_SHARDS: Mapping[str, str] = {
    # Citus chooses the shards by the values, so it has no plan without them, but for the simplest statements: where the
    # session insists on one for all values, it answers "could not create distributed plan".  How a shard is read is
    # decided on its own machine, which knows nothing of these settings.
    name: WRITING[name]
    for name in ("idle_in_transaction_session_timeout", "jit")
}
"""The same, where the tables are distributed."""

AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,  # "connection is closed"
    asyncpg.InternalClientError,  # a connection that ends in the middle of something
    asyncpg.OperatorInterventionError,  # shutdown, crash, a cancelled statement
    asyncpg.InsufficientResourcesError,  # disk full, out of memory, too many connections
    asyncpg.InvalidTransactionStateError,  # a server that only reads
    asyncpg.PostgresSystemError,
    asyncpg.PostgresIOError,
    asyncpg.InternalServerError,
    asyncpg.ObjectNotInPrerequisiteStateError,
)
"""What means that the database cannot be used now, and may be again."""

_POOLED = (
    asyncpg.ProtocolViolationError,  # "unsupported startup parameter"
    asyncpg.DuplicatePreparedStatementError,
    asyncpg.InvalidSQLStatementNameError,
)
"""What a pooler that hands sessions out by the transaction makes of a session's settings and statements."""


async def connect(dsn: str, settings: Mapping[str, str]) -> asyncpg.Connection:
    """A connection with our settings.

    Raises what ``AWAY`` lists, ``asyncpg.PostgresError``, or ``StoreRefused`` for a file that cannot be used.
    """
    _check_files(dsn)
    return await asyncpg.connect(
        dsn,
        timeout=_CONNECT_TIMEOUT_S,
        server_settings={"application_name": session_name(), **_SESSION, **settings},
        max_cached_statement_lifetime=0,
    )


_FILES = ("passfile", "sslrootcert", "sslcert", "sslkey", "sslcrl")
"""Options of an address that name files.  Without the password file, or one that others can read, the driver goes on
without a password, and the server's answer to that says nothing of a file."""


def _check_files(dsn: str) -> None:
    named = parse_qs(urlsplit(dsn).query)
    paths = {name: named[name][-1] for name in _FILES if name in named}
    for name, path in paths.items():
        try:
            with Path(path).open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
        except OSError as error:
            raise StoreRefused(
                f"cannot read {path} ({error.strerror}), which --store names as {name}; mend --store or that file"
            ) from error
        if name == "passfile" and mode & 0o077:
            raise StoreRefused(
                f"others can read the password file {path}, so it is not used; run: chmod 600 {path}"
            )


async def connect_durably(dsn: str, settings: Mapping[str, str]) -> asyncpg.Connection:
    """As ``connect``, to a server that keeps what it acknowledges.  Raises ``StoreRefused`` besides."""
    db = await connect(dsn, settings)
    try:
        checked = await check_server(db)
        await _make_durable(db, checked["synchronous_commit"])
    except BaseException:
        db.terminate()
        raise
    return db


async def disconnect(db: asyncpg.Connection | None) -> None:
    """Close a connection, whatever has become of it."""
    if db is None or db.is_closed():
        return
    try:
        await db.close(timeout=2)
    except AWAY:
        db.terminate()


_UNREADABLE = (
    "cannot read the address {}; write postgresql://user@host:port/database, and percent-encode special characters of "
    "user and password"
)
# The driver's own words may hold pieces of the password.


@contextmanager
def refusing(dsn: str) -> Iterator[None]:
    """Every way in which a database can be unusable, as one line that says what to do."""
    try:
        yield
    except _POOLED as error:
        raise StoreRefused(
            f"a connection pooler stands between us and {mask_password(dsn)} "
            f"({type(error).__name__}: {error.args[0]}); name the server itself in --store"
        ) from error
    except ssl.SSLCertVerificationError as error:
        raise StoreRefused(
            f"the certificate of {mask_password(dsn)} is not to be trusted ({error.verify_message}); in --store name "
            "the file of its authority as sslrootcert, and the host as the certificate names it"
        ) from error
    except asyncpg.ClientConfigurationError as error:
        if "ssl" not in str(error) and "certificate" not in str(error):
            raise StoreRefused(_UNREADABLE.format(mask_password(dsn))) from error
        raise StoreRefused(f"cannot use {mask_password(dsn)} ({_one_line(error)}); mend --store") from error
    except AWAY as error:
        raise StoreNotReached(
            f"cannot reach {mask_password(dsn)} ({_one_line(error)}); start the server or mend --store"
        ) from error
    except (ValueError, OverflowError) as error:
        raise StoreRefused(_UNREADABLE.format(mask_password(dsn))) from error
    except asyncpg.PostgresError as error:
        raise StoreRefused(
            f"cannot use {mask_password(dsn)} ({_one_line(error)}); check --store, its user and its rights"
        ) from error


def is_cut_short(error: BaseException) -> bool:
    """Whether the driver stumbled over rows that a server still sent after it had said that it ends the session."""
    return isinstance(error, TypeError) and str(error) == "Expected list, got dict"


def unavailable(error: Exception) -> StoreAway:
    """A foreign error as the store's."""
    return StoreAway(_one_line(error))


def what_it_says(error: Exception) -> str:
    """An error without the values of rows: the driver's own comes from one that says what is wrong with a value, and
    the further lines of a server's show the row."""
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    return f"{type(error).__name__}: {str(cause).partition(chr(10))[0]}".rstrip(": ")


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")


CHECKS = """
SELECT current_setting('server_version_num')::integer AS version, current_setting('server_version') AS version_text,
       current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('server_encoding') AS encoding, pg_is_in_recovery() AS standby, pg_backend_pid() AS pid,
       (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS clock_ms
"""
"""What durability depends on."""


async def check_server(db: asyncpg.Connection) -> Mapping[str, Any]:
    """Raises ``StoreRefused`` when what this server acknowledges could be lost, or it cannot hold our rows.

    Returns the row of ``CHECKS``.
    """
    row: Mapping[str, Any] | None = await db.fetchrow(CHECKS)
    assert row is not None
    if row["version"] < OLDEST_SERVER:
        raise StoreRefused(f"PostgreSQL {row['version_text']} is too old; use version 15 or newer")
    if row["encoding"] != "UTF8":
        raise StoreRefused(
            f"the database is in {row['encoding']}; create one with ENCODING 'UTF8' TEMPLATE template0"
        )
    if row["standby"]:
        raise StoreRefused("the server is a standby and only reads; name the primary in --store")
    for setting in ("fsync", "full_page_writes"):
        if row[setting] != "on" and not unsafe():
            raise StoreRefused(
                f"the server runs with {setting}=off, which loses what was acknowledged; switch it on"
            )
    if row["pid"] != db.get_server_pid():
        raise StoreRefused(
            "a connection pooler stands between us and the server; name the server itself in --store, "
            "a few connections a process are all we use"
        )
    return row


async def _make_durable(db: asyncpg.Connection, synchronous_commit: str) -> None:
    """Commits of this session wait for the disk, whatever the server's default is."""
    if unsafe():
        await db.execute("SET synchronous_commit = off")
    else:  # also when it is on: a default that is changed later must not reach this session
        word = "on" if synchronous_commit == "off" else synchronous_commit
        await db.execute(f"SET synchronous_commit = '{word}'")


def unsafe() -> bool:
    """``POSTBACKD_UNSAFE_SYNC=OFF``: for negative controls of the trust campaign only; loses acknowledged rows."""
    return os.environ.get("POSTBACKD_UNSAFE_SYNC", "").upper() == "OFF"


# --- the catalog and the questions --------------------------------------------------------------------------------


class PostgresDatabase:
    """``store.catalog.Database`` over one connection."""

    bytes_table = "secrets"
    on_server = True

    def __init__(self, db: asyncpg.Connection, seals: Seals | None = None) -> None:
        self._db = db
        self.seals = seals

    async def rows(self, sql: str, *values: Any) -> Sequence[Sequence[Any]]:
        try:
            return [tuple(row) for row in await self._db.fetch(_number_marks(sql), *values)]
        except asyncpg.IntegrityConstraintViolationError as error:
            raise ConstraintViolated(error.constraint_name or str(error)) from error

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        async with self._db.transaction():
            await self._db.execute(LOCK_CATALOG)
            yield
            await self._db.execute(TELL_CATALOG)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        if self._db.is_in_transaction():
            yield
            return
        async with self._db.transaction(isolation="repeatable_read", readonly=True):
            yield


LOCK_CATALOG = "SELECT pg_advisory_xact_lock(8101003)"
"""Held by whoever changes the catalog, until its transaction ends."""

CATALOG_CHANNEL = "postbackd_catalog"

TELL_CATALOG = f"SELECT pg_notify('{CATALOG_CHANNEL}', '')"
"""Tell every node that the catalog has changed."""


def _on_one_shard(sql: str) -> str:
    """A postback lies where the click does that it spoke of at first.

    So one that was given its click by a replay joins none here; a real cluster refuses the join otherwise.
    """
    for join in (CLICK_OF_POSTBACK, REQUEST_OF_POSTBACK):
        sql = sql.replace(join, f"{join} AND k.bucket = p.bucket")
    return sql


@cache
def _number_marks(sql: str) -> str:
    """``?, ?`` as ``$1, $2``."""
    pieces = sql.split("?")
    return pieces[0] + "".join(f"${number}{piece}" for number, piece in enumerate(pieces[1:], 1))


@cache
def _number_names(sql: str) -> tuple[str, tuple[str, ...]]:
    """``:a … :b … :a`` as ``$1 … $2 … $1``, and the names in order."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return re.sub(r":([a-z_]+)", number, sql), tuple(names)


async def ask(
    db: asyncpg.Connection, name: str, *, distributed: bool, **parameters: Any
) -> list[dict[str, Any]]:
    """The rows of a named statement, column name -> value.  An unknown name is a ``KeyError``."""
    statement = STATEMENTS[name]
    sql, names = _number_names(_on_one_shard(statement.sql) if distributed else statement.sql)
    values = {**statement.defaults, **parameters}
    return [dict(row) for row in await db.fetch(sql, *(values[name] for name in names))]
