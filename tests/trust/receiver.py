"""A target that notes each request on a file, synced before it answers, and that misbehaves in a seeded share.

The notes are what the oracle of deliveries goes by (``told``): a line a request, in the order in which they were read.
It is a program of its own (``python -m tests.trust.receiver``), which shares no interpreter with the load beside it;
``Receiver`` starts, watches and kills that program.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import cast
from urllib.parse import parse_qsl, urlsplit

import uvloop

from tests.trust.server import clean_environment, free_port, wait_until

PATIENCE_MS = 1000
"""How long the sender waits for an answer; a late one comes after it."""

FAILURE = '"result":"refused"'
"""In the body of an answer 200: not taken."""

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"
_LIE = b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"result":"refused"}'
_ERROR = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
_BUSY = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"

TROUBLE: Mapping[str, float] = {
    "error": 0.06,
    "reset": 0.04,
    "lie": 0.02,
    "late": 0.01,
    "slow": 0.05,
    "busy": 0.001,
}
"""Answers and their shares of all, when it misbehaves; the rest is ``ok``."""

HEARD = frozenset({"ok", "slow", "late", "reset"})
"""What the receiver took in; after ``reset`` and ``late`` the sender cannot know it."""

CONFIRMED = frozenset({"ok", "slow"})
"""What the sender was told of, in time."""


@dataclass(frozen=True, slots=True)
class Note:
    """One request that was read."""

    at: float
    """``time.monotonic()``"""
    answer: str
    delivery: str
    word: str
    """``conversion``, ``adjustment`` or ``retraction``."""
    conversion: str
    ref: str
    """The transaction id."""
    value_micros: int
    content: str
    """Everything that was sent in target and body."""


class Receiver:
    """The program on a port of its own.  Use as a context manager; it may be killed and started again between."""

    def __init__(self, notes: Path, *, seed: int = 0, trouble: bool = False) -> None:
        """``notes``: the file, continued when it is there."""
        self.path = notes
        self.port = free_port()
        self._seed = seed
        self._trouble = trouble
        self._process: subprocess.Popen[bytes] | None = None
        self._count = self._read = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        """Settings with which deliveries may go to it."""
        return {"POSTBACKD_DELIVER_RANGES": "127.0.0.0/8", "POSTBACKD_DELIVER_PORTS": str(self.port)}

    def start(self) -> None:
        """Start it and wait until it accepts."""
        command = [sys.executable, "-m", "tests.trust.receiver", str(self.port), str(self.path)]
        command += ["--seed", str(self._seed), *(["--trouble"] if self._trouble else [])]
        root = str(Path(__file__).resolve().parents[2])
        env = clean_environment()
        env["PYTHONPATH"] = f"{root}:{env['PYTHONPATH']}"
        self._process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL)
        wait_until(self._accepts, 20, "the receiver accepting")

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """From here on its port refuses."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(30)
            self._process = None

    def count(self) -> int:
        """How many requests are noted."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._read)
                more = file.read()
            self._read += len(more)
            self._count += more.count(b"\n")
        return self._count

    def wait_notes(self, more: int, deadline_s: float = 60) -> float:
        """Until so many more requests than now were read; returns the seconds."""
        aim = self.count() + more
        return wait_until(lambda: self.count() >= aim, deadline_s, f"{more} more requests to the receiver")

    def notes(self) -> Iterator[Note]:
        """What was noted, in order."""
        if self.path.exists():
            with self.path.open() as file:
                for line in file:
                    if line.endswith("\n"):  # else it was not synced, and not answered
                        yield _read_note(line[:-1])

    def __enter__(self) -> Receiver:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def _read_note(line: str) -> Note:
    at, answer, method, target, body = line.split(" ", 4)
    url = urlsplit(target)
    if method == "GET":
        fields = dict(parse_qsl(url.query))
    else:
        fields = json.loads(body) if body.startswith("{") else dict(parse_qsl(body))
    micros = int(Decimal(fields["value"]) * 1_000_000)
    word = url.path.strip("/")
    return Note(
        float(at), answer, fields["delivery"], word, fields["conversion"], fields["tx"], micros, target + body
    )


# --- the program -----------------------------------------------------------------------------------------------


class _Desk:
    """Notes what was read in one round of the loop, syncs that, and then answers."""

    def __init__(self, path: Path, seed: int, shares: Mapping[str, float]) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._draw = random.Random(seed)
        self._answers, self._weights = [*shares, "ok"], [*shares.values(), 1 - sum(shares.values())]
        self._lines: list[str] = []
        self._waiting: list[tuple[asyncio.Transport, str]] = []

    def take(self, transport: asyncio.Transport, method: str, target: str, body: str) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._answer_all)
        answer = self._draw.choices(self._answers, self._weights)[0] if len(self._answers) > 1 else "ok"
        self._lines.append(f"{time.monotonic():.6f} {answer} {method} {target} {body}\n")
        self._waiting.append((transport, answer))

    def _answer_all(self) -> None:
        os.write(self._file, "".join(self._lines).encode())
        os.fdatasync(self._file)
        waiting, self._waiting, self._lines = self._waiting, [], []
        for transport, answer in waiting:
            self._answer(transport, answer)

    def _answer(self, transport: asyncio.Transport, answer: str) -> None:
        if transport.is_closing():
            return  # the sender has died, or given up
        if answer == "reset":
            transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            transport.abort()
        elif answer == "late":
            self._answer_in(1.5 * PATIENCE_MS / 1000, transport)
        elif answer == "slow":
            self._answer_in(self._draw.random() * 0.3, transport)
        else:
            transport.write({"error": _ERROR, "lie": _LIE, "busy": _BUSY}.get(answer, _OK))

    def _answer_in(self, seconds: float, transport: asyncio.Transport) -> None:
        asyncio.get_running_loop().call_later(seconds, self._answer, transport, "ok")


class _Talk(asyncio.Protocol):
    """One connection; its sender waits for the answer before it asks again."""

    def __init__(self, desk: _Desk) -> None:
        self._desk = desk
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if len(rest) < length:
            return
        self._received = rest[length:]
        method, target, _ = head.partition(b"\r\n")[0].decode().split(" ")
        self._desk.take(self._transport, method, target, rest[:length].decode().replace("\n", " "))


async def _serve(port: int, desk: _Desk) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: _Talk(desk), "127.0.0.1", port)
    await server.serve_forever()


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.trust.receiver")
    parser.add_argument("port", type=int)
    parser.add_argument("notes", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--trouble", action="store_true", help="fail, stall and lie in a share of the answers"
    )
    options = parser.parse_args()
    uvloop.run(_serve(options.port, _Desk(options.notes, options.seed, TROUBLE if options.trouble else {})))


if __name__ == "__main__":
    _main()
