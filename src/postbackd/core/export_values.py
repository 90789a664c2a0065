"""How the amounts and times of an export are written, decided by all of its values, and how they are read then.

``1,234`` may be twelve hundred or one and a bit, ``03/04/2026`` March or April: one value does not tell, a column does.
``AmountEvidence`` and ``DateEvidence`` look at every value once; what stays open is said and not guessed where money
depends on it.
"""

from __future__ import annotations

import re
from datetime import date, timedelta

from msgspec import Struct

from postbackd.core.money import CURRENCIES, read_micros

ORDERS = ("ymd", "dmy", "mdy", "epoch")
"""Orders of year, month and day; seconds or milliseconds since 1970."""

_MAX_DISTINCT = 50_000
"""Different values of a column that are looked at; later ones say nothing new."""

_MAX_TEXT = 64
DAY_MS = 86_400_000

# --- amounts ---------------------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"[0-9][0-9.,' \u00a0\u202f\u2009\u2019]*|[.,][0-9]+")
_GROUPS = {
    ".": re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+"),
    ",": re.compile(r"[0-9]{1,3}(?:\.[0-9]{3})+(?:,[0-9]*)?|[0-9]+(?:,[0-9]*)?|,[0-9]+"),
}
_SPACED_GROUPS = re.compile(r"(?<=[0-9])[' \u00a0\u202f\u2009\u2019](?=[0-9]{3}(?![0-9]))")
_CODE = re.compile(r"(?<![A-Za-z])[A-Za-z]{3}(?![A-Za-z])")


class AmountEvidence:
    """Which sign is the decimal one, by the amounts of a column."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self.votes = {".": 0, ",": 0}
        self.open = {".": 0, ",": 0}
        """Different amounts with one such sign and three digits behind it, which may be either."""
        self._decimals = {".": 0, ",": 0}
        self.sample: dict[str, str] = {}

    def add(self, text: str) -> None:
        """Look at one amount."""
        if text in self._seen or len(self._seen) >= _MAX_DISTINCT:
            return
        self._seen.add(text)
        found = _NUMBER.search(text[:_MAX_TEXT])
        if found is None:
            return
        sign, sure = _decimal_sign(_SPACED_GROUPS.sub("", found[0].strip()))
        if sign:
            (self.votes if sure else self.open)[sign] += 1
            if sign in found[0]:
                self._decimals[sign] = max(self._decimals[sign], len(found[0].strip().rpartition(sign)[2]))
            self.sample.setdefault(sign, text.strip()[:40])

    def decimals(self, sign: str) -> int:
        """Most decimals seen, given which sign stands before them."""
        return self._decimals.get(sign, 0)

    def decide(self) -> tuple[str, str]:
        """``(decimal sign, note)``; the sign is empty when ``1,234`` was all there was to see."""
        points, commas = self.votes["."], self.votes[","]
        if points and commas:
            sign = "." if points >= commas else ","
            other = self.sample["," if sign == "." else "."]
            return sign, f"amounts are written in two ways (such as {other!r}); those are told as unreadable"
        if points or commas:
            return ("." if points else ","), ""
        if self.open[","]:
            return "", (
                f"amounts such as {self.sample[',']!r} have a comma that may be a decimal or a thousands sign; "
                "say which with --decimal , or --decimal ."
            )
        return ".", ""


def _decimal_sign(number: str) -> tuple[str, bool]:
    """``(decimal sign, whether that is sure)`` of digits, dots and commas; empty when there is neither."""
    dots, commas = number.count("."), number.count(",")
    if dots and commas:
        return (".", True) if number.rfind(".") > number.rfind(",") else (",", True)
    if not dots and not commas:
        return "", False
    sign, count = (".", dots) if dots else (",", commas)
    if count > 1:  # 1.234.567: a thousands sign, so the other one is decimal
        other = "," if sign == "." else "."
        return (other, True) if _GROUPS[other].fullmatch(number) else ("", False)
    whole, _, rest = number.partition(sign)
    return sign, len(rest) != 3 or whole in ("", "0") or len(whole) > 3


class Amount(Struct, frozen=True, gc=False):
    """What a cell says: an amount, or why none can be read."""

    micros: int = 0
    currency: str = ""
    problem: str = ""
    """``unreadable`` or ``ambiguous``; empty: it is an amount."""


def read_amount(text: str, decimal: str, currency: str) -> Amount:
    """An amount of the column whose decimal sign is ``decimal``; a code in the cell wins over ``currency``.

    Never raises, and never takes a thousands sign for a decimal one: groups have three digits, or it is unreadable.
    """
    cell = text.strip().replace("\u2212", "-")
    if len(cell) > _MAX_TEXT:
        return _UNREADABLE
    code = next((word.upper() for word in _CODE.findall(cell) if word.upper() in CURRENCIES), "")
    currency = code or currency
    sign = "-" if "-" in cell or (cell.startswith("(") and cell.endswith(")")) else ""
    found = _NUMBER.search(cell)
    if found is None or _NUMBER.search(cell, found.end()):
        return _UNREADABLE
    written = found[0].strip()
    number = _SPACED_GROUPS.sub("", written)
    if not decimal:
        if "," in number:
            return _AMBIGUOUS
        decimal = "."
    if not _GROUPS[decimal].fullmatch(number):
        return _UNREADABLE
    plain = number.replace("," if decimal == "." else ".", "").replace(",", ".")
    rest = (cell[: found.start()] + cell[found.start() + len(written) :]).strip(" \t()-+.'\u00a0\u202f")
    micros = read_micros(f"{rest}{plain}" if rest and rest.upper() != code else plain, currency)
    if micros is None:
        return _UNREADABLE
    return Amount(-micros if sign else micros, currency)


_UNREADABLE = Amount(problem="unreadable")
_AMBIGUOUS = Amount(problem="ambiguous")

# --- times -----------------------------------------------------------------------------------------------------------

_MONTHS = {
    name: number
    for number, names in enumerate(
        ("jan", "feb", "mar mär mae", "apr", "may mai", "jun", "jul", "aug", "sep", "oct okt", "nov", "dec dez"), 1
    )
    for name in names.split()
}  # fmt: skip
_NUMERIC = re.compile(r"([0-9]{1,4})([-/.])([0-9]{1,2})\2([0-9]{1,4})")
_NAMED = re.compile(
    r"(?:[a-z]{2,9},? )?(?:([0-9]{1,2})(?:st|nd|rd|th)?[-. /]+([a-zä]{3,9})\.?"
    r"|([a-zä]{3,9})\.? ([0-9]{1,2})(?:st|nd|rd|th)?)"
    r"[-, /.]+([0-9]{4}|[0-9]{2})",
    re.IGNORECASE,
)
_CLOCK = re.compile(
    r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?\s*([ap])?(?:\.?m\.?)?\s*"
    r"(z|utc|gmt|(?:utc|gmt)?\s*[+-][0-9]{1,2}(?::?[0-9]{2})?)?",
    re.IGNORECASE,
)
_COMPACT = re.compile(
    r"((?:19|20)[0-9]{2})([0-9]{2})([0-9]{2})(?:t?([0-9]{2})([0-9]{2})([0-9]{2}))?", re.IGNORECASE
)


class DateEvidence:
    """In which order year, month and day stand, by the times of a column."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self.counts = dict.fromkeys((*ORDERS, "named", "open", "other"), 0)
        self._open: list[tuple[int, int, int]] = []
        self.sample = ""
        self.clocks = False
        """Whether any of them says a time of day."""

    def add(self, text: str) -> None:
        """Look at one time."""
        text = text.strip()
        if not self.clocks and (":" in text or (text.isdigit() and len(text) > 9)):
            self.clocks = True
        day = text[:10]
        if day in self._seen or len(self._seen) >= _MAX_DISTINCT:
            return
        self._seen.add(day)
        kind, parts = _kind_of_date(text[:_MAX_TEXT])
        self.counts[kind] += 1
        if kind == "open" and parts is not None:
            self._open.append(parts)
            self.sample = self.sample or text[:20]

    def decide(self) -> tuple[str, str]:
        """``(order, note)``; the note says what stayed open and how it was decided."""
        counts = self.counts
        if counts["dmy"] or counts["mdy"]:
            order = "dmy" if counts["dmy"] >= counts["mdy"] else "mdy"
            if counts["dmy"] and counts["mdy"]:
                return order, f"dates are written in two orders; most are {_ORDER_WORDS[order]}"
            return order, ""
        if counts["open"]:
            spans = {"dmy": _span(self._open, 1, 0), "mdy": _span(self._open, 0, 1)}
            order = "dmy" if spans["dmy"] < spans["mdy"] else "mdy"
            return order, (
                f"dates such as {self.sample!r} can be read as day or month first; they are read as "
                f"{_ORDER_WORDS[order]}, which makes the shorter period; say otherwise with --dates "
                f"{'mdy' if order == 'dmy' else 'dmy'}"
            )
        if counts["epoch"] > counts["ymd"]:
            return "epoch", ""
        return "ymd", ""


_ORDER_WORDS = {"dmy": "day/month/year", "mdy": "month/day/year"}


def _span(dates: list[tuple[int, int, int]], month: int, day: int) -> int:
    days = [parts[2] * 372 + parts[month] * 31 + parts[day] for parts in dates]
    return max(days) - min(days)


def _kind_of_date(text: str) -> tuple[str, tuple[int, int, int] | None]:
    if text.replace(".", "", 1).isdigit() and "." not in text[:9] and len(text.partition(".")[0]) in (10, 13):
        return "epoch", None
    found = _NUMERIC.match(text)
    if found is None:
        if _COMPACT.match(text):
            return "ymd", None
        return ("named" if _NAMED.match(text) else "other"), None
    first, second = int(found[1]), int(found[3])
    if len(found[1]) == 4:
        return "ymd", None
    if first > 12 or found[2] == ".":
        return "dmy", None
    if second > 12:
        return "mdy", None
    return "open", (first, second, _full_year(found[4]))


def _full_year(text: str) -> int:
    return int(text) + (2000 if len(text) <= 2 else 0)


class Moment(Struct, frozen=True, gc=False):
    """What a cell says of a time."""

    ms: int
    """Milliseconds since 1970 as the clock of the file shows them; UTC when ``zone_min`` is known."""
    day: int
    """Days since 1970 of the date that the file shows."""
    zone_min: int | None = None
    """Minutes ahead of UTC, where the cell names its zone."""


class TimeReader:
    """Reads the times of one column, whose order is known."""

    def __init__(self, order: str) -> None:
        self._order = order
        self._days: dict[str, int | None] = {}
        self._clocks: dict[str, tuple[int, int | None] | None] = {}

    def read(self, text: str) -> Moment | None:
        """The moment that a cell shows, ``None`` when it cannot be read.  Never raises."""
        if text[10:11] in (" ", "T"):
            date_text, clock_text = text[:10], text[11:]
            day = self._days.get(date_text)
            if day is not None:
                clock = self._clocks.get(clock_text)
                if clock is not None:
                    return _moment(day, *clock)
        return self._read_slowly(text.strip()[:_MAX_TEXT])

    def _read_slowly(self, text: str) -> Moment | None:
        if self._order == "epoch" or (text.isdigit() and len(text) in (10, 13)):
            return _read_epoch(text)
        date_text, clock_text = _split(text)
        day = self._day(date_text)
        clock = self._clock(clock_text) if clock_text else (0, None)
        if day is None or clock is None:
            return None
        return _moment(day, *clock)

    def _day(self, text: str) -> int | None:
        if text not in self._days:
            _bound(self._days)
            self._days[text] = _read_day(text, self._order)
        return self._days[text]

    def _clock(self, text: str) -> tuple[int, int | None] | None:
        if text not in self._clocks:
            _bound(self._clocks)
            self._clocks[text] = _read_clock(text)
        return self._clocks[text]


def _bound(
    remembered: dict[str, object] | dict[str, int | None] | dict[str, tuple[int, int | None] | None],
) -> None:
    if len(remembered) >= 100_000:
        remembered.clear()


def _moment(day: int, clock_ms: int, zone_min: int | None) -> Moment:
    ms = day * DAY_MS + clock_ms
    return Moment(ms if zone_min is None else ms - zone_min * 60_000, day, zone_min)


def _read_epoch(text: str) -> Moment | None:
    whole, _, fraction = text.partition(".")
    if not (whole.isascii() and whole.isdigit() and len(whole) in (10, 13)) or (
        fraction and not fraction.isdigit()
    ):
        return None
    ms = int(whole) if len(whole) == 13 else int(whole) * 1000
    return Moment(ms, ms // DAY_MS, 0)


def _split(text: str) -> tuple[str, str]:
    """Date and time of day: the latter begins where digits stand before a colon."""
    colon = text.find(":")
    if colon < 0:
        compact = _COMPACT.fullmatch(text)
        if compact is not None and compact[4]:
            return text[:8], f"{compact[4]}:{compact[5]}:{compact[6]}"
        return text, ""
    start = colon
    while start > 0 and text[start - 1].isdigit():
        start -= 1
    return text[:start].rstrip(" Tt,\t\u00a0\u202f"), text[start:]


def _read_day(text: str, order: str) -> int | None:
    """Days since 1970."""
    found = _NUMERIC.fullmatch(text)
    if found is not None:
        if len(found[1]) >= 3:
            year, month, day = int(found[1]), int(found[3]), int(found[4])
        elif order == "mdy" and found[2] != ".":
            year, month, day = _full_year(found[4]), int(found[1]), int(found[3])
        elif order == "ymd" and found[2] != "." and len(found[4]) <= 2:
            year, month, day = _full_year(found[1]), int(found[3]), int(found[4])
        else:
            year, month, day = _full_year(found[4]), int(found[3]), int(found[1])
        return _days(year, month, day)
    compact = _COMPACT.fullmatch(text)
    if compact is not None:
        return _days(int(compact[1]), int(compact[2]), int(compact[3]))
    named = _NAMED.fullmatch(text)
    if named is None:
        return None
    month_name = (named[2] or named[3]).casefold()[:3]
    return _days(_full_year(named[5]), _MONTHS.get(month_name, 0), int(named[1] or named[4]))


_EPOCH = date(1970, 1, 1)


def _days(year: int, month: int, day: int) -> int | None:
    try:
        days = (date(year, month, day) - _EPOCH).days
    except ValueError:
        return None
    return days if 1990 <= year <= 2099 else None


def _read_clock(text: str) -> tuple[int, int | None] | None:
    """``(milliseconds of the day, minutes ahead of UTC)``."""
    found = _CLOCK.fullmatch(text)
    if found is None:
        return None
    hour, minute, second = int(found[1]), int(found[2]), int(found[3] or 0)
    if found[5]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if found[5].lower() == "p" else 0)
    if hour > 23 or minute > 59 or second > 60:
        return None
    ms = ((hour * 60 + minute) * 60 + second) * 1000 + int((found[4] or "0").ljust(3, "0")[:3])
    zone = read_zone(found[6]) if found[6] else None
    return None if found[6] and zone is None else (ms, zone)


def read_zone(text: str) -> int | None:
    """Minutes ahead of UTC of ``Z``, ``UTC``, ``+02:00``, ``UTC-5``; ``None`` when it is none of these."""
    found = re.fullmatch(r"(?:z|utc|gmt)?\s*(?:([+-])([0-9]{1,2}):?([0-9]{2})?)?", text.strip().lower())
    if found is None or not text.strip():
        return None
    if found[1] is None:
        return 0
    minutes = int(found[2]) * 60 + int(found[3] or 0)
    if minutes > 15 * 60:
        return None
    return minutes if found[1] == "+" else -minutes


def write_zone(minutes: int) -> str:
    """``UTC``, ``UTC+02:00``."""
    if not minutes:
        return "UTC"
    sign = "+" if minutes > 0 else "-"
    return f"UTC{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


def write_day(day: int) -> str:
    """``2026-11-23`` of days since 1970."""
    return (_EPOCH + timedelta(days=day)).isoformat()
