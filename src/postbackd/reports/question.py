"""What a viewer asks of the reports, and reading it from the words that people write."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from msgspec import Struct

from postbackd.core.grouping import SUB_COLUMNS
from postbackd.core.zones import QUARTER_MS
from postbackd.reports.period import read_duration

DIMENSIONS = (
    "campaign", "offer", "source", "network", "type", "status", "country", "day", "hour", "weekday", *SUB_COLUMNS,
)  # fmt: skip
"""What can be grouped by, and filtered by."""

CLOCKS = ("conversion", "click")
"""By the time at which a conversion was counted, or by that of its click."""

MOST_DIMENSIONS = 3
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

DEFAULT_SPAN = "7d"
DEFAULT_LIMIT = 100
MOST_ROWS = 100_000

EARLIEST_MS = 1_577_836_800_000
"""2020-01-01: nothing is older (``core.click_id.EPOCH_MS``)."""

_DAYS = re.compile(r"([0-9]{1,5})\s*([dw])", re.IGNORECASE)


class Question(Struct, frozen=True, kw_only=True):
    """One question.  The period is whole quarters of an hour."""

    by: tuple[str, ...]
    since_ms: int
    until_ms: int
    """Not included."""
    zone: str = "UTC"
    clock: str = "conversion"
    where: Mapping[str, tuple[str, ...]] = {}
    """Dimension -> the values that are wanted, any of them; empty text: those that have none."""
    sort: str | None = None
    """A measure (largest first) or a dimension (smallest first); ``None``: time, or else the most conversions."""
    limit: int = DEFAULT_LIMIT


class Unanswerable(ValueError):
    """The question cannot be answered as it was put; says what to write."""


def read_question(
    *,
    by: str,
    since: str | None,
    until: str | None,
    zone: str,
    clock: str,
    where: Iterable[str],
    sort: str | None,
    limit: int,
    now_ms: int,
) -> Question:
    """A question as people write its parts.  Raises ``Unanswerable``."""
    since_ms, until_ms = read_period(since, until, open_zone(zone), now_ms)
    return Question(
        by=read_dimensions(by), since_ms=since_ms, until_ms=until_ms, zone=zone, clock=clock,
        where=read_filters(where), sort=sort, limit=limit,
    )  # fmt: skip


def read_dimensions(text: str) -> tuple[str, ...]:
    """``campaign,country`` as dimensions.  Raises ``Unanswerable``."""
    names = tuple(name.strip().lower() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in DIMENSIONS]
    if unknown:
        raise Unanswerable(f"there is no dimension {unknown[0]!r}; use {', '.join(DIMENSIONS)}")
    if not 1 <= len(names) <= MOST_DIMENSIONS or len(set(names)) < len(names):
        raise Unanswerable("name one, two or three different dimensions, such as campaign,country")
    return names


def read_filters(texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """``country=DE`` and the like; the same dimension again is "or".  Raises ``Unanswerable``."""
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip().lower()
        if not equals or name not in DIMENSIONS:
            raise Unanswerable(f"{text!r} is no filter; write DIMENSION=VALUE, such as country=DE")
        found[name] = (*found.get(name, ()), value.strip())
    return found


def open_zone(name: str) -> tzinfo:
    """The time zone of an IANA name.  Raises ``Unanswerable``."""
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        raise Unanswerable(
            f"there is no time zone {name!r}; write a name such as Europe/Berlin or America/New_York "
            "(where the system has none at all, install its package tzdata)"
        ) from None


def read_period(since: str | None, until: str | None, zone: tzinfo, now_ms: int) -> tuple[int, int]:
    """The period in ms since 1970, both ends on a quarter of an hour: the first rounded down, the last up.

    Dates and times are the viewer's, days too: ``7d`` begins with the day seven days ago.  Raises ``Unanswerable``.
    """
    since_ms = _read_moment(since or DEFAULT_SPAN, zone, now_ms)
    until_ms = now_ms if until is None else _read_moment(until, zone, now_ms)
    since_ms = max(EARLIEST_MS, since_ms // QUARTER_MS * QUARTER_MS)
    until_ms = -(-until_ms // QUARTER_MS) * QUARTER_MS
    if since_ms >= until_ms:
        raise Unanswerable("the period ends before it begins; 7d is earlier than 24h")
    return since_ms, until_ms


def _read_moment(text: str, zone: tzinfo, now_ms: int) -> int:
    text = text.strip()
    days = _DAYS.fullmatch(text)
    try:
        if days is not None:
            ago = int(days[1]) * (7 if days[2].lower() == "w" else 1)
            today = datetime.fromtimestamp(now_ms / 1000, zone).date()
            return _midnight(today - timedelta(days=ago), zone)
        if re.fullmatch(r"[0-9]{1,9}\s*[smh]", text, re.IGNORECASE):
            return now_ms - read_duration(text) * 1000
        moment = datetime.fromisoformat(text)
        if len(text) == len("2026-11-23"):
            return _midnight(moment.date(), zone)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone)
        return int(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise Unanswerable(
            f"{text!r} is no time; write 2026-11-23, 2026-11-23T14:00, or how long ago, such as 30d or 24h"
        ) from None


def _midnight(day: date, zone: tzinfo) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() * 1000)


def read_weekday(text: str) -> int:
    """1 (Monday) to 7, by number or by the first letters of the name.  Raises ``Unanswerable``."""
    word = text.strip().lower()
    if word in tuple("1234567"):
        return int(word)
    found = [number for number, name in enumerate(WEEKDAYS, 1) if len(word) >= 2 and name.startswith(word)]
    if len(found) != 1:
        raise Unanswerable(f"{text!r} is no day of the week; write 1 (Monday) to 7, or mon to sun")
    return found[0]


def read_day(text: str) -> int:
    """Days since 1970 of a date.  Raises ``Unanswerable``."""
    try:
        return (date.fromisoformat(text.strip()) - date(1970, 1, 1)).days
    except ValueError:
        raise Unanswerable(f"{text!r} is no day; write 2026-11-23") from None


def read_hour(text: str) -> int:
    """An hour of the day.  Raises ``Unanswerable``."""
    if not (text.strip().isascii() and text.strip().isdigit() and int(text) < 24):
        raise Unanswerable(f"{text!r} is no hour; write 0 to 23")
    return int(text)


def check(question: Question, measures: Sequence[str]) -> None:
    """Raises ``Unanswerable``."""
    read_dimensions(",".join(question.by))
    if question.clock not in CLOCKS:
        raise Unanswerable(f"there is no clock {question.clock!r}; use conversion or click")
    if question.sort is not None and question.sort not in (*question.by, *measures):
        raise Unanswerable(
            f"it cannot be sorted by {question.sort!r}; use {', '.join((*question.by, *measures))}"
        )
    if not 1 <= question.limit <= MOST_ROWS:
        raise Unanswerable(f"limit must be 1 to {MOST_ROWS}")
