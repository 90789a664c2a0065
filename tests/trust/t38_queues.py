"""T38: conversions go through a queue while its workers, its broker and the tracker are killed.

A shop hands over to a Redis stream or to RabbitMQ (what these do not take is kept and handed over again); workers are
killed -9 again and again, the broker is killed -9 and comes back, and so is the tracker.  At the end every conversion
is counted once, and nothing was put aside.  Control: workers that acknowledge a job before they have sent it, killed
while much is waiting, must lose some.
"""

from __future__ import annotations

import http.client
import logging
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from postbackd_client import Conversion
from postbackd_client.commands.work import open_source
from postbackd_client.queues import HandOver, RabbitQueue, RedisStream
from tests.client.brokers import RabbitServer, RedisServer
from tests.trust.oracle import DATABASE, open_read_only
from tests.trust.registry import Control, Figure, Result, Size, need_tools, trust_test
from tests.trust.server import Server, make_catalog, wait_until

_WORKERS = 2
_CLICKS = 20
_CLIENT = Path(__file__).resolve().parents[2] / "clients" / "python" / "src"
_PATIENCE_S = 240
_CONTROLLED, _CONTROLLED_KILLS = 2_000, 6
_LOST_AFTER_S = 5.0
"""The control has lost what is not counted so long after its queue is empty."""


class Broker(Protocol):
    port: int

    @property
    def url(self) -> str: ...
    def start(self) -> None: ...
    def kill(self) -> None: ...
    def end(self) -> None: ...


@dataclass(frozen=True)
class Kind:
    """A queue, and how to make its parts."""

    name: str
    server: Callable[[Path], Broker]
    hand_over: Callable[[str], Callable[[str], Any]]
    options: str
    """Of the address for the workers."""
    broker_every_s: float
    """Between two kills of the broker: it needs time to start."""


KINDS = (
    Kind("Redis", RedisServer, RedisStream, "?stream=postbacks&claim_after=2", 3.0),
    Kind("RabbitMQ", RabbitServer, RabbitQueue, "?queue=postbacks", 8.0),
)


@trust_test("T38", "a queue between shop and tracker: workers, broker and tracker killed")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """0 lost and 0 counted twice over all kills, on Redis and on RabbitMQ."""
    need_tools("redis-server", "rabbitmq-server")
    logging.getLogger("postbackd_client").setLevel(logging.ERROR)  # that the queue is away is no news here
    count, lasts_s = size.pick((1_500, 12.0), (30_000, 240.0), (200_000, 1_800.0))
    figures: dict[str, Figure] = {"n": 0, "lost": 0, "double": 0, "phantom": 0, "wrong": 0}
    faults: list[str] = []
    controls: list[Control] = []
    for kind in KINDS:
        with _stage(kind, work_dir / kind.name, seed) as stage:
            trial = Trial(stage, seed, _honest)
            trial.play(count, lasts_s)
            found = trial.judge()
            for name in ("n", "lost", "double"):
                figures[name] = int(figures[name]) + found[name]
            figures[f"{kind.name}: kills of workers, broker, tracker"] = trial.kills
            figures[f"{kind.name}: repeats, fallen back"] = f"{found['repeats']}, {found['fallen back']}"
            if found["aside"]:
                faults.append(f"{kind.name}: {found['aside']} put aside")
            faults += [f"{kind.name}: {fault}" for fault in trial.put_aside_and_take_back()]
        with _stage(kind, work_dir / f"{kind.name}-control", seed) as stage:
            trial = Trial(stage, seed, _eager)
            trial.hand_over(_CONTROLLED, 0.0)
            trial.work_off(_CONTROLLED_KILLS)
            lost = trial.judge()["lost"]
            controls.append(Control(f"{kind.name}: acknowledged before it is sent", lost > 0, {"lost": lost}))
    passed = not (figures["lost"] or figures["double"] or faults)
    return Result(passed, figures, tuple(controls), "; ".join(faults))


# --- what takes part ------------------------------------------------------------------------------------------------


@dataclass
class Stage:
    """A broker and a tracker that run."""

    kind: Kind
    broker: Broker
    tracker: Server
    url: str
    clicks: Sequence[str]

    @property
    def queue(self) -> str:
        return self.broker.url + self.kind.options


@contextmanager
def _stage(kind: Kind, place: Path, seed: int) -> Iterator[Stage]:
    (place / "broker").mkdir(parents=True)
    catalog = make_catalog(place / "data")
    tracker, broker = Server(place / "data"), kind.server(place / "broker")
    try:
        tracker.start()
        broker.start()
        clicks = [_click(tracker, catalog.slug) for _ in range(_CLICKS)]
        url = f"http://127.0.0.1:{tracker.port}/p/{catalog.key}"
        yield Stage(kind, broker, tracker, url, clicks)
    finally:
        broker.end()
        tracker.kill()


def _click(tracker: Server, slug: str) -> str:
    connection = http.client.HTTPConnection(tracker.host, tracker.port, timeout=20)
    connection.request("GET", f"/c/{slug}")
    location = connection.getresponse().getheader("Location") or ""
    connection.close()
    return location.rpartition("=")[2]


def _honest(stage: Stage) -> list[str]:
    return ["postbackd_client.command_line", "work", "--url", stage.url, "--from", stage.queue]


def _eager(stage: Stage) -> list[str]:
    return ["tests.trust.corpus.eager_worker", stage.url, stage.queue]


class Kept:
    """Stands for the client's spool: keeps what the queue did not take until it is handed over again."""

    def __init__(self) -> None:
        self.waiting: list[Conversion] = []

    def conversion(self, click_id: str, **fields: Any) -> None:
        raise AssertionError(f"{fields} is no conversion")

    def report(self, conversion: Conversion) -> bool:
        self.waiting.append(conversion)
        return True


class Trial:
    """One queue under fire."""

    def __init__(self, stage: Stage, seed: int, command: Callable[[Stage], list[str]]) -> None:
        self._stage = stage
        self._random = random.Random(seed)
        self._command = command
        self._workers: list[subprocess.Popen[bytes]] = []
        self._sent: dict[str, str] = {}
        """Transaction id -> click id, of what was handed over."""
        self._kept = Kept()
        self._fallen_back = 0
        self._never = threading.Event()
        """Waited for where time is to pass."""
        self._kills = {"workers": 0, "broker": 0, "tracker": 0}

    @property
    def kills(self) -> str:
        return ", ".join(map(str, self._kills.values()))

    def play(self, count: int, lasts_s: float) -> None:
        """Hand over so many in that time while things are killed; returns when all has been worked off."""
        over = threading.Event()

        def sell() -> None:
            self.hand_over(count, lasts_s)
            over.set()

        shop = threading.Thread(target=sell)
        with self._working():
            shop.start()
            self._kill_until(over, lasts_s)
            shop.join()
            self._wait_for_all()

    def work_off(self, kills: int) -> None:
        """Work off what is waiting while workers are killed, all of them in the middle of their work."""
        with self._working():
            for _ in range(kills):
                enough = len(self._counted()) + self._random.randint(30, 150)
                wait_until(lambda e=enough: len(self._counted()) >= e, _PATIENCE_S, "some work")  # type: ignore[misc]
                for victim in range(_WORKERS):
                    self._kill_worker(victim)
            self._wait_empty()

    @contextmanager
    def _working(self) -> Iterator[None]:
        self._workers = [self._start() for _ in range(_WORKERS)]
        try:
            yield
        finally:
            for worker in self._workers:
                worker.kill()
                worker.wait(20)

    def _start(self, *more: str) -> subprocess.Popen[bytes]:
        root = _CLIENT.parents[2]
        env = {**os.environ, "PYTHONPATH": f"{_CLIENT}:{root}"}
        command = [sys.executable, "-m", *self._command(self._stage), *more]
        with (self._stage.tracker.data_dir.parent / "workers.log").open("ab") as log:
            return subprocess.Popen(command, cwd=root, env=env, stdout=log, stderr=log)

    # --- the shop -----------------------------------------------------------------------------------------------------

    def hand_over(self, count: int, lasts_s: float) -> None:
        """Hand over so many in that time, and what was kept until nothing is."""
        publish = self._stage.kind.hand_over(self._stage.broker.url)
        orders = HandOver(publish, otherwise=self._kept, rest_s=0.2)
        began = time.monotonic()
        for number in range(count):
            self._never.wait(max(0.0, began + lasts_s * number / count - time.monotonic()))
            click_id = self._stage.clicks[number % _CLICKS]
            self._sent[f"T-{number}"] = click_id
            orders.conversion(click_id, transaction_id=f"T-{number}", value="1.00", type="sale")
        while self._kept.waiting:
            failed = orders.statistics().fallen_back
            again = self._kept.waiting.pop(0)
            orders.conversion(again.click_id, transaction_id=again.transaction_id, value="1.00", type="sale")
            if orders.statistics().fallen_back > failed:
                self._never.wait(0.2)
        self._fallen_back = orders.statistics().fallen_back

    # --- kills --------------------------------------------------------------------------------------------------------

    def _kill_until(self, over: threading.Event, lasts_s: float) -> None:
        broker_at = time.monotonic() + self._stage.kind.broker_every_s / 2
        outage_at = time.monotonic() + lasts_s / 3
        while not over.wait(self._random.uniform(0.3, 0.9)):
            self._kill_worker(self._random.randrange(_WORKERS))
            if time.monotonic() >= outage_at:
                outage_at = time.monotonic() + max(lasts_s / 3, 60)
                self._stage.tracker.kill()
                self._stage.tracker.start()
                self._kills["tracker"] += 1
            if time.monotonic() >= broker_at:
                self._stage.broker.kill()
                self._stage.broker.start()
                self._kills["broker"] += 1
                broker_at = time.monotonic() + self._stage.kind.broker_every_s

    def _kill_worker(self, victim: int) -> None:
        self._workers[victim].kill()
        self._workers[victim].wait(20)
        self._workers[victim] = self._start()
        self._kills["workers"] += 1

    def _all_counted(self) -> bool:
        return len(self._counted()) >= len(self._sent)

    def _wait_for_all(self) -> None:
        """Until all are counted; what is not by then is lost."""
        try:
            wait_until(self._all_counted, _PATIENCE_S, "the last conversion")
        except TimeoutError:
            pass  # judge() counts what is missing

    def _wait_empty(self) -> None:
        """Until all are counted, or the queue has been empty for a while: then the rest is lost."""
        empty_since: list[float] = []

        def done() -> bool:
            if self._all_counted():
                return True
            if sum(self._depth().values()):
                empty_since.clear()
            elif not empty_since:
                empty_since.append(time.monotonic())
            return bool(empty_since) and time.monotonic() - empty_since[0] > _LOST_AFTER_S

        wait_until(done, _PATIENCE_S, "an empty queue")

    def _depth(self) -> dict[str, int]:
        source = open_source(self._stage.queue)()
        found = dict(source.depth())
        source.close()
        return found

    # --- what is no conversion ----------------------------------------------------------------------------------------

    def put_aside_and_take_back(self) -> list[str]:
        """A text that nobody can send is kept aside, and given again when it is asked for; what was otherwise."""
        self._stage.kind.hand_over(self._stage.broker.url)('{"click_id":"x"}')
        steps = [self._depth_after_work()]
        source = open_source(self._stage.queue)()
        taken = source.take_back()
        source.close()
        steps.append(self._depth())
        steps.append(self._depth_after_work())
        aside, waiting = {"waiting": 0, "later": 0, "aside": 1}, {"waiting": 1, "later": 0, "aside": 0}
        return (
            []
            if (steps, taken) == ([aside, waiting, aside], 1)
            else [f"aside, back, aside: {steps}, {taken}"]
        )

    def _depth_after_work(self) -> dict[str, int]:
        """What the workers that were killed last had taken is given again first, after a moment."""
        found: dict[str, int] = {}

        def worked_off() -> bool:
            self._start("--until-empty").wait(60)
            found.update(self._depth())
            return not found["waiting"]

        wait_until(worked_off, 60, "a queue that is worked off")
        return found

    # --- judging ------------------------------------------------------------------------------------------------------

    def _counted(self) -> list[str]:
        database = open_read_only(self._stage.tracker.data_dir / DATABASE)
        try:
            return [str(row[0]) for row in database.execute("SELECT transaction_id FROM conversions")]
        finally:
            database.close()

    def judge(self) -> dict[str, int]:
        counted = self._counted()
        database = open_read_only(self._stage.tracker.data_dir / DATABASE)
        ((requests,),) = database.execute("SELECT count(*) FROM postbacks")
        database.close()
        return {
            "n": len(self._sent),
            "lost": len(set(self._sent) - set(counted)),
            "double": len(counted) - len(set(counted)),
            "repeats": int(requests) - len(counted),
            "fallen back": self._fallen_back,
            "aside": self._depth()["aside"],
        }
