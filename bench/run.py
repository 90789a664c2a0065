"""One run: what its parts share, one row of the table, and the checks of what was stored."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

from bench import results as names
from bench.load import Load, Segment, closed_loop
from bench.results import Results, Row
from bench.seed import Seeded, seed
from bench.stream import Stream, StreamWriter, exponential
from bench.subjects import Stored, Subject

_LINES_A_SECOND = 60_000
"""Request lines written for each second of load: more than any server here with a database can take."""

_SETTLE_S = 0.5
_SETTLE_TIMEOUT_S = 30.0


class Running(Protocol):
    """Something that has been started."""

    def stop(self) -> None: ...


_S = TypeVar("_S", bound=Running)

Check = Callable[[Stored, Load, int], bool]
"""(what is new in the database, the load, its connections) -> whether they agree."""


class Counted(Protocol):
    """What a row of the table is about: it has a name, and maybe a database whose rows can be counted."""

    @property
    def name(self) -> str: ...

    def stored(self) -> Stored | None: ...


@dataclass(frozen=True)
class Sizes:
    """How much of what: all that ``--quick`` and its like change."""

    seconds: float
    """How long each load lasts."""
    clicks: int
    """Recent clicks that the postbacks refer to."""
    levels: tuple[int, ...]
    """Conversions stored before, on SQLite."""
    postgres_level: int
    """Conversions stored before, on PostgreSQL."""
    purged_rows: int
    """Clicks of the day that is dropped on PostgreSQL."""
    drop_seconds: float
    """How long the loads before and beside that last."""
    told_seconds: float
    """How long the loads last whose conversions are followed to the targets."""
    steady: int
    """Deliveries by which the steady rate is measured."""
    backlog: int
    """Conversions that are queued while their target is down."""


@dataclass
class Run:
    """What the parts share: the directory, the base data, the streams, the results."""

    directory: Path
    sizes: Sizes
    results: Results
    _segments: dict[str, Segment] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """Tell what is going on; the results go to standard output at the end."""
        print(text, file=sys.stderr, flush=True)

    @property
    def seconds(self) -> float:
        return self.sizes.seconds

    @property
    def lines(self) -> int:
        return int(self.seconds * _LINES_A_SECOND)

    @cached_property
    def base(self) -> Seeded:
        """The data directory without conversions."""
        self.say(f"seeding {self.sizes.clicks:,} recent clicks")
        return seed(self.directory / "base", self.sizes.clicks, 0, self.catalog)

    @property
    def catalog(self) -> Path:
        """A data directory with the catalog and the signing keys of ``base`` and no rows, once there is a base."""
        return self.directory / "catalog"

    @cached_property
    def writer(self) -> StreamWriter:
        return StreamWriter(self.directory, self.base, self.results.random_seed)

    @cached_property
    def recent(self) -> Stream:
        self.say("writing request lines")
        return self.writer.postbacks("recent", 4 * self.lines, exponential)

    @cached_property
    def redirects(self) -> Segment:
        """Clicks; every server gets the same."""
        return self.writer.clicks("clicks", self.lines).take(self.lines)

    def segment(self, name: str, stream: Stream) -> Segment:
        """The segment with this name: the same for every server that asks for it."""
        if name not in self._segments:
            self._segments[name] = stream.take(self.lines)
        return self._segments[name]

    def recent_segment(self, connections: int) -> Segment:
        """The lines that every server gets for new conversions."""
        return self.segment(f"recent {connections}", self.recent)

    def counted_segment(self, subject: Counted) -> Segment:
        """The first lines of the subject's first load; certainly all of them were counted."""
        first = self.recent_segment(names.CONNECTIONS[0])
        for row in self.results.rows:
            if row.subject == subject.name and row.what == names.NEW_RECENT and row.load:
                return Segment(first.file, first.first, min(first.count, row.load.requests // 2))
        raise ValueError(f"{subject.name} has had no load of new conversions")

    def put_under_load(
        self,
        subject: Subject,
        what: str,
        connections: int,
        segment: Segment,
        check: Check | None = None,
        seconds: float | None = None,
        meter: AbstractContextManager[object] | None = None,
    ) -> Load:
        """One row of the table: load, then compare the answers with what the database holds."""

        def generate() -> Load:
            return closed_loop(subject.port, segment, connections, seconds or self.seconds)

        return self.add_row(subject, what, connections, generate, check, meter)

    def add_row(
        self,
        subject: Counted,
        what: str,
        connections: int,
        generate: Callable[[], Load],
        check: Check | None = None,
        meter: AbstractContextManager[object] | None = None,
    ) -> Load:
        """One row of the table, from whatever generates its load; ``meter`` is held while it does."""
        os.sync()  # what was prepared must not be written during the measurement
        before = subject.stored()
        with meter or nullcontext():
            load = generate()
        after = settled(subject)
        verified, remark = None, ""
        if before and after and check:
            new = after.minus(before)
            verified = check(new, load, connections) and not load.failed
            remark = f"{load.requests:,} answered; {_describe(new)}"
        self.results.rows.append(Row(subject.name, what, connections, load, verified, remark))
        self.say(f"{subject.name}: {what}, {connections} connections: {load.per_second:,.0f}/s  {remark}")
        return load


def settled(subject: Counted) -> Stored | None:
    """What is stored once everything is committed that was under way when the generator stopped."""
    deadline = time.monotonic() + _SETTLE_TIMEOUT_S
    seen = subject.stored()
    while seen and time.monotonic() < deadline:
        time.sleep(_SETTLE_S)
        before, seen = seen, subject.stored()
        if seen == before:
            break
    return seen


def _describe(new: Stored) -> str:
    counted = {"conversions": new.conversions, "log rows": new.postbacks, "clicks": new.clicks}
    return ", ".join(f"{count:,} {name}" for name, count in counted.items() if count) or "nothing stored"


def _between(count: int, load: Load, connections: int) -> bool:
    """The generator stops without waiting: one request a connection may be stored and not answered."""
    return load.requests <= count <= load.requests + connections


def all_new(new: Stored, load: Load, connections: int) -> bool:
    """Every answer is a conversion and a row of the log, and there are no others."""
    same = new.conversions == new.accepted == new.postbacks
    return same and _between(new.conversions, load, connections)


def all_repeats(new: Stored, load: Load, connections: int) -> bool:
    """Every answer is a row of the log, and nothing was counted."""
    return new.conversions == 0 == new.accepted and _between(new.postbacks, load, connections)


def all_clicks(new: Stored, load: Load, connections: int) -> bool:
    return new.postbacks == 0 and _between(new.clicks, load, connections)


@contextmanager
def running(subject: _S) -> Iterator[_S]:
    """Stop the server at the end, whatever happened."""
    try:
        yield subject
    finally:
        subject.stop()
