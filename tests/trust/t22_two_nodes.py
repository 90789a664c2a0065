"""T22PG: two nodes behind nginx on one PostgreSQL database: each is stopped and started in turn, and nobody notices.

A new connection for every request, to nginx, which asks the other node when one does not answer.  And the rolling
restart of T22 on a server of that database.  Control: both nodes stopped at once, which must be noticed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.trust.corpus.proxies import balancer
from tests.trust.ledger import CLICK, Ledger, Order
from tests.trust.nodes import Cluster, cluster
from tests.trust.oracle import Tally
from tests.trust.postgres import Database, versions
from tests.trust.registry import Control, Figure, Result, Size, need_tools, trust_test
from tests.trust.server import wait_until
from tests.trust.t22_restart import Met, Traffic, roll

_ANSWERS = 300
"""So many answers between two disturbances."""


@trust_test("T22PG", "restart of two nodes behind nginx on one PostgreSQL database", alone=True)
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """0 failed, 0 lost."""
    need_tools("nginx")
    a_second = size.pick(ci=400, nightly=2_000, release=2_000)
    rounds = size.pick(ci=3, nightly=30, release=150)
    version = versions()[-1]
    with Database(version) as database:
        place = work_dir / "nodes"
        with cluster(place, database, 2) as nodes:
            met, traffic, tally = _behind_nginx(nodes, place, a_second, lambda t: _in_turn(nodes, rounds, t))
            tracebacks = nodes.tracebacks
    with Database(version) as database:
        place = work_dir / "server"
        with cluster(place, database, 1, role="serve") as nodes:
            hup, _, found = _alone(nodes, place, a_second, lambda t: roll(nodes.nodes[0], rounds, t))
            tally.add(found)
            tracebacks += nodes.tracebacks
    figures: dict[str, Figure] = tally.figures | {
        "restarts": 2 * rounds,
        "SIGHUPs": rounds,
        "sent/s": int(traffic.sent / traffic.seconds),
        "refused": met.refused + hup.refused,
        "reset": met.reset + hup.reset,
        "silent": met.silent + hup.silent,
        "statuses": str(dict(sorted((met.statuses + hup.statuses).items()))),
        "longest wait s": round(max(met.longest_s, hup.longest_s), 2),
        "tracebacks": tracebacks,
    }
    unhurt = not (met.failed or hup.failed or tracebacks)
    return Result(unhurt and tally.clean, figures, (_control(work_dir, version, a_second),), tally.note)


def _behind_nginx(
    nodes: Cluster, place: Path, a_second: int, disturb: Callable[[Traffic], None]
) -> tuple[Met, Traffic, Tally]:
    addresses = [stage.address for stage in nodes.stages()]
    with balancer(place / "nginx", addresses) as front:
        return _under_load(nodes, front.address, place / "ledger", a_second, disturb)


def _alone(
    nodes: Cluster, place: Path, a_second: int, disturb: Callable[[Traffic], None]
) -> tuple[Met, Traffic, Tally]:
    return _under_load(nodes, nodes.stages()[0].address, place / "ledger", a_second, disturb)


def _under_load(
    nodes: Cluster,
    address: tuple[str, int],
    ledger_path: Path,
    a_second: int,
    disturb: Callable[[Traffic], None],
) -> tuple[Met, Traffic, Tally]:
    """Traffic before, during and after a disturbance, held against the database."""
    click_ids = nodes.stages()[0].clicks(20)
    with Ledger(ledger_path) as ledger:
        ledger.sent([Order(CLICK, "")] * len(click_ids))  # made above, without an id of their source
        traffic = Traffic(address, nodes.catalog.key, ledger, a_second, click_ids)
        traffic.start()
        try:
            _wait_answers(traffic, 20)
            disturb(traffic)
            _wait_answers(traffic, 30)
        finally:
            met = traffic.stop()
        nodes.wait_drained()
        return met, traffic, nodes.database.check(ledger)


def _wait_answers(traffic: Traffic, deadline_s: float) -> None:
    aim = traffic.met.answered + _ANSWERS
    wait_until(lambda: traffic.met.answered >= aim, deadline_s, f"{_ANSWERS} answers")


def _in_turn(nodes: Cluster, rounds: int, traffic: Traffic) -> None:
    """Stop one, start it, then the other one."""
    for _ in range(rounds):
        for node in nodes.nodes:
            node.stop()
            _wait_answers(traffic, 30)
            node.start()
            _wait_answers(traffic, 30)


def _control(work_dir: Path, version: int, a_second: int) -> Control:
    """With both nodes gone at once somebody must notice."""
    with Database(version) as database:
        place = work_dir / "control"
        with cluster(place, database, 2) as nodes:

            def stop_both(traffic: Traffic) -> None:
                for node in nodes.nodes:
                    node.stop()
                _wait_answers(traffic, 30)
                for node in nodes.nodes:
                    node.start()

            met, _, _ = _behind_nginx(nodes, place, a_second, stop_both)
    return Control("both stopped at once", met.failed > 0, {"failed": met.failed})
