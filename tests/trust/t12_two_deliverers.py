"""T12PG: two deliverers on one PostgreSQL database, killed in turn, one frozen until the other has taken its work.

What a killed deliverer had taken is its own until its lease ends; then the other one sends it, under the same id.  The
frozen one wakes up when all is settled: what it still holds is not its own any more, and must not go out after what
followed.  Control, by a trigger in the database: a delivery is marked when it is taken.
"""

from __future__ import annotations

import random
from pathlib import Path

from tests.trust.delivering import site
from tests.trust.postgres import Database, versions
from tests.trust.receiver import Receiver
from tests.trust.registry import Control, Result, Size, trust_test
from tests.trust.t12_crash_between import (
    FAILPOINTS,
    Scene,
    Seen,
    kill_at_failpoints,
    kill_at_random,
    play,
    without_guard,
)

LEASE_S = 60
"""What a deliverer takes is its own so long (``delivery.deliverer.LEASE_MS``)."""

_AWAKE_S = 5.0
"""After which a deliverer that was frozen has done what it will do."""


@trust_test("T12PG", "two deliverers killed between send and mark, or frozen, on one PostgreSQL database")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """Everything owed arrives, in order, under one id; nothing else does."""
    found_versions = versions()
    seen = Seen()
    for number in range(size.pick(1, 10, 50)):
        version = found_versions[number % len(found_versions)]
        at_random, times = size.pick((5, 1), (60, 10), (100, 20))
        _round(work_dir / f"round{number}", version, seed + number, seen, at_random, times)
    control = _control(work_dir / "control", found_versions[-1], seed)
    figures = seen.figures | {"versions": ", ".join(map(str, found_versions))}
    return Result(seen.tally.clean and not seen.faults, figures, (control,), seen.note)


def _round(place: Path, version: int, seed: int, seen: Seen, at_random: int, times: int) -> None:
    def disturb(scene: Scene, draw: random.Random) -> int:
        kills = kill_at_random(scene, draw, at_random)
        kills += kill_at_failpoints(scene, draw, times, seen, FAILPOINTS)
        scene.site.receiver.wait_notes(200)
        scene.deliverers[0].freeze()
        return kills

    place.mkdir(parents=True)
    with (
        Database(version) as database,
        Receiver(place / "notes", seed=seed, trouble=True) as receiver,
        site(place, receiver, database) as where,
    ):
        deliverers = [where.deliverer(number) for number in range(2)]
        play(where, deliverers, seed, seen, disturb, settle_s=2 * LEASE_S, thaw_s=_AWAKE_S)


def _control(place: Path, version: int, seed: int) -> Control:
    place.mkdir(parents=True)
    with (
        Database(version) as database,
        Receiver(place / "notes", seed=seed) as receiver,
        site(place, receiver, database) as where,
    ):
        where.execute(
            "CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN IF NEW.holder IS NOT NULL AND NEW.state = 1 THEN NEW.state := 2; END IF; RETURN NEW; END $$"
        )
        where.execute(
            "CREATE TRIGGER t BEFORE INSERT OR UPDATE OF holder ON deliveries "
            "FOR EACH ROW EXECUTE FUNCTION mark()"
        )
        tally = without_guard(where, [where.deliverer(number) for number in range(2)], seed)
    return Control("a delivery is marked when it is taken", tally.lost > 0, tally.figures)
