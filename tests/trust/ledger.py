"""The load client's ledger: what was sent and what was answered, synced to a file of its own.

The rule: a request is in the ledger, on the disk, before its first byte is sent, and an answer is on the disk before
anything is concluded from it.  Requests that are sent together (one pipelined group) are synced together.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from types import TracebackType

CLICK = "click"
CONVERSION = "conversion"
CHANGE = "change"
"""A later status of a conversion that was sent as pending before."""

ACKNOWLEDGED = frozenset({200, 201, 204, 302})
"""Answers that promise: stored."""

COUNTED = frozenset({"accepted", "duplicate", "updated"})
"""Verdicts that promise: this conversion is counted."""

QUEUED = "queued"
"""The verdict that promises: kept on this machine's disk, and counted as soon as the database is back."""


@dataclass(frozen=True, slots=True)
class Order:
    """One thing that is asked for, however often it is sent."""

    kind: str
    ref: str
    """Unique text: a click's ``source_click_id`` (its own id, when it has one), a conversion's transaction id."""
    click_id: str = ""
    """The click that a conversion belongs to, as text."""
    type: str = "conversion"
    value_micros: int = 0
    """Of a conversion its value, of a click its cost."""
    currency: str = "USD"
    status: int = 2
    """1 pending, 2 approved, 3 rejected, 4 reversed."""
    own_id: bool = False
    """A click that the caller registers under ``ref`` as its own id: sent again, it is the same click."""

    @property
    def payload(self) -> str:
        """Hash of everything that must arrive unchanged."""
        parts = (self.kind, self.ref, self.click_id, self.type, str(self.value_micros), self.currency)
        return blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer as it was read from the socket."""

    status: int
    verdict: str = ""
    request: str = ""
    conversion: str = ""
    click_id: str = ""
    reason: str = ""

    @property
    def acknowledged(self) -> bool:
        return self.status in ACKNOWLEDGED


@dataclass(slots=True)
class Entry:
    """What the ledger knows of one order."""

    order: Order
    sends: int = 0
    acknowledged: list[Answer] = field(default_factory=list)
    changes_sent: int = 0
    changes_acknowledged: list[Answer] = field(default_factory=list)
    change_status: int = 0


class Ledger:
    """Entries by ref.  Safe to use from the load's thread and the test's."""

    def __init__(self, path: Path, *, trust_503: bool = False) -> None:
        """``trust_503``: the negative control that takes "try again later" for "stored"."""
        self.path = path
        self.entries: dict[tuple[str, str], Entry] = {}
        self.unexpected: list[tuple[str, Answer]] = []
        self.answered = 0
        """Acknowledged requests."""
        self.queued = 0
        """Those of them that were told ``queued``."""
        self.unavailable = 0
        """Answers 503."""
        self.refused: Counter[str] = Counter()
        """The same by what was asked for; a registration under the caller's own id counts as ``registration``."""
        self._trust_503 = trust_503
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def sent(self, orders: Iterable[Order]) -> None:
        """Note that these orders are about to be sent; returns when that is on the disk."""
        lines = []
        with self._lock:
            for order in orders:
                entry = self._entry(order)
                if order.kind == CHANGE:
                    entry.changes_sent += 1
                    entry.change_status = order.status
                else:
                    entry.sends += 1
                lines.append(f"s {order.kind} {order.ref} {order.payload}\n")
            self._append(lines)

    def answer(self, pairs: Iterable[tuple[Order, Answer]]) -> None:
        """Note the answers that were read; returns when they are on the disk."""
        lines = []
        with self._lock:
            for order, answer in pairs:
                self._take(order, answer)
                lines.append(
                    f"a {order.kind} {order.ref} {answer.status} {answer.verdict or '-'} {answer.request or '-'} "
                    f"{answer.conversion or '-'} {answer.click_id or '-'}\n"
                )
            self._append(lines)

    def _entry(self, order: Order) -> Entry:
        kind = CONVERSION if order.kind == CHANGE else order.kind
        entry = self.entries.get((kind, order.ref))
        if entry is None:
            entry = self.entries[kind, order.ref] = Entry(order)
        return entry

    def _take(self, order: Order, answer: Answer) -> None:
        entry = self._entry(order)
        if answer.status == 503:
            self.unavailable += 1
            self.refused["registration" if order.own_id else order.kind] += 1
            if not self._trust_503:
                return
        elif not answer.acknowledged:
            self.unexpected.append((order.ref, answer))
            return
        self.answered += 1
        self.queued += answer.verdict == QUEUED
        (entry.changes_acknowledged if order.kind == CHANGE else entry.acknowledged).append(answer)

    def _append(self, lines: list[str]) -> None:
        if lines:
            os.write(self._file, "".join(lines).encode())
            os.fdatasync(self._file)

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
