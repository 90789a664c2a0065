"""Fills a PostgreSQL database that has our tables, one population of clicks a run: ``python -m bench.seed_postgres``.

The rows are those of ``bench.seed``, with the same arithmetic.  The server itself makes them, and they go straight into
the partitions, which postbackd's own store makes.  This runs as a process of its own, so that a benchmark without
PostgreSQL does without ``asyncpg``.
"""

from __future__ import annotations

import argparse
import asyncio

import asyncpg

from bench.seed import CAMPAIGNS, NODE, Population
from postbackd.core.click_id import first_stamp_at, stamp_ms
from postbackd.core.statuses import Status
from postbackd.core.verdicts import Verdict
from postbackd.store.postgres_partitions import make_partitions, partition_of

_ROWS_A_TRANSACTION = 1_000_000

_LOG_DELAY_MS = 3_600_000
"""The postback of a stored conversion came an hour after its click."""

_NUMBERS = f"""
(SELECT i, s, ((s >> 22) + s) & 1023 AS bucket, i % {CAMPAIGNS} + 1 AS campaign,
        s + ({_LOG_DELAY_MS}::bigint << 22) AS r
 FROM (SELECT i, (($3 + i * $4 / $5) << 22) | ({NODE} << 12) | (i & 4095) AS s
       FROM generate_series($1::bigint, $2::bigint) AS i) AS n) AS n
"""
"""The rows from number $1 to $2: number, stamp, bucket, campaign, and the stamp of the request an hour later."""

_CLICKS = f"""
INSERT INTO {{partition}} (click_id, bucket, campaign, offer, kind, source_click_id, cost_micros, country, ip_prefix,
                           sub1)
SELECT s, bucket, campaign, 1, 0, 'src' || lpad(to_hex(i * 2654435761 & 281474976710655), 12, '0'), 20000, 'US',
       '203.0.113.0/24', 'ad-' || i % 1000
FROM {_NUMBERS}
"""

_CONVERSIONS = f"""
INSERT INTO {{partition}} (click_id, bucket, type, transaction_id, conversion_id, network, campaign, offer, status,
                           value_micros, currency, channels, status_time_ms, checksum)
SELECT s, bucket, 'conversion', 'h' || lpad(to_hex(i), 9, '0'), r, 1, campaign, 1, {int(Status.APPROVED)},
       12500000, 'USD', 1, 0, hashint8(i)
FROM {_NUMBERS}
"""
"""What stands for the checksum has its size; nobody verifies these rows."""

_LOG = f"""
INSERT INTO {{partition}} (request_id, bucket, network, channel, verdict, reason, click_id, campaign, conversion_id,
                           value, currency, transaction_id, bytes, parameters)
SELECT r, bucket, 1, 1, {int(Verdict.ACCEPTED)}, 0, s, campaign, r,
       '12.50', 'USD', 'h' || lpad(to_hex(i), 9, '0'), 82, 4
FROM {_NUMBERS}
"""

TABLES = {"clicks": (_CLICKS, 0), "conversions": (_CONVERSIONS, 0), "postbacks": (_LOG, _LOG_DELAY_MS)}
"""Table -> its statement, and by how much its key is later than the click."""


async def fill(address: str, population: Population, table: str) -> None:
    """Add the rows of one table.  Not synced row by row: they can be made again."""
    statement, delay_ms = TABLES[table]
    values = (first_stamp_at(population.start_ms) >> 22, population.span_ms, population.rows)
    db = await asyncpg.connect(address, server_settings={"synchronous_commit": "off"})
    try:
        first = 0
        while first < population.rows:
            partition = partition_of(table, first_stamp_at(population.ms(first) + delay_ms))
            await make_partitions(db, [partition])
            end = min(population.rows, population.first_at(stamp_ms(partition.end) - delay_ms))
            sql = statement.format(partition=partition.name)
            for begin in range(first, end, _ROWS_A_TRANSACTION):
                last = min(end, begin + _ROWS_A_TRANSACTION) - 1
                await db.execute(sql, begin, last, *values)
            first = end
    finally:
        await db.close()


async def fill_all(address: str, population: Population, tables: list[str]) -> None:
    """Add the rows of several tables at the same time."""
    async with asyncio.TaskGroup() as group:
        for table in tables:
            group.create_task(fill(address, population, table))


def main() -> None:
    """Fill a database from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.seed_postgres", description="Add rows.")
    parser.add_argument("--to", required=True, help="address of a database that has our tables")
    parser.add_argument("--start-ms", type=int, required=True, help="of the first click, since 1970")
    parser.add_argument("--days", type=int, required=True, help="over how many days the clicks are spread")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--tables", default=",".join(TABLES), help="default: %(default)s")
    given = parser.parse_args()
    population = Population(given.start_ms, given.days, given.rows)
    asyncio.run(fill_all(given.to, population, given.tables.split(",")))


if __name__ == "__main__":
    main()
