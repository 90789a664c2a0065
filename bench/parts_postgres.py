"""The parts on PostgreSQL: throughput and what a request costs, many rows stored before, a day that is dropped."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

from bench import results as names
from bench.cost import CostMeter
from bench.load import Paced, Segment, Timeline, open_loop
from bench.machine import LOAD_CORE, SERVER_CORE, NotRun
from bench.openloop import percentile
from bench.postgres import Postgres
from bench.purge import Purge
from bench.run import Run, all_clicks, all_new, all_repeats, running
from bench.seed import DAY_MS, HISTORY_DAYS, Population
from bench.stream import Stream, StreamWriter, exponential, uniform
from bench.subjects import PostbackdPostgres, command_line

ALL_TABLES = ("clicks", "conversions", "postbacks")

_BESIDE_AFTER_S = 1.0
"""How long a load has been running when something begins beside it."""

_MOST_PACED = 12_000
"""Requests a second at half load that lines are written for."""

_LOWEST_PRIORITY = 19

_LEAST_IN_WINDOW = 1000
"""Requests below which a p99 would be the word of a handful."""


@contextmanager
def database(run: Run, name: str, core: int = SERVER_CORE) -> Iterator[Postgres]:
    """A server, as Debian configures it, with the catalog and the recent clicks of the run and no conversions."""
    if importlib.util.find_spec("asyncpg") is None:
        raise NotRun("asyncpg is not installed (pip install -r requirements-postgres.txt)")
    recent = run.base.recent
    postgres = Postgres(run.directory / name, core)
    try:
        _copy_catalog(run, postgres)
        add_rows(postgres, recent, ("clicks",))
        postgres.settle()
        yield postgres
    finally:
        postgres.stop()


def _copy_catalog(run: Run, postgres: Postgres) -> None:
    command = [*command_line(), "db", "copy", "--from", str(run.catalog), "--to", postgres.address]
    _check("postbackd db copy", subprocess.run(command, capture_output=True, text=True, check=False))


def add_rows(postgres: Postgres, population: Population, tables: Sequence[str]) -> None:
    """The rows of a population in some tables, made by the server itself (``bench.seed_postgres``)."""
    command = [sys.executable, "-m", "bench.seed_postgres", "--to", postgres.address]
    command += ["--start-ms", str(population.start_ms), "--days", str(population.days)]
    command += ["--rows", str(population.rows), "--tables", ",".join(tables)]
    _check("bench.seed_postgres", subprocess.run(command, capture_output=True, text=True, check=False))


def _check(what: str, done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise NotRun(f"{what} failed: {last}")


# --- throughput and costs ------------------------------------------------------------------------------------------


def measure_postbackd_postgres(run: Run) -> None:
    """New conversions, repeats and redirects; the server and its database share the server's core, as the peer's do.

    On the way, what a conversion and a click cost in processor time, log and disk.
    """
    with database(run, "postgres") as postgres:
        server = PostbackdPostgres(postgres, run.directory / "node", run.directory / "postbackd-postgres.log")
        with running(server):
            for connections in names.CONNECTIONS:
                meter = CostMeter(postgres, server.cpu_s)
                segment = run.recent_segment(connections)
                load = run.put_under_load(
                    server, names.NEW_RECENT, connections, segment, all_new, meter=meter
                )
                _note_cost(run, f"conversion_{connections}", meter, load.requests)
            again = run.counted_segment(server)
            run.put_under_load(server, names.DUPLICATES, 64, again, all_repeats)
            meter = CostMeter(postgres, server.cpu_s)
            load = run.put_under_load(server, names.REDIRECTS, 64, run.redirects, all_clicks, meter=meter)
            _note_cost(run, "click_64", meter, load.requests)


def _note_cost(run: Run, what: str, meter: CostMeter, requests: int) -> None:
    costs = {"requests": float(requests), **meter.figures(requests)}
    run.results.figures |= {f"postgres_{what}_{name}": value for name, value in costs.items()}
    run.say(f"a {what}: " + ", ".join(f"{name} {value:.1f}" for name, value in costs.items()))


# --- many rows, and a day that is dropped ----------------------------------------------------------------------------


def measure_postgres_levels(run: Run) -> None:
    """Throughput on a database that holds conversions already, each with its click and log row; then a day is dropped.

    The stored ones lie in the three weeks before the recent clicks, the day that is dropped before these, clicks alone.
    """
    level = run.sizes.postgres_level
    history = Population(run.base.history.start_ms, HISTORY_DAYS, level)
    day = _day_before(history, run.sizes.purged_rows)
    writer = StreamWriter(run.directory, run.base, run.results.random_seed)
    recent = writer.postbacks(f"recent-postgres-{level}", run.lines, exponential)
    old = writer.postbacks(f"old-postgres-{level}", run.lines, uniform, history)
    lines = int(run.sizes.drop_seconds * _MOST_PACED)
    paced = writer.postbacks(f"paced-postgres-{level}", 2 * lines, exponential)
    with database(run, "postgres-levels") as postgres:
        _seed_level(run, postgres, history, day)
        server = PostbackdPostgres(postgres, run.directory / "node-levels", run.directory / "levels.log")
        with running(server):
            what, segment = names.stored_before(level), recent.take(run.lines)
            rate = run.put_under_load(server, what, 64, segment, all_new).per_second
            _measure_old(run, server, postgres, old)
            halves = [paced.take(lines) for _load in range(2)]
            _measure_drop(run, server, postgres, halves, min(rate / 2, _MOST_PACED), day)


def _seed_level(run: Run, postgres: Postgres, history: Population, day: Population) -> None:
    run.say(f"seeding {history.rows:,} stored conversions on PostgreSQL, and a day of {day.rows:,} clicks")
    began = time.monotonic()
    postgres.run_on({SERVER_CORE, LOAD_CORE})
    add_rows(postgres, history, ALL_TABLES)
    add_rows(postgres, day, ("clicks",))
    postgres.settle()
    postgres.run_on({SERVER_CORE})
    size = postgres.number("SELECT pg_database_size(current_database())")
    run.results.figures[names.POSTGRES_LEVEL] = history.rows
    run.results.figures["postgres_level_database_mb"] = size / 1e6
    run.say(f"seeded {size / 1e9:.1f} GB in {time.monotonic() - began:.0f} s")


def _day_before(history: Population, rows: int) -> Population:
    """A whole UTC day before everything else."""
    return Population(history.start_ms // DAY_MS * DAY_MS - DAY_MS, 1, rows)


def _measure_old(run: Run, server: PostbackdPostgres, postgres: Postgres, old: Stream) -> None:
    """Second conversions of stored clicks, each as likely: nearly every one lands on another page of the unique key.

    Right after a checkpoint, so that the log holds each of these pages once as a whole.
    """
    postgres.psql("CHECKPOINT")
    meter = CostMeter(postgres, server.cpu_s)
    what = names.stored_before(run.sizes.postgres_level, names.NEW_OLD)
    load = run.put_under_load(server, what, 64, old.take(run.lines), all_new, meter=meter)
    _note_cost(run, "old_conversion_64", meter, load.requests)


def _measure_drop(
    run: Run,
    server: PostbackdPostgres,
    postgres: Postgres,
    segments: Sequence[Segment],
    rate: float,
    day: Population,
) -> None:
    """Latency at half load, before and while a day is dropped: the same rate, for the same time (a minute, in full).

    What counts is the p99 of the minute in which ``postbackd purge`` ran beside that of the minute before; that of the
    requests which were due while it ran is noted too.  The first second is left out: connections and caches warm up.
    The command runs with the lowest priority: it would be on another machine.  What the database does for it does not.
    Each minute begins with a checkpoint, so that it is not the log's size that starts one in the second of them.
    """
    postgres.psql("CHECKPOINT")
    before, calm = _paced(run, server, segments[0], rate)
    postgres.psql("CHECKPOINT")
    clicks = server.stored().clicks
    until = datetime.fromtimestamp((day.start_ms + DAY_MS) / 1000, UTC).date().isoformat()
    window: list[float] = []

    def drop() -> None:
        with Purge(["--store", postgres.address], until, _LOWEST_PRIORITY) as purge:
            window.extend((purge.began, purge.began + purge.wait()))

    meanwhile, latencies = _paced(run, server, segments[1], rate, drop)
    dropped = clicks - server.stored().clicks
    if dropped != day.rows:
        raise NotRun(f"the purge dropped {dropped:,} clicks instead of {day.rows:,}")
    while_dropping = latencies.between(*window)
    if len(while_dropping) < _LEAST_IN_WINDOW:
        raise NotRun(
            f"only {len(while_dropping)} requests were due while the day was dropped; use longer loads"
        )
    before_ms, p99_ms = (percentile(seen.after(_BESIDE_AFTER_S), 0.99) * 1e3 for seen in (calm, latencies))
    took_s = window[1] - window[0]
    run.results.figures |= {
        "postgres_drop_clicks": dropped,
        "postgres_drop_s": took_s,
        "postgres_drop_requests_per_second": rate,
        "postgres_drop_p99_before_ms": before_ms,
        "postgres_drop_p99_ms": p99_ms,
        "postgres_drop_p99_while_the_command_ran_ms": percentile(while_dropping, 0.99) * 1e3,
        "postgres_drop_max_ms": meanwhile.load.max_ms,
        "postgres_drop_failed": before.load.failed + meanwhile.load.failed,
        names.DROP_RATIO: p99_ms / before_ms,
    }
    run.say(
        f"half load {rate:,.0f}/s: p99 {before_ms:.2f} ms, "
        f"{p99_ms:.2f} ms with {dropped:,} clicks dropped meanwhile ({took_s:.1f} s)"
    )


def _paced(
    run: Run,
    server: PostbackdPostgres,
    segment: Segment,
    rate: float,
    beside: Callable[[], None] | None = None,
) -> tuple[Paced, Timeline]:
    """A load at a fixed rate; after its first second ``beside`` runs next to it."""
    os.sync()
    file = run.directory / "paced.timeline"
    seconds = run.sizes.drop_seconds
    with ThreadPoolExecutor(1) as other:
        loading = other.submit(open_loop, server.port, segment, rate, 64, seconds, file)
        if beside:
            time.sleep(_BESIDE_AFTER_S)
            beside()
        return loading.result(), Timeline(file)
