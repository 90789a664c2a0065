"""Whether tracking is healthy: the report of a period, and what this installation is."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from postbackd import __version__
from postbackd.admin.desk import DataSet
from postbackd.admin.endpoints import Asked, Endpoint, Scope
from postbackd.admin.problems import Problem
from postbackd.core.moments import write_moment
from postbackd.market.place import demo_directory
from postbackd.reports.period import Period, read_moment
from postbackd.reports.report import GROUPED_BY, build_report

Moment = Annotated[
    str,
    Meta(
        description="A date, a date and time (UTC unless it names a zone), or how long ago, such as 7d (168 hours)."
    ),
]


class ReportQuery(Struct, frozen=True, forbid_unknown_fields=True):
    since: Moment = "24h"
    until: Moment | None = None
    by: Annotated[str | None, Meta(description=f"One of {', '.join(GROUPED_BY)}.")] = None


class About(Struct, frozen=True):
    """This installation."""

    version: str
    base_url: str
    """Under which visitors and networks reach it."""
    data: str
    """``real`` or ``demo``."""
    has_demo: bool
    """Whether there are simulated data to look at."""
    now: str


def read_period(since: str | None, until: str | None, now_ms: int) -> Period:
    """Raises ``Problem``."""
    bounds: list[int | None] = []
    for name, text in (("since", since), ("until", until)):
        try:
            bounds.append(None if text is None else read_moment(text, now_ms))
        except ValueError as error:
            raise Problem(400, str(error), field=name) from error
    return Period(*bounds)


async def show_report(asked: Asked[ReportQuery, None]) -> dict[str, Any]:
    """Clicks, postbacks, conversions, how well they match, response times and deliveries."""
    query = asked.query
    if query.by is not None and query.by not in GROUPED_BY:
        raise Problem(400, f"by is {query.by!r}; write one of {', '.join(GROUPED_BY)}", field="by")
    return await build_report(
        asked.desk.store, read_period(query.since, query.until, asked.desk.now_ms()), query.by
    )


async def show_about(asked: Asked[None, None]) -> About:
    """Version, addresses, and whether there are simulated data."""
    desk = asked.desk
    has_demo = desk.data_set is DataSet.DEMO or demo_directory(desk.data).is_dir()
    return About(__version__, desk.base_url, desk.data_set.value, has_demo, write_moment(desk.now_ms()))


ENDPOINTS = (
    Endpoint("GET", "/about", Scope.READ, "Health", "Say what this installation is.", show_about, answer=About),
    Endpoint(
        "GET", "/report", Scope.READ, "Health", "The figures of a period.", show_report,
        query=ReportQuery, answer=dict[str, Any],
    ),
)  # fmt: skip
