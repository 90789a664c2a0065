"""``postbackd reconcile`` with a million rows against a million conversions: how long, and how much memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from bench.machine import SERVER_CORE, NotRun, pinned_to
from bench.run import Run
from bench.seed import Seeded, seed
from bench.subjects import command_line

_ROWS = 1_011_000
_TIMEOUT_S = 300.0

_AHEAD_MS = 2 * 3_600_000
"""The partner's clock."""

_LEFT_OUT, _OTHER_VALUE, _PENDING, _NEW = 101, 103, 107, 109
"""One row in so many is left out, has another value, another status, is about a click without a conversion."""

_MEASURED = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
document = json.loads(done.stdout) if done.returncode == 0 else None
print(json.dumps([done.returncode, usage.ru_maxrss, usage.ru_utime + usage.ru_stime, document]))
"""
# In a process of its own: the largest child of this one is a server.


def measure_reconcile(run: Run) -> None:
    """The command on one core; what it finds must be what was planted."""
    run.say(f"seeding {_ROWS:,} stored conversions")
    seeded = seed(run.directory / "reconcile-stored", 100_000, _ROWS)
    export = run.directory / "export.csv"
    planted = _write_export(seeded, export)
    command = [
        *command_line(),
        "reconcile",
        str(export),
        "--network",
        "network",
        "--data",
        str(seeded.data),
        "--json",
    ]
    began = time.monotonic()
    with pinned_to(SERVER_CORE):
        done = subprocess.run(
            [sys.executable, "-c", _MEASURED, *command], capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    took = time.monotonic() - began
    if done.returncode:
        raise NotRun(f"postbackd reconcile was not measured: {done.stderr.decode()[-300:]}")
    status, kib, cpu_s, document = json.loads(done.stdout)
    if status:
        raise NotRun(f"postbackd reconcile failed: {done.stderr.decode()[-300:]}")
    found = {bucket["bucket"]: bucket["rows"] + bucket["conversions"] for bucket in document["buckets"]}
    for bucket, count in planted.items():
        if found[bucket] != count:
            raise NotRun(
                f"postbackd reconcile found {found[bucket]} entries of {bucket}, and {count} were planted"
            )
    if document["clock"]["shift_minutes"] != 120:
        raise NotRun(f"postbackd reconcile took the clock for {document['clock']['sentence']}")
    figures = run.results.figures
    figures["reconcile_rows"] = document["rows"]
    figures["reconcile_s"] = took
    figures["reconcile_cpu_s"] = cpu_s
    figures["reconcile_resident_mb"] = kib / 1024
    run.say(f"reconcile: {document['rows']:,} rows in {took:.1f} s, {kib / 1024:.0f} MB")


def _write_export(seeded: Seeded, path: Path) -> dict[str, int]:
    """A partner's file with planted differences; returns what each bucket must hold, rows and conversions."""
    history = seeded.history
    planted = dict.fromkeys(("value_differs", "status_differs", "missing_here", "missing_there"), 0)
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("Order ID;Sub ID;Payout (USD);Status;Conversion Date\r\n")
        for number in range(history.rows):
            order, value, status = f"h{number:09x}", "12,50", "approved"
            if number % _LEFT_OUT == 1:
                planted["missing_there"] += 1
                continue
            if number % _OTHER_VALUE == 2:
                value = "12,49"
                planted["value_differs"] += 2
            elif number % _PENDING == 3:
                status = "pending"
                planted["status_differs"] += 2
            elif number % _NEW == 4:
                order = f"n{number:09x}"
                planted["missing_here"] += 1
                planted["missing_there"] += 1
            shown_ms = history.ms(number) + 3_600_000 + _AHEAD_MS - number % 50 * 1000
            shown = datetime.fromtimestamp(shown_ms / 1000, UTC).strftime("%d.%m.%Y %H:%M:%S")
            click_id = seeded.click_id(history, number)
            file.write(f"{order};{click_id};{value};{status};{shown}\r\n")
    return planted
