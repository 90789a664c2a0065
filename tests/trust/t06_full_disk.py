"""T6: the disk is full and then free again, under load: 503 while full, accepting within two seconds after, no restart.

Once on a small tmpfs, once on a small ext4.  While the disk is full, a try to recover may free the pages of the log and
use them for some more rows before the filler takes what is left: those are acknowledged and must be there like all
others.  What was acknowledged before, between and after is held against the rows at the end.
"""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.trust.disks import LoopDisk, small_disk
from tests.trust.ledger import Ledger
from tests.trust.load import Load, Mix
from tests.trust.oracle import DATABASE, Tally, check
from tests.trust.registry import Control, Result, Size, trust_test
from tests.trust.server import Server, make_catalog, wait_until

_MEGABYTES = 64
_REFUSED_WHILE_FULL = 100
"""So many answers 503 before the disk is freed: several tries to recover lie in between."""

_STEADY = 200
_ACCEPTING_S = 2.0
"""So many acknowledgements within that time after the disk was freed."""

_CYCLES_A_ROUND = 20


@trust_test("T6", "full disk, filled and freed under load")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    cycles = size.pick(6, 120, 500)
    tally, figures, notes = Tally(), Counter[str](), list[str]()
    freed = list[float]()
    rounds = max(2, cycles // _CYCLES_A_ROUND)
    for number in range(rounds):
        place = work_dir / f"round{number}"
        with _ext4(place) if number % 2 else small_disk(place, _MEGABYTES) as disk:
            tally.add(_round(disk, place, seed + number, cycles // rounds, figures, freed, notes))
    if max(freed) >= _ACCEPTING_S:
        notes.append(f"accepting {max(freed):.2f} s after the disk was freed")
    shown = tally.figures | dict(figures) | {"accepting_after_max_s": round(max(freed), 2)}
    note = "; ".join(dict.fromkeys([*notes, tally.note] if tally.note else notes))
    return Result(tally.clean and not notes, shown, (_control(work_dir / "control", seed),), note)


@contextmanager
def _ext4(directory: Path) -> Iterator[Path]:
    disk = LoopDisk(directory, _MEGABYTES)
    try:
        yield disk.path
    finally:
        disk.remove()


class Filler:
    """A file that takes all the space that is left."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def fill(self) -> None:
        """Write until the file system refuses even a small block."""
        for size in (1 << 20, 1 << 16, 1 << 12, 512):
            try:
                while os.write(self._file, bytes(size)):
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self) -> None:
        os.close(self._file)
        self._path.unlink()


def _round(
    disk: Path,
    place: Path,
    seed: int,
    cycles: int,
    figures: Counter[str],
    freed: list[float],
    notes: list[str],
) -> Tally:
    """So many cycles under one load, then the oracle."""
    data, draw = disk / "data", random.Random(seed)
    catalog = make_catalog(data)
    with (
        Ledger(place / "ledger") as ledger,
        Server(data, stderr_path=place / "stderr") as server,
    ):
        before = server.ingest_pids()
        with Load(server, catalog, ledger, seed=seed) as load:
            for _ in range(cycles):
                load.wait_acknowledged(draw.randint(20, 1500), 30)
                _fill(disk, server, load, notes, freed)
                figures["cycles"] += 1
            load.wait_acknowledged(50)
        if server.ingest_pids() != before:
            notes.append("the ingest process was restarted")
        figures["answered_503"] += ledger.unavailable
        return check(ledger, data / DATABASE)


def _fill(disk: Path, server: Server, load: Load, notes: list[str], freed: list[float]) -> None:
    """One cycle: full until much was refused, free until much is acknowledged."""
    filler = Filler(disk / "filler")
    refused = load.ledger.unavailable + _REFUSED_WHILE_FULL
    readiness = set[int]()
    try:

        def refused_enough() -> bool:
            filler.fill()
            readiness.add(server.status("/readyz"))
            return load.ledger.unavailable >= refused and 503 in readiness

        wait_until(refused_enough, 30, "503 on a full disk")
        if not readiness <= {200, 503}:
            notes.append(f"/readyz answered {sorted(readiness)} on a full disk")
        if server.status("/healthz") != 200:
            notes.append("/healthz was not 200 on a full disk")
    finally:
        filler.free()
    freed.append(load.wait_acknowledged(_STEADY, 20))


def _control(place: Path, seed: int) -> Control:
    """A sender that takes 503 for "stored" must be seen losing: the disk was really full."""
    with small_disk(place, _MEGABYTES) as disk:
        data = disk / "data"
        catalog = make_catalog(data)
        with (
            Ledger(place / "ledger", trust_503=True) as ledger,
            Server(data, stderr_path=place / "stderr") as server,
        ):
            with Load(server, catalog, ledger, seed=seed, mix=Mix(retried=0.0)) as load:
                load.wait_acknowledged(100)
                _fill(disk, server, load, [], [])
            tally = check(ledger, data / DATABASE)
    return Control("503 taken for stored", tally.lost > 0, tally.figures)
