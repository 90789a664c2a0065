"""T3: kill -9 under load, at random moments and at each named failpoint; ready again within a second.

Half of the random kills hit everything at once, half only the ingest process, which the supervisor must replace.
A share of what got no answer is sent again, so a row that was committed before the kill meets its own repeat.
"""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

from tests.trust.ledger import CLICK, Ledger
from tests.trust.load import Load, Mix
from tests.trust.oracle import DATABASE, Tally, check, open_read_only, read_click_id
from tests.trust.purging import now_ms, purge
from tests.trust.registry import Control, Result, Size, trust_test
from tests.trust.server import Catalog, Server, make_catalog, wait_until

_KILLS_A_ROUND = 50
_UNDER_LOAD = ("after_parse", "before_commit", "after_commit", "mid_batch", "mid_checkpoint")
_CHECKPOINT_PAGES = "400"
"""A short log, so that a checkpoint comes after a second of load and not after many."""

_READY_S = 1.0
"""Half of the starts are within it.  The slower ones are reported: other programs share this machine's processors."""


@trust_test("T3", "kill -9 at random moments and at each failpoint")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    kills = size.pick(25, 300, 2000)
    tally, ready = Tally(), []
    for number, first in enumerate(range(0, kills, _KILLS_A_ROUND)):
        these = min(_KILLS_A_ROUND, kills - first)
        found, took = _random_kills(work_dir / f"round{number}", seed + number, these)
        tally.add(found)
        ready += took
    times = size.pick(1, 5, 20)
    found, took, notes = _failpoints(work_dir / "failpoints", seed, times)
    tally.add(found)
    ready = sorted(ready + took)
    median, slow = ready[len(ready) // 2], ready[-1 - len(ready) // 10]
    if median >= _READY_S:
        notes.append(f"half of the starts took {median:.2f} s or more")
    figures = tally.figures | {
        "kills": len(ready),
        "ready_median_s": round(median, 3),
        "ready_p90_s": round(slow, 3),
        "ready_max_s": round(ready[-1], 3),
    }
    note = "; ".join([*notes, tally.note] if tally.note else notes)
    return Result(tally.clean and not notes, figures, (_control(work_dir / "control", seed),), note)


# --- random moments --------------------------------------------------------------------------------------------


def _random_kills(directory: Path, seed: int, kills: int) -> tuple[Tally, list[float]]:
    directory.mkdir(parents=True)
    data, draw = directory / "data", random.Random(seed)
    catalog = make_catalog(data)
    with Ledger(directory / "ledger") as ledger, Server(data) as server:
        with Load(server, catalog, ledger, seed=seed) as load:
            ready = []
            for number in range(kills):
                load.wait_acknowledged(draw.randint(1, 500), 60)
                ready.append(server.restart() if number % 2 else _kill_ingest(server))
            load.wait_acknowledged(50)
        return check(ledger, data / DATABASE), ready


def _kill_ingest(server: Server) -> float:
    """Kill the ingest process alone; returns the seconds until its successor is ready."""
    before = server.ingest_pids()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    replaced = wait_until(lambda: _replaced(server, before), 20, "a new ingest process")
    return replaced + server.wait_ready()


def _replaced(server: Server, before: list[int]) -> bool:
    now = server.ingest_pids()
    return bool(now) and not set(now) & set(before)


# --- failpoints ------------------------------------------------------------------------------------------------


def _failpoints(directory: Path, seed: int, times: int) -> tuple[Tally, list[float], list[str]]:
    """Each failpoint so many times; also the failpoints that were never passed."""
    directory.mkdir(parents=True)
    tally, ready, notes = Tally(), [], []
    draw = random.Random(seed)
    for name in _UNDER_LOAD:
        found, took, reached = _at_failpoint(directory / name, name, draw, times)
        tally.add(found)
        ready += took
        if reached < times:
            notes.append(f"failpoint {name} was reached {reached} of {times} times")
    for name, case in (("mid_migration", _mid_migration), ("mid_purge", _mid_purge)):
        for number in range(times):
            found, took_s = case(directory / f"{name}{number}", draw.randrange(1 << 20))
            tally.add(found)
            ready.append(took_s)
    return tally, ready, notes


def _at_failpoint(
    directory: Path, name: str, draw: random.Random, times: int
) -> tuple[Tally, list[float], int]:
    directory.mkdir()
    data, ready, reached = directory / "data", [], 0
    catalog = make_catalog(data)
    server = Server(data)
    with Ledger(directory / "ledger") as ledger:
        try:
            with Load(server, catalog, ledger, seed=draw.randrange(1 << 20)) as load:
                for _ in range(times):
                    passes = 1 if name == "mid_checkpoint" else draw.randint(40, 200)
                    reached += _run_into(server, f"{name}:{passes}")
                    server.kill()
                    server.env = {}
                    ready.append(server.start())
                    load.wait_acknowledged(50)
                    server.kill()
            server.start()
            return check(ledger, data / DATABASE), ready, reached
        finally:
            server.kill()


def _run_into(server: Server, failpoint: str) -> bool:
    """Start with the failpoint set and wait until the ingest process has killed itself there."""
    server.env = {"POSTBACKD_FAILPOINT": failpoint, "POSTBACKD_CHECKPOINT_PAGES": _CHECKPOINT_PAGES}
    server.start()
    first = server.ingest_pids()
    try:
        wait_until(lambda: not server.running or server.ingest_pids() != first, 20, failpoint)
    except TimeoutError:
        return False
    return True


def _mid_migration(directory: Path, seed: int) -> tuple[Tally, float]:
    """Killed while the first schema is being made: the next start makes it."""
    directory.mkdir()
    data = directory / "data"
    data.mkdir(mode=0o700)
    server = Server(data, env={"POSTBACKD_FAILPOINT": "mid_migration"})
    server.launch()
    wait_until(lambda: not server.running, 20, "the end at mid_migration")
    server.env = {}
    try:
        ready = server.start()
        return _judge_a_load(directory, server, make_catalog(data), seed), ready
    finally:
        server.kill()


def _judge_a_load(directory: Path, server: Server, catalog: Catalog, seed: int) -> Tally:
    with Ledger(directory / "ledger") as ledger:
        server.restart()  # the load shall find the whole catalog at once
        with Load(server, catalog, ledger, seed=seed, limit=200) as load:
            load.wait_end(30)
        return check(ledger, server.data_dir / DATABASE)


def _mid_purge(directory: Path, seed: int) -> tuple[Tally, float]:
    """Killed in the middle of a purge, under load; then purged to the end.  Conversions stay, old clicks are gone."""
    directory.mkdir()
    data = directory / "data"
    catalog = make_catalog(data)
    with Ledger(directory / "ledger") as ledger, Server(data) as server:
        with Load(server, catalog, ledger, seed=seed) as load:
            load.wait_acknowledged(400)
        before = now_ms()
        with Load(server, catalog, ledger, seed=seed + 1) as load:
            load.wait_acknowledged(200)
            killed = purge(data, before, failpoint="mid_purge:2")
            ready = server.restart()
            load.wait_acknowledged(200)
            ended = purge(data, before)
        server.wait_drained()  # the purge may have kept the database locked for a moment
        tally = check(ledger, data / DATABASE, purged_before_ms=before)
        if killed != -signal.SIGKILL:
            tally.find("wrong", f"the purge did not die at mid_purge: exit {killed}")
        if ended != 0:
            tally.find("wrong", f"the purge after the kill: exit {ended} (None: did not end in 20 s)")
        _check_purged(tally, ledger, data, before)
    return tally, ready


def _check_purged(tally: Tally, ledger: Ledger, data: Path, before_ms: int) -> None:
    db = open_read_only(data / DATABASE)
    left = {row[0] for row in db.execute("SELECT click_id FROM clicks")}
    db.close()
    promised = {
        read_click_id(answer.click_id)
        for (kind, _), entry in ledger.entries.items()
        if kind == CLICK
        for answer in entry.acknowledged
        if answer.click_id
    }
    old = {stamp for stamp in promised & left if (stamp >> 22) + 1_577_836_800_000 < before_ms}
    if old:
        tally.find("wrong", f"{len(old)} clicks outlived the purge", len(old))


# --- control ---------------------------------------------------------------------------------------------------


def _control(directory: Path, seed: int) -> Control:
    """Without the unique key, a repeat of what was committed but not answered must be counted twice."""
    directory.mkdir()
    data = directory / "data"
    env = {"POSTBACKD_UNSAFE_NO_UNIQUE": "1"}
    catalog = make_catalog(data, env=env)
    server = Server(data, env=env | {"POSTBACKD_FAILPOINT": "after_commit:60"})
    try:
        with Ledger(directory / "ledger") as ledger:
            with Load(server, catalog, ledger, seed=seed, mix=Mix(repeats=0.0, retried=1.0)) as load:
                server.start()
                load.wait_acknowledged(600)
                server.kill()
                server.env = env
                server.start()
                load.wait_acknowledged(300)
            tally = check(ledger, data / DATABASE)
    finally:
        server.kill()
    return Control("POSTBACKD_UNSAFE_NO_UNIQUE=1", tally.double > 0, tally.figures)
