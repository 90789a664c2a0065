"""``postbackd backup`` beside a running server: what it costs those who send meanwhile."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from bench.load import open_loop
from bench.machine import SERVER_CORE, NotRun, pinned_to
from bench.run import Run, running
from bench.seed import seed
from bench.stream import StreamWriter, exponential
from bench.subjects import Postbackd, command_line

_MODERATE_PER_SECOND = 5_000
"""A quarter of what a core does: a busy site at its peak."""

_TIMEOUT_S = 600.0

_ROUNDS = 3


def measure_backup(run: Run) -> None:
    """Latency at moderate load, without and with a backup on the server's core; the backup is read back and counted."""
    level = run.sizes.levels[0]
    run.say(f"seeding {level:,} stored conversions")
    seeded = seed(run.directory / "backup-stored", run.sizes.clicks, level)
    writer = StreamWriter(run.directory, seeded, run.results.random_seed)
    recent = writer.postbacks("backup-recent", 4 * run.lines, exponential)
    target = run.directory / "backups"
    target.mkdir()
    figures = run.results.figures
    before, beside, took = [], [], []
    with running(Postbackd(seeded, run.directory / "postbackd-backup.log")) as server:
        for _ in range(_ROUNDS):
            calm = open_loop(server.port, recent.take(run.lines // 2), _MODERATE_PER_SECOND, 64, run.seconds)
            before.append(calm.load.p99_ms)
            began = time.monotonic()
            process = _start(seeded.data, target)
            paced = open_loop(server.port, recent.take(run.lines // 2), _MODERATE_PER_SECOND, 64, run.seconds)
            document = _wait(process)
            took.append(time.monotonic() - began)
            beside.append(paced.load.p99_ms)
            if paced.load.failed:
                raise NotRun(f"{paced.load.failed} requests failed beside a backup")
    figures["backup_moderate_per_second"] = _MODERATE_PER_SECOND
    figures["backup_p99_without_ms"] = sorted(before)[_ROUNDS // 2]
    figures["backup_p99_beside_ms"] = sorted(beside)[_ROUNDS // 2]
    figures["backup_takes_s"] = sorted(took)[_ROUNDS // 2]
    figures["backup_database_mb"] = document["database_bytes"] / 1e6
    figures["backup_file_mb"] = document["bytes"] / 1e6
    run.say(
        f"backup: p99 {figures['backup_p99_without_ms']:.2f} ms without, "
        f"{figures['backup_p99_beside_ms']:.2f} ms beside; "
        f"{figures['backup_takes_s']:.1f} s for {figures['backup_database_mb']:.0f} MB, "
        f"which become {figures['backup_file_mb']:.0f} MB"
    )


def _start(data: Path, target: Path) -> subprocess.Popen[str]:
    command = [*command_line(), "backup", "--data", str(data), "--backup-dir", str(target), "--json"]
    with pinned_to(SERVER_CORE):
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )


def _wait(process: subprocess.Popen[str]) -> dict[str, float]:
    try:
        output, errors = process.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as reason:
        process.kill()
        process.wait()
        raise NotRun(f"postbackd backup had not ended after {_TIMEOUT_S:g} s") from reason
    if process.returncode:
        raise NotRun(f"postbackd backup failed: {(errors.strip() or 'no output').splitlines()[-1]}")
    document: dict[str, float] = json.loads(output)
    return document
