"""A distributed database for the contract of the stores: on a real Citus, or on stand-ins for its functions.

The stand-ins record what is distributed how, and say on which of 32 shards a bucket lies; the rows stay in ordinary
tables.  So what runs is the code for a distributed database, and what is not tried is Citus itself.  In its place every
statement that the program sends to such a database is held against ``tests.citus_rules``: the server writes them down.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from postbackd.store import citus
from postbackd.store.postgres import PostgresStore
from tests.citus_rules import broken_rules
from tests.postgres_server import ADDRESS, empty, new_database, server

CITUS_FUNCTIONS = """
CREATE FUNCTION create_distributed_table(r regclass, c text, colocate_with text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO stub_distribution VALUES (r::text, 'distributed', c, colocate_with);
    INSERT INTO pg_dist_partition VALUES (r) $$;
CREATE FUNCTION create_reference_table(r regclass) RETURNS void LANGUAGE sql AS $$
    INSERT INTO stub_distribution VALUES (r::text, 'reference', NULL, NULL);
    INSERT INTO pg_dist_partition VALUES (r) $$;
CREATE FUNCTION get_shard_id_for_distribution_column(r regclass, v smallint) RETURNS bigint LANGUAGE sql AS $$
    SELECT 102008 + (hashint2(v) & 31)::bigint $$;
"""
"""Stand-ins for the functions of Citus that the program calls: they record what was distributed how."""

_TABLES = """
CREATE TABLE stub_distribution (relation text, kind text, dist_column text, colocated text);
CREATE TABLE pg_dist_partition (logicalrelid regclass);
"""


def new_distributed_database(version: int) -> str:
    """The address of a database with our tables, distributed by Citus when it is there, else by stand-ins."""
    return _distribute(version, new_database(version))


def _distribute(version: int, address: str) -> str:
    async def fill() -> None:
        store = await PostgresStore.open(address, create=True)
        db = await store.connection()
        if not await db.fetchval(citus.HAS_CITUS):
            await db.execute(_TABLES + CITUS_FUNCTIONS)
        await citus.distribute(db)
        await store.close()

    asyncio.run(fill())
    _write_down_statements(version, address.partition("?")[0].rpartition("/")[2])
    return address


_names: set[str] = set()
"""The distributed databases of this run."""


def _write_down_statements(version: int, name: str) -> None:
    if not ADDRESS:
        server(version).execute(f"ALTER DATABASE {name} SET log_statement = 'all'")
        server(version).execute(f"ALTER DATABASE {name} SET log_parameter_max_length = 0")
        _names.add(name)


@contextmanager
def keeping_to_the_rules(version: int) -> Iterator[None]:
    """Meanwhile the program sends nothing to a distributed database that Citus refuses, or does slowly.

    A real Citus says so itself.  What tests send over connections of their own is not looked at.
    """
    log = server(version).directory / "log"
    begin = log.stat().st_size
    yield
    with log.open("rb") as written:
        written.seek(begin)
        text = written.read().decode("utf-8", "replace")
    broken = {statement: found for statement in sent(text) if (found := broken_rules(statement))}
    assert not broken, broken


def sent(log: str) -> set[str]:
    """The statements that the program sent to distributed databases, by a part of the server's log."""
    found = set()
    for entry in re.split(r"\n(?!\t)", log):
        match = re.match(r"postbackd[^|]*\|(\w+)\|LOG:  (?:statement|execute [^:]*): (.*)", entry, re.DOTALL)
        if match and match[1] in _names:
            found.add(match[2])
    return found


@cache
def _distributed_database(version: int) -> str:
    return _distribute(version, ADDRESS or new_database(version))


def emptied_distributed_database(version: int) -> str:
    """As ``emptied_database``, with its tables distributed."""
    address = _distributed_database(version)
    empty(address)
    return address
