"""The file of a comparison: which endpoints, and the schedule that is the same for all of them.

It is read strictly: what is not known is refused with the nearest name, because a misspelt ``own`` or ``click_ids``
would change whom something is sent to, or whether it counts.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from postbackd.core.replies import PatternError, check_patterns
from postbackd.delivery.request import OddRequest, Place, read_place
from postbackd.exchanges.postback import Endpoint, Method, has_macros

MAX_CONVERSIONS, MAX_RATE, MAX_COPIES, MAX_TIMEOUT_MS = 1000, 50.0, 32, 10_000
STRANGERS_RATE = 5.0
"""Conversions a second at most, to a host that is not the user's own."""
MAX_ENDPOINTS = 12

EXAMPLE = """\
# A comparison for `postbackd compare`: the same conversions to each endpoint, on the same schedule.

[schedule]
conversions = 30      # to each endpoint, at most 1000; p95 needs 20, p99 needs 100
rate = 5              # a second to each endpoint, at most 50 (5 where the host is not yours)
copies = 8            # of one conversion at the same moment
timeout_ms = 5000     # of one exchange, at most 10000

[[endpoint]]
name = "ours"
url = "http://127.0.0.1:8080/p/KEY"

[[endpoint]]
name = "another tracker"
url = "https://tracker.example/postback?cid={click_id}&payout={value}&txid={transaction_id}"
# method = "POST"                # GET without it; POST sends JSON
# headers = { x-postback-token = "..." }
# success = ["^OK"]              # what a body of 200 has to say
# failure = ["error"]
# ca = "root.pem"                # trust these authorities instead of the system's
# own = true                     # the host is yours, or you may test it: it is not asked for again
# click_ids = ["..."]            # ids that this tracker issued: CONVERSIONS ARE COUNTED. Without them: test ids
"""


class PlanError(Exception):
    """The file cannot be used; the message names the place and says what to do."""


class Schedule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same for every endpoint."""

    conversions: int = 30
    rate: float = 5.0
    copies: int = 8
    timeout_ms: int = 5000


class Entry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``[[endpoint]]``."""

    name: str
    url: str
    method: Method = "GET"
    headers: Mapping[str, str] = {}
    success: tuple[str, ...] = ()
    failure: tuple[str, ...] = ()
    ca: str | None = None
    own: bool = False
    click_ids: tuple[str, ...] = ()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(url=self.url, method=self.method, headers=tuple(self.headers.items()))

    @property
    def place(self) -> Place:
        """Where it is.  Raises ``OddRequest``."""
        return read_place(self.url)


class Plan(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole file."""

    schedule: Schedule = Schedule()
    endpoint: tuple[Entry, ...] = ()


def read_plan(path: Path) -> Plan:
    """The plan in a file.  Raises ``PlanError``."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise PlanError(
            f"{path}: {error.strerror}; 'postbackd compare --example' prints a file to begin with"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: not TOML: {error}") from error
    _refuse_unknown(path, "the file", document, Plan)
    _refuse_unknown(path, "[schedule]", document.get("schedule"), Schedule)
    entries = document.get("endpoint")
    for number, entry in enumerate(entries if isinstance(entries, list) else (), 1):
        _refuse_unknown(path, f"[[endpoint]] {number}", entry, Entry)
    try:
        plan = msgspec.convert(document, Plan)
    except msgspec.ValidationError as error:
        raise PlanError(f"{path}: {str(error).replace('$.', '')}") from error
    problem = _find_problem(plan)
    if problem:
        raise PlanError(f"{path}: {problem}")
    return plan


def _refuse_unknown(path: Path, where: str, table: Any, known: type[Struct]) -> None:
    if not isinstance(table, Mapping):
        return
    names = known.__struct_fields__
    unknown = next((name for name in table if name not in names), None)
    if unknown is not None:
        close = get_close_matches(unknown, names, n=1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        raise PlanError(f"{path}: {where}: {unknown!r} is not known; {meant}It knows {', '.join(names)}")


def _find_problem(plan: Plan) -> str:
    """What is wrong with the values, empty when nothing is."""
    limits: Sequence[tuple[str, float, float, float]] = (
        ("conversions", plan.schedule.conversions, 1, MAX_CONVERSIONS),
        ("rate", plan.schedule.rate, 0.1, MAX_RATE),
        ("copies", plan.schedule.copies, 2, MAX_COPIES),
        ("timeout_ms", plan.schedule.timeout_ms, 100, MAX_TIMEOUT_MS),
    )
    for name, value, least, most in limits:
        if not least <= value <= most:
            return f"[schedule]: {name} is {value:g}; write {least:g} to {most:g}"
    if not 1 <= len(plan.endpoint) <= MAX_ENDPOINTS:
        return f"there are {len(plan.endpoint)} [[endpoint]]; write 1 to {MAX_ENDPOINTS}"
    names = [entry.name for entry in plan.endpoint]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        return f"two [[endpoint]] are called {double!r}"
    return next(
        (f"[[endpoint]] {entry.name!r}: {what}" for entry in plan.endpoint if (what := _odd(entry))), ""
    )


def _odd(entry: Entry) -> str:
    try:
        _ = entry.place
        check_patterns((*entry.success, *entry.failure))
    except (OddRequest, PatternError) as error:
        return str(error)
    if not entry.name.strip() or len(entry.name) > 40 or not entry.name.isprintable():
        return "its name must have 1 to 40 printable characters"
    if "#" in entry.url:
        return "its url has a fragment (#...), which is never sent"
    if has_macros(entry.url) and "{click_id}" not in entry.url:
        return "its url has no {click_id}; write it where the click id goes"
    return ""
