"""What the answers of a trace promise, and whether a database keeps it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from tests.trust.ledger import COUNTED
from tests.trust.oracle import DATABASE, VERDICTS, read_click_id, read_stamp
from tests.trust.trace import Event
from tests.trust.wire import parse_answer, read_headers

_SENDS = ("write", "writev", "sendto", "sendmsg")


@dataclass
class Promises:
    """Rows that must be there, because an answer has begun to leave."""

    clicks: set[int] = field(default_factory=set)
    requests: dict[int, int] = field(default_factory=dict)
    """request id -> verdict"""
    conversions: set[int] = field(default_factory=set)
    count: int = 0
    unavailable: int = 0
    """Answers 503."""


class AnswerReader:
    """Cuts the bytes that a server sent into answers, and keeps what they promise."""

    def __init__(self) -> None:
        self.promises = Promises()
        self._left: dict[str, bytes] = {}

    def take(self, event: Event) -> bool:
        """Take one event in; True when it sent (part of) an answer."""
        if event.call not in _SENDS or not event.path.startswith("socket:") or not event.content:
            return False
        stream = self._left.get(event.path, b"") + event.content
        if not b"HTTP/1.1".startswith(stream[:8]):
            return False  # a socket that speaks something else
        while True:
            head, end, rest = stream.partition(b"\r\n\r\n")
            length = int(read_headers(head.decode("latin-1")).get("content-length", "0")) if end else 0
            if not end or len(rest) < length:
                break
            self._note(head.decode("latin-1"), rest[:length])
            stream = rest[length:]
        self._left[event.path] = stream
        return True

    def _note(self, head: str, body: bytes) -> None:
        answer = parse_answer(head, body)
        promises = self.promises
        promises.unavailable += answer.status == 503
        if answer.click_id:
            promises.clicks.add(read_click_id(answer.click_id))
        elif answer.status == 200 and answer.verdict:
            promises.requests[read_stamp(answer.request)] = VERDICTS[answer.verdict]
            if answer.verdict in COUNTED and answer.conversion:
                promises.conversions.add(read_stamp(answer.conversion))
        else:
            return
        promises.count += 1


@dataclass(frozen=True)
class Verdict:
    """What one disk state was found to hold."""

    lost: int = 0
    wrong: int = 0
    detail: str = ""


def write_state(directory: Path, state: dict[str, bytes]) -> None:
    """Make ``directory`` hold exactly these files."""
    for path in directory.iterdir():
        path.unlink()
    for name, content in state.items():
        (directory / name).write_bytes(content)


def judge_state(directory: Path, promises: Promises) -> Verdict:
    """Open the database as a server would after a crash (SQLite recovers it) and hold the promises against it."""
    try:
        db = apsw.Connection(str(directory / DATABASE), flags=apsw.SQLITE_OPEN_READWRITE)
    except apsw.Error as error:
        return Verdict(lost=promises.count, wrong=1, detail=f"cannot be opened: {error}")
    try:
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        damage = db.execute("PRAGMA quick_check(5)").get
        if damage != "ok":
            return Verdict(wrong=1, detail=f"quick_check: {damage}")
        return _hold(db, promises)
    except apsw.Error as error:
        return Verdict(lost=promises.count, wrong=1, detail=f"cannot be read: {error}")
    finally:
        db.close()


def _hold(db: apsw.Connection, promises: Promises) -> Verdict:
    requests = dict(db.execute("SELECT request_id, verdict FROM postbacks"))
    conversions = _column(db, "SELECT conversion_id FROM conversions")
    missing = {
        "clicks": promises.clicks - set(_column(db, "SELECT click_id FROM clicks")),
        "conversions": promises.conversions - set(conversions),
        "log rows": promises.requests.keys() - requests.keys(),
    }
    lost = sum(map(len, missing.values()))
    detail = ", ".join(f"{len(ids)} {what}" for what, ids in missing.items() if ids)
    # A transaction is whole or absent: each conversion has the log row that counted it, and the other way round.
    accepted = [request for request, verdict in requests.items() if verdict == VERDICTS["accepted"]]
    torn = set(accepted) ^ set(conversions)
    altered = [r for r, verdict in promises.requests.items() if requests.get(r, verdict) != verdict]
    if torn or altered:
        detail += f" torn {len(torn)}, altered {len(altered)}"
    return Verdict(lost, len(torn) + len(altered), detail)


def _column(db: apsw.Connection, sql: str) -> Iterable[int]:
    return [row[0] for row in db.execute(sql)]
