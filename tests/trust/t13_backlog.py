"""T13: the target is away while many conversions are queued and the deliverer is killed; then the target is back.

Everything arrives once in effect, nearly as fast as a short queue is worked off (that is the steady rate: the
deliverer has nothing to wait for), while postbacks go on coming in and are answered as quickly as before, and in little
more memory.  Control: rows of the queue that somebody removed must be seen as lost.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from tests.trust.corpus.flow import HonestSender, Timed
from tests.trust.delivering import Site, killed_at_the_end, site
from tests.trust.ledger import CLICK, CONVERSION, Answer, Order
from tests.trust.oracle import Tally
from tests.trust.postgres import Database, versions
from tests.trust.receiver import Receiver
from tests.trust.registry import Control, Figure, Result, Size, trust_test
from tests.trust.server import Server, descendants, wait_until
from tests.trust.told import APPROVED, Story
from tests.trust.wire import read_answer, write_order

_CONNECTIONS, _GROUP, _OF_A_CLICK = 4, 64, 4
_PROBE_A_SECOND = 100
_PROBE_CLICKS = 100
_QUIET_S = 3.0
_FLOOR_MS = 25.0
"""Other programs share the processors: a p99 below this is no sign of anything."""

_MORE_MB = 150
_FOUND_S = 330
"""The longest pause of a circuit breaker (``delivery.breaker``), and some."""

_EVENTS = "SELECT count(*) FROM outbox"

_CUT = 0.02
"""Left out of a rate at both ends: a start and an end are no steady state."""


@trust_test("T13", "a backlog: the target away, the deliverer killed, then the target back", alone=True)
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """0 lost, 0 double, at nearly the steady rate, in little more memory, with inbound as quick as before."""
    return _run(size, seed, work_dir, None, 1)


@trust_test("T13PG", "a backlog of two deliverers on one PostgreSQL database", alone=True)
def run_on_postgres(size: Size, seed: int, work_dir: Path) -> Result:
    """The same."""
    return _run(size, seed, work_dir, versions()[-1], 2)


def _run(size: Size, seed: int, work_dir: Path, version: int | None, deliverers: int) -> Result:
    queued = size.pick(10_000, 200_000, 1_000_000)
    few = size.pick(3_000, 20_000, 50_000)
    least = size.pick(0.6, 0.8, 0.8)  # the shorter the run, the more one disturbance weighs
    with _stage(work_dir / "backlog", seed, version) as where:
        backlog = Backlog(where, [where.deliverer(number) for number in range(deliverers)])
        tally = backlog.measure(few, queued)
    faults = [*backlog.faults(least), *([tally.note] if tally.note else [])]
    with _stage(work_dir / "control", seed, version) as where:
        control = _control(where, where.deliverer())
    return Result(tally.clean and not faults, tally.figures | backlog.figures, (control,), "; ".join(faults))


@contextmanager
def _stage(place: Path, seed: int, version: int | None) -> Iterator[Site]:
    place.mkdir(parents=True)
    with Receiver(place / "notes", seed=seed) as receiver:
        if version is None:
            with site(place, receiver) as where:
                yield where
        else:
            with Database(version) as database, site(place, receiver, database) as where:
                yield where


# --- the backlog -----------------------------------------------------------------------------------------------


class Backlog:
    """A short queue, then a long one that grows while the target is away."""

    def __init__(self, where: Site, deliverers: Sequence[Server]) -> None:
        self._where = where
        self._deliverers = deliverers
        self._queue = Queue(where)
        self._probe = self._queue.probe()
        self._timed: dict[str, Timed] = {}
        self._memory_mb: list[int] = []
        self._more_mb: list[int] = []
        self._share = 0.0
        self.figures: dict[str, Figure] = {}

    def measure(self, few: int, queued: int) -> Tally:
        """Fills ``figures``; returns what the oracle says."""
        with killed_at_the_end(*self._deliverers):
            self._launch()
            self._probed("quiet", _until_passed(_QUIET_S))
            self._wait_all()
            steady = self._work_off_few(few)
            self._queue_while_away(queued)
            self._work_off_many(queued, steady)
        judge = self._where.judge(self._queue.stories)
        self.figures["repeats"] = judge.repeats
        self.figures |= {f"inbound p99 ms {name}": timed.p99_ms for name, timed in self._timed.items()}
        self.figures["more memory MB (ingest, deliverers)"] = ", ".join(map(str, self._more_mb))
        return judge.tally

    def _work_off_few(self, few: int) -> float:
        """Nothing is in the way but the inbound traffic; returns the rate."""
        for deliverer in self._deliverers:
            deliverer.stop()
        self._queue.fill(few)
        began = self._where.receiver.count()
        self._launch()
        self._probed("steady", lambda: _wait(self._where, began + few, 600))
        self._wait_all()
        self._memory_mb = _memory_mb(self._where, self._deliverers)
        return _rate(self._where, began, began + few)

    def _queue_while_away(self, queued: int) -> None:
        """All deliverers are killed and started again when half of it is queued."""
        self._where.receiver.kill()
        self._queue.fill(queued // 2)
        self._note_memory()
        for deliverer in self._deliverers:
            deliverer.kill()
        self._launch()
        self._queue.fill(queued - queued // 2)
        wait_until(lambda: not int(self._where.rows(_EVENTS)[0][0]), 600, "an empty outbox")

    def _work_off_many(self, queued: int, steady: float) -> None:
        began, up = self._where.receiver.count(), time.monotonic()
        self._where.receiver.start()
        _wait(self._where, began + 1, _FOUND_S)
        found_s = time.monotonic() - up
        self._probed("draining", lambda: _wait(self._where, began + queued, 3600))
        drained_s = time.monotonic() - up - found_s
        self._wait_all()
        self._note_memory()
        draining = _rate(self._where, began, began + queued)
        self._share = draining / steady
        self.figures = {
            "queued": queued,
            "steady/s": round(steady),
            "draining/s": round(draining),
            "share": round(self._share, 2),
            "found again after s": round(found_s, 1),
            "drained in s": round(drained_s, 1),
            "settled after s": round(self._where.wait_settled(90), 1),
        }

    def faults(self, least: float) -> list[str]:
        """What is worse than promised, in words."""
        quiet, draining = self._timed["quiet"].p99_ms, self._timed["draining"].p99_ms
        errors = [error for timed in self._timed.values() for error in timed.errors]
        judged = {
            f"drained at {self._share:.2f} of the steady rate": self._share < least,
            f"inbound p99 {draining} ms, quiet {quiet} ms": draining >= max(2 * quiet, quiet + _FLOOR_MS),
            f"{max(self._more_mb)} MB more memory": max(self._more_mb) >= _MORE_MB,
            f"{len(errors)} postbacks were not answered 200: {errors[:1]}": bool(errors),
            f"{self._where.tracebacks} stack traces": self._where.tracebacks > 0,
        }
        return [words for words, bad in judged.items() if bad]

    def _launch(self) -> None:
        for deliverer in self._deliverers:
            deliverer.launch()

    def _probed(self, name: str, wait: Callable[[], object]) -> None:
        """Let honest senders send while something is waited for."""
        self._probe.start()
        try:
            wait()
        finally:
            self._timed[name] = self._probe.stop()

    def _wait_all(self) -> None:
        """Until as many requests have come as there are conversions."""
        _wait(self._where, len(self._queue.stories), 120)

    def _note_memory(self) -> None:
        now = _memory_mb(self._where, self._deliverers)
        more = [after - before for after, before in zip(now, self._memory_mb, strict=True)]
        self._more_mb = [max(pair) for pair in zip(more, self._more_mb or more, strict=True)]


def _until_passed(seconds: float) -> Callable[[], object]:
    def wait() -> None:
        end = time.monotonic() + seconds
        wait_until(lambda: time.monotonic() > end, seconds + 10, "the end of a measurement")

    return wait


def _wait(where: Site, aim: int, deadline_s: float) -> None:
    wait_until(lambda: where.receiver.count() >= aim, deadline_s, f"{aim} requests to the receiver")


def _rate(where: Site, first: int, end: int) -> float:
    """Requests a second between two positions of the notes, without the ends."""
    times = [note.at for number, note in enumerate(where.receiver.notes()) if first <= number < end]
    cut = int(len(times) * _CUT)
    middle = times[cut : len(times) - cut]
    return (len(middle) - 1) / (middle[-1] - middle[0])


def _memory_mb(where: Site, deliverers: Sequence[Server]) -> list[int]:
    """The most that the ingest process and each deliverer have held so far."""
    return [_peak_mb(server.pid) for server in (where.ingest, *deliverers)]


def _peak_mb(pid: int) -> int:
    peaks = []
    for process in (pid, *descendants(pid)):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
        peaks.append(int(found[1]) >> 10 if found else 0)
    return max(peaks)


# --- conversions -----------------------------------------------------------------------------------------------


class Queue:
    """Sends approved conversions as fast as they are accepted, a click for each few; every one makes a story."""

    def __init__(self, where: Site) -> None:
        self.stories: dict[str, Story] = {}
        self._where = where
        self._numbers = count()

    def fill(self, conversions: int) -> None:
        """Returns when all have been accepted.  Raises ``AssertionError`` when one is not."""
        asyncio.run(self._fill(conversions))

    async def _fill(self, conversions: int) -> None:
        groups = [_GROUP] * (conversions // _GROUP) + [conversions % _GROUP] * bool(conversions % _GROUP)
        left = iter(groups)
        await asyncio.gather(*(self._connection(left) for _ in range(_CONNECTIONS)))

    async def _connection(self, groups: Iterator[int]) -> None:
        reader, writer = await asyncio.open_connection(self._where.ingest.host, self._where.ingest.port)
        try:
            for size in groups:
                clicks = [self._click() for _ in range(-(-size // _OF_A_CLICK))]
                made = await self._exchange(reader, writer, clicks)
                orders = [self._order(made[number // _OF_A_CLICK].click_id) for number in range(size)]
                answers = await self._exchange(reader, writer, orders)
                assert all(answer.verdict == "accepted" for answer in answers), answers
        finally:
            writer.transport.abort()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, orders: Sequence[Order]
    ) -> list[Answer]:
        catalog = self._where.catalog
        writer.write(b"".join(write_order(order, catalog.key, catalog.slug) for order in orders))
        return [await read_answer(reader) for _ in orders]

    def _click(self) -> Order:
        return Order(CLICK, self._ref("c"), value_micros=1)

    def _order(self, click_id: str) -> Order:
        """A conversion, and the story of it."""
        order = Order(
            CONVERSION,
            self._ref("t"),
            click_id,
            value_micros=1_000_000 + next(self._numbers),
            status=APPROVED,
        )
        self.stories[order.ref] = Story(((APPROVED, order.value_micros),), acknowledged=1)
        return order

    def _ref(self, kind: str) -> str:
        return kind + "".join(chr(97 + int(digit)) for digit in str(next(self._numbers)))

    def probe(self) -> HonestSender:
        """Somebody who sends conversions at a steady pace, and notes how long the answers take."""
        made: list[Answer] = []

        async def click() -> None:
            reader, writer = await asyncio.open_connection(self._where.ingest.host, self._where.ingest.port)
            made.extend(await self._exchange(reader, writer, [self._click() for _ in range(_PROBE_CLICKS)]))
            writer.transport.abort()

        asyncio.run(click())
        address = (self._where.ingest.host, self._where.ingest.port)

        def write_request(number: int) -> bytes:
            order = self._order(made[number % len(made)].click_id)
            return write_order(order, self._where.catalog.key, self._where.catalog.slug)

        return HonestSender(address, write_request, _PROBE_A_SECOND)


# --- control ---------------------------------------------------------------------------------------------------


def _control(where: Site, deliverer: Server) -> Control:
    """Rows of the queue that are removed while the target is away must be seen as lost."""
    queue = Queue(where)
    where.receiver.kill()
    with killed_at_the_end(deliverer):
        queue.fill(500)
        deliverer.launch()
        wait_until(lambda: int(where.rows("SELECT count(*) FROM deliveries")[0][0]) == 500, 60, "a queue")
        deliverer.kill()
        where.execute("DELETE FROM deliveries WHERE number % 10 = 0")
        where.receiver.start()
        deliverer.launch()
        where.wait_settled(90)
    tally = where.judge(queue.stories).tally
    return Control("a tenth of the queue removed", tally.lost > 0, tally.figures)
