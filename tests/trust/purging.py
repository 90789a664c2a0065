"""Runs the store's purge in a process of its own, so that it can be killed in the middle."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.trust.server import clean_environment

_PROGRAM = """
import asyncio, sys
from pathlib import Path
from postbackd.store.sqlite import SqliteStore

async def purge(directory, before_ms):
    store = await SqliteStore.open(Path(directory), create=False, busy_timeout_ms=10_000)
    while await store.purge(before_ms, limit=40):
        pass
    await store.close()

asyncio.run(purge(sys.argv[1], int(sys.argv[2])))
"""


def now_ms() -> int:
    """The wall clock in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def purge(data_dir: Path, before_ms: int, failpoint: str = "") -> int | None:
    """Purge everything older, 40 rows a transaction.

    Returns the exit status: ``-SIGKILL`` when it died at the failpoint, ``None`` when a few hundred rows took 20 s.
    """
    environment = clean_environment({"POSTBACKD_FAILPOINT": failpoint} if failpoint else {})
    command = [sys.executable, "-c", _PROGRAM, str(data_dir), str(before_ms)]
    try:
        return subprocess.run(command, env=environment, timeout=20).returncode
    except subprocess.TimeoutExpired:
        return None
