"""T2: every disk that a crash may leave holds what was acknowledged before it.

A run is traced (writes, syncs, answers).  After each of its system calls legal disks are built: nothing of what lay
in memory arrived, all of it, or random sectors of it.  Each is opened with SQLite and held against the
answers that had begun to leave by then.  No power cut tries that many moments.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from tests.trust.crash_disk import CrashDisk
from tests.trust.ledger import Ledger
from tests.trust.load import Load, Mix
from tests.trust.oracle import Tally
from tests.trust.promises import AnswerReader, judge_state, write_state
from tests.trust.registry import Control, Result, Size, need_tools, trust_test
from tests.trust.server import Server, make_catalog
from tests.trust.trace import Event, read_trace, tracer

_SESSIONS = 3
"""The first and last end cleanly, the second is killed: creation, checkpoint and removal of the log are in the trace,
and a start from a log that was left."""

_FULL_NOW_AND_THEN = "pwrite64:error=ENOSPC:when=50+60"
"""In the second session some writes fail, so that the store's own recovery is in the trace: it reads the log anew,
copies it into the database and starts it over."""

_CHECKPOINT_PAGES = "120"
"""Small, so that the log is copied and started over several times in a short trace."""


@trust_test("T2", "every crash state of a traced run")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    need_tools("strace")
    states = size.pick(3_000, 200_000, 5_000_000)
    rounds = size.pick(1, 10, 50)
    requests = size.pick(100, 200, 400)
    tally, figures = Tally(), Counter[str]()
    began = time.monotonic()
    for number in range(rounds):
        directory = work_dir / f"round{number}"
        events, before = _trace(directory, seed + number, requests, {})
        figures.update(_kind(event) for event in events)
        _explore(tally, figures, directory, events, before, states // rounds, seed + number)
        shutil.rmtree(directory)
    took = time.monotonic() - began
    controls = tuple(
        _control(work_dir / word, seed, word, size.pick(300, 5_000, 100_000)) for word in ("normal", "off")
    )
    del figures[""]
    shown = tally.figures | dict(figures) | {"states_per_s": round(tally.n / took)}
    return Result(tally.clean and figures["promises"] > 0, shown, controls, tally.note)


def _kind(event: Event) -> str:
    """What the trace is made of, for the reader of the figures."""
    if event.path.endswith("postbackd.db-wal"):
        starts = event.call == "pwrite64" and event.offset == 0
        return (
            "log_starts"
            if starts
            else {"pwrite64": "log_writes", "fdatasync": "log_syncs"}.get(event.call, "")
        )
    return "database_syncs" if event.path.endswith("postbackd.db") and "sync" in event.call else ""


def _control(directory: Path, seed: int, word: str, states: int) -> Control:
    """With fewer syncs, some state must lack what was acknowledged."""
    events, before = _trace(directory, seed, 100, {"POSTBACKD_UNSAFE_SYNC": word})
    tally, figures = Tally(), Counter[str]()
    _explore(tally, figures, directory, events, before, states, seed)
    return Control(f"POSTBACKD_UNSAFE_SYNC={word}", tally.lost > 0, tally.figures | dict(figures))


# --- the traced run --------------------------------------------------------------------------------------------


def _trace(
    directory: Path, seed: int, requests: int, env: dict[str, str]
) -> tuple[list[Event], dict[str, bytes]]:
    """A run of several sessions: its events, and the files before it."""
    directory.mkdir(parents=True)
    data = directory / "data"
    catalog = make_catalog(data)
    before = {path.name: path.read_bytes() for path in data.iterdir() if path.is_file()}
    events: list[Event] = []
    with Ledger(directory / "ledger") as ledger:
        for session in range(_SESSIONS):
            trace = directory / f"trace{session}"
            words = tracer(trace, [_FULL_NOW_AND_THEN] if session % 2 else [])
            pages = {"POSTBACKD_CHECKPOINT_PAGES": _CHECKPOINT_PAGES}
            server = Server(data, env=env | pages, prefix=words)
            with (
                server,
                Load(
                    server,
                    catalog,
                    ledger,
                    seed=seed + session,
                    connections=4,
                    group=2,
                    limit=requests,
                    mix=Mix(first_clicks=10),
                    prefix=f"s{session}",
                ) as load,
            ):
                load.wait_end(120)
                if session % 2 == 0:
                    server.stop()
            events += _after(events, read_trace(trace))
            trace.unlink()
    return events, before


def _after(earlier: list[Event], later: list[Event]) -> list[Event]:
    """Line numbers go on where the session before ended; its sockets are not those of another session."""
    shift = earlier[-1].end + 1 if earlier else 0
    moved = []
    for event in later:
        path = f"{event.path}@{shift}" if event.path.startswith("socket:") else event.path
        moved.append(replace(event, begin=event.begin + shift, end=event.end + shift, path=path))
    return moved


# --- the states ------------------------------------------------------------------------------------------------


def _explore(
    tally: Tally,
    figures: Counter[str],
    directory: Path,
    events: list[Event],
    before: dict[str, bytes],
    states: int,
    seed: int,
) -> None:
    """Try so many states, spread over the run; promises and disk move on together."""
    draw = random.Random(seed)
    disk, answers = CrashDisk(directory / "data", before), AnswerReader()
    moments = [
        i for i, event in enumerate(events) if disk.concerns(event) or event.path.startswith("socket:")
    ]
    planned = _plan(moments, states, draw)
    scratch = Path(tempfile.mkdtemp(prefix="postbackd-states-", dir=_memory(directory)))
    try:
        for index, event in enumerate(events):
            sent = answers.take(event)
            if not sent:
                disk.apply(event)
            for _ in range(planned[index]):
                _try(tally, figures, disk, answers, scratch, draw)
    finally:
        shutil.rmtree(scratch)
    figures["promises"] += answers.promises.count


def _plan(moments: list[int], states: int, draw: random.Random) -> Counter[int]:
    """How many states to try after which event."""
    each, rest = divmod(states, len(moments))
    planned = Counter(dict.fromkeys(moments, each))
    planned.update(draw.sample(moments, rest))
    return planned


def _try(
    tally: Tally,
    figures: Counter[str],
    disk: CrashDisk,
    answers: AnswerReader,
    scratch: Path,
    draw: random.Random,
) -> None:
    kind = draw.choice(("none", "all", "some", "some", "some"))
    if kind == "some":
        write_state(scratch, disk.some(draw))
    else:
        write_state(scratch, disk.everything() if kind == "all" else disk.nothing_more())
    found = judge_state(scratch, answers.promises)
    tally.n += 1
    figures[f"states_{kind}"] += 1
    if found.lost:
        figures["states_that_lost"] += 1
        tally.find("lost", found.detail, found.lost)
    if found.wrong:
        tally.find("wrong", found.detail, found.wrong)


def _memory(directory: Path) -> Path:
    """States live in memory where that is possible: hundreds a second are written."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() and os.access(shared, os.W_OK) else directory
