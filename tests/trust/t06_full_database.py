"""T6PG: the disk of the PostgreSQL server is full and then free again, under load.

Some writes then fail one by one; where the log needs another file the server crashes as a whole, and cannot come back.
Either way the database is away: no postback and no redirect is refused meanwhile, and when there is space again
everything is there once.  Control: nodes without a spool must refuse.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.trust.disks import small_disk
from tests.trust.ledger import Ledger
from tests.trust.load import Load
from tests.trust.nodes import cluster
from tests.trust.oracle import Tally
from tests.trust.postgres import Database, versions
from tests.trust.registry import Control, Figure, Result, Size, trust_test
from tests.trust.server import wait_until
from tests.trust.t06_full_disk import Filler
from tests.trust.t08_postgres_away import Met, Scene, judge, note

_MEGABYTES = 256
_SMALL_LOG = {"max_wal_size": "32MB", "min_wal_size": "32MB"}
_PAUSE_S = 0.05
_CYCLES_A_ROUND = 10


@trust_test("T6PG", "full disk of the PostgreSQL server, filled and freed under load")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """0 refused, and everything is there once."""
    cycles = size.pick(2, 20, 100)
    found_versions = versions()
    met, tally = Met(), Tally()
    for number, first in enumerate(range(0, cycles, _CYCLES_A_ROUND)):
        version = found_versions[-1 - number % len(found_versions)]
        these = min(_CYCLES_A_ROUND, cycles - first)
        tally.add(_round(work_dir / f"round{number}", version, seed + number, these, met))
    figures: dict[str, Figure] = (
        tally.figures
        | dict(met.events)
        | {
            "queued": met.queued,
            "refused": met.refused,
            "unanswered": met.unanswered,
            "back after s (max)": round(max(met.back_s), 2),
        }
    )
    passed = tally.clean and not (met.refused or met.unanswered or met.faults)
    words = "; ".join([*dict.fromkeys(met.faults), *([tally.note] if tally.note else [])])
    return Result(passed, figures, (_control(work_dir / "control", found_versions[-1], seed),), words)


@contextmanager
def _on_small_disk(version: int) -> Iterator[tuple[Database, Path]]:
    """The server runs as another user, who must get at the disk: it is not made below the test's own folder."""
    with tempfile.TemporaryDirectory(prefix="pb-disk-", dir="/tmp") as name:
        place = Path(name)
        place.chmod(0o755)
        with small_disk(place, _MEGABYTES) as disk, Database(version, _SMALL_LOG, disk) as database:
            yield database, disk


def _round(place: Path, version: int, seed: int, cycles: int, met: Met) -> Tally:
    with (
        _on_small_disk(version) as (database, disk),
        cluster(place, database, 1) as nodes,
        Ledger(place / "ledger") as ledger,
    ):
        with Load(nodes.nodes, nodes.catalog, ledger, seed=seed, pause_s=_PAUSE_S) as load:
            scene = Scene(nodes, load, random.Random(seed), met)
            for number in range(cycles):
                load.wait_acknowledged(100)
                with _full(disk, scene):
                    if number % 2:
                        _want_log(database)
                    scene.kept_in_the_spool()
                scene.over()
                met.events["filled and freed"] += 1
        note(met, load)
        return judge(nodes, ledger, met)


@contextmanager
def _full(disk: Path, scene: Scene) -> Iterator[None]:
    """No space is left, until what is written next is told ``queued``; a server that ended is started afterwards."""
    filler = Filler(disk / "filler")
    queued = scene.load.ledger.queued

    def full() -> bool:
        filler.fill()
        return scene.load.ledger.queued > queued

    try:
        wait_until(full, 30, "a disk so full that requests are queued")
        yield
    finally:
        filler.free()
        scene.met.events["servers ended by it"] += scene.database.revive()


def _want_log(database: Database) -> None:
    """Let the server want the next file of its log."""
    try:
        database.server.ask("SELECT pg_switch_wal()")
        database.server.ask("SELECT pg_switch_wal()")
    except RuntimeError:
        pass  # it has crashed, as it must without space for its log


def _control(place: Path, version: int, seed: int) -> Control:
    """Nodes that keep nothing must be seen refusing: the disk was really full."""
    with (
        _on_small_disk(version) as (database, disk),
        cluster(place, database, 1, {"POSTBACKD_SPOOL_MB": "0"}) as nodes,
        Ledger(place / "ledger") as ledger,
    ):
        with Load(nodes.nodes, nodes.catalog, ledger, seed=seed, pause_s=_PAUSE_S) as load:
            load.wait_acknowledged(100)
            filler = Filler(disk / "filler")

            def refused() -> int:
                filler.fill()
                return ledger.unavailable

            wait_until(refused, 30, "an answer 503 on a full disk")
            filler.free()
        met = Met()
        note(met, load)
    return Control("--spool-mb 0", met.refused > 0, {"refused": met.refused, "queued": met.queued})
