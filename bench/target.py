"""Targets of deliveries that cost next to nothing, and note what arrives when: ``python -m bench.target --targets N``.

One process holds them all, each on a port of its own.  It is told what to do on its standard input, a line each, and
answers with a line: ``mode PORT MODE`` (how a target behaves from now on), ``count`` (requests so far), ``write FILE``
(what was noted, and forget it).  It ends with its input.

A request is noted by the monotonic clock of the machine, the port, and the ``tx`` parameter of its URL.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import socket
import struct
import subprocess
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from bench.machine import HOST, LOAD_CORE, STOP_TIMEOUT_S, NotRun, pinned_to

ALIVE, REFUSING, SILENT, FAILING, RESETTING, DRIPPING = MODES = (
    "alive",
    "refusing",
    "silent",
    "failing",
    "resetting",
    "dripping",
)
"""Answers 200; nobody listens; takes requests and says nothing; answers 500; resets the connection when it is asked;
sends its answer one byte a second."""

DEAD = MODES[1:]

_ALIVE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_FAILING = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
_END_OF_HEAD = b"\r\n\r\n"
_ID = b"tx="
_DRIP_S = 1.0
_LINGER_NOT = struct.pack("ii", 1, 0)


class _Notes:
    """What arrived, in its order.  No object a request but the id: a million of them must not disturb the clock."""

    def __init__(self) -> None:
        self.count = 0
        self._forget()

    def _forget(self) -> None:
        self._times = array("q")
        self._ports = array("H")
        self._ids: list[bytes] = []

    def add(self, port: int, head: bytes) -> None:
        self.count += 1
        self._times.append(time.monotonic_ns())
        self._ports.append(port)
        begin = head.find(_ID) + len(_ID)
        self._ids.append(head[begin : head.find(b" ", begin)].partition(b"&")[0])

    def write(self, file: Path) -> None:
        """To a file, and forget it."""
        noted = zip(self._times, self._ports, self._ids, strict=True)
        with file.open("w") as output:
            output.writelines(f"{ns} {port} {id_.decode()}\n" for ns, port, id_ in noted)
        self._forget()


class _Target:
    """One port."""

    def __init__(self, notes: _Notes) -> None:
        self.notes = notes
        self.mode = REFUSING
        self.connections: set[_Connection] = set()
        self._socket = _bind(0)
        self.port: int = self._socket.getsockname()[1]
        self._server: asyncio.Server | None = None

    async def behave(self, mode: str) -> None:
        """From now on; nobody who is connected is left over from before a target refuses."""
        self.mode = mode
        if mode != REFUSING and self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(partial(_Connection, self), sock=self._socket)
        elif mode == REFUSING and self._server is not None:
            self._server.close()
            for connection in tuple(self.connections):
                connection.reset()
            self._server, self._socket = None, _bind(self.port)


def _bind(port: int) -> socket.socket:
    """Bound and not listening: the port is ours, and who connects is refused."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((HOST, port))
    return bound


class _Connection(asyncio.Protocol):
    """Requests without a body."""

    __slots__ = ("_left", "_target", "_transport")

    def __init__(self, target: _Target) -> None:
        self._target = target
        self._left = b""
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._target.connections.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._target.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        data = self._left + data
        while (end := data.find(_END_OF_HEAD)) >= 0:
            self._target.notes.add(self._target.port, data[:end])
            data = data[end + len(_END_OF_HEAD) :]
            self._answer()
        self._left = data

    def _answer(self) -> None:
        mode = self._target.mode
        if mode == ALIVE:
            self._transport.write(_ALIVE)
        elif mode == FAILING:
            self._transport.write(_FAILING)
        elif mode == RESETTING:
            self.reset()
        elif mode == DRIPPING:
            self._drip(0)

    def _drip(self, at: int) -> None:
        if at < len(_ALIVE) and not self._transport.is_closing():
            self._transport.write(_ALIVE[at : at + 1])
            asyncio.get_running_loop().call_later(_DRIP_S, self._drip, at + 1)

    def reset(self) -> None:
        connected = self._transport.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        self._transport.abort()


async def _serve(count: int) -> None:
    notes = _Notes()
    targets = {target.port: target for target in (_Target(notes) for _number in range(count))}
    for target in targets.values():
        await target.behave(ALIVE)
    print(*targets, flush=True)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    # Nothing here is ever garbage in a circle.
    gc.disable()
    while line := await commands.readline():
        match line.decode().split():
            case ["mode", port, mode] if mode in MODES:
                await targets[int(port)].behave(mode)
            case ["write", file]:
                notes.write(Path(file))
            case ["count"]:
                pass
            case _:
                raise ValueError(f"not a command: {line!r}")
        print(notes.count, flush=True)


# --- the side of the benchmark ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Receipt:
    """A request that arrived at a target."""

    at_s: float
    """On the machine's monotonic clock."""
    port: int
    id: str
    """The ``tx`` parameter of its URL."""


class Targets:
    """The process with the targets, on the core of the load generator; all are alive in the beginning."""

    def __init__(self, count: int, directory: Path) -> None:
        self._notes = directory / "target.notes"
        command = [sys.executable, "-m", "bench.target", "--targets", str(count)]
        with pinned_to(LOAD_CORE):
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        self.ports = tuple(map(int, self._hear().split()))

    def behave(self, port: int, mode: str) -> None:
        """One of ``MODES``, from now on."""
        self._ask(f"mode {port} {mode}")

    def count(self) -> int:
        """Requests so far, at all ports, those that were never answered too."""
        return int(self._ask("count"))

    def take(self) -> Sequence[Receipt]:
        """What has arrived since this was asked the last time, in its order."""
        self._ask(f"write {self._notes}")
        lines = (line.split(" ") for line in self._notes.read_text().splitlines())
        return [Receipt(int(ns) / 1e9, int(port), id_) for ns, port, id_ in lines]

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, command: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._hear()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise NotRun("the targets of the deliveries ended")
        return line


def main() -> None:
    """Serve until the end of the standard input."""
    parser = argparse.ArgumentParser(prog="python -m bench.target")
    parser.add_argument("--targets", type=int, default=1, help="how many, each on a port of its own")
    uvloop.run(_serve(parser.parse_args().targets))


if __name__ == "__main__":
    main()
