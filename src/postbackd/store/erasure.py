"""Erases what is kept of clicks, in both stores: plain statements over one connection, in one transaction.

What has to stay so that nothing is counted twice and no total changes stays without its data: a click becomes a
tombstone, a transaction id a keyed hash under its click, a log row its verdict.  A caller's own id is kept as a hash
too, so that postbacks which still bring it find the tombstone.  Messages that wait are cancelled.

Everything may run twice: what is erased already is not touched again, and the counts are of what was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from postbackd.core.buckets import bucket_of_stamp, bucket_of_text
from postbackd.core.checksum import CHANGE_COLUMNS, CONVERSION_COLUMNS, carry
from postbackd.core.privacy import Masker
from postbackd.core.rollups import Kind, slot_of
from postbackd.store.base import Erased, Erasing
from postbackd.store.database import Database
from postbackd.store.rollups import ERASE_FACTS, add_marks
from postbackd.store.write import ERASED_TEXT, own_ref, stamp_ref

# Every statement has a name and a sentence.  {click}: "click_id = N", and the bucket where there are buckets;
# {and_click}: the same with AND, nothing where a table does not name its click; {and_bucket_of_text}: the bucket alone.

OWN_ID = "SELECT own_id FROM clicks WHERE {click} AND own_id IS NOT NULL"
"""The caller's own id of a click."""

ERASE_CLICK = """
UPDATE clicks SET kind = kind | 16, source_click_id = NULL, country = NULL, ip_prefix = NULL, own_id = NULL,
                  sub1 = NULL, sub2 = NULL, sub3 = NULL, sub4 = NULL, sub5 = NULL,
                  sub6 = NULL, sub7 = NULL, sub8 = NULL, sub9 = NULL, sub10 = NULL
WHERE {click} AND kind & 16 = 0
"""
"""A click becomes a tombstone; its cost and its place in the reports stay."""

NOTE_ERASED = "INSERT INTO erased_clicks ({columns}) VALUES ({values}) ON CONFLICT ({columns}) DO NOTHING"
"""Remember that a click was erased, for as long as its conversions live."""

FORGET_OWN_ID = "DELETE FROM own_ids WHERE own_id = ? {and_bucket_of_text}"
"""The caller's own id is not kept as it was."""

KEEP_OWN_ID = "INSERT INTO own_ids ({columns}) VALUES ({values}) ON CONFLICT ({key}) DO NOTHING"
"""It is kept as a hash."""

CONVERSIONS = f"SELECT {', '.join(CONVERSION_COLUMNS)}, checksum FROM conversions WHERE {{click}}"
"""What was counted for a click."""

ERASE_CONVERSION = (
    "UPDATE conversions SET transaction_id = ?, checksum = ? "
    "WHERE {click} AND type = ? AND transaction_id = ?"
)
"""A transaction id becomes a hash; type, status and money stay."""

HISTORY = (
    f"SELECT {', '.join(CHANGE_COLUMNS)}, checksum FROM conversion_history "
    "WHERE conversion_id = ? {and_click} AND status_word IS NOT NULL"
)
"""Changes for which the sender had words of its own."""

ERASE_WORD = (
    "UPDATE conversion_history SET status_word = NULL, checksum = ? "
    "WHERE conversion_id = ? {and_click} AND request_id = ?"
)
"""The word goes, the change stays."""

FORGET_EVENTS = "DELETE FROM outbox WHERE {click}"
"""The rules are not asked about it any more."""

IN_FLIGHT = (
    "SELECT count(*) FROM deliveries WHERE conversion_id = ? {and_click} AND state = 1 AND holder IS NOT NULL"
)
"""Whether somebody is sending at this moment."""

ERASE_DELIVERIES = """
UPDATE deliveries SET facts = '{{}}', transaction_id = CASE WHEN transaction_id = '' THEN '' ELSE ? END,
                      settled_ms = CASE WHEN state = 1 THEN ? ELSE settled_ms END,
                      reason = CASE WHEN state = 1 OR reason <> '' THEN 'erased' ELSE '' END,
                      holder = NULL, state = CASE WHEN state = 1 THEN 4 ELSE state END
WHERE conversion_id = ? {and_click}
  AND (state = 1 OR facts <> '{{}}' OR reason NOT IN ('', 'erased')
       OR (transaction_id <> '' AND transaction_id NOT LIKE 'erased:%'))
"""
"""A message keeps what it was and whether it arrived; one that waits is cancelled."""

ERASE_ATTEMPTS = """
UPDATE attempts SET excerpt = '', error = CASE WHEN error = '' THEN '' ELSE 'erased' END
WHERE delivery IN (SELECT number FROM deliveries WHERE conversion_id = ? {and_click}) {and_click}
  AND (excerpt <> '' OR error NOT IN ('', 'erased'))
"""
"""An attempt keeps its time and its HTTP status."""

LOG_DATA = """
SELECT request_id, transaction_id FROM postbacks
WHERE request_id IN ({requests}) AND coalesce(click_text, '') <> 'erased'
"""
"""Rows of the postback log that hold something still."""

LOG_OF_CLICK = "SELECT request_id FROM postbacks WHERE click_id = ? AND verdict <> 1"
"""Rows of the postback log that speak of a click, without the ones that counted something."""

ERASE_LOG = f"""
UPDATE postbacks SET click_text = '{ERASED_TEXT}', transaction_id = ?, value = NULL, currency = NULL, status = NULL,
                     time = NULL, found_in = NULL, sender = NULL
WHERE request_id = ?
"""
"""A log row keeps its verdict and reason, its type, and how long it was."""

WAITING = "SELECT request_id FROM waiting WHERE click_ref = ? {and_bucket_of_text}"
"""Postbacks that wait for a click."""

FORGET_WAITING = "DELETE FROM waiting WHERE click_ref = ? {and_bucket_of_text}"
"""They wait no longer."""

FORGET_WAITING_REQUEST = "DELETE FROM waiting WHERE request_id = ?"
"""The same for a postback whose click is not known."""

ADD_ERASURE = "INSERT INTO erasures (at_ms, asked, reference, counts) VALUES (?, ?, ?, '{}') RETURNING id"
"""A certificate, not done yet."""

OPEN_ERASURE = """
SELECT id, counts FROM erasures WHERE asked = ? AND reference = ? AND done_ms IS NULL ORDER BY id LIMIT 1
"""
"""One that was begun and not ended, because something interrupted it."""

THIS_ERASURE = "SELECT id, counts FROM erasures WHERE id = ?"
"""The certificate of an earlier pass."""

COUNT_ERASURE = "UPDATE erasures SET counts = ? WHERE id = ?"
"""What has been erased so far."""

END_ERASURE = "UPDATE erasures SET done_ms = ? WHERE id = ?"
"""Nothing of it is left in the files."""


async def erase(db: Database, erasing: Erasing, masker: Masker, *, buckets: bool) -> Erased:
    """One pass, inside a transaction of the caller."""
    if erasing.certificate is not None:
        found = await db.rows(THIS_ERASURE, erasing.certificate)
    else:
        found = await db.rows(OPEN_ERASURE, erasing.asked, erasing.reference)
    if found:
        id_, counted = found[0][0], Counter(msgspec.json.decode(found[0][1], type=dict[str, int]))
    else:
        ((id_,),) = await db.rows(ADD_ERASURE, erasing.now_ms, erasing.asked, erasing.reference)
        counted = Counter()
    run = _Pass(db, masker, erasing.now_ms, buckets)
    for stamp in erasing.clicks:
        await run.erase_click(stamp)
    await run.erase_log(0, erasing.requests)
    for request_id in erasing.requests:
        await run.change("waiting", f"{FORGET_WAITING_REQUEST} RETURNING 1", request_id)
    counted += run.counts
    await db.rows(COUNT_ERASURE, msgspec.json.encode(dict(sorted(counted.items()))).decode(), id_)
    changed = run.counts.total()
    return Erased(id_, dict(counted), changed, run.in_flight, bool(found))


class _Pass:
    def __init__(self, db: Database, masker: Masker, now_ms: int, buckets: bool) -> None:
        self._db = db
        self._masker = masker
        self._now_ms = now_ms
        self._buckets = buckets
        self.counts: Counter[str] = Counter()
        self.in_flight = 0

    async def change(self, table: str, sql: str, *values: Any) -> None:
        """Run a statement that returns a row for each row it changed."""
        changed = len(await self._db.rows(sql, *values))
        if changed:
            self.counts[table] += changed

    async def erase_click(self, stamp: int) -> None:
        of_click = self._of_click(stamp)
        await self._db.rows(*self._insert(NOTE_ERASED, "click_id", (stamp,), bucket_of_stamp(stamp)))
        requests = {row[0] for row in await self._db.rows(LOG_OF_CLICK, stamp)}
        for (own_id,) in await self._db.rows(of_click(OWN_ID)):
            requests |= await self._erase_own_id(stamp, own_id)
        requests |= await self._take_waiting(stamp_ref(stamp), bucket_of_stamp(stamp))
        await self.change("clicks", of_click(f"{ERASE_CLICK} RETURNING 1"))
        await self.change("conversion_facts", f"{ERASE_FACTS} RETURNING 1", stamp)
        if self.counts["clicks"]:
            # What was rolled up of the click, its country and sub ids above all, is computed again.
            await add_marks(self._db, [(Kind.CLICKS, slot_of(stamp))])
        await self.change("outbox", of_click(f"{FORGET_EVENTS} RETURNING 1"))
        for row in await self._db.rows(of_click(CONVERSIONS)):
            requests.add(row[3])
            await self._erase_conversion(stamp, of_click, row)
        await self.erase_log(stamp, sorted(requests))

    async def _erase_own_id(self, stamp: int, own_id: str) -> set[int]:
        """Returns the postbacks that wait for it."""
        requests = await self._take_waiting(own_ref(own_id), bucket_of_text(own_id))
        await self.change(
            "own_ids", self._of_text(f"{FORGET_OWN_ID} RETURNING 1", bucket_of_text(own_id)), own_id
        )
        hashed = self._masker.conceal(0, own_id)
        sql, *values = self._insert(KEEP_OWN_ID, "own_id, click_id", (hashed, stamp), bucket_of_text(hashed))
        await self._db.rows(sql.replace("{key}", "own_id, bucket" if self._buckets else "own_id"), *values)
        return requests

    async def _take_waiting(self, ref: str, bucket: int) -> set[int]:
        requests = {row[0] for row in await self._db.rows(self._of_text(WAITING, bucket), ref)}
        await self.change("waiting", self._of_text(f"{FORGET_WAITING} RETURNING 1", bucket), ref)
        return requests

    async def _erase_conversion(self, stamp: int, of_click: Callable[[str], str], row: Sequence[Any]) -> None:
        """``row``: of ``CONVERSIONS``."""
        *columns, sealed = row
        _, type_, transaction_id, conversion_id, *others = columns
        hashed = self._masker.conceal(stamp, transaction_id)
        if hashed != transaction_id:
            after = (stamp, type_, hashed, conversion_id, *others)
            sql = of_click(f"{ERASE_CONVERSION} RETURNING 1")
            await self.change(
                "conversions", sql, hashed, carry(sealed, columns, after), type_, transaction_id
            )
        await self._erase_words(of_click, conversion_id)
        ((in_flight,),) = await self._db.rows(of_click(IN_FLIGHT), conversion_id)
        self.in_flight += in_flight
        await self.change("attempts", of_click(f"{ERASE_ATTEMPTS} RETURNING 1"), conversion_id)
        sql = of_click(f"{ERASE_DELIVERIES} RETURNING 1")
        await self.change("deliveries", sql, hashed, self._now_ms, conversion_id)

    async def _erase_words(self, of_click: Callable[[str], str], conversion_id: int) -> None:
        sql = of_click(f"{ERASE_WORD} RETURNING 1")
        for *columns, sealed in await self._db.rows(of_click(HISTORY), conversion_id):
            request_id, _, from_, to, _, *micros = columns
            after = (request_id, conversion_id, from_, to, None, *micros)
            resealed = carry(sealed, columns, after)
            await self.change("conversion_history", sql, resealed, conversion_id, request_id)

    async def erase_log(self, stamp: int, requests: Sequence[int]) -> None:
        """Rows of the postback log; ``stamp``: of the click that they speak of, 0: none that is known."""
        if not requests:
            return
        listed = ", ".join(map(str, requests))  # whole numbers of ours
        for request_id, transaction_id in await self._db.rows(LOG_DATA.format(requests=listed)):
            hashed = self._masker.conceal(stamp, (transaction_id or "").strip()) or None
            await self.change("postbacks", f"{ERASE_LOG} RETURNING 1", hashed, request_id)

    # --- tables with and without buckets ------------------------------------------------------------------------

    def _of_click(self, stamp: int) -> Callable[[str], str]:
        bucket = f" AND bucket = {bucket_of_stamp(stamp)}" if self._buckets else ""
        click = f"click_id = {stamp}{bucket}"
        return lambda sql: sql.format(click=click, and_click=f"AND {click}" if self._buckets else "")

    def _of_text(self, sql: str, bucket: int) -> str:
        return sql.format(and_bucket_of_text=f"AND bucket = {bucket}" if self._buckets else "")

    def _insert(self, sql: str, columns: str, values: tuple[Any, ...], bucket: int) -> tuple[Any, ...]:
        """The statement and its values."""
        if self._buckets:
            columns, values = f"{columns}, bucket", (*values, bucket)
        marks = ", ".join("?" * len(values))
        return sql.format(columns=columns, values=marks, key="{key}"), *values
