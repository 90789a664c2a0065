"""Requests at a fixed rate over many keep-alive connections: ``python -m bench.openloop``.

Request number n is due at ``n / rate`` and its latency counts from that moment, not from the moment it could be sent.
A server that stops for a second is charged with every request of that second (no coordinated omission).  A request
that is due while all connections wait for an answer waits for the first of them, and that wait counts too.

One process, one epoll, no event loop: the generator must cost less than the server.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import time
from collections import deque
from itertools import islice
from math import ceil
from pathlib import Path

from bench.machine import HOST

_DRAIN_TIMEOUT_S = 10.0
_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = b"content-length:"


class Connection:
    """One keep-alive connection with at most one request under way."""

    __slots__ = ("buffer", "due", "number", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(0)
        self.buffer = b""
        self.due = 0.0
        self.number = 0


def is_complete(answer: bytes) -> bool:
    """Whether the bytes are one whole answer (a head and as many bytes of body as it says)."""
    head = answer.find(_END_OF_HEAD)
    if head < 0:
        return False
    lowered = answer[:head].lower()
    at = lowered.find(_LENGTH)
    if at < 0:
        return True
    length = int(lowered[at + len(_LENGTH) :].split(b"\r\n", 1)[0])
    return len(answer) >= head + len(_END_OF_HEAD) + length


class OpenLoop:
    """Sends the requests when they are due and notes how long each answer took."""

    def __init__(self, requests: list[bytes], port: int, rate: float, connections: int) -> None:
        self._requests = requests
        self._rate = rate
        self._connections = {c.socket.fileno(): c for c in (Connection(port) for _ in range(connections))}
        self._idle = deque(self._connections.values())
        """The one that has been idle for longest is used next: a server closes those that are never used."""
        self._waiting: deque[tuple[float, int]] = deque()
        self._epoll = select.epoll()
        for number in self._connections:
            self._epoll.register(number, select.EPOLLIN)
        self.latencies: list[float] = []
        self.due: list[float] = []
        """When each of the answered requests was due, on the machine's monotonic clock."""
        self.numbers: list[int] = []
        """Which of the requests these were, counted from 0."""
        self.lateness: list[float] = []
        self.ok = 0

    def run(self) -> float:
        """Send everything and take the answers in; returns the seconds between the first and the last."""
        began = time.perf_counter()
        sent, total = 0, len(self._requests)
        while sent < total:
            now = time.perf_counter()
            due = min(total, int((now - began) * self._rate) + 1)
            for number in range(sent, due):
                self._send(began + number / self._rate, number, now)
            sent = due
            self._receive(0)
        deadline = time.perf_counter() + _DRAIN_TIMEOUT_S
        while len(self.latencies) < total and time.perf_counter() < deadline:
            self._receive(0.01)
        return time.perf_counter() - began

    def _send(self, due: float, number: int, now: float) -> None:
        if not self._idle:
            self._waiting.append((due, number))
            return
        self.lateness.append(now - due)
        self._write(self._idle.popleft(), due, number)

    def _write(self, connection: Connection, due: float, number: int) -> None:
        connection.due, connection.number = due, number
        # A request of two hundred bytes on a connection with nothing under way fits the socket's buffer.
        connection.socket.sendall(self._requests[number])

    def _receive(self, timeout: float) -> None:
        for number, _event in self._epoll.poll(timeout):
            connection = self._connections[number]
            chunk = connection.socket.recv(65536)
            if not chunk:
                # What was under way on it stays unanswered: it counts as failed.
                self._epoll.unregister(number)
                continue
            connection.buffer += chunk
            if is_complete(connection.buffer):
                self._finish(connection)

    def _finish(self, connection: Connection) -> None:
        self.latencies.append(time.perf_counter() - connection.due)
        self.due.append(connection.due)
        self.numbers.append(connection.number)
        self.ok += connection.buffer.startswith((b"HTTP/1.1 2", b"HTTP/1.1 3"))
        connection.buffer = b""
        if self._waiting:
            self._write(connection, *self._waiting.popleft())
        else:
            self._idle.append(connection)


def percentile(ordered: list[float], share: float) -> float:
    """The smallest value that ``share`` of the values do not exceed; 0 of none."""
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else 0.0


def _load(file: Path, first: int, count: int, port: int) -> list[bytes]:
    with file.open("rb") as lines:
        targets = [line.rstrip(b"\n") for line in islice(lines, first, first + count)]
    host = f"{HOST}:{port}".encode()
    return [b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n" for target in targets]


def main() -> None:
    """Run the open loop and print what it saw as one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.openloop")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--file", type=Path, required=True, help="request lines, one target a line")
    parser.add_argument("--first", type=int, default=0, help="the line to begin with")
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument(
        "--timeline", type=Path, help="write when each was due, how long it took, in s, and its line"
    )
    given = parser.parse_args()
    requests = _load(given.file, given.first, int(given.rate * given.seconds), given.port)
    loop = OpenLoop(requests, given.port, given.rate, given.connections)
    seconds = loop.run()
    if given.timeline:
        answers = zip(loop.due, loop.latencies, loop.numbers, strict=True)
        given.timeline.write_text(
            "".join(f"{due:.6f} {latency:.6f} {given.first + number}\n" for due, latency, number in answers)
        )
    latencies, lateness = sorted(loop.latencies), sorted(loop.lateness)
    figures = {
        "sent": len(requests),
        "ok": loop.ok,
        "seconds": seconds,
        "p50_ms": percentile(latencies, 0.5) * 1e3,
        "p99_ms": percentile(latencies, 0.99) * 1e3,
        "max_ms": percentile(latencies, 1) * 1e3,
        "late_p99_ms": percentile(lateness, 0.99) * 1e3,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
