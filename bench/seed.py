"""Fills the data directory of a stopped server: ``python -m bench.seed --data DIR --clicks N --conversions M``.

The schema, the signing keys and the catalog come from postbackd itself; the rows go straight into the file, because
ten million of them are wanted in a minute.  Two populations:

- *recent* clicks, spread evenly over the last seven days, without conversions: what the postbacks of a run refer to;
- *history*: as many older clicks as conversions are wanted, spread over the three weeks before that, each with its
  conversion and its row in the postback log.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import apsw

from postbackd.core.checksum import checksum
from postbackd.core.click_id import KeyRing, first_stamp_at
from postbackd.core.model import Campaign, Network, Offer, Source, WeightedOffer
from postbackd.core.statuses import Status
from postbackd.core.verdicts import Verdict
from postbackd.store.sqlite import SqliteStore
from postbackd.store.sqlite_file import FILE_NAME

DAY_MS = 86_400_000
RECENT_DAYS = 7
HISTORY_DAYS = 21
"""Together within the attribution window of thirty days."""

CAMPAIGNS = 10
NETWORK_KEY = "benchbenchbenchbenchbench0"
NODE = 1023
"""No server of the benchmark has this node number: its stamps and the seeded ones cannot meet."""

_ROWS_A_TRANSACTION = 1_000_000

_EVENTS_A_TRANSACTION = 5_000
"""Others write at the same time."""

_ADD_RECENT = """
WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :last)
INSERT INTO clicks (click_id, campaign, offer, kind, source_click_id, cost_micros, country, ip_prefix, sub1)
SELECT ((:start + i * :span / :rows) << 22) | (:node << 12) | (i & 4095), i % :campaigns + 1, 1, 0,
       printf('src%012x', i * 2654435761), 20000, 'US', '203.0.113.0/24', printf('ad-%d', i % 1000)
FROM n
"""

_ADD_CONVERSIONS = """
WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :last)
INSERT INTO conversions (click_id, type, transaction_id, conversion_id, network, campaign, offer, status,
                         value_micros, currency, channels, status_time_ms, checksum)
SELECT *, checksum_of(click_id, 'conversion', transaction_id, conversion_id, 1, campaign, 1, :approved, 12500000,
                      'USD', 1, 0)
FROM (SELECT ((:start + i * :span / :rows) << 22) | (:node << 12) | (i & 4095) AS click_id, 'conversion',
             printf('h%09x', i) AS transaction_id,
             ((:start + 3600000 + i * :span / :rows) << 22) | (:node << 12) | (i & 4095) AS conversion_id,
             1, i % :campaigns + 1 AS campaign, 1, :approved, 12500000, 'USD', 1, 0
      FROM n)
"""

_ADD_LOG = """
WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :last)
INSERT INTO postbacks (request_id, network, channel, verdict, reason, click_id, campaign, conversion_id, type, value,
                       currency, transaction_id, status, bytes, parameters)
SELECT ((:start + 3600000 + i * :span / :rows) << 22) | (:node << 12) | (i & 4095), 1, 1, :accepted, 0,
       ((:start + i * :span / :rows) << 22) | (:node << 12) | (i & 4095), i % :campaigns + 1,
       ((:start + 3600000 + i * :span / :rows) << 22) | (:node << 12) | (i & 4095),
       NULL, '12.50', 'USD', printf('h%09x', i), NULL, 82, 4
FROM n
"""

_ADD_EVENTS = """
WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :last)
INSERT INTO outbox (request_id, click_id, conversion_id, status_from, status, value_micros_from, value_micros,
                    currency)
SELECT ((:start + 3600000 + i * :span / :rows) << 22) | (:node << 12) | (i & 4095),
       ((:start + i * :span / :rows) << 22) | (:node << 12) | (i & 4095),
       ((:start + 3600000 + i * :span / :rows) << 22) | (:node << 12) | (i & 4095),
       0, :approved, 0, 12500000, 'USD'
FROM n
"""


@dataclass(frozen=True)
class Population:
    """Clicks spread evenly over some days: number 0 is the oldest."""

    start_ms: int
    """Milliseconds since 1970 of the oldest."""
    days: int
    rows: int

    @property
    def span_ms(self) -> int:
        return self.days * DAY_MS

    def ms(self, number: int) -> int:
        """When a click was made, in milliseconds since 1970."""
        return self.start_ms + number * self.span_ms // self.rows

    def stamp(self, number: int) -> int:
        """The stamp of a click: the same arithmetic as in the statements."""
        return first_stamp_at(self.ms(number)) | NODE << 12 | number & 4095

    def first_at(self, ms: int) -> int:
        """The number of the first click made at ``ms`` or later; beyond the last one when there is none."""
        return -((self.start_ms - ms) * self.rows // self.span_ms)


@dataclass(frozen=True)
class Seeded:
    """A filled data directory, and how to write the ids of its clicks."""

    data: Path
    keys: KeyRing
    slugs: tuple[str, ...]
    recent: Population
    history: Population
    """The three weeks before, each click with a conversion."""

    @property
    def database(self) -> Path:
        return self.data / FILE_NAME

    def click_id(self, population: Population, number: int) -> str:
        """The id of a click of one of the populations."""
        return self.keys.write(population.stamp(number), number % CAMPAIGNS + 1)


def seed(data: Path, clicks: int, conversions: int, catalog: Path | None = None) -> Seeded:
    """Make a new data directory with ``clicks`` recent clicks and ``conversions`` older conversions.

    ``catalog``: where to leave a copy of it as it was before there were any rows, with the same signing keys.
    """
    keys, slugs = asyncio.run(_make_catalog(data))
    if catalog is not None:
        shutil.copytree(data, catalog)
    # A minute back: nothing lies in the future while the benchmark runs.
    end_ms = int(time.time() * 1000) - 60_000
    recent = Population(end_ms - RECENT_DAYS * DAY_MS, RECENT_DAYS, clicks)
    history = Population(recent.start_ms - HISTORY_DAYS * DAY_MS, HISTORY_DAYS, conversions)
    db = apsw.Connection(str(data / FILE_NAME))
    # Only here: the rows can be made again, and the file is synced as a whole at the end.
    db.pragma("synchronous", "OFF")
    db.pragma("cache_size", -524_288)
    db.create_scalar_function("checksum_of", lambda *columns: checksum(columns), deterministic=True)
    try:
        for sql in (_ADD_RECENT, _ADD_CONVERSIONS, _ADD_LOG):
            _fill(db, sql, history)
        _fill(db, _ADD_RECENT, recent)
        db.pragma("synchronous", "FULL")
        db.pragma("wal_checkpoint(TRUNCATE)")
    finally:
        db.close()
    return Seeded(data, keys, slugs, recent, history)


def queue(seeded: Seeded, first: int, last: int) -> None:
    """Put conversions of the history into the outbox, from number ``first`` up to ``last`` without it.

    As if they had been counted just now; a server may be running.
    """
    db = apsw.Connection(str(seeded.database))
    try:
        db.set_busy_timeout(60_000)
        db.wal_autocheckpoint(0)  # that is the business of the server, and of whoever opens the file next
        for begin in range(first, last, _EVENTS_A_TRANSACTION):
            values = _values(seeded.history, begin, min(last, begin + _EVENTS_A_TRANSACTION))
            db.execute("BEGIN IMMEDIATE")
            db.execute(_ADD_EVENTS, values)
            db.execute("COMMIT")
    finally:
        db.close()


def day_of(seeded: Seeded, days: int) -> str:
    """The UTC date, as ``YYYY-MM-DD``, before which the first ``days`` days of history lie."""
    ms = seeded.history.start_ms + days * DAY_MS
    # The history begins in the middle of a day: rounded up, the first day is a whole one.
    return datetime.fromtimestamp((ms + DAY_MS - 1) // DAY_MS * DAY_MS / 1000, UTC).date().isoformat()


async def _make_catalog(data: Path) -> tuple[KeyRing, tuple[str, ...]]:
    """One network, source and offer, and the campaigns; their ids are 1 and on in a new database."""
    store = await SqliteStore.open(data, create=True)
    try:
        await store.save(Network(id=0, name="network", key=NETWORK_KEY))
        await store.save(Source(id=0, name="source"))
        url = "https://shop.example/landing?sub1={click_id}&src={source_click_id}"
        await store.save(Offer(id=0, name="offer", network=1, url=url))
        slugs = tuple(f"bench{number}" for number in range(1, CAMPAIGNS + 1))
        for slug in slugs:
            offers = (WeightedOffer(1),)
            await store.save(Campaign(id=0, name=slug, slug=slug, source=1, offers=offers))
        catalog = await store.load_catalog()
        return KeyRing(catalog.signing_keys), slugs
    finally:
        await store.close()


def _fill(db: apsw.Connection, sql: str, population: Population) -> None:
    """Run one of the statements above for the rows of a population, a million a transaction."""
    for first in range(0, population.rows, _ROWS_A_TRANSACTION):
        with db:
            db.execute(sql, _values(population, first, min(population.rows, first + _ROWS_A_TRANSACTION)))


def _values(population: Population, first: int, last: int) -> dict[str, int]:
    """What one of the statements wants to know, for the rows from ``first`` up to ``last`` without it."""
    return {
        "start": first_stamp_at(population.start_ms) >> 22,
        "span": population.span_ms,
        "rows": population.rows,
        "node": NODE,
        "campaigns": CAMPAIGNS,
        "approved": int(Status.APPROVED),
        "accepted": int(Verdict.ACCEPTED),
        "first": first,
        "last": last,
    }


def main() -> None:
    """Fill a data directory from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.seed", description="Fill a new data directory.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clicks", type=int, default=1_000_000)
    parser.add_argument("--conversions", type=int, default=0)
    given = parser.parse_args()
    began = time.monotonic()
    seeded = seed(given.data, given.clicks, given.conversions)
    megabytes = seeded.database.stat().st_size / 1e6
    print(f"{given.clicks} recent clicks, {given.conversions} conversions, {megabytes:.0f} MB", end=" ")
    newest = seeded.click_id(seeded.recent, given.clicks - 1)
    print(f"in {time.monotonic() - began:.0f} s; newest click: {newest}")


if __name__ == "__main__":
    main()
