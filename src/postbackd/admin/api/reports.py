"""Reports by any dimensions, and figures by the minute for live charts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct
from starlette.responses import Response

from postbackd.admin.endpoints import Asked, Endpoint, Scope
from postbackd.admin.problems import Problem
from postbackd.core.csv_text import MEDIA_TYPE
from postbackd.core.money import MICROS, write_micros
from postbackd.core.verdicts import word_of
from postbackd.reports.explore import Table, explore, write_csv
from postbackd.reports.measures import MEASURES
from postbackd.reports.period import read_duration
from postbackd.reports.question import (
    CLOCKS,
    DEFAULT_LIMIT,
    DEFAULT_SPAN,
    DIMENSIONS,
    MOST_ROWS,
    Unanswerable,
    open_zone,
    read_question,
)

_LONGEST_S = 2 * 86_400


class ExploreQuery(Struct, frozen=True, forbid_unknown_fields=True):
    by: Annotated[str, Meta(description=f"One to three, with commas, of {', '.join(DIMENSIONS)}.")] = (
        "campaign"
    )
    clock: Annotated[str, Meta(description=f"By which time conversions count: {' or '.join(CLOCKS)}.")] = (
        "conversion"
    )
    zone: Annotated[
        str | None,
        Meta(description="IANA name of the viewer's time zone; the setting report_zone if absent."),
    ] = None
    since: Annotated[
        str,
        Meta(description="A date or date and time of the viewer, or how long ago: 30d (whole days), 24h."),
    ] = DEFAULT_SPAN
    until: Annotated[str | None, Meta(description="Not included; written like since.")] = None
    where: Annotated[
        str,
        Meta(
            description="Filters, DIMENSION=VALUE, one a line (%0A) or with semicolons; the same dimension again is "
            '"or". A value that holds one of these itself cannot be asked with the other.'
        ),
    ] = ""
    sort: Annotated[str | None, Meta(description=f"A dimension, or one of {', '.join(MEASURES)}.")] = None
    limit: Annotated[int, Meta(ge=1, le=MOST_ROWS)] = DEFAULT_LIMIT


class MinutesQuery(Struct, frozen=True, forbid_unknown_fields=True):
    last: Annotated[str, Meta(description="How far back: 3h, 48h at most.")] = "3h"


class MinutePostbacks(Struct, frozen=True):
    network: int
    verdict: str
    count: int


class MinuteConversions(Struct, frozen=True):
    """Pending and approved ones."""

    network: int
    currency: str
    count: int
    value: str


class Minute(Struct, frozen=True):
    """What came in one minute; what did not come is not there."""

    minute: int
    """Since 1970."""
    clicks: int
    postbacks: Sequence[MinutePostbacks]
    conversions: Sequence[MinuteConversions]


class Minutes(Struct, frozen=True):
    since: int
    until: int
    """The first minute that is not over."""
    minutes: Sequence[Minute]
    """Oldest first; those in which nothing came are left out."""


async def _table(asked: Asked[ExploreQuery, None]) -> Table:
    query, desk = asked.query, asked.desk
    report_zone = desk.setting("report_zone", "UTC")
    separator = "\n" if "\n" in query.where else ";"
    try:
        question = read_question(
            by=query.by, since=query.since, until=query.until, zone=query.zone or report_zone, clock=query.clock,
            where=(text for text in query.where.split(separator) if text.strip()),
            sort=query.sort, limit=query.limit, now_ms=desk.now_ms(),
        )  # fmt: skip
        async with desk.exploring:
            return await explore(
                desk.store, question, now_ms=desk.now_ms(),
                report_zone=open_zone(report_zone),
                cost_currency=desk.setting("cost_currency", "USD"),
            )  # fmt: skip
    except Unanswerable as error:
        raise Problem(400, str(error)) from error


async def show_table(asked: Asked[ExploreQuery, None]) -> Table:
    """The answer as JSON."""
    return await _table(asked)


async def download_table(asked: Asked[ExploreQuery, None]) -> Response:
    """The answer as CSV."""
    table = await _table(asked)
    name = f"postbackd-{'-'.join(table.by)}.csv"
    return Response(
        write_csv(table),
        media_type=MEDIA_TYPE,
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


async def show_minutes(asked: Asked[MinutesQuery, None]) -> Minutes:
    """Figures by the minute."""
    try:
        last_s = min(read_duration(asked.query.last), _LONGEST_S)
    except ValueError as error:
        raise Problem(400, str(error), field="last") from error
    until = asked.desk.now_ms() // 60_000 + 1
    since = until - max(1, last_s // 60)
    minutes: dict[int, Minute] = {}
    for row in await asked.desk.store.query("minutes", since=since, until=until):
        minute = row["minute"]
        found = minutes.get(minute) or Minute(minute, 0, [], [])
        if row["kind"] == "clicks":
            found = Minute(minute, row["count"], found.postbacks, found.conversions)
        elif row["kind"] == "postbacks":
            told = MinutePostbacks(row["network"], word_of(int(row["word"])), row["count"])
            found = Minute(minute, found.clicks, [*found.postbacks, told], found.conversions)
        else:
            value = write_micros(row["units"] * MICROS + row["micros"])
            earned = MinuteConversions(row["network"], row["word"], row["count"], value)
            found = Minute(minute, found.clicks, found.postbacks, [*found.conversions, earned])
        minutes[minute] = found
    return Minutes(since, until, [minutes[minute] for minute in sorted(minutes)])


ENDPOINTS = (
    Endpoint(
        "GET", "/reports/explore", Scope.READ, "Reports", "Answer a question by any one to three dimensions.",
        show_table, query=ExploreQuery, answer=Table,
    ),
    Endpoint(
        "GET", "/reports/explore.csv", Scope.READ, "Reports", "The same answer for a spreadsheet.",
        download_table, query=ExploreQuery, gives="text/csv",
    ),
    Endpoint(
        "GET", "/reports/minutes", Scope.READ, "Reports", "Figures of the last hours by the minute.",
        show_minutes, query=MinutesQuery, answer=Minutes,
    ),
)  # fmt: skip
