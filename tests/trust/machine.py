"""What the figures were measured on: processors, kernel, SQLite, and how long this disk takes to sync."""

from __future__ import annotations

import os
import platform
import statistics
import time
from pathlib import Path

import apsw

_SYNCS = 100


def describe(directory: Path) -> dict[str, str | int | float]:
    """One record for the head of a report; ``directory`` is where the servers' data will lie."""
    return {
        "processors": os.cpu_count() or 0,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "sync_ms": round(_sync_ms(directory), 3),
    }


def _sync_ms(directory: Path) -> float:
    """Median time of a write of 4 kB and its ``fdatasync``, in milliseconds."""
    path = directory / "sync-probe"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    took = []
    try:
        for number in range(_SYNCS):
            began = time.perf_counter()
            os.pwrite(file, bytes(4096), number * 4096)
            os.fdatasync(file)
            took.append((time.perf_counter() - began) * 1000)
    finally:
        os.close(file)
        path.unlink()
    return statistics.median(took)
