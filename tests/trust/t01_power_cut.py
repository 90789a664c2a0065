"""T1: the power is cut under load; what was acknowledged is there after the next start.

The data directory lies on ext4 in a loop file.  FS_IOC_SHUTDOWN without a log flush drops the page cache and the
journal in memory, as a power cut does; then everything is killed, unmounted, mounted (the journal is replayed) and
started.  The ledger lies on another file system.
"""

from __future__ import annotations

import random
from pathlib import Path

from tests.trust.disks import LoopDisk
from tests.trust.ledger import Ledger
from tests.trust.load import Load
from tests.trust.oracle import DATABASE, Tally, check
from tests.trust.registry import Control, Result, Size, trust_test
from tests.trust.server import Server, ServerDied, make_catalog

_CUTS_A_ROUND = 25
_ACKNOWLEDGED_BEFORE_CUT = (20, 1200)
_CONTROL_CUTS = 3


@trust_test("T1", "power cut on ext4 under load")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    cuts = size.pick(10, 120, 1000)
    tally, ready = Tally(), []
    for number, first in enumerate(range(0, cuts, _CUTS_A_ROUND)):
        these = min(_CUTS_A_ROUND, cuts - first)
        found, took = _round(work_dir / f"round{number}", seed + number, these, {})
        tally.add(found)
        ready += took
    figures = tally.figures | {"cuts": cuts, "slowest_start_s": round(max(ready), 2)}
    return Result(tally.clean and tally.n > 0, figures, (_control(work_dir, seed),), tally.note)


def _control(work_dir: Path, seed: int) -> Control:
    """Without syncs the same cuts must lose what was acknowledged."""
    name = "POSTBACKD_UNSAFE_SYNC=off"
    env = {"POSTBACKD_UNSAFE_SYNC": "off"}
    try:
        tally, _ = _round(work_dir / "control", seed, _CONTROL_CUTS, env)
    except ServerDied as refusal:
        return Control(name, failed=True, figures={"refused_start": str(refusal)[-120:]})
    return Control(name, tally.lost > 0, tally.figures)


def _round(directory: Path, seed: int, cuts: int, env: dict[str, str]) -> tuple[Tally, list[float]]:
    """Several cuts under one load on one disk, then the oracle; also how long each start took."""
    disk = LoopDisk(directory)
    data = disk.path / "data"
    draw = random.Random(seed)
    server = Server(data, env=env, stderr_path=directory / "stderr")
    try:
        catalog = make_catalog(data)
        server.start()
        with Ledger(directory / "ledger") as ledger:
            with Load(server, catalog, ledger, seed=seed) as load:
                ready = [
                    _cut(server, disk, load, draw.randint(*_ACKNOWLEDGED_BEFORE_CUT)) for _ in range(cuts)
                ]
                load.wait_acknowledged(50)
            return check(ledger, data / DATABASE), ready
    finally:
        server.kill()
        disk.remove()


def _cut(server: Server, disk: LoopDisk, load: Load, acknowledged: int) -> float:
    load.wait_acknowledged(acknowledged, 60)
    server.freeze()  # a machine without power answers nothing; a sync cut off in the middle must not be answered for
    disk.cut_power()
    server.kill()
    disk.unmount()
    disk.mount()
    return server.start()
