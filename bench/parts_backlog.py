"""Deliveries that are queued: the steady rate of a deliver role, and a backlog made while the target was down.

The deliver role has the server's core to itself, except while the front door is under load beside it; then it runs
where there is room.  The conversions are put into the outbox by the benchmark; the role asks the rules about them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw

from bench import results as names
from bench.load import Load, Timeline, open_loop
from bench.machine import NotRun, Server
from bench.openloop import percentile
from bench.results import Row
from bench.run import Run, all_new, running
from bench.seed import Seeded, queue, seed
from bench.stream import Stream, StreamWriter, exponential
from bench.subjects import Postbackd, start_deliverer
from bench.target import ALIVE, REFUSING, Targets
from bench.told import options_for, targets_of, tell_of_data

_CONNECTIONS = 64

_WARM_UP_S = 1.0
"""The first second of a paced load is left out, and the first second of a role is not what it is when idle."""

_SAMPLE_S = 0.05
_LOOK_S, _LOOK_SELDOM_S = 0.25, 1.0

_LEAST_RATE = 300
"""Deliveries a second below which nobody waits for the rest."""

_LONGEST_BREAK_S = 320.0
"""The longest pause of a circuit breaker, and some."""


@dataclass(frozen=True)
class Drain:
    """What a deliver role did between two moments."""

    per_second: float
    cpu_us: float
    """Processor time of one delivery."""


def measure_steady(
    run: Run, targets: Targets, subject: str, count: int, options: Sequence[str], what: str
) -> Drain:
    """Let a deliver role send what is queued, ``count`` deliveries.  Its start and its end are left out."""
    targets.take()
    before = targets.count()
    os.sync()
    with running(start_deliverer(run.directory / f"deliver-{before}.log", options)) as server:
        drain = _watch(targets, server, before + count // 10, before + count * 19 // 20)
        _wait_for(lambda: targets.count() >= before + count, count / _LEAST_RATE, "deliveries")
    _add_row(run, subject, what, drain, targets, count, 0)
    return drain


def _watch(targets: Targets, server: Server, first: int, last: int) -> Drain:
    """From the moment at which so many requests had arrived to that at which so many had."""
    timeout_s = 60 + last / _LEAST_RATE
    _wait_for(lambda: targets.count() >= first, timeout_s, "deliveries", _SAMPLE_S)
    began, cpu_s, count = time.monotonic(), server.cpu_s(), targets.count()
    _wait_for(lambda: targets.count() >= last, timeout_s, "deliveries", _SAMPLE_S)
    seconds, spent_s, count = time.monotonic() - began, server.cpu_s() - cpu_s, targets.count() - count
    return Drain(count / seconds, 1e6 * spent_s / count)


def _add_row(
    run: Run, subject: str, what: str, drain: Drain, targets: Targets, owed: int, waiting: int
) -> None:
    """Compare what arrived with what was owed; ``waiting``: failed before, and not due yet."""
    receipts = targets.take()
    received = len({receipt.id for receipt in receipts})
    remark = f"{owed:,} owed; {received:,} received, {len(receipts) - received:,} of them again"
    remark += f", {waiting:,} wait for their next attempt" if waiting else ""
    load = Load(len(receipts), len(receipts) / drain.per_second, 0, 0, 0, 0)
    run.results.rows.append(Row(subject, what, 0, load, received + waiting == owed, remark))
    run.say(
        f"{subject}: {what}: {drain.per_second:,.0f}/s, {drain.cpu_us:.0f} us of processor each; {remark}"
    )


def _wait_for(ready: Callable[[], bool], timeout_s: float, what: str, every_s: float = _LOOK_S) -> float:
    """How long it took, in seconds.  Raises ``NotRun`` after ``timeout_s``."""
    began = time.monotonic()
    while not ready():
        if time.monotonic() - began > timeout_s:
            raise NotRun(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(every_s)
    return time.monotonic() - began


# --- the backlog -----------------------------------------------------------------------------------------------------


def measure_queue(run: Run) -> None:
    """The steady rate, then the backlog.

    The load of the front door is half of what it takes without deliveries.  Its conversions are owed too; those of the
    load to compare with are delivered with the first queue.
    """
    figures, steady, backlog = run.results.figures, run.sizes.steady, run.sizes.backlog
    run.say(f"seeding {steady + backlog:,} stored conversions")
    seeded = seed(run.directory / "queue", run.sizes.clicks, steady + backlog)
    rate = (run.results.rate(names.UNTOLD, _CONNECTIONS, names.POSTBACKD) or 0) / 2
    writer = StreamWriter(run.directory, seeded, run.results.random_seed)
    paced = writer.postbacks("beside", 2 * int(rate * run.seconds), exponential)
    with targets_of(run, 1) as targets:
        asyncio.run(tell_of_data(seeded.data, targets.ports))
        with running(_start_ingest(run, seeded)) as server:
            calm = _load_beside(run, server, names.NOT_DRAINING, paced, rate)
        queue(seeded, 0, steady)
        options = ["--data", str(seeded.data), *options_for(targets)]
        drain = measure_steady(
            run, targets, names.DELIVERER, steady + calm.requests, options, names.queued(steady)
        )
        figures |= {
            names.STEADY: drain.per_second,
            "deliveries_cpu_us": drain.cpu_us,
            "deliveries_per_cpu_second": 1e6 / drain.cpu_us,
            "deliveries_p99_not_draining_ms": calm.p99_ms,
        }
        beside = _measure_backlog(run, seeded, targets, options, paced, rate)
    figures |= {
        names.BACKLOG: backlog,
        "deliveries_p99_draining_ms": beside.p99_ms,
        names.DRAINING_P99: beside.p99_ms / calm.p99_ms,
        names.DRAINING: figures["deliveries_backlog_per_second"] / drain.per_second,
    }


def _start_ingest(run: Run, seeded: Seeded) -> Postbackd:
    return Postbackd(seeded, run.directory / "ingest.log", "ingest")


def _measure_backlog(
    run: Run, seeded: Seeded, targets: Targets, options: Sequence[str], paced: Stream, rate: float
) -> Load:
    """Queue while the target refuses, let it come up, drain alone, drain beside a load, drain the rest."""
    figures, backlog, before = run.results.figures, run.sizes.backlog, targets.count()
    with running(start_deliverer(run.directory / "deliver-backlog.log", options)) as server:
        idle = _queue_while_down(run, seeded, targets, server)
        drain = _watch(targets, server, before + backlog // 20, before + backlog // 2)
        figures["deliveries_backlog_per_second"] = drain.per_second
        figures["deliveries_backlog_cpu_us"] = drain.cpu_us
        load = _drain_beside(run, seeded, targets, server, paced, rate)
        if targets.count() - before > backlog:
            raise NotRun("the backlog was gone before the load was; it has to be larger")
        owed = backlog + load.requests
        _wait_for(
            lambda: targets.count() - before + _number(seeded, _COUNT_FAILED) >= owed,
            owed / _LEAST_RATE,
            "the rest of the deliveries",
            _LOOK_SELDOM_S,
        )
        figures[names.BACKLOG_MEMORY] = (server.peak_resident_bytes() - idle) / 1e6
    waiting = _number(seeded, _COUNT_FAILED)
    what = names.queued(backlog, names.WHILE_DOWN)
    _add_row(run, names.DELIVERER, what, drain, targets, owed, waiting)
    return load


def _queue_while_down(run: Run, seeded: Seeded, targets: Targets, server: Server) -> int:
    """Queue the backlog, wait until it is planned, let the target come up, wait until the role has noticed.

    Returns the memory, in bytes, that the role had before.
    """
    figures, (port,), backlog = run.results.figures, targets.ports, run.sizes.backlog
    last, before = seeded.history.rows, targets.count()
    targets.behave(port, REFUSING)
    time.sleep(_WARM_UP_S)
    idle, began = server.resident_bytes(), time.monotonic()
    queue(seeded, last - backlog, last)
    _wait_for(lambda: _number(seeded, _IS_PLANNED) == 1, backlog / _LEAST_RATE, "the outbox")
    planned_s = time.monotonic() - began
    figures["deliveries_planned_per_second"] = backlog / planned_s
    figures["deliveries_backlog_grown_while_down_mb"] = (server.peak_resident_bytes() - idle) / 1e6
    run.say(f"{backlog:,} queued and planned in {planned_s:.0f} s; the target comes up")
    targets.behave(port, ALIVE)
    noticed_s = _wait_for(lambda: targets.count() > before, _LONGEST_BREAK_S, "the next probe")
    figures["deliveries_noticed_after_s"] = noticed_s
    return idle


def _drain_beside(
    run: Run, seeded: Seeded, targets: Targets, server: Server, paced: Stream, rate: float
) -> Load:
    """The load beside it, and what the role does meanwhile."""
    figures = run.results.figures
    with running(_start_ingest(run, seeded)) as front:
        server.make_way()
        sent, cpu_s, began = targets.count(), server.cpu_s(), time.monotonic()
        load = _load_beside(run, front, names.WHILE_DRAINING, paced, rate)
        sent = targets.count() - sent
        figures["deliveries_beside_load_per_second"] = sent / (time.monotonic() - began)
        figures["deliveries_beside_load_cpu_us"] = (server.cpu_s() - cpu_s) * 1e6 / max(1, sent)
    return load


_IS_PLANNED = "SELECT NOT EXISTS (SELECT 1 FROM outbox)"
_COUNT_FAILED = "SELECT count(*) FROM deliveries WHERE state = 1 AND attempts > 0"


def _number(seeded: Seeded, statement: str) -> int:
    db = apsw.Connection(str(seeded.database), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        db.set_busy_timeout(60_000)
        for (number,) in db.execute(statement):
            return int(number)
        raise NotRun(f"nothing answers {statement}")
    finally:
        db.close()


def _load_beside(run: Run, server: Postbackd, what: str, paced: Stream, rate: float) -> Load:
    """New conversions at a fixed rate; the p99 is that of all but the first second."""
    file: Path = run.directory / "beside.timeline"
    segment = paced.take(int(rate * run.seconds))

    def generate() -> Load:
        return open_loop(server.port, segment, rate, _CONNECTIONS, run.seconds, file).load

    load = run.add_row(server, what, _CONNECTIONS, generate, all_new)
    p99_s = percentile(Timeline(file).after(_WARM_UP_S), 0.99)
    return Load(load.requests, load.seconds, load.failed, load.p50_ms, p99_s * 1e3, load.max_ms)
