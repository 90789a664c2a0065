"""The parts of a run, in their order.  Each starts its servers, puts them under load, and stops them."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from bench import results as names
from bench.load import closed_loop, open_loop
from bench.machine import LOAD_CORE, NotRun, pinned_to
from bench.parts_backup import measure_backup
from bench.parts_client import measure_client
from bench.parts_deliveries import measure_deliveries, measure_deliveries_postgres
from bench.parts_live import measure_live
from bench.parts_nodes import measure_nodes
from bench.parts_postgres import measure_postbackd_postgres, measure_postgres_levels
from bench.parts_reconcile import measure_reconcile
from bench.parts_reports import measure_reports
from bench.purge import Purge
from bench.run import Run, all_clicks, all_new, all_repeats, running, settled
from bench.seed import Seeded, day_of, seed
from bench.stream import Stream, StreamWriter, exponential, uniform
from bench.subjects import (
    FastapiPostgres,
    FastapiSqlite,
    Nginx,
    Postbackd,
    Subject,
    command_line,
    runtime_distributions,
    write_peer_clicks,
)

_WARM_UP_S = 2.0
_PEER_PATIENCE = 2
"""A peer gets a warm-up and a longer load: at its rate, what is under way at the end would weigh too much."""

_HELP_RUNS = 15


def measure_nginx(run: Run) -> None:
    with running(Nginx(run.directory / "nginx")) as nginx:
        for connections in names.CONNECTIONS:
            run.put_under_load(nginx, names.NEW_RECENT, connections, run.recent_segment(connections))


def measure_postbackd(run: Run) -> None:
    """New conversions and what they weigh on the disk, repeats, redirects, latency at half load."""
    figures = run.results.figures
    recent, spread = run.recent, run.writer.postbacks("uniform", 2 * run.lines, uniform)
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
        again = run.counted_segment(server)
        for connections in names.CONNECTIONS:
            run.put_under_load(server, names.DUPLICATES, connections, again, all_repeats)
        for connections in names.CONNECTIONS:
            run.put_under_load(server, names.REDIRECTS, connections, run.redirects, all_clicks)
        _measure_half_load(run, server, recent)


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
    for level in run.sizes.levels:
        data = run.directory / f"stored-{level}"
        run.say(f"seeding {level:,} stored conversions")
        seeded = seed(data, run.sizes.clicks, level)
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
            if level == run.sizes.levels[-1]:
                _measure_purge(run, server, seeded, recent)


def _measure_purge(run: Run, server: Postbackd, seeded: Seeded, stream: Stream) -> None:
    """Purge the oldest day under full load, the next one at half load."""
    figures = run.results.figures
    before = server.stored()
    with Purge(["--data", str(seeded.data)], day_of(seeded, 1)) as purge:
        load = closed_loop(server.port, stream.take(run.lines), 64, run.seconds)
        figures["purge_a_day_under_full_load_s"] = purge.wait()
    figures["purge_requests_per_second"] = load.per_second
    figures["purge_p99_ms"] = load.p99_ms
    figures["purge_failed"] = load.failed
    figures["purge_clicks_deleted"] = before.clicks - server.stored().clicks
    with Purge(["--data", str(seeded.data)], day_of(seeded, 2)) as purge:
        paced = open_loop(server.port, stream.take(run.lines), load.per_second / 2, 64, run.seconds)
        figures["purge_a_day_at_half_load_s"] = purge.wait()
    figures["purge_half_load_p99_ms"] = paced.load.p99_ms
    figures["purge_half_load_failed"] = paced.load.failed
    run.say(f"purge under load: {load.per_second:,.0f}/s; at half load p99 {paced.load.p99_ms:.2f} ms")


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
    "postbackd-postgres": measure_postbackd_postgres,
    "fastapi-postgres": measure_fastapi_postgres,
    "nodes": measure_nodes,
    "levels": measure_levels,
    "postgres-levels": measure_postgres_levels,
    "deliveries": measure_deliveries,
    "deliveries-postgres": measure_deliveries_postgres,
    "backup": measure_backup,
    "live": measure_live,
    "reports": measure_reports,
    "reconcile": measure_reconcile,
    "client": measure_client,
    "footprint": measure_footprint,
}
"""Name on the command line -> part, in their order."""
