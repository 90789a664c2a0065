"""What PostgreSQL can be asked to do about erased data in its files.

An update leaves the old row until ``VACUUM`` removes it, and ``VACUUM`` leaves its bytes in the free space of the page
until something is written there.  Only a table that is written anew (``VACUUM FULL``) holds nothing of it, and others
wait for that.  What write-ahead log, archives and standbys hold goes when the server lets it go.

For its plans the server notes values of each column (``pg_statistic``); they are noted anew.
"""

from __future__ import annotations

import asyncpg

from postbackd.store.base import Erasing
from postbackd.store.postgres_partitions import TABLES, partition_of

_UNDIVIDED = ("own_ids", "waiting", "outbox", "conversion_facts")

LEFT = "SELECT to_regclass($1::text) IS NOT NULL"
"""Whether a table is there."""

LOG_PARTITIONS = """
SELECT DISTINCT tableoid::regclass::text FROM postbacks
WHERE click_id = ANY ($1::bigint[]) OR request_id = ANY ($2::bigint[])
"""
"""The partitions of the postback log that speak of clicks."""


NOTED_AS_WHOLE = """
SELECT DISTINCT tablename::text FROM pg_stats
WHERE inherited AND schemaname = current_schema() AND tablename = ANY ($1::text[])
"""
"""Divided tables of which values were noted over all parts, which the server does only when somebody asks for it."""

NOTE_NOTHING = (
    "INSERT INTO waiting (click_ref, request_id, bucket) VALUES ('', 0, 0)",
    "ANALYZE waiting",
    "DELETE FROM waiting WHERE click_ref = '' AND request_id = 0",
)
"""Of an empty table nothing is noted anew, and this one is empty most of the time."""


async def scrub(
    db: asyncpg.Connection, erasing: Erasing, *, rewrite: bool, everywhere: bool, distributed: bool
) -> None:
    """Vacuum every table that held any of it, or all of them.  Outside of a transaction."""
    names = set(_UNDIVIDED)
    if everywhere or distributed:
        names |= TABLES.keys()
    else:
        names |= {partition_of(table, stamp).name for table in TABLES for stamp in erasing.clicks}
        names |= {name for (name,) in await db.fetch(LOG_PARTITIONS, erasing.clicks, erasing.requests)}
    await db.execute("SET lock_timeout = '20s'")
    try:
        for name in sorted(names):
            if await db.fetchval(LEFT, name):
                await db.execute(f"VACUUM ({'FULL, ' if rewrite else ''}ANALYZE) {name}")
        for (name,) in await db.fetch(NOTED_AS_WHOLE, list(TABLES)):
            await db.execute(f"ANALYZE {name}")
        if not distributed:
            async with db.transaction():
                for statement in NOTE_NOTHING:
                    await db.execute(statement)
        # Of the catalog, by whoever owns the database; others are refused it with a warning.
        await db.execute(f"VACUUM {'(FULL) ' if rewrite else ''}pg_catalog.pg_statistic")
    finally:
        await db.execute("RESET lock_timeout")
    try:
        await db.execute("CHECKPOINT")
    except asyncpg.InsufficientPrivilegeError:
        return  # the next checkpoint of the server writes the pages
