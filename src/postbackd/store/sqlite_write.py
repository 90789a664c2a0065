"""The statements of the write path on SQLite: ``store.write.Transaction`` over one ``apsw`` connection.

Where most rows go (the log, the conversions) a statement inserts 32 rows at once; clicks are looked up with one
array parameter a batch.  Both were measured against statements a row and against JSON parameters (see
``docs/decisions``).  Constraint names and column meanings stand in ``migrations``.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain

import apsw

from postbackd.core.model import Click, Postback
from postbackd.core.rollups import Kind
from postbackd.core.rules import Conversion
from postbackd.store.base import FlowMinute
from postbackd.store.transaction import Key, Row, StoredClick
from postbackd.store.write import STORED_FIELDS, read_postback

# Every statement has a name and a sentence.

ADD_CLICKS = """
INSERT INTO clicks (click_id, campaign, offer, kind, source_click_id, cost_micros, country, ip_prefix, own_id,
                    sub1, sub2, sub3, sub4, sub5, sub6, sub7, sub8, sub9, sub10)
VALUES {rows} ON CONFLICT DO NOTHING
"""  # Visits; one that a server registers again under an id of ours is there already.

CLAIM_OWN_ID = "INSERT INTO own_ids (own_id, click_id) VALUES (?, ?) ON CONFLICT DO NOTHING"
# The first click to claim an own id keeps it.

FIND_OWN_ID = "SELECT click_id FROM own_ids WHERE own_id = ?"
# The click that holds an own id.

FIND_CLICKS = """
SELECT c.click_id, c.campaign, c.offer, c.kind FROM carray(?) AS wanted
CROSS JOIN clicks AS c ON c.click_id = wanted.value
"""  # What matching needs of clicks.

FIND_ERASED = "SELECT click_id FROM erased_clicks WHERE click_id IN carray(?)"
# Which clicks were erased.

PURGED_BEFORE = "SELECT value FROM settings WHERE name = 'purged_before'"
# The horizon up to which clicks have been purged.

ADD_CONVERSIONS = """
INSERT INTO conversions (click_id, type, transaction_id, conversion_id, network, campaign, offer, status,
                         value_micros, currency, channels, status_time_ms, checksum)
VALUES {rows} ON CONFLICT DO NOTHING
"""  # Count conversions, unless their keys are counted already: this is what decides.

FIND_CONVERSIONS = """
WITH wanted (click_id, type, transaction_id) AS (VALUES {rows})
SELECT c.click_id, c.type, c.transaction_id,
       conversion_id, status, value_micros, currency, channels, status_time_ms, network, campaign, offer, checksum
FROM wanted AS w CROSS JOIN conversions AS c
  ON c.click_id = w.click_id AND c.type = w.type AND c.transaction_id = w.transaction_id
"""  # The conversions under keys.

CHANGE_CONVERSION = """
UPDATE conversions SET status = ?, value_micros = ?, currency = ?, channels = ?, status_time_ms = ?, checksum = ?
WHERE click_id = ? AND type = ? AND transaction_id = ?
"""  # What a repeat changed.

FIRST_CONVERSION = """
SELECT click_id, type, transaction_id FROM conversions WHERE click_id = ? AND type = ?
ORDER BY conversion_id LIMIT 1
"""  # The oldest conversion of a click and type.

RENAME_CONVERSION = """
UPDATE conversions SET transaction_id = ?, checksum = ? WHERE click_id = ? AND type = ? AND transaction_id = ?
"""  # Give the pixel's conversion the transaction id that the S2S postback names.

ADD_HISTORY = """
INSERT INTO conversion_history (request_id, conversion_id, status_from, status_to, status_word, value_micros_from,
                                value_micros_to, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""  # One change of a conversion.

ADD_EVENTS = """
INSERT INTO outbox (request_id, click_id, conversion_id, status_from, status, value_micros_from, value_micros, currency,
                    trace)
VALUES {rows}
"""  # What happened to conversions, for the rules to look at.

ADD_POSTBACKS = """
INSERT INTO postbacks (request_id, network, channel, verdict, reason, click_id, campaign, conversion_id, click_text,
                       type, value, currency, transaction_id, status, time, found_in, bytes, parameters,
                       observed, sender)
VALUES {rows}
"""  # Rows of the postback log.

CHANGE_POSTBACK = """
UPDATE postbacks SET first_verdict = coalesce(first_verdict, verdict), first_reason = coalesce(first_reason, reason),
                     verdict = ?, reason = ?, click_id = ?, campaign = ?, conversion_id = ?
WHERE request_id = ?
"""  # A late match or a replay changed what became of a postback; what it was first is kept.

FIND_REQUESTS = """
SELECT p.request_id FROM carray(?) AS wanted CROSS JOIN postbacks AS p ON p.request_id = wanted.value
"""  # Which requests are in the log.

ADD_MARK = "INSERT INTO rollup_marks (kind, slot) VALUES (?, ?)"
# Have a slot rolled up again.

ADD_WAITING = "INSERT INTO waiting (click_ref, request_id) VALUES (?, ?) ON CONFLICT DO NOTHING"
# An unmatched postback waits for its click.

ANY_WAITING = "SELECT EXISTS (SELECT 1 FROM waiting)"
# Whether any postback waits for a click.

FIND_POSTBACK = f"SELECT {STORED_FIELDS} FROM postbacks AS p WHERE p.request_id = ?"
# A row of the postback log, as it can be judged again.

FIND_WAITING = f"""
SELECT {STORED_FIELDS}
FROM waiting AS w JOIN postbacks AS p ON p.request_id = w.request_id
WHERE w.click_ref = ? AND p.verdict = 5 ORDER BY p.request_id
"""  # The unmatched postbacks that wait for a click.

DROP_WAITING = "DELETE FROM waiting WHERE click_ref = ?"
# Nobody waits for this click any longer.

ADD_PIXEL_CONVERSION = "INSERT INTO pixel_conversions (click_id, type) VALUES (?, ?) ON CONFLICT DO NOTHING"
# The pixel counted a conversion without a transaction id.

ANY_PIXEL_CONVERSION = "SELECT EXISTS (SELECT 1 FROM pixel_conversions)"
# Whether the pixel brought any that S2S has not confirmed.

TAKE_PIXEL_CONVERSION = (
    "DELETE FROM pixel_conversions WHERE click_id = ? AND type = ? RETURNING click_id, type"
)
# S2S speaks of a conversion that the pixel brought.

ADD_REFUSALS = """
INSERT INTO refusals (minute, kind, count) VALUES (?, ?, ?)
ON CONFLICT DO UPDATE SET count = count + excluded.count
"""  # Requests refused at the front door.

ADD_RESPONSE_TIMES = """
INSERT INTO response_times (minute, bucket, count, total_us) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET count = count + excluded.count, total_us = total_us + excluded.total_us
"""  # Response times of postbacks.

ADD_FINDS = """
INSERT INTO finds (minute, network, field, kind, count) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET count = count + excluded.count
"""  # Personal data that was sent.

ADD_NAMES = "INSERT INTO unmapped_names (minute, network, name) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
# Parameters that no field claims.

_NO_SUBS = (None,) * 10


class _Bulk:
    """A statement over many rows of values: 32 at a time, the rest one by one."""

    SIZE = 32

    def __init__(self, sql: str, columns: int) -> None:
        row = f"({', '.join('?' * columns)})"
        self._one = sql.format(rows=row)
        self._many = sql.format(rows=", ".join([row] * self.SIZE))

    def run(self, db: apsw.Connection, rows: Sequence[Row]) -> Iterator[Row]:
        """Run over all rows; yields what the statement returns.  Nothing happens until it is iterated."""
        full = len(rows) - len(rows) % self.SIZE
        for start in range(0, full, self.SIZE):
            yield from db.execute(self._many, tuple(chain.from_iterable(rows[start : start + self.SIZE])))
        if full < len(rows):
            yield from db.executemany(self._one, rows[full:])

    def insert(self, db: apsw.Connection, rows: Sequence[Row]) -> None:
        """Run over all rows a statement that returns nothing."""
        for _ in self.run(db, rows):
            raise AssertionError("an insert returned rows")


_ADD_CLICKS = _Bulk(ADD_CLICKS, 19)
_ADD_CONVERSIONS = _Bulk(ADD_CONVERSIONS, 13)
_ADD_EVENTS = _Bulk(ADD_EVENTS, 9)
_ADD_POSTBACKS = _Bulk(ADD_POSTBACKS, 20)
_FIND_CONVERSIONS = _Bulk(FIND_CONVERSIONS, 3)


class SqliteTransaction:
    """The set-based verbs of ``store.write.Transaction``; whoever makes one opens and closes the transaction."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db

    async def add_clicks(self, clicks: Sequence[Click]) -> None:
        _ADD_CLICKS.insert(self._db, [_click_row(click) for click in clicks])

    async def claim_own_ids(self, own_ids: Mapping[str, int]) -> Mapping[str, int]:
        self._db.executemany(CLAIM_OWN_ID, own_ids.items())
        return await self.find_own_ids(list(own_ids))

    async def find_own_ids(self, own_ids: Sequence[str]) -> Mapping[str, int]:
        found = {}
        for own_id in own_ids:
            for (stamp,) in self._db.execute(FIND_OWN_ID, (own_id,)):
                found[own_id] = stamp
        return found

    async def find_clicks(self, stamps: Sequence[int]) -> Mapping[int, StoredClick]:
        wanted = apsw.carray(array("q", stamps))
        return {row[0]: row[1:] for row in self._db.execute(FIND_CLICKS, (wanted,))}

    async def find_erased(self, stamps: Sequence[int]) -> set[int]:
        wanted = apsw.carray(array("q", stamps))
        return {stamp for (stamp,) in self._db.execute(FIND_ERASED, (wanted,))}

    async def purged_before(self) -> int:
        return int(self._db.execute(PURGED_BEFORE).get or 0)

    async def add_conversions(self, rows: Sequence[Row]) -> int:
        before = self._db.total_changes()
        _ADD_CONVERSIONS.insert(self._db, rows)
        return self._db.total_changes() - before

    async def find_conversions(self, keys: Sequence[Key]) -> Mapping[Key, Conversion]:
        return {row[:3]: Conversion(*row[3:]) for row in _FIND_CONVERSIONS.run(self._db, keys)}

    async def lock_conversions(self, keys: Sequence[Key]) -> Mapping[Key, Conversion]:
        return await self.find_conversions(keys)  # nobody else writes during this transaction

    async def change_conversions(self, changed: Mapping[Key, Conversion]) -> None:
        self._db.executemany(
            CHANGE_CONVERSION,
            [
                (
                    after.status, after.value_micros, after.currency, after.channels, after.status_time_ms,
                    after.checksum, *key,
                )
                for key, after in changed.items()
            ],
        )  # fmt: skip

    async def add_history(self, rows: Sequence[Row]) -> None:
        self._db.executemany(ADD_HISTORY, [row[1:] for row in rows])

    async def add_events(self, rows: Sequence[Row]) -> None:
        _ADD_EVENTS.insert(self._db, rows)

    async def add_postbacks(self, rows: Sequence[Row]) -> None:
        _ADD_POSTBACKS.insert(self._db, rows)

    async def change_postbacks(self, rows: Sequence[Row]) -> None:
        self._db.executemany(CHANGE_POSTBACK, rows)

    async def mark_slots(self, marks: Collection[tuple[Kind, int]]) -> None:
        self._db.executemany(ADD_MARK, sorted((kind.value, slot) for kind, slot in marks))

    async def add_waiting(self, rows: Sequence[tuple[str, int]]) -> None:
        self._db.executemany(ADD_WAITING, rows)

    async def take_waiting(self, click_refs: Sequence[str]) -> Sequence[Postback]:
        if not self._db.execute(ANY_WAITING).get:
            return ()
        taken = []
        for click_ref in click_refs:
            taken += [read_postback(row) for row in self._db.execute(FIND_WAITING, (click_ref,))]
        self._db.executemany(DROP_WAITING, [(click_ref,) for click_ref in click_refs])
        return taken

    async def add_pixel_conversions(self, keys: Sequence[tuple[int, str]]) -> None:
        self._db.executemany(ADD_PIXEL_CONVERSION, keys)

    async def has_pixel_conversions(self) -> bool:
        return bool(self._db.execute(ANY_PIXEL_CONVERSION).get)

    async def take_pixel_conversions(self, keys: Sequence[tuple[int, str]]) -> set[tuple[int, str]]:
        return set(self._db.executemany(TAKE_PIXEL_CONVERSION, keys))

    async def first_conversion(self, click_id: int, type_: str) -> Key | None:
        return next(self._db.execute(FIRST_CONVERSION, (click_id, type_)), None)

    async def rename_conversion(self, key: Key, transaction_id: str, checksum: int | None) -> None:
        self._db.execute(RENAME_CONVERSION, (transaction_id, checksum, *key))

    def add_flow(self, minutes: Sequence[FlowMinute]) -> None:
        """Add what the front door counted."""
        for flow in minutes:
            refusals = [(flow.minute, kind, count) for kind, count in flow.refusals.items()]
            self._db.executemany(ADD_REFUSALS, refusals)
            times = [(flow.minute, bucket, *counted) for bucket, counted in flow.response_times.items()]
            self._db.executemany(ADD_RESPONSE_TIMES, times)
            finds = [(flow.minute, *found, count) for found, count in flow.finds.items()]
            self._db.executemany(ADD_FINDS, finds)
            self._db.executemany(ADD_NAMES, [(flow.minute, *name) for name in flow.names])


def _click_row(click: Click) -> Row:
    subs = click.subs
    if len(subs) < 10:
        subs = subs + _NO_SUBS[len(subs) :]
    return (
        click.stamp, click.campaign, click.offer, click.kind, click.source_click_id, click.cost_micros,
        click.country, click.ip_prefix, click.own_id, *subs,
    )  # fmt: skip


def find_missing(db: apsw.Connection, request_ids: Sequence[int]) -> set[int]:
    """Those of the requests that are not in the log."""
    if not request_ids:
        return set()
    wanted = apsw.carray(array("q", request_ids))
    return set(request_ids) - {request_id for (request_id,) in db.execute(FIND_REQUESTS, (wanted,))}


def find_postbacks(db: apsw.Connection, request_ids: Sequence[int]) -> list[Postback]:
    """The stored postbacks among ``request_ids``, in that order."""
    return [read_postback(row) for row in db.executemany(FIND_POSTBACK, [(id_,) for id_ in request_ids])]
