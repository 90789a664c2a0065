"""A distributed database for the contract of the stores: on a real Citus, or on stand-ins for its functions.

The stand-ins record what is distributed how, and say on which of 32 shards a bucket lies; the rows stay in ordinary
tables.  So what runs is the code for a distributed database, and what is not tried is Citus itself.
"""

from __future__ import annotations

import asyncio
from functools import cache

from postbackd.store import citus
from postbackd.store.postgres import PostgresStore
from tests.postgres_server import ADDRESS, empty, new_database

CITUS_STUB = """
CREATE TABLE stub_distribution (relation text, kind text, dist_column text, colocated text);
CREATE TABLE pg_dist_partition (logicalrelid regclass);
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


def new_distributed_database(version: int) -> str:
    """The address of a database with our tables, distributed by Citus when it is there, else by stand-ins."""
    return _distribute(new_database(version))


def _distribute(address: str) -> str:
    async def fill() -> None:
        store = await PostgresStore.open(address, create=True)
        db = await store.connection()
        if not await db.fetchval(citus.HAS_CITUS):
            await db.execute(CITUS_STUB)
        await citus.distribute(db)
        await store.close()

    asyncio.run(fill())
    return address


@cache
def _distributed_database(version: int) -> str:
    return _distribute(ADDRESS or new_database(version))


def emptied_distributed_database(version: int) -> str:
    """As ``emptied_database``, with its tables distributed."""
    address = _distributed_database(version)
    empty(address)
    return address
