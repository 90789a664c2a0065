"""The one oracle: holds the ledger against the rows that are in the database after recovery.

    lost     acknowledged, and not there (or an acknowledged change that is not there)
    double   there more than once, or accepted more than once
    phantom  there, and nobody sent it (or there more often than it was sent)
    wrong    there, and not what was sent: value, currency, click, status, verdict, or a money total

It reads the file with SQLite itself and decodes ids by itself; no line of the program under test takes part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from tests.trust.ledger import CLICK, CONVERSION, COUNTED, QUEUED, Answer, Entry, Ledger, Order

__all__ = ["Answer", "Ledger", "Order", "Tally", "check", "open_read_only", "read_click_id", "read_stamp"]

DATABASE = "postbackd.db"
VERDICTS = {"accepted": 1, "duplicate": 2, "updated": 3, "held": 4, "unmatched": 5, "rejected": 6}
_COUNTED = {VERDICTS[word] for word in COUNTED}
_EPOCH_MS = 1_577_836_800_000
"""2020-01-01: stamps count milliseconds from here, in their upper 42 bits."""

_OPEN = frozenset({QUEUED})
"""Verdicts that another one follows in the database, where they themselves never stand."""

_DIGITS = {character: number for number, character in enumerate("0123456789abcdefghjkmnpqrstvwxyz")}
_KEPT_DETAILS = 20


@dataclass
class Tally:
    """What the oracle found; ``n`` acknowledged requests were held against the rows."""

    n: int = 0
    lost: int = 0
    double: int = 0
    phantom: int = 0
    wrong: int = 0
    details: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.double or self.phantom or self.wrong)

    @property
    def figures(self) -> dict[str, int | float | str]:
        return {
            "n": self.n,
            "lost": self.lost,
            "double": self.double,
            "phantom": self.phantom,
            "wrong": self.wrong,
        }

    @property
    def note(self) -> str:
        return "; ".join(self.details[:5])

    def add(self, other: Tally) -> None:
        self.n += other.n
        for kind in ("lost", "double", "phantom", "wrong"):
            setattr(self, kind, getattr(self, kind) + getattr(other, kind))
        self.details = (self.details + other.details)[:_KEPT_DETAILS]

    def find(self, kind: str, detail: str, count: int = 1) -> None:
        setattr(self, kind, getattr(self, kind) + count)
        if len(self.details) < _KEPT_DETAILS:
            self.details.append(f"{kind}: {detail}")


def read_stamp(text: str) -> int:
    """13 characters of Crockford base32 as the integer that the database stores."""
    number = 0
    for character in text.lower():
        number = number << 5 | _DIGITS[character]
    return number


def read_click_id(text: str) -> int:
    """The stamp in a click id of 26 characters."""
    return read_stamp(text) >> 64


def open_read_only(database: Path) -> apsw.Connection:
    """A connection that cannot change the file; waits 5 s for a lock."""
    db = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    db.set_busy_timeout(5000)
    return db


def check(ledger: Ledger, database: Path, purged_before_ms: int = 0, *, late: bool = False) -> Tally:
    """Hold the ledger against the database.  The load must have ended; the server may be running or stopped.

    Clicks and log rows that are older than ``purged_before_ms`` may be gone; conversions never.  ``late``: a postback
    may have overtaken its click on another node, so that ``unmatched`` was true then; now it must be counted.
    """
    horizon = max(0, purged_before_ms - _EPOCH_MS) << 22
    tally = Tally(n=ledger.answered)
    unsettled = _OPEN | {"unmatched"} if late else _OPEN
    db = open_read_only(database)
    try:
        with db:  # one snapshot for all questions
            damage = db.pragma("quick_check")
            if damage != "ok":
                tally.find("wrong", f"quick_check: {damage}")
            _check_clicks(tally, ledger, db, horizon)
            _check_conversions(tally, ledger, db, unsettled)
            _check_log(tally, ledger, db, horizon, unsettled)
    finally:
        db.close()
    for ref, answer in ledger.unexpected:
        tally.find("wrong", f"{ref} was answered {answer.status}")
    return tally


def _entries(ledger: Ledger, kind: str) -> Iterator[Entry]:
    return (entry for (of_kind, _), entry in ledger.entries.items() if of_kind == kind)


# --- clicks ----------------------------------------------------------------------------------------------------


def _check_clicks(tally: Tally, ledger: Ledger, db: apsw.Connection, horizon: int) -> None:
    by_ref: dict[str, dict[int, int]] = {}
    for stamp, ref, own_id, cost in db.execute(
        "SELECT click_id, source_click_id, own_id, coalesce(cost_micros, 0) FROM clicks"
    ):
        name = own_id or ref or ""
        by_ref.setdefault(name, {})[stamp] = cost
        if (CLICK, name) not in ledger.entries:
            tally.find("phantom", f"click {name!r} was never sent")
    for entry in _entries(ledger, CLICK):
        _check_click(tally, entry, by_ref.get(entry.order.ref, {}), horizon)


def _check_click(tally: Tally, entry: Entry, rows: dict[int, int], horizon: int) -> None:
    order = entry.order
    promised = {read_click_id(answer.click_id) for answer in entry.acknowledged if answer.click_id}
    missing = {stamp for stamp in promised - rows.keys() if stamp >= horizon}
    if missing or (entry.acknowledged and not promised and not rows):
        tally.find("lost", f"click {order.ref}", max(1, len(missing)))
    if order.own_id and len(rows) > 1:
        tally.find("double", f"own click id {order.ref}: {len(rows)} rows", len(rows) - 1)
    elif len(rows) > entry.sends:
        tally.find("phantom", f"click {order.ref}: {len(rows)} rows, sent {entry.sends} times")
    if any(cost != order.value_micros for cost in rows.values()):
        tally.find("wrong", f"cost of click {order.ref}")


# --- conversions -----------------------------------------------------------------------------------------------

_CONVERSIONS = """
SELECT transaction_id, click_id, type, value_micros, currency, status, conversion_id FROM conversions
"""
_CHANGES = "SELECT conversion_id, status_to FROM conversion_history"


def _check_conversions(tally: Tally, ledger: Ledger, db: apsw.Connection, unsettled: frozenset[str]) -> None:
    rows: dict[str, list[Any]] = {}
    for row in db.execute(_CONVERSIONS):
        rows.setdefault(row[0], []).append(row[1:])
        if (CONVERSION, row[0]) not in ledger.entries:
            tally.find("phantom", f"conversion {row[0]!r} was never sent")
    changes = Counter(db.execute(_CHANGES))
    stamps = {
        entry.order.ref: read_click_id(entry.acknowledged[0].click_id)
        for entry in _entries(ledger, CLICK)
        if entry.order.own_id and entry.acknowledged
    }
    for entry in _entries(ledger, CONVERSION):
        found = rows.get(entry.order.ref, [])
        _check_conversion(tally, entry, found, stamps, COUNTED | unsettled)
        _check_change(tally, entry, found, changes)
    _check_totals(tally, ledger, rows, db)


def _check_conversion(
    tally: Tally, entry: Entry, found: list[Any], stamps: dict[str, int], promising: frozenset[str]
) -> None:
    order = entry.order
    promises = [
        answer for answer in entry.acknowledged if answer.verdict in promising or answer.status == 503
    ]
    broken = len(entry.acknowledged) - len(promises)
    if broken:
        verdict = next(a for a in entry.acknowledged if a not in promises).verdict
        kind = "lost" if verdict == "unmatched" else "wrong"
        tally.find(kind, f"{order.ref}: verdict {verdict!r} for a valid postback", broken)
    if promises and not found:
        tally.find("lost", f"conversion {order.ref}")
    if len(found) > 1:
        tally.find("double", f"conversion {order.ref}: {len(found)} rows", len(found) - 1)
    accepted = {answer.conversion for answer in promises if answer.verdict == "accepted"}
    if len(accepted) > 1:
        tally.find("double", f"{order.ref} was accepted as {len(accepted)} conversions")
    click = stamps.get(order.click_id) or (
        read_click_id(order.click_id) if len(order.click_id) == 26 else None
    )
    expected = (click, order.type, order.value_micros, order.currency)
    for row in found:
        if row[:4] != expected:
            tally.find("wrong", f"conversion {order.ref}: stored {row[:4]}, sent {expected}")
    named = {read_stamp(answer.conversion) for answer in promises if answer.conversion}
    if found and named - {row[5] for row in found}:
        tally.find("wrong", f"{order.ref}: an answer named another conversion than the stored one")


def _check_change(tally: Tally, entry: Entry, found: list[Any], changes: Counter[Any]) -> None:
    """An acknowledged change is there with its history; one without an answer may be there once."""
    order = entry.order
    for row in found:
        allowed = {order.status}
        if entry.changes_sent:
            allowed = (
                {entry.change_status} if entry.changes_acknowledged else {order.status, entry.change_status}
            )
        if row[4] not in allowed:
            kind = "lost" if entry.changes_acknowledged else "wrong"
            tally.find(kind, f"status of {order.ref}: stored {row[4]}, may be {sorted(allowed)}")
        times = changes[row[5], entry.change_status]
        if times > 1:
            tally.find("double", f"history of {order.ref}: {times} rows of one change")
        if entry.changes_acknowledged and not times:
            tally.find("lost", f"history of {order.ref}")


def _check_totals(tally: Tally, ledger: Ledger, rows: dict[str, list[Any]], db: apsw.Connection) -> None:
    """What the database adds up to, to the last micro, is what was sent of what is there."""
    expected: Counter[str] = Counter()
    for ref in rows:
        entry = ledger.entries.get((CONVERSION, ref))
        if entry is not None:
            expected[entry.order.currency] += entry.order.value_micros
    stored = dict(db.execute("SELECT currency, sum(value_micros) FROM conversions GROUP BY currency"))
    for currency in expected.keys() | stored.keys():
        if expected[currency] != stored.get(currency, 0):
            tally.find("wrong", f"total in {currency}: {stored.get(currency, 0)}, sent {expected[currency]}")


# --- the postback log ------------------------------------------------------------------------------------------


def _check_log(
    tally: Tally, ledger: Ledger, db: apsw.Connection, horizon: int, unsettled: frozenset[str]
) -> None:
    verdicts: dict[int, int] = {}
    logged: Counter[str] = Counter()
    accepted: Counter[int] = Counter()
    for request_id, verdict, ref, conversion in db.execute(
        "SELECT request_id, verdict, coalesce(transaction_id, ''), conversion_id FROM postbacks"
    ):
        if request_id in verdicts:
            tally.find("double", f"request {request_id} ({ref}) has two log rows")
        if verdict not in VERDICTS.values():
            tally.find("wrong", f"request {request_id} ({ref}) is logged with verdict {verdict}")
        verdicts[request_id] = verdict
        logged[ref] += 1
        if verdict == VERDICTS["accepted"]:
            accepted[conversion] += 1
    for entry in _entries(ledger, CONVERSION):
        ref = entry.order.ref
        for answer in (*entry.acknowledged, *entry.changes_acknowledged):
            _check_logged(tally, ref, answer, verdicts, horizon, unsettled)
        if logged[ref] > entry.sends + entry.changes_sent:
            tally.find(
                "phantom", f"{ref}: {logged[ref]} log rows, sent {entry.sends + entry.changes_sent} times"
            )
    _check_accepted_once(tally, accepted, db, horizon)


def _check_logged(
    tally: Tally,
    ref: str,
    answer: Answer,
    verdicts: dict[int, int],
    horizon: int,
    unsettled: frozenset[str],
) -> None:
    """The row of a request says what was answered; after ``queued`` it says that the postback was counted."""
    if not answer.request:
        return
    request = read_stamp(answer.request)
    stored = verdicts.get(request)
    if stored is None and request < horizon:
        return
    if stored is None:
        tally.find("lost", f"log row of request {answer.request} ({ref})")
    elif stored not in (_COUNTED if answer.verdict in unsettled else {VERDICTS.get(answer.verdict)}):
        tally.find(
            "wrong", f"request {answer.request} was answered {answer.verdict}, its log row says {stored}"
        )


def _check_accepted_once(tally: Tally, accepted: Counter[int], db: apsw.Connection, horizon: int) -> None:
    """Each stored conversion has exactly the one log row that counted it."""
    stored = {row[0] for row in db.execute("SELECT conversion_id FROM conversions")}
    unlogged = sum(conversion >= horizon for conversion in stored - accepted.keys())
    if unlogged:
        tally.find("wrong", f"{unlogged} conversions without the log row that counted them", unlogged)
    twice = sum(count - 1 for count in accepted.values())
    if twice:
        tally.find("double", f"{twice} log rows accept a conversion again", twice)
    uncounted = len(accepted.keys() - stored)
    if uncounted:
        tally.find("wrong", f"{uncounted} log rows accept a conversion that is not there", uncounted)
