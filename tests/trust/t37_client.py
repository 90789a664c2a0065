"""T37: shops are killed again and again while they report conversions, to a tracker that is up half of the time.

Every call of ``conversion()`` that has returned must be counted in the end, and no conversion twice: not when a process
dies between an answer and its note of it, not when a request was understood and its answer lost, not when a file of the
spool is taken over by one process after another.  Shops are single processes or fork workers; the tracker is killed, or
stopped where it is, so that requests hang.
"""

from __future__ import annotations

import http.client
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.trust.oracle import DATABASE, open_read_only
from tests.trust.registry import Control, Figure, Result, Size, trust_test
from tests.trust.server import Catalog, Server, clean_environment, make_catalog, wait_until
from tests.trust.shopping import CALLS_A_PROCESS

_CLICKS = 60
_WORKERS = 2
_MICROS = 1_000_000
_DRAIN_S = 120
_CONTROL_KILLS = {"spool": 5, "key": 12}
"""An answer has to be lost, or a process to die between it and its note, for a second key to count twice."""


@dataclass
class Seen:
    """What the shops have noted, and what the tracker has counted in the end."""

    called: set[int] = field(default_factory=set)
    returned: set[int] = field(default_factory=set)
    counted: Counter[int] = field(default_factory=Counter)
    up_share: float = 1.0
    drained: bool = True

    @property
    def figures(self) -> dict[str, Figure]:
        return {
            "n": len(self.returned),
            "lost": len(self.returned - self.counted.keys()),
            "double": sum(times > 1 for times in self.counted.values()),
            "phantom": len(self.counted.keys() - self.called),
            "wrong": 0,
        }


@trust_test("T37", "a shop killed while it reports, a tracker that is up half of the time")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    kills = size.pick(25, 500, 2000)
    seen = _campaign(work_dir / "shops", seed, kills)
    figures = seen.figures | {"kills": kills, "tracker up (share)": round(seen.up_share, 2)}
    controls = (
        _control(work_dir / "spool", seed, "spool", "a spool that collects before it writes", "lost"),
        _control(work_dir / "key", seed, "key", "a transaction id for each attempt", "double"),
    )
    clean = seen.drained and not any(figures[name] for name in ("lost", "double", "phantom"))
    return Result(clean, figures, controls, "" if seen.drained else "the spool could not be emptied")


def _control(place: Path, seed: int, without: str, words: str, noticed: str) -> Control:
    figures = _campaign(place, seed, _CONTROL_KILLS[without], without).figures
    return Control(words, bool(figures[noticed]), figures)


def _campaign(place: Path, seed: int, kills: int, without: str = "") -> Seen:
    place.mkdir(parents=True)
    draw = random.Random(seed)
    catalog = make_catalog(place / "data")
    seen = Seen()
    with Server(place / "data") as server:
        (place / "clicks").write_text(" ".join(_click(server, catalog) for _ in range(_CLICKS)), "ascii")
        url = f"http://127.0.0.1:{server.port}/p/{catalog.key}"
        with Flapping(server, random.Random(seed + 1)) as flapping:
            for number in range(kills):
                _open_and_kill(place, url, number, draw, without)
        seen.up_share = flapping.up_share
        seen.drained = _drain(place / "spool", url)
        server.stop()
    _read_notes(place / "notes", seen)
    seen.counted = _read_counted(place / "data")
    return seen


# --- shops -------------------------------------------------------------------------------------------------------


def _open_and_kill(place: Path, url: str, number: int, draw: random.Random, without: str) -> None:
    notes = place / "notes"
    before = notes.stat().st_size if notes.exists() else 0
    first = number * CALLS_A_PROCESS * (_WORKERS + 1)
    command = [sys.executable, "-m", "tests.trust.shopping", "--url", url, "--spool", str(place / "spool")]
    command += ["--clicks", str(place / "clicks"), "--notes", str(notes), "--first", str(first)]
    command += ["--workers", str(_WORKERS)] if number % 3 == 2 else []
    command += ["--without", without] if without else []
    shop = subprocess.Popen(command, env=clean_environment(), start_new_session=True)
    wanted = draw.randint(1, 7_000)  # bytes of notes: up to some three hundred calls
    try:
        wait_until(lambda: notes.exists() and notes.stat().st_size >= before + wanted, 60, "calls of a shop")
    finally:
        os.killpg(shop.pid, signal.SIGKILL)
        shop.wait()


def _drain(spool: Path, url: str) -> bool:
    """As an operator empties the spool of shops that are gone."""
    command = [sys.executable, "-m", "postbackd_client.command_line", "drain"]
    command += ["--spool", str(spool), "--timeout", str(_DRAIN_S)]
    done = subprocess.run(
        command, env=clean_environment({"POSTBACKD_CLIENT_URL": url}), stdout=subprocess.PIPE
    )
    return done.returncode == 0


# --- the tracker -------------------------------------------------------------------------------------------------


def _click(server: Server, catalog: Catalog) -> str:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=5)
    try:
        connection.request("GET", f"/c/{catalog.slug}")
        location = connection.getresponse().getheader("Location", "")
        return location.partition("sub1=")[2][:26]
    finally:
        connection.close()


class Flapping:
    """The server goes away and comes back while the block runs, and is there at its end."""

    def __init__(self, server: Server, draw: random.Random) -> None:
        self._server = server
        self._draw = draw
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._disturb)
        self._up_s = self._away_s = 0.0

    @property
    def up_share(self) -> float:
        return self._up_s / max(0.001, self._up_s + self._away_s)

    def _disturb(self) -> None:
        while True:
            began = time.monotonic()
            ended = self._ending.wait(self._draw.uniform(0.2, 1.2))
            left = time.monotonic()
            self._up_s += left - began
            if ended:
                return
            self._leave(self._draw.uniform(0.1, 0.8))
            self._away_s += time.monotonic() - left

    def _leave(self, away_s: float) -> None:
        """Killed, or stopped where it is: then connections are taken, and nothing is answered."""
        if self._draw.random() < 0.5:
            self._server.kill()
            self._ending.wait(away_s)
            self._server.start()
        else:
            self._server.freeze()
            self._ending.wait(away_s)
            os.killpg(self._server.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        self._server.wait_ready()


# --- judging -----------------------------------------------------------------------------------------------------


def _read_notes(notes: Path, seen: Seen) -> None:
    for line in notes.read_text("ascii").splitlines():
        kind, _, number = line.partition(" ")
        (seen.called if kind == "b" else seen.returned).add(int(number))


def _read_counted(data: Path) -> Counter[int]:
    """Number of a call -> how many conversions carry it as their value."""
    database = open_read_only(data / DATABASE)
    rows = database.execute("SELECT value_micros, count(*) FROM conversions GROUP BY value_micros")
    return Counter({int(value) // _MICROS: int(count) for value, count in rows})
