"""The statements of the write path on PostgreSQL: ``store.write.Transaction`` over one ``asyncpg`` connection.

One statement a batch and table; its rows travel as one array a column.  Tables are partitioned by stamp, so every
statement that looks for stamps also says between which they lie: partitions outside are left out before it starts.
Rows that several nodes may touch are offered in the order of their keys, so that two nodes never wait for each other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import itemgetter

import asyncpg

from postbackd.core.buckets import bucket_of_stamp, bucket_of_text
from postbackd.core.model import Channel, Click, Postback
from postbackd.core.rollups import Kind
from postbackd.core.rules import Conversion
from postbackd.core.verdicts import Verdict
from postbackd.store.base import FlowMinute
from postbackd.store.postgres_insert import Insert
from postbackd.store.transaction import Key, Row, StoredClick
from postbackd.store.write import STORED_FIELDS, read_postback


class MustRunAlone(Exception):
    """A pixel without transaction id has waited: it depends on what others may be writing at this moment."""


# Every statement has a name and a sentence.

ADD_CLICKS = Insert(
    "clicks",
    "click_id bigint, bucket smallint, campaign integer, offer integer, kind smallint, source_click_id text, "
    "cost_micros bigint, country text, ip_prefix text, own_id text, "
    "sub1 text, sub2 text, sub3 text, sub4 text, sub5 text, "
    "sub6 text, sub7 text, sub8 text, sub9 text, sub10 text",
    "ON CONFLICT (click_id, bucket) DO NOTHING",
)
"""Visits; one that a server registers again under an id of ours is there already."""

CLAIM_OWN_IDS = Insert(
    "own_ids", "own_id text, bucket smallint, click_id bigint", "ON CONFLICT (own_id, bucket) DO NOTHING"
)
"""The first click to claim an own id keeps it."""

FIND_OWN_IDS = (
    "SELECT own_id, click_id FROM own_ids WHERE own_id = ANY ($1::text[]) AND bucket = ANY ($2::smallint[])"
)
"""The clicks that hold own ids."""

FIND_CLICKS = """
SELECT c.click_id, c.campaign, c.offer, c.kind, EXISTS (SELECT 1 FROM pixel_conversions) AS pixel
FROM unnest($1::bigint[], $2::smallint[]) AS w (click_id, bucket)
CROSS JOIN LATERAL (
    SELECT click_id, campaign, offer, kind FROM clicks
    WHERE click_id = w.click_id AND bucket = w.bucket AND click_id BETWEEN $3 AND $4 OFFSET 0) AS c
"""
"""What matching needs of clicks; on the way, whether the pixel brought anything that S2S has not confirmed.

``OFFSET 0`` keeps it a look-up for each that is wanted.  The planner, which knows nothing of a table that has just
begun, may otherwise read all clicks between the two bounds, and for each of them everything that is wanted.
"""

FIND_ERASED = (
    "SELECT click_id FROM erased_clicks WHERE click_id = ANY ($1::bigint[]) AND bucket = ANY ($2::smallint[])"
)
"""Which clicks were erased."""

PURGED_BEFORE = "SELECT value FROM settings WHERE name = 'purged_before'"
"""The horizon up to which clicks have been purged."""

ADD_CONVERSIONS = Insert(
    "conversions",
    "click_id bigint, type text, transaction_id text, conversion_id bigint, network integer, campaign integer, "
    "offer integer, status smallint, value_micros bigint, currency text, channels smallint, status_time_ms bigint, "
    "checksum integer, bucket smallint",
    "ON CONFLICT (click_id, type, transaction_id, bucket) DO NOTHING",
)
"""Count conversions, unless their keys are counted already: this is what decides."""

_WANTED_CONVERSIONS = """
SELECT c.*
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::smallint[]) AS w (click_id, type, transaction_id, bucket)
CROSS JOIN LATERAL (
    SELECT click_id, type, transaction_id, conversion_id, status, value_micros, currency, channels, status_time_ms,
           network, campaign, offer, checksum
    FROM conversions
    WHERE click_id = w.click_id AND type = w.type AND transaction_id = w.transaction_id AND bucket = w.bucket
      AND click_id BETWEEN $5 AND $6 {how}) AS c
"""

FIND_CONVERSIONS = _WANTED_CONVERSIONS.format(how="OFFSET 0")
"""The conversions under keys; a look-up for each, as in ``FIND_CLICKS``."""

LOCK_CONVERSIONS = _WANTED_CONVERSIONS.format(how="FOR UPDATE")
"""The conversions under keys, which nobody else changes until this transaction has ended."""

CHANGE_CONVERSION = """
UPDATE conversions SET status = $1, value_micros = $2, currency = $3, channels = $4, status_time_ms = $5,
                       checksum = $6
WHERE click_id = $7 AND type = $8 AND transaction_id = $9 AND bucket = $10
"""
"""What a repeat changed."""

FIRST_CONVERSION = """
SELECT click_id, type, transaction_id FROM conversions WHERE click_id = $1 AND type = $2 AND bucket = $3
ORDER BY conversion_id LIMIT 1
"""
"""The oldest conversion of a click and type."""

RENAME_CONVERSION = """
UPDATE conversions SET transaction_id = $1, checksum = $2
WHERE click_id = $3 AND type = $4 AND transaction_id = $5 AND bucket = $6
"""
"""Give the pixel's conversion the transaction id that the S2S postback names."""

ADD_HISTORY = Insert(
    "conversion_history",
    "click_id bigint, request_id bigint, conversion_id bigint, status_from smallint, status_to smallint, "
    "status_word text, value_micros_from bigint, value_micros_to bigint, checksum integer, bucket smallint",
    "ON CONFLICT (request_id, click_id, bucket) DO NOTHING",
)
"""Changes of conversions."""

ADD_EVENTS = Insert(
    "outbox",
    "request_id bigint, click_id bigint, conversion_id bigint, status_from smallint, status smallint, "
    "value_micros_from bigint, value_micros bigint, currency text, trace text, bucket smallint",
)
"""What happened to conversions, for the rules to look at."""

ADD_POSTBACKS = Insert(
    "postbacks",
    "request_id bigint, network integer, channel smallint, verdict smallint, reason smallint, click_id bigint, "
    "campaign integer, conversion_id bigint, click_text text, type text, value text, currency text, "
    "transaction_id text, status text, time text, found_in text, bytes integer, parameters integer, "
    "observed smallint, sender text, bucket smallint",
)
"""Rows of the postback log."""

CHANGE_POSTBACKS = """
UPDATE postbacks AS p SET first_verdict = coalesce(p.first_verdict, p.verdict),
                          first_reason = coalesce(p.first_reason, p.reason),
                          verdict = w.verdict, reason = w.reason, click_id = w.click_id, campaign = w.campaign,
                          conversion_id = w.conversion_id
FROM unnest($1::smallint[], $2::smallint[], $3::bigint[], $4::integer[], $5::bigint[], $6::bigint[])
  AS w (verdict, reason, click_id, campaign, conversion_id, request_id)
WHERE p.request_id = w.request_id AND p.request_id BETWEEN $7 AND $8
"""
"""A late match or a replay changed what became of postbacks; what it was first is kept."""

ADD_WAITING = Insert(
    "waiting",
    "click_ref text, request_id bigint, bucket smallint",
    "ON CONFLICT (click_ref, request_id, bucket) DO NOTHING",
)
"""Unmatched postbacks wait for their clicks."""

FIND_WAITING = """
SELECT request_id FROM waiting WHERE bucket = ANY ($1::smallint[]) AND click_ref = ANY ($2::text[])
ORDER BY request_id LIMIT $3
"""
"""The postbacks that wait for clicks, oldest first."""

TAKE_WAITING = """
DELETE FROM waiting
WHERE bucket = ANY ($1::smallint[]) AND click_ref = ANY ($2::text[]) AND request_id = ANY ($3::bigint[])
RETURNING request_id
"""
"""Those that were taken wait no longer; another node may have taken some of them first."""

MOST_WAITING = 500
"""Waiting postbacks that one transaction takes.  Any number may wait for one click; the rest is for the next round."""

FIND_POSTBACKS = f"""
SELECT {STORED_FIELDS}, p.verdict
FROM postbacks AS p WHERE p.request_id = ANY ($1::bigint[]) AND p.request_id BETWEEN $2 AND $3
ORDER BY p.request_id
"""
"""Rows of the postback log, as they can be judged again."""

ADD_PIXEL_CONVERSIONS = Insert(
    "pixel_conversions",
    "click_id bigint, type text, bucket smallint",
    "ON CONFLICT (click_id, type, bucket) DO NOTHING",
)
"""The pixel counted conversions without a transaction id."""

ANY_PIXEL_CONVERSION = "SELECT EXISTS (SELECT 1 FROM pixel_conversions)"
"""Whether the pixel brought any that S2S has not confirmed."""

TAKE_PIXEL_CONVERSIONS = """
DELETE FROM pixel_conversions AS t USING unnest($1::bigint[], $2::text[], $3::smallint[]) AS w (click_id, type, bucket)
WHERE t.click_id = w.click_id AND t.type = w.type AND t.bucket = w.bucket RETURNING t.click_id, t.type
"""
"""S2S speaks of conversions that the pixel brought."""

ADD_REFUSALS = Insert(
    "refusals",
    "minute bigint, kind text, count bigint",
    "ON CONFLICT (minute, kind) DO UPDATE SET count = refusals.count + excluded.count",
)
"""Requests refused at the front door."""

ADD_RESPONSE_TIMES = Insert(
    "response_times",
    "minute bigint, bucket integer, count bigint, total_us bigint",
    "ON CONFLICT (minute, bucket) DO UPDATE "
    "SET count = response_times.count + excluded.count, total_us = response_times.total_us + excluded.total_us",
)
"""Response times of postbacks."""

ADD_FINDS = Insert(
    "finds",
    "minute bigint, network bigint, field text, kind text, count bigint",
    "ON CONFLICT (minute, network, field, kind) DO UPDATE SET count = finds.count + excluded.count",
)
"""Personal data that was sent."""

ADD_NAMES = Insert("unmapped_names", "minute bigint, network bigint, name text", "ON CONFLICT DO NOTHING")
"""Parameters that no field claims."""

_NO_SUBS = (None,) * 10


ADD_MARK = "INSERT INTO rollup_marks (kind, slot) VALUES ($1, $2)"
"""Have a slot rolled up again."""


class PostgresTransaction:
    """The set-based verbs of ``store.write.Transaction``; whoever makes one opens and closes the transaction."""

    distributed = False
    """Whether the rows lie on several machines, where sets of rows are changed one by one."""

    def __init__(self, db: asyncpg.Connection, *, alone: bool = False) -> None:
        """``alone``: whether nobody else writes meanwhile."""
        self._db = db
        self._alone = alone
        self.left_waiting = False
        """Whether postbacks wait still although their click is there."""
        self._pixel: bool | None = None
        """Whether the pixel brought anything; ``None``: not known, has to be asked."""
        self._buckets: set[int] = set()
        """Those in which clicks were looked for."""

    async def insert(self, statement: Insert, rows: Sequence[Row]) -> int:
        """Insert the rows; returns how many went in.  Raises ``PartitionMissing``."""
        return await statement.run(self._db, rows)

    async def add_clicks(self, clicks: Sequence[Click]) -> None:
        await self.insert(ADD_CLICKS, sorted(map(_click_row, clicks), key=itemgetter(0)))

    async def claim_own_ids(self, own_ids: Mapping[str, int]) -> Mapping[str, int]:
        rows = sorted((own_id, bucket_of_text(own_id), stamp) for own_id, stamp in own_ids.items())
        await self.insert(CLAIM_OWN_IDS, rows)
        return await self.find_own_ids(list(own_ids))

    async def find_own_ids(self, own_ids: Sequence[str]) -> Mapping[str, int]:
        buckets = [bucket_of_text(own_id) for own_id in own_ids]
        return dict(await self._db.fetch(FIND_OWN_IDS, own_ids, buckets))

    async def find_clicks(self, stamps: Sequence[int]) -> Mapping[int, StoredClick]:
        rows = await self._db.fetch(FIND_CLICKS, stamps, buckets_of(stamps), min(stamps), max(stamps))
        if rows:
            self._pixel = rows[0][4]
        return {stamp: (campaign, offer, kind) for stamp, campaign, offer, kind, _ in rows}

    async def find_erased(self, stamps: Sequence[int]) -> set[int]:
        rows = await self._db.fetch(FIND_ERASED, stamps, buckets_of(stamps))
        return {row[0] for row in rows}

    async def purged_before(self) -> int:
        return int(await self._db.fetchval(PURGED_BEFORE) or 0)

    async def add_conversions(self, rows: Sequence[Row]) -> int:
        ordered = sorted(rows, key=_KEY)  # of equal keys the first stays the first
        return await self.insert(ADD_CONVERSIONS, [(*row, bucket_of_stamp(row[0])) for row in ordered])

    async def find_conversions(self, keys: Sequence[Key]) -> Mapping[Key, Conversion]:
        return await self._conversions(FIND_CONVERSIONS, keys)

    async def lock_conversions(self, keys: Sequence[Key]) -> Mapping[Key, Conversion]:
        return await self._conversions(LOCK_CONVERSIONS, keys)

    async def _conversions(self, sql: str, keys: Sequence[Key]) -> Mapping[Key, Conversion]:
        if not keys:
            return {}
        ordered = sorted(set(keys))
        stamps = [key[0] for key in ordered]
        rows = await self._db.fetch(
            sql,
            stamps,
            [key[1] for key in ordered],
            [key[2] for key in ordered],
            buckets_of(stamps),
            stamps[0],
            stamps[-1],
        )
        return {(row[0], row[1], row[2]): Conversion(*row[3:]) for row in map(tuple, rows)}

    async def change_conversions(self, changed: Mapping[Key, Conversion]) -> None:
        await self._db.executemany(
            CHANGE_CONVERSION,
            [
                (
                    after.status, after.value_micros, after.currency, after.channels, after.status_time_ms,
                    after.checksum, *key, bucket_of_stamp(key[0]),
                )
                for key, after in sorted(changed.items(), key=lambda change: change[0])
            ],
        )  # fmt: skip

    async def add_history(self, rows: Sequence[Row]) -> None:
        await self.insert(ADD_HISTORY, [(*row, bucket_of_stamp(row[0])) for row in rows])

    async def add_events(self, rows: Sequence[Row]) -> None:
        await self.insert(ADD_EVENTS, [(*row, bucket_of_stamp(row[1])) for row in rows])

    async def add_postbacks(self, rows: Sequence[Row]) -> None:
        await self.insert(ADD_POSTBACKS, [(*row, bucket_of_log_row(row)) for row in rows])

    async def change_postbacks(self, rows: Sequence[Row]) -> None:
        ordered = sorted(rows, key=itemgetter(5))
        await self._db.execute(CHANGE_POSTBACKS, *zip(*ordered, strict=True), ordered[0][5], ordered[-1][5])

    async def mark_slots(self, marks: Collection[tuple[Kind, int]]) -> None:
        await self._db.executemany(ADD_MARK, sorted((kind.value, slot) for kind, slot in marks))

    async def add_waiting(self, rows: Sequence[tuple[str, int]]) -> None:
        await self.insert(ADD_WAITING, sorted((*row, bucket_of_ref(row[0])) for row in rows))

    async def take_waiting(self, click_refs: Sequence[str]) -> Sequence[Postback]:
        refs = sorted(click_refs)
        buckets = [bucket_of_ref(ref) for ref in refs]
        found = [row[0] for row in await self._db.fetch(FIND_WAITING, buckets, refs, MOST_WAITING)]
        if not found:
            return ()
        rows = await self._find_postbacks(found)
        if not self._alone and any(_is_unnamed_pixel(row) for row in rows):
            raise MustRunAlone
        self.left_waiting |= len(found) == MOST_WAITING
        taken = {row[0] for row in await self._db.fetch(TAKE_WAITING, buckets, refs, found)}
        return [read_postback(row[:-1]) for row in rows if row[0] in taken and row[-1] == Verdict.UNMATCHED]

    async def find_postbacks(self, request_ids: Sequence[int]) -> list[Postback]:
        """The stored postbacks among ``request_ids``, in that order."""
        found = {row[0]: read_postback(row[:-1]) for row in await self._find_postbacks(request_ids)}
        return [found[request_id] for request_id in request_ids if request_id in found]

    async def _find_postbacks(self, request_ids: Sequence[int]) -> Sequence[Row]:
        if not request_ids:
            return ()
        rows = await self._db.fetch(FIND_POSTBACKS, request_ids, min(request_ids), max(request_ids))
        return [tuple(row) for row in rows]

    async def add_pixel_conversions(self, keys: Sequence[tuple[int, str]]) -> None:
        if keys:
            self._pixel = True
            await self.insert(
                ADD_PIXEL_CONVERSIONS, sorted({(*key, bucket_of_stamp(key[0])) for key in keys})
            )

    async def has_pixel_conversions(self) -> bool:
        if self._pixel is None:
            self._pixel = await self._db.fetchval(ANY_PIXEL_CONVERSION)
        return bool(self._pixel)

    async def take_pixel_conversions(self, keys: Sequence[tuple[int, str]]) -> set[tuple[int, str]]:
        ordered = sorted(set(keys))
        if not ordered:
            return set()
        stamps = [key[0] for key in ordered]
        rows = await self._db.fetch(
            TAKE_PIXEL_CONVERSIONS, stamps, [key[1] for key in ordered], buckets_of(stamps)
        )
        return {(stamp, type_) for stamp, type_ in rows}

    async def first_conversion(self, click_id: int, type_: str) -> Key | None:
        row = await self._db.fetchrow(FIRST_CONVERSION, click_id, type_, bucket_of_stamp(click_id))
        return (row[0], row[1], row[2]) if row else None

    async def rename_conversion(self, key: Key, transaction_id: str, checksum: int | None) -> None:
        await self._db.execute(RENAME_CONVERSION, transaction_id, checksum, *key, bucket_of_stamp(key[0]))

    async def add_flow(self, minutes: Sequence[FlowMinute]) -> None:
        """Add what the front door counted."""
        refusals = [(flow.minute, kind, count) for flow in minutes for kind, count in flow.refusals.items()]
        await self.insert(ADD_REFUSALS, sorted(refusals))
        times = [
            (flow.minute, bucket, *counted)
            for flow in minutes
            for bucket, counted in flow.response_times.items()
        ]
        await self.insert(ADD_RESPONSE_TIMES, sorted(times))
        finds = [(flow.minute, *found, count) for flow in minutes for found, count in flow.finds.items()]
        await self.insert(ADD_FINDS, sorted(finds))
        await self.insert(ADD_NAMES, sorted((flow.minute, *name) for flow in minutes for name in flow.names))


_KEY = itemgetter(0, 1, 2)


def buckets_of(stamps: Iterable[int]) -> list[int]:
    """The buckets of clicks, in their order."""
    return [bucket_of_stamp(stamp) for stamp in stamps]


def bucket_of_ref(click_ref: str) -> int:
    """The bucket of a click by what it is waited for by, see ``store.write.stamp_ref``."""
    return bucket_of_stamp(int(click_ref[1:])) if click_ref[0] == "#" else bucket_of_text(click_ref[1:])


def bucket_of_log_row(row: Row) -> int:
    """Of the click that the postback speaks of, else of the request."""
    return bucket_of_stamp(row[0] if row[5] is None else row[5])


def _click_row(click: Click) -> Row:
    subs = click.subs
    if len(subs) < 10:
        subs = subs + _NO_SUBS[len(subs) :]
    return (
        click.stamp, bucket_of_stamp(click.stamp), click.campaign, click.offer, click.kind, click.source_click_id,
        click.cost_micros, click.country, click.ip_prefix, click.own_id, *subs,
    )  # fmt: skip


def _is_unnamed_pixel(row: Row) -> bool:
    """Whether a row of ``FIND_POSTBACKS`` is a pixel without transaction id."""
    return bool(row[2] == Channel.PIXEL and not (row[9] or "").strip())
