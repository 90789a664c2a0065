"""A partner's export against our conversions of that network, row by row.

``reconcile`` reads the file into a ``ReconcileFile``, puts our conversions beside it, learns from the matched rows by
how much the partner's clock differs, and puts each row, and each conversion in the file's period, into one bucket (see
``core.reconciling``).  A row is matched by its transaction id, else by its click id, and never by anything else:

- *by transaction id*: the conversion of the network that has it; of several, the one of the row's click and type.  One
  that is counted for another click than the row names is no match, and is said;
- *by click id* (one of ours, or a caller's own): where the row has no transaction id, or our conversion has none;
- where several conversions fit and nothing in the row says which, none is taken, and the row is said to be unusable.

Our conversions are read by ranges of clicks: first those that can fall into the file's period; the rest is looked
through only for ids that were not found there.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from msgspec import Struct

from postbackd.core.click_id import MAX_STAMP, first_stamp_at
from postbackd.core.export_rows import Problem, Row, RowReader
from postbackd.core.export_values import DAY_MS
from postbackd.core.exports import Given
from postbackd.core.model import Network
from postbackd.core.reconciling import (
    Bucket,
    Candidate,
    Period,
    Shift,
    Side,
    Wanted,
    choose,
    compare,
    counted_ms,
    cover,
    find_shift,
    is_other_day,
)
from postbackd.core.rulebook import Rulebook
from postbackd.reports.export_file import Survey, read_records, survey
from postbackd.reports.reconcile_summary import Outline, summarise
from postbackd.store.base import Store
from postbackd.store.reconcile_file import ReconcileFile

_CHUNK = 2000
"""Rows between two chances for others: some 20 ms."""

_PAGE = 5000

_PAIRS = 20_000
"""Matched rows that are asked for the shift of their clock."""

_SLACK_MS = 2 * DAY_MS
"""Any zone, and a postback's way."""

_LONGEST_WINDOW_MS = 90 * DAY_MS
"""How long before its conversion a click may lie, at least, for the first look."""

_FEW_PAIRS = 3

Progress = Callable[[str, int, int], None]
"""``(what is being done, how far, of how much)``; 0: not known."""


class Asked(Struct, frozen=True, kw_only=True):
    """What is to be reconciled, and with whom."""

    network: Network
    file_name: str
    given: Given = Given()
    since_ms: int | None = None
    until_ms: int | None = None
    """Only rows and conversions of this period, in milliseconds since 1970 UTC; ``None``: what the file covers."""


async def reconcile(
    store: Store,
    rulebook: Rulebook,
    asked: Asked,
    source: Path,
    file: ReconcileFile,
    now_ms: int,
    progress: Progress = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Compare the export in ``source``; what was found is in ``file`` afterwards, and its summary is returned.

    Gives way to others often.  Raises ``ExportError`` when the file is no export, ``OSError`` when it cannot be read.
    """
    own_names = rulebook.networks[asked.network.id].field_map.names
    progress("looking at the file", 0, 0)
    found = await asyncio.to_thread(survey, source, asked.given, own_names, rulebook.keys)
    work = _Reconciling(store, rulebook, asked, file, found, now_ms, progress)
    file.begin()
    await work.read(source)
    await work.load()
    await work.match()
    document = work.summary()
    file.finish(document)
    file.commit()
    return document


class _Reconciling:
    """One reconciliation, step by step."""

    def __init__(
        self,
        store: Store,
        rulebook: Rulebook,
        asked: Asked,
        file: ReconcileFile,
        found: Survey,
        now_ms: int,
        progress: Progress,
    ) -> None:
        self._store, self._rulebook, self._asked, self._file = store, rulebook, asked, file
        self._survey, self._now_ms, self._progress = found, now_ms, progress
        network = rulebook.networks[asked.network.id]
        self._reader = RowReader(
            found.layout, asked.given, network, rulebook.keys, rulebook.masker, now_ms
        )  # fmt: skip
        self._shift = Shift()
        self._shift_found: Shift | None = None
        self._period: Period | None = None
        self._types: set[str] = set()

    # --- the rows of the file ----------------------------------------------------------------------------------

    async def read(self, source: Path) -> None:
        layout = self._survey.layout
        records = read_records(source, layout.encoding, layout.delimiter)
        behind = islice(records, layout.header.record + 1, None)
        done = 0
        while rows := [self._read_row(line, cells) for line, cells in islice(behind, _CHUNK)]:
            self._file.add_rows(rows)
            done += len(rows)
            self._progress("reading", done, self._survey.records)
            await asyncio.sleep(0)

    def _read_row(self, line: int, cells: list[str] | None) -> Row:
        return Row(line, Problem.MALFORMED) if cells is None else self._reader.read(line, cells)

    # --- ours --------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Our conversions that can be in the file, or should be."""
        since, until = self._clicks_to_look_at()
        await self._load_range(since, until, lambda row: True)
        await asyncio.to_thread(self._file.index)
        transactions, clicks = await self._unresolved(since, until)
        if transactions or clicks:

            def is_wanted(row: dict[str, Any]) -> bool:
                return hash(row["transaction_id"]) in transactions or row["click_id"] in clicks

            await self._load_range(0, since, is_wanted)
            await self._load_range(until, MAX_STAMP, is_wanted)

    def _clicks_to_look_at(self) -> tuple[int, int]:
        first, last = self._file.span()
        asked = self._asked
        first = first if asked.since_ms is None else min(first or asked.since_ms, asked.since_ms)
        last = last if asked.until_ms is None else max(last or asked.until_ms, asked.until_ms)
        if first is None or last is None:
            return 0, MAX_STAMP
        window_ms = max(
            (
                offer.window_max_s * 1000
                for offer in self._rulebook.offers.values()
                if offer.network == asked.network.id
            ),
            default=0,
        )
        since = first_stamp_at(first - _SLACK_MS - max(window_ms, _LONGEST_WINDOW_MS))
        return min(since, MAX_STAMP), min(first_stamp_at(last + _SLACK_MS), MAX_STAMP)

    async def _load_range(self, since: int, until: int, is_wanted: Callable[[dict[str, Any]], bool]) -> None:
        if since >= until:
            return
        own_ids = self._file.has_own_ids()
        name = "conversions_of_network_with_own_ids" if own_ids else "conversions_of_network"
        after: dict[str, Any] = {"after_click_id": since}  # no type is empty: this leaves none of it out
        done = 0
        while rows := await self._store.query(
            name, network=self._asked.network.id, until=until, limit=_PAGE, **after
        ):
            self._file.add_ours([_our_columns(row) for row in rows if is_wanted(row)])
            done += len(rows)
            self._progress("reading our conversions", done, 0)
            after = {f"after_{key}": rows[-1][key] for key in ("click_id", "type", "transaction_id")}
            await asyncio.sleep(0)

    async def _unresolved(self, since: int, until: int) -> tuple[set[int], set[int]]:
        """Hashes of transaction ids, and clicks, of rows whose conversion lies elsewhere if we have it."""
        transactions: set[int] = set()
        clicks: set[int] = set()
        if (since, until) == (0, MAX_STAMP):
            return transactions, clicks
        async for chunk in _chunks(self._file.unresolved()):
            for transaction, click in chunk:
                if transaction:
                    transactions.add(hash(transaction))
                if click is not None and not since <= click < until:
                    clicks.add(click)
        return transactions, clicks

    # --- what fits what ----------------------------------------------------------------------------------------

    async def match(self) -> None:
        self._learn_shift()
        self._period = self._find_period()
        self._types = self._file.our_types()
        self._types |= {word.casefold() for word in self._asked.network.types}
        first_line = array("q", bytes(8 * (self._file.count_ours() + 1)))
        done = 0
        groups = groupby(self._file.paired(), key=itemgetter(0))
        async for chunk in _chunks((list(group) for _, group in groups)):
            found = [self._match_row(group, first_line) for group in chunk]
            self._file.add_found(found)
            done += len(found)
            self._progress("comparing", done, self._survey.records)
        self._file.add_found(
            [(line, Bucket.UNUSABLE, problem, None, None) for line, problem in self._file.problems()]
        )
        await asyncio.to_thread(self._file.mark_duplicates)
        self._file.add_left_over(self._left_over(first_line))

    def _learn_shift(self) -> None:
        """From rows whose transaction or click id is that of one conversion."""
        asked = self._asked.given.shift_min
        every = max(1, self._file.count_timed() // _PAIRS)
        found = self._file.pairs(by_click=False, every=every, limit=2 * _PAIRS)
        if len(found) < _FEW_PAIRS:
            found += self._file.pairs(by_click=True, every=every, limit=2 * _PAIRS)
        self._shift_found = find_shift(found, self._survey.layout.clocks)
        self._shift = Shift(asked) if asked is not None else self._shift_found or Shift()

    def _find_period(self) -> Period | None:
        """What is compared: what was asked for, else what the file covers, else what it matches."""
        asked = self._asked
        first, last, zone = self._file.span_shown()
        if first is not None and last is not None:
            period = cover(first, last, self._shift if zone is None else Shift(zone), self._now_ms)
        else:
            first, last = self._file.span_matched()
            if first is None and asked.since_ms is None:
                return None
            period = Period(first or 0, (last or self._now_ms) + 1)
        since = period.since_ms if asked.since_ms is None else asked.since_ms
        return Period(since, period.until_ms if asked.until_ms is None else asked.until_ms)

    def _match_row(
        self, group: list[Any], first_line: array[int]
    ) -> tuple[int, int, int, int | None, int | None]:
        """``(line, bucket, problem, number of our conversion, other)``, as ``found`` keeps it."""
        line, transaction, click, own_id, type_, value, currency, status, time_ms, day, zone = group[0][:11]
        if time_ms is not None and self._is_outside(time_ms, zone):
            return line, Bucket.OUTSIDE_WINDOW, 0, None, None
        wanted = Wanted(transaction, click, own_id, type_ if type_ in self._types else None)
        same = [Candidate(*row[11:]) for row in group if row[11] is not None]
        chosen = choose(wanted, same, self._of_click)
        if chosen.problem:
            return line, Bucket.UNUSABLE, chosen.problem, None, None
        ours = chosen.ours
        if ours is None:
            return line, Bucket.MISSING_HERE, 0, None, chosen.other
        if first_line[ours.n]:
            return line, Bucket.DUPLICATE, 0, ours.n, first_line[ours.n]
        first_line[ours.n] = line
        bucket = compare(
            Side(value, currency, status),
            Side(ours.value_micros, ours.currency, ours.status),
            self._survey.layout.decimals,
        )
        shift_min = self._shift.at(ours.time_ms) if zone is None else zone
        if bucket is Bucket.AGREES and day is not None and is_other_day(day, ours.time_ms, shift_min):
            bucket = Bucket.OTHER_DAY
        return line, bucket, 0, ours.n, None

    def _of_click(self, wanted: Wanted) -> list[Candidate]:
        if wanted.click is not None:
            return [Candidate(*row) for row in self._file.of_click(wanted.click)]
        return [Candidate(*row) for row in self._file.of_own_id(wanted.own_id)] if wanted.own_id else []

    def _is_outside(self, time_ms: int, zone: int | None) -> bool:
        """Whether a row is outside of the period that was asked for."""
        asked = self._asked
        utc_ms = self._shift.to_utc(time_ms) if zone is None else time_ms
        return (asked.since_ms is not None and utc_ms < asked.since_ms) or (
            asked.until_ms is not None and utc_ms >= asked.until_ms
        )

    def _left_over(self, first_line: array[int]) -> Iterator[tuple[int, int]]:
        """Conversions that no row matched, in the period or just outside of it."""
        period = self._period
        if period is None:
            return
        near = Period(period.since_ms - DAY_MS, period.until_ms + DAY_MS)
        for n, time_ms in self._file.our_times():
            if not first_line[n] and near.holds(time_ms):
                yield n, Bucket.MISSING_THERE if period.holds(time_ms) else Bucket.OUTSIDE_WINDOW

    # --- in words ----------------------------------------------------------------------------------------------

    def summary(self) -> dict[str, Any]:
        """See ``reports.reconcile_summary``."""
        return summarise(
            self._file,
            Outline(
                network=self._asked.network.name,
                file_name=self._rulebook.masker.mask_words(self._asked.file_name)[:200],
                survey=self._survey,
                reader=self._reader,
                given=self._asked.given,
                shift=self._shift,
                shift_found=self._shift_found,
                period=self._period,
                types=sorted(self._types),
            ),
        )


async def _chunks(rows: Iterator[Any]) -> AsyncIterator[list[Any]]:
    """A few thousand at a time, with a chance for others between them."""
    while chunk := list(islice(rows, _CHUNK)):
        yield chunk
        await asyncio.sleep(0)


def _our_columns(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        row["click_id"], row["type"], row["transaction_id"], row["conversion_id"], row["campaign"], row["status"],
        row["value_micros"], row["currency"], row["channels"],
        counted_ms(row["conversion_id"], row["channels"], row["status_time_ms"]), row.get("own_id"),
    )  # fmt: skip
