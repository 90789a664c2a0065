"""The client of shops: what a call costs, and how fast a backlog is gone.  The tracker is a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bench import results as names
from bench.machine import LOAD_CORE, NotRun, free_port, pinned_to
from bench.run import Run, running
from bench.seed import NETWORK_KEY, Seeded, seed
from bench.subjects import Postbackd

_CALLS = 200_000
_WAITING = 100_000
_CLICKS = 20_000


def measure_client(run: Run) -> None:
    """Calls as fast as they return while the thread sends; then a backlog of an ended process, found by another."""
    seeded = seed(run.directory / "client", run.sizes.clicks, 0)
    clicks = run.directory / "client.clicks"
    clicks.write_text(" ".join(seeded.click_id(seeded.recent, n) for n in range(_CLICKS)), "ascii")
    spool = run.directory / "client.spool"
    figures = run.results.figures
    with running(Postbackd(seeded, run.directory / "postbackd-client.log")) as server:
        url = f"http://127.0.0.1:{server.port}/p/{NETWORK_KEY}"
        reported = _shop("report", url, spool, clicks, _CALLS)
        figures |= {f"client_{name}": value for name, value in reported.items() if name != "settled"}
        nobody = f"http://127.0.0.1:{free_port()}/p/{NETWORK_KEY}"
        waiting = _shop("fill", nobody, spool, clicks, _WAITING)["waiting"]
        drained = _shop("drain", url, spool, clicks, _WAITING)
        figures[names.CLIENT_WAITING] = waiting
        figures[names.CLIENT_DRAINED] = drained["per_second"]
        _check(seeded, server, reported, drained)
    run.say(
        ", ".join(f"{name} {value:,.1f}" for name, value in figures.items() if name.startswith("client_"))
    )


def _check(seeded: Seeded, server: Postbackd, *told: dict[str, float]) -> None:
    counted = server.stored().conversions
    if counted != _CALLS + _WAITING or not all(one["settled"] for one in told):
        raise NotRun(f"{_CALLS + _WAITING} conversions were reported, {counted} are in {seeded.database}")


def _shop(part: str, url: str, spool: Path, clicks: Path, calls: int) -> dict[str, float]:
    """On the other core than the server's, as a shop is on another machine."""
    command = [sys.executable, "-m", "bench.shopping", part, "--url", url, "--spool", str(spool)]
    command += ["--clicks", str(clicks), "--calls", str(calls)]
    with pinned_to(LOAD_CORE):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise NotRun(f"the shop failed: {(done.stderr.strip() or 'no output').splitlines()[-1]}")
    told: dict[str, float] = json.loads(done.stdout)
    return told
