"""Honest traffic whose answers are timed, and floods that only count what comes back."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.trust.corpus.wire import Address, split_answers


def percentile(values: list[float], share: float) -> float:
    """The value that ``share`` of all do not exceed; 0 without any."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


@dataclass
class Timed:
    """What honest senders met."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def p99_ms(self) -> float:
        return round(percentile(self.seconds, 0.99) * 1000, 2)


class HonestSender:
    """A thread that sends one request after the other at a steady pace, every fifth on a new connection.

    An error is anything but an answer 200: a refused connection, a reset, a 5xx, silence for ``patience_s``.
    """

    def __init__(
        self, address: Address, write_request: Callable[[int], bytes], a_second: float, patience_s: float = 10
    ) -> None:
        self._address = address
        self._write_request = write_request
        self._pause_s = 1 / a_second
        self._patience_s = patience_s
        self._ending = threading.Event()
        self._made = 0
        self._socket: socket.socket | None = None
        self.timed = Timed()

    def measure(self, seconds: float) -> Timed:
        """Send for so long; returns what was met."""
        self.start()
        threading.Event().wait(seconds)
        return self.stop()

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._ending.clear()
        self.timed = Timed()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def stop(self) -> Timed:
        """End after the request that is under way."""
        self._ending.set()
        self._thread.join()
        return self.timed

    def _work(self) -> None:
        due = time.perf_counter()
        while not self._ending.wait(max(0.0, due - time.perf_counter())):
            due = max(due + self._pause_s, time.perf_counter() - 1)
            began = time.perf_counter()
            try:
                status = self._ask(self._write_request(self._made))
            except OSError as error:
                self._hang_up()
                self.timed.errors.append(f"{type(error).__name__}: {error}")
                continue
            self.timed.seconds.append(time.perf_counter() - began)
            if status != 200:
                self.timed.errors.append(f"answered {status}")
        self._hang_up()

    def _ask(self, request: bytes) -> int:
        self._made += 1
        if self._made % 5 == 0:
            self._hang_up()
        if self._socket is None:
            self._socket = socket.create_connection(self._address, self._patience_s)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(request)
        received = b""
        while not (answers := split_answers(received)[0]):
            part = self._socket.recv(65_536)
            if not part:
                raise ConnectionResetError("closed without an answer")
            received += part
        return answers[0].status

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


@dataclass
class Flooded:
    """What a flood brought back."""

    good: int = 0
    busy: int = 0
    busy_with_retry: int = 0
    other: int = 0
    broken: int = 0
    """Connections that the server ended."""
    seconds: float = 0.0
    waits: list[float] = field(default_factory=list)
    """How long a burst waited for the last of its answers."""

    @property
    def good_a_second(self) -> int:
        return int(self.good / self.seconds) if self.seconds else 0


class _Flooder(asyncio.Protocol):
    """Keeps one burst of requests under way; counts answers by their status lines, without parsing them."""

    def __init__(
        self, write_burst: Callable[[], bytes], length: int, flooded: Flooded, patient_s: float
    ) -> None:
        self._write_burst = write_burst
        self._length = length
        self._patient_s = patient_s
        self._flooded = flooded
        self._left = self._refused = 0
        self._tail = b""
        self._sent = 0.0
        self.ending = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._send()

    def _send(self) -> None:
        self._left = self._length
        self._refused = 0
        self._sent = time.perf_counter()
        if self.transport is not None and not self.ending:
            self.transport.write(self._write_burst())

    def data_received(self, data: bytes) -> None:
        flooded = self._flooded
        data = self._tail + data
        cut = data.rfind(b"\r\n") + 2  # a status or header line that is not complete yet waits for its rest
        data, self._tail = data[:cut], data[cut:]
        good, busy = data.count(b"HTTP/1.1 200 "), data.count(b"HTTP/1.1 503 ")
        every = data.count(b"HTTP/1.1 ")
        flooded.good += good
        flooded.busy += busy
        flooded.busy_with_retry += data.count(b"\r\nRetry-After: ")
        flooded.other += every - good - busy
        self._left -= every
        self._refused += busy
        if self._left <= 0:
            flooded.waits.append(time.perf_counter() - self._sent)
            self._go_on()

    def _go_on(self) -> None:
        if self.ending:
            return
        if self._refused and self._patient_s:
            asyncio.get_running_loop().call_later(self._patient_s, self._send)
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ending:
            self._flooded.broken += 1


async def flood(
    address: Address,
    write_burst: Callable[[], bytes],
    connections: int,
    length: int,
    seconds: float,
    patient_s: float = 0.0,
) -> Flooded:
    """``connections`` connections, each always with a burst of ``length`` requests under way, for so long.

    ``patient_s``: how long one waits that was told 503; 0 for callers that do not care what they are told.
    """
    flooded = Flooded()
    loop = asyncio.get_running_loop()
    flooders = [_Flooder(write_burst, length, flooded, patient_s) for _ in range(connections)]
    for first in range(0, connections, 100):
        await asyncio.gather(
            *(loop.create_connection(lambda f=f: f, *address) for f in flooders[first : first + 100])  # type: ignore[misc]
        )
    began = time.perf_counter()
    start = flooded.good
    await asyncio.sleep(seconds)  # the length of the measurement itself
    flooded.seconds = time.perf_counter() - began
    flooded.good -= start
    for flooder in flooders:
        flooder.ending = True
        if flooder.transport is not None:
            flooder.transport.abort()
    return flooded
