"""T12: kill -9 of the deliverer under load, at any moment and at each failpoint, between send and mark above all.

The receiver fails, stalls, resets and lies in a fifth of its answers, so that retries are under way when the deliverer
dies.  In the end every approved conversion has arrived, changes and reversals after it; repeats have the same id.
Controls, by triggers in the database: a delivery is marked, or deleted, when it is taken; another id for each attempt.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.trust.delivering import Site, Stories, killed_at_the_end, site
from tests.trust.ledger import Ledger
from tests.trust.load import Load
from tests.trust.oracle import Tally
from tests.trust.receiver import Receiver
from tests.trust.registry import Control, Figure, Result, Size, trust_test
from tests.trust.server import Server, descendants, wait_until

SEND_FAILPOINTS = ("before_send", "after_send")
FAILPOINTS = (*SEND_FAILPOINTS, "before_commit", "after_commit")
_PAUSE_S = 0.06
"""What senders rest after a group: the deliverer must keep up on the same two processors."""

_REACH_S = 90
"""Until a failpoint was passed so often, on a machine that others use too."""

_SETTLE_S = 90
_BETWEEN_S = 2.5
"""A role that dies sooner after its start is started again later and later."""


@dataclass
class Seen:
    """What all rounds together have seen."""

    tally: Tally = field(default_factory=Tally)
    kills: int = 0
    requests: int = 0
    repeats: int = 0
    settled_s: list[float] = field(default_factory=list)
    """From the end of the load to the last delivery settled."""
    faults: list[str] = field(default_factory=list)

    @property
    def figures(self) -> dict[str, Figure]:
        return self.tally.figures | {
            "kills": self.kills,
            "requests": self.requests,
            "repeats": self.repeats,
            "settled after s (max)": round(max(self.settled_s), 1),
        }

    @property
    def note(self) -> str:
        return "; ".join([*self.faults, *([self.tally.note] if self.tally.note else [])])


@trust_test("T12", "the deliverer killed between send and mark, while its target misbehaves")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """Everything owed arrives, in order, under one id; nothing else does."""
    at_random, times, supervised = size.pick((10, 2, 2), (40, 5, 5), (60, 10, 10))
    seen = Seen()
    kinds: list[tuple[str, str, Disturb]] = [
        ("random", "ingest", lambda scene, draw: kill_at_random(scene, draw, at_random)),
        ("failpoints", "ingest", lambda scene, draw: kill_at_failpoints(scene, draw, times, seen)),
        ("supervised", "serve", lambda scene, draw: _kill_role(scene, draw, supervised)),
    ]
    for number in range(size.pick(1, 10, 50)):
        for offset, (name, role, disturb) in enumerate(kinds):
            _round(work_dir / f"{name}{number}", seed + 1000 * offset + number, seen, disturb, role)
    controls = tuple(
        _control(work_dir / name, seed, words, trigger, judged)
        for name, (words, trigger, judged) in _CONTROLS.items()
    )
    return Result(seen.tally.clean and not seen.faults, seen.figures, controls, seen.note)


Disturb = Callable[["Scene", random.Random], int]


@dataclass
class Scene:
    """A site under load, and the processes that deliver from it."""

    site: Site
    load: Load
    deliverers: list[Server]


def _round(place: Path, seed: int, seen: Seen, disturb: Disturb, role: str) -> None:
    place.mkdir(parents=True)
    with (
        Receiver(place / "notes", seed=seed, trouble=True) as receiver,
        site(place, receiver, role=role) as where,
    ):
        deliverers = [where.deliverer()] if role == "ingest" else []
        play(where, deliverers, seed, seen, disturb)


def play(
    where: Site,
    deliverers: list[Server],
    seed: int,
    seen: Seen,
    disturb: Disturb,
    *,
    settle_s: float = _SETTLE_S,
    thaw_s: float = 0.0,
) -> None:
    """One load that is disturbed, then the end of every story, then the oracle.

    ``thaw_s``: how long deliverers that the disturbance has frozen may go on when all is settled.
    """
    with killed_at_the_end(*deliverers):
        for deliverer in deliverers:
            deliverer.launch()
        with telling(where, seed) as (load, stories):
            where.receiver.wait_notes(100)
            seen.kills += disturb(Scene(where, load, deliverers), random.Random(seed))
            where.receiver.wait_notes(100)
            end_stories(stories)
        seen.settled_s.append(where.wait_settled(settle_s))
        if thaw_s:
            for deliverer in deliverers:
                os.killpg(deliverer.pid, signal.SIGCONT)
            pause(thaw_s)
        for deliverer in deliverers:
            if status := deliverer.stop():
                seen.faults.append(f"a deliverer stopped with exit {status}: {deliverer.stderr_tail(3)}")
        judge = where.judge(stories.stories)
    judge.tally.add(stories.refused)
    seen.tally.add(judge.tally)
    seen.requests += judge.requests
    seen.repeats += judge.repeats
    if where.tracebacks:
        seen.faults.append(f"{where.tracebacks} stack traces")


def pause(seconds: float) -> None:
    """Let it run for so long."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end, seconds + 10, "the end of a pause")


@contextmanager
def telling(where: Site, seed: int) -> Iterator[tuple[Load, Stories]]:
    """A load of stories."""
    stories = Stories(seed)
    with Ledger(where.place / "ledger") as ledger:
        load = Load(where.ingest, where.catalog, ledger, seed=seed, pause_s=_PAUSE_S)
        load.stream = stories
        with load:
            yield load, stories


def end_stories(stories: Stories) -> None:
    """Let the stories come to their ends."""
    stories.closing = True
    wait_until(lambda: stories.finished, 120, "the end of every story")


# --- kills -----------------------------------------------------------------------------------------------------


def kill_at_random(scene: Scene, draw: random.Random, kills: int) -> int:
    """Kill one of the deliverers after some requests, and start it again."""
    for _ in range(kills):
        scene.site.receiver.wait_notes(draw.randint(1, 400))
        deliverer = draw.choice(scene.deliverers)
        deliverer.kill()
        deliverer.launch()
    return kills


def kill_at_failpoints(
    scene: Scene, draw: random.Random, times: int, seen: Seen, names: Sequence[str] = FAILPOINTS
) -> int:
    """Let deliverers kill themselves at each failpoint so many times; returns how many kills that were."""
    sequence = [*names] * times
    draw.shuffle(sequence)
    for name in sequence:
        deliverer = draw.choice(scene.deliverers)
        deliverer.kill()
        deliverer.env = scene.site.env | {"POSTBACKD_FAILPOINT": f"{name}:{draw.randint(1, 60)}"}
        deliverer.launch()
        try:
            wait_until(lambda d=deliverer: not d.running, _REACH_S, name)  # type: ignore[misc]
        except TimeoutError:
            seen.faults.append(f"failpoint {name} was not reached")
        if deliverer.exit_status not in (None, -signal.SIGKILL):
            seen.faults.append(f"{name}: exit {deliverer.exit_status}: {deliverer.stderr_tail(3)}")
        deliverer.kill()
        deliverer.env = scene.site.env
        deliverer.launch()
    return len(sequence)


def _kill_role(scene: Scene, draw: random.Random, kills: int) -> int:
    """Kill the deliver role of a whole server, which its supervisor must start again; now and then everything."""
    server = scene.site.ingest
    for number in range(kills):
        pause(_BETWEEN_S + draw.random())
        if number == kills // 2:
            server.restart()
            continue
        before = _deliver_pids(server)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda b=before: _deliver_pids(server) - b, _REACH_S, "another deliver process")  # type: ignore[misc]
    return kills


def _deliver_pids(server: Server) -> set[int]:
    return {pid for pid in descendants(server.pid) if _is_deliver(pid)}


def _is_deliver(pid: int) -> bool:
    try:
        return b"\0deliver\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


# --- controls --------------------------------------------------------------------------------------------------

_TAKEN = "AFTER UPDATE OF holder ON deliveries WHEN new.holder IS NOT NULL AND new.state = 1"

_MARK = f"CREATE TRIGGER t {_TAKEN} BEGIN UPDATE deliveries SET state = 2 WHERE number = new.number; END"
_DELETE = f"CREATE TRIGGER t {_TAKEN} BEGIN DELETE FROM deliveries WHERE number = new.number; END"
_CHANGE_ID = """
CREATE TRIGGER t AFTER UPDATE OF attempts ON deliveries WHEN new.state = 1 AND new.attempts > old.attempts
BEGIN UPDATE deliveries SET request_id = request_id + 1 WHERE number = new.number; END
"""

_CONTROLS: dict[str, tuple[str, str, Callable[[Tally], bool]]] = {
    "mark-first": ("a delivery is marked when it is taken", _MARK, lambda tally: tally.lost > 0),
    "delete": ("a delivery is deleted when it is taken", _DELETE, lambda tally: tally.lost > 0),
    "new-id": ("another id for each attempt", _CHANGE_ID, lambda tally: tally.double > 0),
}
"""Words, trigger, and what the oracle must say.  The first two fail by the kills alone: their target never refuses."""


def _control(place: Path, seed: int, words: str, trigger: str, noticed: Callable[[Tally], bool]) -> Control:
    place.mkdir(parents=True)
    with (
        Receiver(place / "notes", seed=seed, trouble="attempt" in words) as receiver,
        site(place, receiver) as where,
    ):
        where.execute(trigger)
        tally = without_guard(where, [where.deliverer()], seed)
    return Control(words, noticed(tally), tally.figures)


def without_guard(where: Site, deliverers: list[Server], seed: int) -> Tally:
    """The same with some kills, on a database that somebody has tampered with.

    Half of them at the failpoint: at any other moment nothing may be under way, and nothing is lost.
    """
    seen = Seen()

    def disturb(scene: Scene, draw: random.Random) -> int:
        return kill_at_random(scene, draw, 2) + kill_at_failpoints(scene, draw, 2, seen, ("before_send",))

    play(where, deliverers, seed, seen, disturb, settle_s=10)
    return seen.tally
