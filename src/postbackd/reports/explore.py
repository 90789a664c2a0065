"""Answers a question by any one to three dimensions: clicks, postbacks and conversions are each asked in the columns
that they have, and put together by group.

A dimension that a part does not have (the status of a click) makes its measures ``None``; nothing is shared out or
guessed.  ``basis`` says what was read: the roll-ups, or the clicks themselves where no roll-up is exact.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from postbackd.core.csv_text import csv_text
from postbackd.core.grouping import OTHER, SUB_COLUMNS, TIME_COLUMNS, Grouping, Part
from postbackd.core.model import Catalog
from postbackd.core.rollups import Level, add, first_stamp_of
from postbackd.core.spans import Days, Span, spans_of_clicks, spans_of_postbacks
from postbackd.core.statuses import Status
from postbackd.core.zones import QUARTER_MS, day_start, next_day_start, shifts_of, zone_number
from postbackd.reports.measures import MEASURES, Applies, Measures, Sums, measure, rank
from postbackd.reports.question import (
    WEEKDAYS,
    Question,
    Unanswerable,
    check,
    open_zone,
    read_day,
    read_hour,
    read_weekday,
)
from postbackd.store.base import Store

Key = tuple[str | int, ...]

MOST_GROUPS = 250_000
"""More are not held in memory: each takes about a kilobyte, and sub ids may be different in every click."""

_BREATH = 1000
"""Rows between which others have their turn."""

_CATALOG = ("campaign", "offer", "source", "network")


class Line(Struct, frozen=True):
    """One group."""

    key: Sequence[str | int | None]
    """As a filter takes it: an id, a date, an hour, 1 (Monday) to 7, a word; ``None``: it has none."""
    label: Sequence[str]
    """For people."""
    measures: Measures


class Table(Struct, frozen=True, kw_only=True):
    """An answer."""

    by: Sequence[str]
    clock: str
    zone: str
    since: str
    until: str
    basis: str
    """``rollups``, or ``rows`` where clicks were read one by one."""
    complete_to: str | None
    """Up to when everything is rolled up for certain; what is younger may still grow."""
    currency: str
    """Of cost, profit and ROI."""
    notes: Sequence[str]
    """What is missing, and why."""
    lines: Sequence[Line]
    total: Measures
    """Of all groups, shown or not."""
    left_out: int
    """Groups beyond the limit."""


async def explore(
    store: Store, question: Question, *, now_ms: int, report_zone: tzinfo = UTC, cost_currency: str = "USD"
) -> Table:
    """The answer.  Raises ``Unanswerable``."""
    check(question, MEASURES)
    catalog = await store.load_catalog(removed=True)
    names = {(row["kind"], row["id"]): row["name"] for row in await store.query("names")}
    state = {row["name"]: row["value"] for row in await store.query("rollup_state")}
    run = _Run(store, question, catalog, names, state, now_ms, report_zone, cost_currency)
    return await run.answer()


class _Run:
    def __init__(
        self,
        store: Store,
        question: Question,
        catalog: Catalog,
        names: Mapping[tuple[str, int], str],
        state: Mapping[str, int],
        now_ms: int,
        report_zone: tzinfo,
        cost_currency: str,
    ) -> None:
        self._store = store
        self._asked = question
        self._names = names
        self._state = state
        self._zone = open_zone(question.zone)
        self._first = question.since_ms // QUARTER_MS
        self._end = self._end_of(now_ms // QUARTER_MS, report_zone)
        self._days = Days(
            report_zone,
            state.get("zone") == zone_number(report_zone),
            state.get("subs_to", 0),
            state.get("sub_hours_to", 0),
        )
        self._source_of = {
            entry.id: entry.source for entry in (*catalog.campaigns, *catalog.removed_campaigns)
        }
        self._network_of = {entry.id: entry.network for entry in (*catalog.offers, *catalog.removed_offers)}
        self._where = {name: self._read_values(name, texts) for name, texts in question.where.items()}
        self._uses = {*question.by, *question.where}
        self._groups: dict[Key, Sums] = {}
        self._notes: list[str] = []
        self._basis = "rollups"
        self._applies = Applies("status" in self._uses, cost_currency)

    def _end_of(self, now: int, report_zone: tzinfo) -> int:
        """Nothing is younger than now: a period that reaches so far takes in the whole day, which is rolled up.

        And no more than that: its days are gone through one by one.
        """
        end = self._asked.until_ms // QUARTER_MS
        if end > now:
            end = next_day_start(report_zone, day_start(report_zone, now))
        return max(end, self._first)

    async def answer(self) -> Table:
        # At the same time: the embedded database answers each over a connection of its own.
        clicks, _, postbacks = await asyncio.gather(
            self._add_clicks(), self._add_conversions(), self._add_postbacks()
        )
        self._applies = replace(self._applies, clicks=clicks, postbacks=postbacks)
        return await asyncio.to_thread(self._write)  # sorting many groups takes a while

    def _write(self) -> Table:
        total = Sums()
        for sums in self._groups.values():
            total.add_all(sums)
        keys = self._sorted()
        shown = keys[: self._asked.limit]
        asked = self._asked
        return Table(
            by=asked.by,
            clock=asked.clock,
            zone=asked.zone,
            since=_iso(asked.since_ms, self._zone),
            until=_iso(asked.until_ms, self._zone),
            basis=self._basis,
            complete_to=self._complete_to(),
            currency=self._applies.cost_currency,
            notes=self._notes,
            lines=[
                Line(self._shown_key(key), self._label(key), measure(self._groups[key], self._applies))
                for key in shown
            ],
            total=measure(total, self._applies),
            left_out=len(keys) - len(shown),
        )

    def _complete_to(self) -> str | None:
        slot = self._state.get("slots_to")
        return None if slot is None else _iso(slot * QUARTER_MS, self._zone)

    # --- the parts ---------------------------------------------------------------------------------------------------

    async def _add_clicks(self) -> bool:
        if self._uses & {"type", "status"}:
            return False
        by, where = self._columns({"source": "campaign", "network": "offer"})
        uses = {*by, *where}
        spans = spans_of_clicks(uses, where, self._first, self._end, self._zone, self._days)
        if any(span.part is Part.CLICK_ROWS for span in spans):
            self._basis = "rows"
        if not await self._knows_clicks(spans):
            return False
        for span in spans:
            async for row in self._ask_in_turns(span, by, where):
                if row[len(by)]:
                    sums = self._group(row[: len(by)], by)
                    sums.clicks = add(sums.clicks, tuple(row[len(by) :]))
        return True

    async def _knows_clicks(self, spans: Sequence[Span]) -> bool:
        """Whether everything of the period is there to be counted."""
        known_from = self._state.get("clicks_from", 0)
        if any(span.part is Part.SUBS for span in spans):
            known_from = max(known_from, self._state.get("subs_from", 0))
        if any(span.part is Part.CLICK_ROWS for span in spans):
            purged = {row["name"]: row["stamp"] for row in await self._store.query("rollup_horizons")}
            oldest = min(span.first for span in spans if span.part is Part.CLICK_ROWS)
            if purged.get("purged_before", 0) > first_stamp_of(oldest):
                self._notes.append(
                    "clicks are not counted: those of the beginning of the period have been purged, and no roll-up "
                    "answers this question; ask for a later --since, or for the sub id, campaign and whole days alone"
                )
                return False
        if self._first < known_from:
            since = _iso(known_from * QUARTER_MS, self._zone)
            self._notes.append(
                f"clicks are not counted: those before {since} were purged before they were rolled up; "
                "ask for a later --since"
            )
            return False
        return True

    async def _add_conversions(self) -> None:
        part = Part.CONVERSIONS if self._asked.clock == "conversion" else Part.CONVERSIONS_OF_CLICKS
        by, where = self._columns({"source": "campaign"})
        span = Span(part, Level.QUARTER, self._first, self._end)
        async for row in self._ask_in_turns(span, by, where):
            self._group(row[: len(by)], by).add_conversions(row[len(by) :], self._applies)

    async def _add_postbacks(self) -> bool:
        """Which click a postback speaks of is not always known, so they have the clock of conversions alone."""
        if self._asked.clock != "conversion" or self._uses - {"campaign", "source", "network", *TIME_COLUMNS}:
            return False
        by, where = self._columns({"source": "campaign"})
        uses = {*by, *where}
        for span in spans_of_postbacks(uses, self._first, self._end, self._zone, self._days):
            async for row in self._ask_in_turns(span, by, where):
                if row[len(by)]:
                    sums = self._group(row[: len(by)], by)
                    sums.postbacks = add(sums.postbacks, tuple(row[len(by) :]))
        return True

    async def _ask(
        self, span: Span, by: tuple[str, ...], where: Mapping[str, tuple[str | int, ...]]
    ) -> Sequence[Sequence[Any]]:
        grouping = Grouping(
            part=span.part, level=span.level, first=span.first, end=span.end, by=by, where=where,
            shifts=shifts_of(self._zone, span.first, span.end), most=MOST_GROUPS + 1,
        )  # fmt: skip
        rows = await self._store.aggregate(grouping)
        if len(rows) > MOST_GROUPS:
            raise Unanswerable(
                f"there are more than {MOST_GROUPS:,} groups; ask by fewer dimensions, for less time, or filter"
            )
        return rows

    async def _ask_in_turns(
        self, span: Span, by: tuple[str, ...], where: Mapping[str, tuple[str | int, ...]]
    ) -> AsyncIterator[Sequence[Any]]:
        for number, row in enumerate(await self._ask(span, by, where), 1):
            yield row
            if not number % _BREATH:
                await asyncio.sleep(0)

    def _columns(
        self, stands_for: Mapping[str, str]
    ) -> tuple[tuple[str, ...], dict[str, tuple[str | int, ...]]]:
        """The question in the columns of a part, where one dimension is looked up by another's."""
        by = tuple(stands_for.get(name, name) for name in self._asked.by)
        where: dict[str, tuple[str | int, ...]] = {}
        for name, wanted in self._where.items():
            column = stands_for.get(name, name)
            values = wanted
            if column != name:
                held_by = self._source_of if name == "source" else self._network_of
                values = tuple(id_ for id_, owner in held_by.items() if owner in wanted)
                if 0 in wanted:  # what has none, such as a postback of no known campaign
                    values = (*values, 0)
            if column in where:
                values = tuple(value for value in values if value in where[column])
            where[column] = values or (-1,)
        return by, where

    def _group(self, values: Sequence[Any], by: Sequence[str]) -> Sums:
        """The sums of a group; a dimension that stands for another is looked up."""
        key = tuple(
            value if column == name else self._look_up(name, value)
            for name, column, value in zip(self._asked.by, by, values, strict=True)
        )
        return self._groups.setdefault(key, Sums())

    def _look_up(self, name: str, id_: int) -> int:
        return (self._source_of if name == "source" else self._network_of).get(id_, 0)

    # --- values as people write and read them ------------------------------------------------------------------------

    def _read_values(self, name: str, texts: Sequence[str]) -> tuple[str | int, ...]:
        return tuple(self._read_value(name, text) for text in texts)

    def _read_value(self, name: str, text: str) -> str | int:
        if name in _CATALOG:
            return self._find(name, text)
        if name == "country":
            return text.upper()
        if name == "type":
            return text.casefold()
        if name == "status":
            return _read_status(text)
        if name == "day":
            return read_day(text)
        if name == "hour":
            return read_hour(text)
        return read_weekday(text) if name == "weekday" else text

    def _find(self, kind: str, text: str) -> int:
        """The id of a name, or of a number."""
        if not text:
            return 0
        found = [id_ for (of, id_), name in self._names.items() if of == kind and name == text]
        if found:
            return max(found)
        if text.isascii() and text.isdigit() and (kind, int(text)) in self._names:
            return int(text)
        raise Unanswerable(f"there is no {kind} {text!r}; 'postbackd {kind}s list' names them")

    def _shown_key(self, key: Key) -> list[str | int | None]:
        return [_shown(name, value) for name, value in zip(self._asked.by, key, strict=True)]

    def _label(self, key: Key) -> list[str]:
        return [self._label_of(name, value) for name, value in zip(self._asked.by, key, strict=True)]

    def _label_of(self, name: str, value: str | int) -> str:
        if name in _CATALOG:
            return self._names.get((name, int(value)), "(unknown)")
        if name == "weekday":
            return WEEKDAYS[int(value) - 1].capitalize()
        if name == "hour":
            return f"{int(value):02d}:00"
        shown = _shown(name, value)
        return "(none)" if shown is None else str(shown)

    def _sorted(self) -> list[Key]:
        by, sort = self._asked.by, self._asked.sort
        keys = sorted(self._groups, key=lambda key: tuple(_order(value) for value in key))
        if sort is None:
            sort = next((name for name in by if name in TIME_COLUMNS), "conversions")
        if sort in by:
            place = by.index(sort)
            return sorted(keys, key=lambda key: _order(key[place]))
        ranks = {key: rank(self._groups[key], self._applies, sort) for key in keys}
        if self._asked.sort is None:
            ranks = {key: (*ranks[key], self._groups[key].clicks[0]) for key in keys}
        return sorted(keys, key=lambda key: ranks[key], reverse=True)


def _order(value: str | int) -> tuple[int, str | int]:
    return (0, value) if isinstance(value, int) else (1, value)


def _read_status(text: str) -> int:
    for status in Status:
        if status.word == text.strip().lower():
            return status.value
    raise Unanswerable(f"{text!r} is no status; use {', '.join(status.word for status in Status)}")


def _shown(name: str, value: str | int) -> str | int | None:
    if name == "day":
        return (date(1970, 1, 1) + timedelta(days=int(value))).isoformat()
    if name == "status":
        return Status(int(value)).word
    if name in _CATALOG:
        return value or None
    if name in SUB_COLUMNS and value == OTHER:
        return "(other)"
    return None if value == "" else value


def _iso(ms: int, zone: tzinfo) -> str:
    return datetime.fromtimestamp(ms / 1000, zone).isoformat(timespec="minutes")


# --- CSV -------------------------------------------------------------------------------------------------------------


def write_csv(table: Table) -> str:
    """The table for a spreadsheet: a column an id and a name, a measure, and of money a column a currency."""
    currencies = sorted({currency for line in table.lines for currency in line.measures.value})
    header = [
        *_name_columns(table.by),
        *(column for name in MEASURES for column in _measure_columns(name, table.currency, currencies)),
    ]
    return csv_text(header, (_csv_line(table.by, line, currencies) for line in table.lines))


def _name_columns(by: Sequence[str]) -> Iterable[str]:
    for name in by:
        yield name
        if name in _CATALOG:
            yield f"{name}_id"


def _measure_columns(name: str, currency: str, currencies: Sequence[str]) -> list[str]:
    if name in ("value", "epc"):
        return [f"{name}_{other}" for other in currencies]
    return [f"{name}_{currency}" if name in ("cost", "profit") else name]


def _csv_line(by: Sequence[str], line: Line, currencies: Sequence[str]) -> Iterable[str | int | None]:
    for name, key, label in zip(by, line.key, line.label, strict=True):
        if name in _CATALOG:
            yield label
        yield key
    for name in MEASURES:
        shown = getattr(line.measures, name)
        if name in ("value", "epc"):
            yield from ((shown or {}).get(currency) for currency in currencies)
        else:
            yield f"{shown:.6f}".rstrip("0").rstrip(".") if isinstance(shown, float) else shown
