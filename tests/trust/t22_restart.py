"""T22: rolling restarts under load, a new connection for every request: nobody is refused, nothing is lost.

SIGHUP makes the supervisor replace the process behind the listening socket.  Control: a stop and a start of the whole
program under the same load, which must refuse connections.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import uvloop

from tests.trust import oracle
from tests.trust.corpus.stage import Stage, stage
from tests.trust.corpus.wire import Address
from tests.trust.ledger import CLICK, CONVERSION, Answer, Ledger, Order
from tests.trust.registry import Control, Figure, Result, Size, trust_test
from tests.trust.server import Server, wait_until
from tests.trust.wire import parse_answer, read_headers, write_postback

A_SECOND = 2_000
TICK_S = 0.02
PATIENCE_S = 15.0
MOST_CALLS = A_SECOND
"""Calls under way at once.  A client that falls behind would connect and say nothing for seconds, and the server is
right to close such a connection: the test would blame the server for its own lateness."""


@dataclass
class Met:
    """What became of the connections."""

    answered: int = 0
    refused: int = 0
    reset: int = 0
    silent: int = 0
    """No answer within ``PATIENCE_S``."""
    statuses: Counter[int] = field(default_factory=Counter)
    longest_s: float = 0.0

    @property
    def failed(self) -> int:
        """Requests that were not answered 200."""
        return self.refused + self.reset + self.silent + self.statuses.total() - self.statuses[200]


class _Caller(asyncio.Protocol):
    """One connection, one request, one answer."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        start, end, body = self._received.partition(b"\r\n\r\n")
        head = start.decode("latin-1") + "\r\n"
        whole = bool(end) and len(body) >= int(read_headers(head).get("content-length", "0"))
        if whole and not self.done.done():
            self.done.set_result(parse_answer(head, body))
            if self._transport is not None:
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


class Traffic(threading.Thread):
    """New conversions at a steady rate, each on a connection of its own, until stopped."""

    def __init__(
        self, address: Address, key: str, ledger: Ledger, a_second: int, click_ids: list[str]
    ) -> None:
        """To the endpoint ``key`` behind ``address``."""
        super().__init__(daemon=True)
        self._address = address
        self._key = key
        self._ledger = ledger
        self._each_tick = max(1, int(a_second * TICK_S))
        self._click_ids = click_ids
        self._ending = threading.Event()
        self._made = 0
        self.sent = 0
        self.met = Met()
        self.seconds = 0.0

    def run(self) -> None:
        uvloop.run(self._drive())

    def stop(self) -> Met:
        """Send no more, wait for the answers under way."""
        self._ending.set()
        self.join()
        return self.met

    async def _drive(self) -> None:
        calls: set[asyncio.Task[None]] = set()
        began = due = time.perf_counter()
        while not self._ending.is_set():
            due += TICK_S
            if (len(calls) + 1) * self._each_tick <= MOST_CALLS:
                task = asyncio.ensure_future(self._send_together())
                calls.add(task)
                task.add_done_callback(calls.discard)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))  # the pace of the traffic
            due = max(due, time.perf_counter() - 0.5)
        self.seconds = time.perf_counter() - began
        await asyncio.gather(*calls)

    async def _send_together(self) -> None:
        orders = [self._order() for _ in range(self._each_tick)]
        self._ledger.sent(orders)
        self.sent += len(orders)
        answers = await asyncio.gather(*map(self._call, orders))
        self._ledger.answer([(o, a) for o, a in zip(orders, answers, strict=True) if a is not None])

    def _order(self) -> Order:
        self._made += 1
        word = "".join(chr(97 + int(digit)) for digit in str(self._made))
        return Order(
            CONVERSION, f"restart-{word}", self._click_ids[self._made % len(self._click_ids)], value_micros=7
        )

    async def _call(self, order: Order) -> Answer | None:
        request = write_postback(order, self._key, "query")
        if self._made % 2:
            request = request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
        began = time.perf_counter()
        answer = await self._connect_and_ask(request)
        self.met.longest_s = max(self.met.longest_s, time.perf_counter() - began)
        if answer is not None:
            self.met.answered += 1
            self.met.statuses[answer.status] += 1
        return answer

    async def _connect_and_ask(self, request: bytes) -> Answer | None:
        loop = asyncio.get_running_loop()
        try:
            _, caller = await loop.create_connection(lambda: _Caller(request), *self._address)
            answer = await asyncio.wait_for(caller.done, PATIENCE_S)
        except ConnectionRefusedError:
            self.met.refused += 1
        except TimeoutError:
            self.met.silent += 1
        except OSError:
            self.met.reset += 1
        else:
            self.met.reset += answer is None
            return answer
        return None


@trust_test("T22", "restart: rolling restarts under load, a new connection for each request", alone=True)
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """0 refused, 0 reset, 0 lost."""
    restarts = size.pick(ci=5, nightly=60, release=300)
    with stage(work_dir) as server:
        met, traffic, tally = _under_load(
            server, work_dir / "ledger", lambda traffic: roll(server.server, restarts, traffic)
        )
        tracebacks = server.tracebacks
    figures: dict[str, Figure] = dict(tally.figures) | {
        "restarts": restarts,
        "sent/s": int(traffic.sent / traffic.seconds),
        "refused": met.refused,
        "reset": met.reset,
        "silent": met.silent,
        "statuses": str(dict(sorted(met.statuses.items()))),
        "longest wait s": round(met.longest_s, 2),
        "tracebacks": tracebacks,
    }
    return Result(not (met.failed or tracebacks) and tally.clean, figures, (_control(work_dir),), tally.note)


def _under_load(
    server: Stage, ledger_path: Path, disturb: Callable[[Traffic], None]
) -> tuple[Met, Traffic, oracle.Tally]:
    """Traffic before, during and after a disturbance, held against the database."""
    click_ids = server.clicks(50)
    with Ledger(ledger_path) as ledger:
        ledger.sent(
            [Order(CLICK, "")] * len(click_ids)
        )  # made by the line above, without an id of their source
        traffic = Traffic(server.address, server.catalog.key, ledger, A_SECOND, click_ids)
        traffic.start()
        wait_until(lambda: traffic.met.answered > A_SECOND // 2, 20, "the traffic")
        disturb(traffic)
        aim = traffic.met.answered + A_SECOND // 2
        wait_until(lambda: traffic.met.answered > aim or traffic.met.refused, 30, "answers after the restart")
        met = traffic.stop()
        return met, traffic, oracle.check(ledger, server.server.data_dir / oracle.DATABASE)


def roll(server: Server, restarts: int, traffic: Traffic) -> None:
    """SIGHUP, wait until another process serves and half a second's requests were answered, again."""
    for _ in range(restarts):
        before = set(server.ingest_pids())
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda b=before: _replaced(server, b), 30, "another ingest process")  # type: ignore[misc]
        wait_until(lambda: server.status("/readyz") == 200, 30, "the new process being ready")
        aim = traffic.met.answered + A_SECOND // 2
        wait_until(lambda a=aim: traffic.met.answered > a, 30, "answers of the new process")  # type: ignore[misc]


def _replaced(server: Server, before: set[int]) -> bool:
    now = set(server.ingest_pids())
    return bool(now) and not now & before


def _control(work_dir: Path) -> Control:
    def stop_and_start(_: Traffic) -> None:
        server.server.stop()
        server.server.start()

    with stage(work_dir, "control") as server:
        met, _, _ = _under_load(server, work_dir / "control-ledger", stop_and_start)
    return Control("stop and start", met.refused > 0, {"refused": met.refused, "reset": met.reset})
