"""Targets on the loopback that answer by script, on real sockets; they never raise into the test.

A script is a coroutine that gets one connection as a ``Talk``.  When it returns the connection is closed.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from postbackd.core.addresses import Allowed, read_allowed

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"


@dataclass
class Target:
    """A running target."""

    host: str
    port: int
    scheme: str = "http"
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once a request was read."""

    def url(self, path: str = "/postback?id=1") -> str:
        return f"{self.scheme}://{self.host}:{self.port}{path}"


class Talk:
    """One connection, from the target's side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: Target) -> None:
        self.reader = reader
        self.writer = writer
        self.number = target.connections
        """1 for the first connection to the target."""
        self._target = target

    async def request(self) -> bytes:
        """The next request with its body; empty when the client has gone."""
        try:
            read = await self.reader.readuntil(b"\r\n\r\n")
            for line in read.lower().split(b"\r\n"):
                name, _, value = line.partition(b":")
                if name == b"content-length":
                    read += await self.reader.readexactly(int(value))
        except (asyncio.IncompleteReadError, OSError):
            return b""
        self._target.requests.append(read)
        self._target.asked.set()
        return read

    async def say(self, *pieces: bytes) -> None:
        """Send each piece on its own."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def drip(self, content: bytes, every_s: float = 0.02) -> None:
        """A byte at a time, and then nothing."""
        for byte in content:
            await self.say(bytes((byte,)))
            await asyncio.sleep(every_s)
        await self.silence()

    async def flood(self, piece: bytes) -> None:
        """The same again and again, as fast as it is read."""
        while True:
            await self.say(piece)
            await asyncio.sleep(0)  # a write that fits into the socket lets nobody else run

    async def silence(self) -> None:
        """Nothing more, until the client has gone."""
        while await self.reader.read(65_536):
            pass

    def reset(self) -> None:
        """End the connection with RST instead of FIN."""
        with socket.socket(fileno=socket.dup(self.writer.get_extra_info("socket").fileno())) as copy:
            copy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()


Script = Callable[[Talk], Awaitable[None]]


def answers(*rounds: bytes, close: bool = False) -> Script:
    """Each request of a connection gets the next answer, those after the last one get the last one again."""

    async def script(talk: Talk) -> None:
        number = 0
        while await talk.request():
            await talk.say(rounds[min(number, len(rounds) - 1)])
            number += 1
            if close:
                return

    return script


@asynccontextmanager
async def target(
    script: Script, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Target]:
    """Run a script behind a free port for as long as the block runs."""
    running: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        running.add(task)
        made.connections += 1
        try:
            await script(Talk(reader, writer, made))
        except (OSError, asyncio.CancelledError):
            return  # the client has gone, or the test is over
        finally:
            running.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, host, 0, ssl=tls)
    made = Target(host, server.sockets[0].getsockname()[1], "https" if tls else "http")
    try:
        yield made
    finally:
        server.close()
        tasks = [task for task in running if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def loopback(*ports: int) -> Allowed:
    """The loopback, on these ports."""
    return read_allowed("127.0.0.0/8", ",".join(map(str, ports)))
