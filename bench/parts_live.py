"""The live log beside a server under load: how soon it tells, and what that costs those who send."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

from bench.load import closed_loop, open_loop
from bench.machine import LOAD_CORE, NotRun, pinned_to
from bench.run import Run, running
from bench.seed import seed
from bench.stream import StreamWriter, exponential
from bench.subjects import Postbackd

_MODERATE_PER_SECOND = 5_000
"""The rate at which an event is promised within half a second."""

_ROUNDS = 3
_LISTENERS = 5


def measure_live(run: Run) -> None:
    """Latency of events at moderate load; p99 and throughput of ingest without and with five listeners, in turn."""
    seeded = seed(run.directory / "live", run.sizes.clicks, 0)
    writer = StreamWriter(run.directory, seeded, run.results.random_seed)
    recent = writer.postbacks("live-recent", 4 * _ROUNDS * run.lines, exponential)
    calm_p99, live_p99, calm_rate, live_rate = [], [], [], []
    told: list[dict[str, float]] = []
    with running(Postbackd(seeded, run.directory / "postbackd-live.log")) as server:
        for _ in range(_ROUNDS):
            calm = open_loop(server.port, recent.take(run.lines), _MODERATE_PER_SECOND, 64, run.seconds)
            calm_p99.append(calm.load.p99_ms)
            listening = _start(seeded.data, run.seconds)
            beside = open_loop(server.port, recent.take(run.lines), _MODERATE_PER_SECOND, 64, run.seconds)
            live_p99.append(beside.load.p99_ms)
            told.append(_wait(listening))
            calm_rate.append(closed_loop(server.port, recent.take(run.lines), 64, run.seconds).per_second)
            listening = _start(seeded.data, run.seconds)
            live_rate.append(closed_loop(server.port, recent.take(run.lines), 64, run.seconds).per_second)
            _wait(listening)
    figures = run.results.figures
    figures["live_p50_ms"] = statistics.median(one["p50_ms"] for one in told)
    figures["live_p99_ms"] = max(one["p99_ms"] for one in told)
    figures["live_max_ms"] = max(one["max_ms"] for one in told)
    figures["live_matched"] = sum(one["matched"] for one in told)
    figures["live_shown"] = sum(one["shown"] for one in told)
    figures["live_cpu_share"] = statistics.median(one["cpu_share"] for one in told)
    figures["live_ingest_p99_without_ms"] = statistics.median(calm_p99)
    figures["live_ingest_p99_beside_ms"] = statistics.median(live_p99)
    figures["live_ingest_per_second_without"] = statistics.median(calm_rate)
    figures["live_ingest_per_second_beside"] = statistics.median(live_rate)
    run.say(", ".join(f"{name} {value:,.2f}" for name, value in figures.items() if name.startswith("live_")))


def _start(data: Path, seconds: float) -> subprocess.Popen[str]:
    """On the other core than ingest, as the admin role is on a machine that has two."""
    command = [sys.executable, "-m", "bench.listening", "--data", str(data), "--seconds", str(seconds)]
    with pinned_to(LOAD_CORE):
        return subprocess.Popen(
            [*command, "--listeners", str(_LISTENERS)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip


def _wait(process: subprocess.Popen[str]) -> dict[str, float]:
    output, errors = process.communicate(timeout=120)
    if process.returncode:
        raise NotRun(f"listening failed: {(errors.strip() or 'no output').splitlines()[-1]}")
    told: dict[str, float] = json.loads(output)
    return told
