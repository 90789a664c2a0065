"""Deliveries of conversions that come in: how soon targets hear of them, and what that costs the front door.

The targets (``bench.target``) run on the core of the load generators, everything of postbackd on the other one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from urllib.parse import parse_qs, urlsplit

from bench import results as names
from bench.load import Load, Segment, Timeline, open_loop
from bench.openloop import percentile
from bench.parts_backlog import measure_queue, measure_steady
from bench.parts_postgres import add_rows, database
from bench.run import Run, all_new, running
from bench.seed import CAMPAIGNS, HISTORY_DAYS, Population, Seeded, seed
from bench.stream import StreamWriter, exponential
from bench.subjects import Postbackd, PostbackdPostgres, Stored, Subject
from bench.target import ALIVE, DEAD, Targets
from bench.told import options_for, targets_of, tell_of_data, tell_of_postgres

_CONNECTIONS = 64

_TOLD_RATE = 1_000
"""Conversions a second that are followed to their targets."""

_WARM_UP_S = 1.0
"""The first second is left out: connections and caches warm up."""

_LOOK_S, _PATIENCE_S = 0.5, 20.0
"""How often to look whether everything has arrived at the targets, and for how long."""

_QUEUE_ON_POSTGRES = """
INSERT INTO outbox (bucket, request_id, click_id, conversion_id, status_from, status, value_micros_from, value_micros,
                    currency)
SELECT bucket, conversion_id, click_id, conversion_id, 0, status, 0, value_micros, currency
FROM conversions WHERE transaction_id LIKE 'h%'
"""
"""The conversions of the history, as if they had been counted just now."""


def measure_deliveries(run: Run) -> None:
    """All the lines about deliveries, on SQLite."""
    _measure_front(run)
    measure_queue(run)


def _measure_front(run: Run) -> None:
    """Inbound throughput without and with deliveries; from the commit to the target, all or half of them alive."""
    lines = int(_TOLD_RATE * run.sizes.told_seconds)
    run.say(f"seeding {run.sizes.clicks:,} recent clicks")
    seeded = seed(run.directory / "deliveries", run.sizes.clicks, 0)
    writer = StreamWriter(run.directory, seeded, run.results.random_seed)
    untold, full = (writer.postbacks(name, run.lines, exponential) for name in ("untold", "told-full"))
    paced = writer.postbacks("told", 2 * lines, exponential)
    log = run.directory / "deliveries.log"
    with running(Postbackd(seeded, log)) as server:
        run.put_under_load(server, names.UNTOLD, _CONNECTIONS, untold.take(run.lines), all_new)
    with targets_of(run, CAMPAIGNS) as targets:
        asyncio.run(tell_of_data(seeded.data, targets.ports))
        options = options_for(targets)
        with running(Postbackd(seeded, log, options=options)) as server:
            server.let_run_anywhere("deliver")
            lags = _follow(run, server, names.ALL_ALIVE, paced.take(lines), seeded, targets)
            others = targets.ports[: CAMPAIGNS // 2]
            run.results.figures[names.TOLD_P99] = _note(run, "deliveries_all_alive", lags, targets.ports)
            alive_ms = _note(run, "deliveries_others_all_alive", lags, others)
            for port, mode in zip(targets.ports[CAMPAIGNS // 2 :], DEAD, strict=True):
                targets.behave(port, mode)
            lags = _follow(run, server, names.HALF_DEAD, paced.take(lines), seeded, targets, others)
            run.results.figures[names.HALF_DEAD_P99] = (
                _note(run, "deliveries_others_half_dead", lags, others) / alive_ms
            )
        for port in targets.ports:
            targets.behave(port, ALIVE)
        with running(Postbackd(seeded, log, options=options)) as server:
            server.let_run_anywhere("deliver")
            sent = targets.count()
            load = run.put_under_load(server, names.TOLD, _CONNECTIONS, full.take(run.lines), all_new)
            sent = targets.count() - sent
            run.results.figures["deliveries_under_full_load_per_second"] = sent / load.seconds


def measure_deliveries_postgres(run: Run) -> None:
    """From the commit to the target, and the steady rate, on PostgreSQL, which shares the server's core."""
    figures, lines = run.results.figures, int(_TOLD_RATE * run.sizes.told_seconds)
    stream = run.writer.postbacks("told-postgres", lines, exponential)
    history = Population(run.base.history.start_ms, HISTORY_DAYS, run.sizes.steady)
    with targets_of(run, CAMPAIGNS) as targets, database(run, "postgres-deliveries") as postgres:
        asyncio.run(tell_of_postgres(postgres.address, targets.ports))
        options = options_for(targets)
        log = run.directory / "deliveries-postgres.log"
        server = PostbackdPostgres(postgres, run.directory / "node-deliveries", log, options)
        with running(server):
            server.let_run_anywhere("deliver")
            lags = _follow(run, server, names.ALL_ALIVE, stream.take(lines), run.base, targets)
            figures[names.TOLD_P99_POSTGRES] = _note(
                run, "postgres_deliveries_all_alive", lags, targets.ports
            )
        add_rows(postgres, history, ("clicks", "conversions"))
        postgres.psql(_QUEUE_ON_POSTGRES)
        postgres.settle()
        options = ["--store", postgres.address, "--data", str(run.directory / "node-deliver"), *options]
        what = names.queued(history.rows)
        spent_s = postgres.cpu_s()
        drain = measure_steady(run, targets, f"{server.name}, deliver", history.rows, options, what)
        spent_s = postgres.cpu_s() - spent_s
        figures[names.STEADY_POSTGRES] = drain.per_second
        figures["postgres_deliveries_cpu_us"] = drain.cpu_us
        figures["postgres_deliveries_database_cpu_us"] = 1e6 * spent_s / history.rows


def _follow(
    run: Run,
    server: Subject,
    what: str,
    segment: Segment,
    seeded: Seeded,
    targets: Targets,
    alive: Sequence[int] = (),
) -> Mapping[int, Sequence[float]]:
    """Put it under load and follow each conversion: port -> seconds from its answer to its arrival at the target.

    Of targets that are ``alive`` (default: all).  The row agrees when every conversion of theirs has arrived.
    """
    alive = alive or targets.ports
    wanted = _read_wanted(segment, seeded, targets.ports, alive)
    timeline = run.directory / "told.timeline"
    arrived: dict[str, float] = {}
    targets.take()

    def generate() -> Load:
        seconds = segment.count / _TOLD_RATE
        return open_loop(server.port, segment, _TOLD_RATE, _CONNECTIONS, seconds, timeline).load

    def check(new: Stored, load: Load, connections: int) -> bool:
        missing = {id_ for id_, _port in wanted.values()}
        deadline = time.monotonic() + _PATIENCE_S
        while missing and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
            for receipt in targets.take():
                arrived.setdefault(receipt.id, receipt.at_s)
            missing -= arrived.keys()
        if missing:
            run.say(f"{len(missing):,} conversions did not arrive at their targets, {min(missing)} for one")
        return all_new(new, load, connections) and not missing

    run.add_row(server, what, _CONNECTIONS, generate, check)
    lags: dict[int, list[float]] = {port: [] for port in alive}
    for line, answered_s in Timeline(timeline).answered(_WARM_UP_S).items():
        id_, port = wanted.get(line, ("", 0))
        if id_ in arrived:
            lags[port].append(arrived[id_] - answered_s)
    return lags


def _read_wanted(
    segment: Segment, seeded: Seeded, ports: Sequence[int], alive: Collection[int]
) -> Mapping[int, tuple[str, int]]:
    """Line -> transaction id and port, for those postbacks whose targets are alive."""
    wanted = {}
    with segment.file.open() as lines:
        for number, line in enumerate(islice(lines, segment.first, segment.first + segment.count)):
            given = parse_qs(urlsplit(line.strip()).query)
            verified = seeded.keys.verify(given["click_id"][0])
            assert verified is not None
            _stamp, campaign = verified
            port = ports[campaign - 1]
            if port in alive:
                wanted[segment.first + number] = (given["txid"][0], port)
    return wanted


def _note(run: Run, name: str, lags: Mapping[int, Sequence[float]], ports: Collection[int]) -> float:
    """Note percentiles over some of the targets; returns the p99 in milliseconds."""
    ordered = sorted(lag * 1e3 for port in ports for lag in lags[port])
    found = {word: percentile(ordered, share) for word, share in (("p50", 0.5), ("p99", 0.99), ("max", 1))}
    run.results.figures |= {f"{name}_{word}_ms": ms for word, ms in found.items()}
    words = ", ".join(f"{word} {ms:.1f} ms" for word, ms in found.items())
    run.say(f"{name.replace('_', ' ')}: {words} from the answer to the target, {len(ordered):,} conversions")
    return found["p99"]
