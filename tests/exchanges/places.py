"""Endpoints for the tests of exchanges: certificates that are made once, and servers that are slow in one phase."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import uvloop

from postbackd.core.deliveries import Outgoing
from postbackd.core.exchange import PHASES, Exchange, Phase
from postbackd.delivery.client import make_tls
from postbackd.exchanges.timed import Timer
from tests.delivery.targets import OK, Talk
from tests.tls.issuer import Issuer

DELAY_S = 0.15


def run(work: Coroutine[Any, Any, None]) -> None:
    uvloop.run(asyncio.wait_for(work, 30))


@lru_cache(maxsize=1)
def authority() -> Issuer:
    return Issuer()


def server_tls(name: str = "localhost") -> ssl.SSLContext:
    """What a server of that name shows."""
    certificate, key = authority().make(name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as directory:
        path = Path(directory) / "pair.pem"
        path.write_bytes(key + certificate)
        context.load_cert_chain(path)
    return context


def trusting() -> ssl.SSLContext:
    """A context that knows the authority of these tests."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "root.pem"
        path.write_bytes(authority().root)
        return make_tls(str(path))


async def ask(url: str, timer: Timer | None = None, **options: Any) -> Exchange:
    """One GET, on a client of its own unless one is given."""
    used = timer or Timer(trusting())
    try:
        return await used.exchange(Outgoing("GET", url), **options)
    finally:
        if timer is None:
            used.close()


def slowest(made: Exchange) -> tuple[Phase, float]:
    """The phase that took longest, and its milliseconds."""
    times = {phase: made.phase_ms(phase) or 0.0 for phase in PHASES if phase != "total"}
    phase = max(times, key=lambda one: times[one])
    return phase, times[phase]


class _OneAnswer(asyncio.Protocol):
    """Says OK once it was asked."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(OK)


@asynccontextmanager
async def late_tls(delay_s: float) -> AsyncIterator[str]:
    """The system takes the connection at once; the server begins its handshake late."""
    context = server_tls()
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)

    async def serve() -> None:
        while True:
            accepted, _ = await loop.sock_accept(listener)
            await asyncio.sleep(delay_s)
            try:
                await loop.connect_accepted_socket(_OneAnswer, accepted, ssl=context)
            except OSError:
                continue  # somebody looks which versions there are

    serving = asyncio.create_task(serve())
    try:
        yield f"https://localhost:{listener.getsockname()[1]}/"
    finally:
        serving.cancel()
        await asyncio.wait([serving])
        listener.close()


@asynccontextmanager
async def full_backlog() -> AsyncIterator[tuple[str, Callable[[], None]]]:
    """A listener whose queue is full: a new connection waits until the function has made room."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    port = listener.getsockname()[1]
    waiting = [socket.create_connection(("127.0.0.1", port))]
    try:
        yield f"http://127.0.0.1:{port}/", lambda: waiting.append(listener.accept()[0])
    finally:
        for one in (*waiting, listener):
            one.close()


# --- trackers ----------------------------------------------------------------------------------------------------

Answering = Callable[[str, dict[str, str]], tuple[int, dict[str, Any]]]
"""Method and parameters in, status and document out."""


def tracker(answering: Answering) -> Callable[[Talk], Coroutine[Any, Any, None]]:
    """A script that answers by what was asked for."""

    async def script(talk: Talk) -> None:
        while request := await talk.request():
            method, target, _ = request.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
            said = dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))
            status, document = answering(method, said)
            body = json.dumps(document).encode()
            await talk.say(f"HTTP/1.1 {status} Said\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    return script


def trust_file(directory: Path) -> str:
    """The authority of these tests as a file."""
    path = directory / "root.pem"
    path.write_bytes(authority().root)
    return str(path)
