"""The parts of a run, in their order.  Each starts its servers, puts them under load, and stops them."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

from bench import results as names
from bench.load import Load, Segment, closed_loop, open_loop
from bench.machine import LOAD_CORE, SERVER_CORE, NotRun, pinned_to
from bench.results import Results, Row
from bench.seed import Seeded, day_of, seed
from bench.stream import Stream, StreamWriter, exponential, uniform
from bench.subjects import (
    FastapiPostgres,
    FastapiSqlite,
    Nginx,
    Postbackd,
    Stored,
    Subject,
    command_line,
    runtime_distributions,
    write_peer_clicks,
)

_LINES_A_SECOND = 60_000
"""Request lines written for each second of load: more than any server here with a database can take."""

_SETTLE_S = 0.5
_SETTLE_TIMEOUT_S = 30.0

_WARM_UP_S = 2.0
_PEER_PATIENCE = 2
"""A peer gets a warm-up and a longer load: at its rate, what is under way at the end would weigh too much."""

_PURGE_TIMEOUT_S = 90.0

_HELP_RUNS = 15


@dataclass
class Run:
    """What the parts share: the directory, the base data, the streams, the results."""

    directory: Path
    seconds: float
    clicks: int
    levels: tuple[int, ...]
    results: Results
    _segments: dict[str, Segment] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """Tell what is going on; the results go to standard output at the end."""
        print(text, file=sys.stderr, flush=True)

    @property
    def lines(self) -> int:
        return int(self.seconds * _LINES_A_SECOND)

    @cached_property
    def base(self) -> Seeded:
        """The data directory without conversions."""
        self.say(f"seeding {self.clicks:,} recent clicks")
        return seed(self.directory / "base", self.clicks, 0)

    @cached_property
    def writer(self) -> StreamWriter:
        return StreamWriter(self.directory, self.base, self.results.random_seed)

    @cached_property
    def recent(self) -> Stream:
        self.say("writing request lines")
        return self.writer.postbacks("recent", 4 * self.lines, exponential)

    def segment(self, name: str, stream: Stream) -> Segment:
        """The segment with this name: the same for every server that asks for it."""
        if name not in self._segments:
            self._segments[name] = stream.take(self.lines)
        return self._segments[name]

    def recent_segment(self, connections: int) -> Segment:
        """The lines that every server gets for new conversions."""
        return self.segment(f"recent {connections}", self.recent)

    def put_under_load(
        self,
        subject: Subject,
        what: str,
        connections: int,
        segment: Segment,
        check: Callable[[Stored, Load, int], bool] | None = None,
        seconds: float | None = None,
    ) -> Load:
        """One row of the table: load, then compare the answers with what the database holds."""
        os.sync()  # what was prepared must not be written during the measurement
        before = subject.stored()
        load = closed_loop(subject.port, segment, connections, seconds or self.seconds)
        after = settled(subject)
        verified, remark = None, ""
        if before and after and check:
            new = after.minus(before)
            verified = check(new, load, connections) and not load.failed
            remark = f"{load.requests:,} answered; {_describe(new)}"
        self.results.rows.append(Row(subject.name, what, connections, load, verified, remark))
        self.say(f"{subject.name}: {what}, {connections} connections: {load.per_second:,.0f}/s  {remark}")
        return load


def settled(subject: Subject) -> Stored | None:
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
def running(subject: Subject) -> Iterator[Subject]:
    """Stop the server at the end, whatever happened."""
    try:
        yield subject
    finally:
        subject.stop()


def measure_nginx(run: Run) -> None:
    with running(Nginx(run.directory / "nginx")) as nginx:
        for connections in names.CONNECTIONS:
            run.put_under_load(nginx, names.NEW_RECENT, connections, run.recent_segment(connections))


def measure_postbackd(run: Run) -> None:
    """New conversions and what they weigh on the disk, repeats, redirects, latency at half load."""
    figures = run.results.figures
    recent, spread = run.recent, run.writer.postbacks("uniform", 2 * run.lines, uniform)
    clicks = run.writer.clicks("clicks", run.lines)
    bytes_before = run.base.database.stat().st_size
    server = Postbackd(run.base, run.directory / "postbackd.log")
    with running(server):
        figures["start_to_ready_ms"] = server.start_s * 1e3
        # A moment after the start, when nothing that starting needed is held any more.
        time.sleep(1)
        figures[names.RESIDENT] = server.resident_bytes() / 1e6
        before = server.stored()
        for connections in names.CONNECTIONS:
            run.put_under_load(
                server, names.NEW_RECENT, connections, run.recent_segment(connections), all_new
            )
        for connections in names.CONNECTIONS:
            run.put_under_load(server, names.NEW_UNIFORM, connections, spread.take(run.lines), all_new)
        new = server.stored().minus(before)
        figures["resident_after_load_mb"] = server.resident_bytes() / 1e6
    grown = run.base.database.stat().st_size - bytes_before
    figures["disk_bytes_a_conversion"] = grown / max(1, new.conversions)
    server = Postbackd(run.base, run.directory / "postbackd.log")
    with running(server):
        figures["start_to_ready_after_load_ms"] = server.start_s * 1e3
        _measure_repeats(run, server)
        for connections in names.CONNECTIONS:
            segment = run.segment("clicks", clicks)
            run.put_under_load(server, names.REDIRECTS, connections, segment, all_clicks)
        _measure_half_load(run, server, recent)


def _measure_repeats(run: Run, server: Postbackd) -> None:
    """The first lines of the first load once more; certainly all of them were counted."""
    counted = run.results.rows[-1].load
    first = run.recent_segment(names.CONNECTIONS[0])
    for row in run.results.rows:
        if row.subject == server.name and row.what == names.NEW_RECENT:
            counted = row.load
            break
    lines = min(first.count, counted.requests // 2 if counted else first.count)
    for connections in names.CONNECTIONS:
        segment = Segment(first.file, first.first, lines)
        run.put_under_load(server, names.DUPLICATES, connections, segment, all_repeats)


def _measure_half_load(run: Run, server: Postbackd, stream: Stream) -> None:
    """Latency at half of the measured throughput; here the counts have to agree to the last request."""
    rate = (run.results.rate(names.NEW_RECENT, 64, server.name) or 0) / 2
    before = server.stored()
    os.sync()
    paced = open_loop(server.port, run.segment("half load", stream), rate, 64, run.seconds)
    new = server.stored().minus(before)
    figures = run.results.figures
    figures["half_load_requests_per_second"] = rate
    figures["half_load_p50_ms"] = paced.load.p50_ms
    figures[names.HALF_LOAD_P99] = paced.load.p99_ms
    figures["half_load_max_ms"] = paced.load.max_ms
    figures["half_load_generator_late_p99_ms"] = paced.late_p99_ms
    figures["half_load_sent"] = paced.sent
    figures["half_load_answered"] = paced.load.requests
    figures["half_load_stored"] = new.conversions
    run.say(f"half load {rate:,.0f}/s: p50 {paced.load.p50_ms:.2f} ms, p99 {paced.load.p99_ms:.2f} ms")


def measure_fastapi_sqlite(run: Run) -> None:
    _measure_peer(run, lambda: FastapiSqlite(run.directory / "peer-sqlite", _peer_clicks(run)))


def measure_fastapi_postgres(run: Run) -> None:
    _measure_peer(run, lambda: FastapiPostgres(run.directory / "peer-postgres", _peer_clicks(run)))


def _peer_clicks(run: Run) -> Path:
    file = run.directory / "clicks.csv"
    if not file.exists():
        write_peer_clicks(file, run.base)
    return file


def _measure_peer(run: Run, start: Callable[[], Subject]) -> None:
    with running(start()) as peer:
        closed_loop(peer.port, run.segment("warm up", run.recent), names.CONNECTIONS[0], _WARM_UP_S)
        settled(peer)
        for connections in names.CONNECTIONS:
            segment = run.recent_segment(connections)
            seconds = run.seconds * _PEER_PATIENCE
            run.put_under_load(peer, names.NEW_RECENT, connections, segment, all_new, seconds)


def measure_levels(run: Run) -> None:
    """Throughput on databases that hold conversions already, and a purge under load on the last of them."""
    for level in run.levels:
        data = run.directory / f"stored-{level}"
        run.say(f"seeding {level:,} stored conversions")
        seeded = seed(data, run.clicks, level)
        writer = StreamWriter(run.directory, seeded, run.results.random_seed)
        recent = writer.postbacks(f"recent-{level}", 3 * run.lines, exponential)
        spread = writer.postbacks(f"uniform-{level}", run.lines, uniform)
        server = Postbackd(seeded, run.directory / f"postbackd-{level}.log")
        with running(server):
            millions = level // 1_000_000
            run.results.figures[f"start_to_ready_{millions}_m_stored_ms"] = server.start_s * 1e3
            run.put_under_load(server, names.stored_before(level), 64, recent.take(run.lines), all_new)
            what = f"{names.NEW_UNIFORM}, {millions} M stored"
            run.put_under_load(server, what, 64, spread.take(run.lines), all_new)
            if level == run.levels[-1]:
                _measure_purge(run, server, seeded, recent)


def _measure_purge(run: Run, server: Postbackd, seeded: Seeded, stream: Stream) -> None:
    """Purge the oldest day under full load, the next one at half load."""
    figures = run.results.figures
    before = server.stored()
    with Purge(seeded, days=1) as purge:
        load = closed_loop(server.port, stream.take(run.lines), 64, run.seconds)
        figures["purge_a_day_under_full_load_s"] = purge.wait()
    figures["purge_requests_per_second"] = load.per_second
    figures["purge_p99_ms"] = load.p99_ms
    figures["purge_failed"] = load.failed
    figures["purge_clicks_deleted"] = before.clicks - server.stored().clicks
    with Purge(seeded, days=2) as purge:
        paced = open_loop(server.port, stream.take(run.lines), load.per_second / 2, 64, run.seconds)
        figures["purge_a_day_at_half_load_s"] = purge.wait()
    figures["purge_half_load_p99_ms"] = paced.load.p99_ms
    figures["purge_half_load_failed"] = paced.load.failed
    run.say(f"purge under load: {load.per_second:,.0f}/s; at half load p99 {paced.load.p99_ms:.2f} ms")


class Purge:
    """``postbackd purge`` beside a running server, on the server's core."""

    def __init__(self, seeded: Seeded, days: int) -> None:
        command = [*command_line(), "purge", "--data", str(seeded.data), "--yes", "--before"]
        command.append(day_of(seeded, days))
        self._began = time.monotonic()
        with pinned_to(SERVER_CORE):
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def wait(self) -> float:
        """Seconds that it took.  Raises ``NotRun`` with its last line when it failed or does not end."""
        try:
            output, _nothing = self._process.communicate(timeout=_PURGE_TIMEOUT_S)
        except subprocess.TimeoutExpired as reason:
            raise NotRun(f"postbackd purge had not ended after {_PURGE_TIMEOUT_S:g} s") from reason
        if self._process.returncode:
            raise NotRun(f"postbackd purge failed: {(output.strip() or 'no output').splitlines()[-1]}")
        return time.monotonic() - self._began


def measure_footprint(run: Run) -> None:
    """How long ``--help`` takes and how much is installed."""
    command = [*command_line(), "--help"]
    times = []
    with pinned_to(LOAD_CORE):
        for _number in range(_HELP_RUNS):
            began = time.perf_counter()
            result = subprocess.run(command, capture_output=True, check=False)
            times.append(time.perf_counter() - began)
            if result.returncode:
                raise NotRun(f"postbackd --help failed: {result.stderr.decode().strip().splitlines()[-1]}")
    run.results.figures[names.HELP] = statistics.median(times) * 1e3
    lock = Path(__file__).parents[1] / "requirements.txt"
    run.results.figures[names.DISTRIBUTIONS] = len(runtime_distributions(lock))


PARTS: dict[str, Callable[[Run], None]] = {
    "nginx": measure_nginx,
    "postbackd": measure_postbackd,
    "fastapi-sqlite": measure_fastapi_sqlite,
    "fastapi-postgres": measure_fastapi_postgres,
    "levels": measure_levels,
    "footprint": measure_footprint,
}
"""Name on the command line -> part, in their order."""
