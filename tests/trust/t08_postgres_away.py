"""T8: the PostgreSQL database is away, under load: killed, frozen, shut down, used up, or cut off after a COMMIT.

While it is away no postback and no redirect is refused: requests wait in the spool of their node, also when the node
itself is killed, and go into the database when it is back.  Then every spool is empty, and everything is there once.
Controls: nodes without a spool must refuse, and a spool that somebody removed must be seen as lost.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.trust.crossing import cross
from tests.trust.ledger import Ledger
from tests.trust.link import Cut
from tests.trust.load import Load, Mix
from tests.trust.nodes import Cluster, cluster
from tests.trust.oracle import Tally
from tests.trust.postgres import Database, used_up, versions
from tests.trust.registry import Control, Figure, Result, Size, trust_test
from tests.trust.server import Server, wait_until

_OPTIONS = {"max_connections": "20"}
"""Few enough that all can be taken."""

_PAUSE_S = 0.05
"""A steady load: senders that wait for nothing but their answers would spool faster than any database takes."""

_MEANWHILE = 40
"""So many requests are acknowledged during each outage."""

_BACK_S = 20


@dataclass
class Met:
    """What senders met."""

    events: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    """503 to postbacks and visitors' clicks; registrations under a caller's own id may be refused."""
    unanswered: int = 0
    """Requests to a living node that got no answer."""
    queued: int = 0
    overtook: int = 0
    """Postbacks that were told ``unmatched`` because their click was still in another node's spool."""
    registrations_refused: int = 0
    slowest_s: float = 0.0
    back_s: list[float] = field(default_factory=list)
    """From the end of an outage to an empty spool and an answer with a final verdict."""
    faults: list[str] = field(default_factory=list)


@dataclass
class Scene:
    """What an event may touch."""

    cluster: Cluster
    load: Load
    draw: random.Random
    met: Met
    back_s: float = _BACK_S
    """How long it may take until everything is as before."""

    @property
    def database(self) -> Database:
        return self.cluster.database

    def kept_in_the_spool(self) -> None:
        """Wait until requests are told ``queued``, and for some more; the nodes say that they are ready."""
        self.load.wait_queued(_BACK_S)
        self.load.wait_acknowledged(_MEANWHILE)
        for node in self.cluster.nodes:
            if node.running and (status := node.status("/readyz")) != 200:
                self.met.faults.append(f"/readyz answered {status} while the database was away")

    def over(self) -> None:
        """The outage is over: wait until everything is as before."""
        began = time.monotonic()
        wait_until(self._as_before, self.back_s, "empty spools and final verdicts")
        self.met.back_s.append(time.monotonic() - began)

    def _as_before(self) -> bool:
        began = time.monotonic()
        settled = wait_until(lambda: self.load.last_settled > began, self.back_s, "a final verdict") >= 0
        return settled and not any(node.spooled for node in self.cluster.nodes)


# --- what happens ----------------------------------------------------------------------------------------------


def _crash(scene: Scene) -> None:
    scene.database.crash()
    scene.kept_in_the_spool()
    scene.database.start()
    scene.over()


def _freeze(scene: Scene) -> None:
    """Connections stay open and nothing answers; what was under way goes on afterwards, as if nothing had been."""
    scene.database.freeze()
    scene.kept_in_the_spool()
    scene.database.thaw()
    scene.over()


def _shut_down(scene: Scene) -> None:
    scene.database.shut_down_at_once()
    scene.kept_in_the_spool()
    scene.database.start()
    scene.over()


def _use_up(scene: Scene) -> None:
    with used_up(scene.database):
        scene.kept_in_the_spool()
    scene.over()


def _end_sessions(scene: Scene) -> None:
    """As before a restart of the server, but it goes on: the nodes connect again."""
    for link in scene.cluster.links:
        link.end_sessions()
    scene.load.wait_acknowledged(_MEANWHILE)
    scene.over()


def _cut(scene: Scene, cut: Cut) -> None:
    """No outage at all: the node connects again and asks what became of it."""
    scene.draw.choice(scene.cluster.links).cut_next(cut)
    scene.load.wait_acknowledged(_MEANWHILE)


def _lose_reply(scene: Scene) -> None:
    _cut(scene, Cut.REPLY_LOST)


def _delay_commit(scene: Scene) -> None:
    _cut(scene, Cut.COMMIT_LATE)


def _cut_and_stay_away(scene: Scene, cut: Cut) -> None:
    """What was committed is also in the spool: it must not be written again."""
    link = scene.draw.choice(scene.cluster.links)
    link.cut_next(cut, then_down=True)
    scene.kept_in_the_spool()
    link.put_up()
    scene.over()


def _lose_reply_and_stay_away(scene: Scene) -> None:
    _cut_and_stay_away(scene, Cut.REPLY_LOST)


def _delay_commit_and_stay_away(scene: Scene) -> None:
    _cut_and_stay_away(scene, Cut.COMMIT_LATE)


@contextmanager
def _may_be_silent(scene: Scene) -> Iterator[None]:
    """Requests that get no answer meanwhile are nobody's fault; at the end everything is as before."""
    scene.load.must_answer = False
    yield
    scene.over()
    scene.load.must_answer = True


def _kill_node(scene: Scene) -> None:
    """While the database is there, at any moment."""
    node = scene.draw.choice(scene.cluster.nodes)
    with _may_be_silent(scene):
        node.restart()


def _kill_at_a_commit(scene: Scene) -> None:
    """Before the COMMIT, or between the COMMIT and the answers."""
    node = scene.draw.choice(scene.cluster.nodes)
    with _may_be_silent(scene):
        node.kill()
        _run_into(node, f"{scene.draw.choice(('before_commit', 'after_commit'))}:{scene.draw.randint(1, 20)}")


def _kill_with_full_spool(scene: Scene) -> None:
    """A node dies with its spool full; the next one writes what is in it."""
    node = scene.draw.choice(scene.cluster.nodes)
    scene.database.crash()
    scene.kept_in_the_spool()
    with _may_be_silent(scene):
        node.kill()
        scene.database.start()
        node.start()


def _kill_while_emptying(scene: Scene) -> None:
    """A node dies when it has written a part of its spool and not forgotten it yet."""
    node = scene.draw.choice(scene.cluster.nodes)
    scene.database.crash()
    scene.kept_in_the_spool()
    with _may_be_silent(scene):
        node.kill()
        scene.database.start()
        _run_into(node, "after_commit:1")


def _run_into(node: Server, failpoint: str) -> None:
    """Start a node that kills itself at a failpoint, and then one that does not."""
    node.env["POSTBACKD_FAILPOINT"] = failpoint
    node.launch()
    wait_until(lambda: not node.running, _BACK_S, f"the end at {failpoint}")
    del node.env["POSTBACKD_FAILPOINT"]
    node.restart()


def _stop_node(scene: Scene) -> None:
    """A node is stopped in an orderly way while the database is away."""
    node = scene.draw.choice(scene.cluster.nodes)
    scene.database.crash()
    scene.kept_in_the_spool()
    with _may_be_silent(scene):
        if status := node.stop():
            scene.met.faults.append(f"a stop while the database was away: exit {status}")
        scene.database.start()
        node.start()


EVENTS: dict[str, Callable[[Scene], None]] = {
    "killed": _crash,
    "frozen": _freeze,
    "shut down at once": _shut_down,
    "connections used up": _use_up,
    "sessions ended": _end_sessions,
    "reply lost": _lose_reply,
    "COMMIT late": _delay_commit,
    "reply lost, then away": _lose_reply_and_stay_away,
    "COMMIT late, then away": _delay_commit_and_stay_away,
    "node killed": _kill_node,
    "node killed at a COMMIT": _kill_at_a_commit,
    "node killed with a full spool": _kill_with_full_spool,
    "node killed while it empties its spool": _kill_while_emptying,
    "node stopped": _stop_node,
}
_CHEAP = ("reply lost", "COMMIT late", "reply lost, then away", "COMMIT late, then away")
"""These take a moment, and the moment decides: they come five times as often."""


def _sequence(count: int, draw: random.Random) -> list[str]:
    """Every event once before the first one comes again."""
    names: list[str] = []
    while len(names) < count:
        some = list(EVENTS) if not names else [*EVENTS, *_CHEAP * 4]
        draw.shuffle(some)
        names += some
    return names[:count]


# --- rounds ----------------------------------------------------------------------------------------------------


@trust_test("T8", "PostgreSQL away: killed, frozen, used up, cut off after a COMMIT")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """0 refused, 0 unanswered, and when it is back everything is there once."""
    events, a_round = size.pick((14, 7), (1_000, 50), (5_000, 100))
    long_s = size.pick(0.0, 600.0, 600.0)
    found_versions = versions()
    draw, met, tally = random.Random(seed), Met(), Tally()
    names = _sequence(events, draw)
    for number, first in enumerate(range(0, events, a_round)):
        version = found_versions[number % len(found_versions)]
        nodes = 1 + number % 2
        place = work_dir / f"round{number}"
        tally.add(_round(place, version, nodes, seed + number, names[first : first + a_round], met))
    crossed = cross(work_dir / "crossing", found_versions[-1], size.pick(0.0, 65.0, 65.0))
    crossed.details = [f"clicks and postbacks in two spools: {detail}" for detail in crossed.details]
    tally.add(crossed)
    if long_s:
        tally.add(_long_outage(work_dir / "long", found_versions[-1], seed, long_s, met))
    figures: dict[str, Figure] = tally.figures | {
        "events": met.events.total(),
        "queued": met.queued,
        "overtook their clicks": met.overtook,
        "refused": met.refused,
        "unanswered": met.unanswered,
        "registrations refused": met.registrations_refused,
        "longest wait s": round(met.slowest_s, 2),
        "back after s (median)": round(sorted(met.back_s)[len(met.back_s) // 2], 2),
        "back after s (max)": round(max(met.back_s), 2),
        "longest outage s": long_s,
        "versions": ", ".join(map(str, found_versions)),
        "kinds": ", ".join(f"{name} {count}" for name, count in sorted(met.events.items())),
    }
    controls = (
        _without_spool(work_dir / "no-spool", found_versions[-1], seed),
        _removed_spool(work_dir / "removed", found_versions[-1], seed),
    )
    passed = tally.clean and not (met.refused or met.unanswered or met.faults)
    note = "; ".join([*dict.fromkeys(met.faults), *([tally.note] if tally.note else [])])
    return Result(passed, figures, controls, note)


def _mix(nodes: int) -> Mix:
    """With several nodes a status may overtake the conversion that it changes, so there are none."""
    return Mix(pending=0.0) if nodes > 1 else Mix()


def _round(
    place: Path,
    version: int,
    nodes: int,
    seed: int,
    names: Sequence[str],
    met: Met,
) -> Tally:
    """Some events under one load on one database, then the oracle."""
    with (
        Database(version, _OPTIONS) as database,
        cluster(place, database, nodes, linked=True) as all_nodes,
        Ledger(place / "ledger") as ledger,
    ):
        with Load(
            all_nodes.nodes, all_nodes.catalog, ledger, seed=seed, mix=_mix(nodes), pause_s=_PAUSE_S
        ) as load:
            load.wait_acknowledged(100)
            scene = Scene(all_nodes, load, random.Random(seed), met)
            for name in names:
                EVENTS[name](scene)
                met.events[name] += 1
            load.wait_acknowledged(50)
        note(met, load)
        return judge(all_nodes, ledger, met)


def _long_outage(place: Path, version: int, seed: int, seconds: float, met: Met) -> Tally:
    with (
        Database(version, _OPTIONS) as database,
        cluster(place, database, 1) as all_nodes,
        Ledger(place / "ledger") as ledger,
    ):
        with Load(all_nodes.nodes, all_nodes.catalog, ledger, seed=seed, pause_s=_PAUSE_S) as load:
            load.wait_acknowledged(100)
            database.crash()
            end = time.monotonic() + seconds
            wait_until(lambda: time.monotonic() > end, seconds + 10, "the end of the outage")
            database.start()
            # What came in the meantime goes into the database first.
            Scene(all_nodes, load, random.Random(seed), met, _BACK_S + seconds / 4).over()
        met.events["a long outage"] += 1
        note(met, load)
        return judge(all_nodes, ledger, met)


def note(met: Met, load: Load) -> None:
    """Add what the senders of one load met."""
    refused = load.ledger.refused
    met.queued += load.ledger.queued
    met.overtook += sum(
        answer.verdict == "unmatched"
        for entry in load.ledger.entries.values()
        for answer in entry.acknowledged
    )
    met.registrations_refused += refused["registration"]
    met.refused += refused.total() - refused["registration"]
    met.unanswered += load.unanswered
    met.slowest_s = max(met.slowest_s, load.slowest_s)


def judge(all_nodes: Cluster, ledger: Ledger, met: Met) -> Tally:
    """Wait for empty spools, then hold the ledger against the database."""
    all_nodes.wait_drained()
    all_nodes.database.wait_matched()
    if all_nodes.tracebacks:
        met.faults.append(f"{all_nodes.tracebacks} stack traces")
    return all_nodes.database.check(ledger, late=len(all_nodes.nodes) > 1)


# --- controls --------------------------------------------------------------------------------------------------


def _without_spool(place: Path, version: int, seed: int) -> Control:
    """Nodes that keep nothing must be seen refusing."""
    with (
        Database(version, _OPTIONS) as database,
        cluster(place, database, 1, {"POSTBACKD_SPOOL_MB": "0"}) as all_nodes,
        Ledger(place / "ledger") as ledger,
    ):
        with Load(all_nodes.nodes, all_nodes.catalog, ledger, seed=seed, pause_s=_PAUSE_S) as load:
            load.wait_acknowledged(100)
            database.crash()
            load.wait_busy(_BACK_S)
            database.start()
            load.wait_settled(_BACK_S)
        met = Met()
        note(met, load)
    return Control("--spool-mb 0", met.refused > 0, {"refused": met.refused, "queued": met.queued})


def _removed_spool(place: Path, version: int, seed: int) -> Control:
    """What was told ``queued`` and whose spool is gone must be seen as lost."""
    with (
        Database(version, _OPTIONS) as database,
        cluster(place, database, 1) as all_nodes,
        Ledger(place / "ledger") as ledger,
    ):
        (node,) = all_nodes.nodes
        mix = Mix(retried=0.0, repeats=0.0)
        with Load(node, all_nodes.catalog, ledger, seed=seed, pause_s=_PAUSE_S, mix=mix) as load:
            load.wait_acknowledged(100)
            database.crash()
            load.wait_queued(_BACK_S)
            load.wait_acknowledged(_MEANWHILE)
            node.kill()
            for path in node.spooled:
                path.unlink()
        database.start()
        tally = database.check(ledger)
    return Control("a spool that somebody removed", tally.lost > 0, tally.figures)
