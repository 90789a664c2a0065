"""Clients that hold a connection by being slow, and how long each was put up with (T17)."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tests.trust.corpus.wire import Address

LIMITS_S = {"silent": 5.0, "header drip": 5.0, "body drip": 10.0, "slow read": 10.0, "slow 404": 14.0}
"""How long the front door may wait: for the first byte, the headers, the body, a reader.

The last kind needs 3 s or so until its short answers have filled the buffers, and then 10 s count.
"""

_HEAD = b"POST /p/slow HTTP/1.1\r\nHost: a\r\nX-Padding: "
_BODY_HEAD = b"POST /p/slow HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n"
_OPENINGS = {"silent": b"", "header drip": _HEAD, "body drip": _BODY_HEAD}
_A_SECOND = 2_000
"""New slow clients: a storm of connections is another test's business."""

QUESTIONS = 1_200
"""With answers of 4 kB this is more than the socket buffers between the two programs hold, and yet six of these
clients do not fill the queue of a server, whose 503 would be short."""

_REFUSED = b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n" * 256
_REFUSED_TIMES = 300
_REFUSED_EVERY_S = 0.02
"""A pace that leaves the server time for others: reading much at once is not what is looked at here."""


@dataclass(frozen=True)
class Held:
    """One slow client: how long it was put up with, ``None`` when it still was at the end."""

    kind: str
    seconds: float | None

    def over(self, slack_s: float) -> bool:
        """Whether it was put up with for longer than allowed."""
        return self.seconds is None or self.seconds > LIMITS_S[self.kind] + slack_s


class _Holder(asyncio.Protocol):
    """Says its opening words and then a byte whenever it is told to, until the server has hung up."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.began = 0.0
        self.seconds: float | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.began = time.perf_counter()
        transport.write(_OPENINGS[self.kind])

    def connection_lost(self, exc: Exception | None) -> None:
        self.seconds = time.perf_counter() - self.began

    def drip(self) -> None:
        """One more byte; nothing from a silent one."""
        if self._transport is not None and self.seconds is None and self.kind != "silent":
            self._transport.write(b"a")

    def end(self) -> Held:
        """Give up; what became of it."""
        seconds = self.seconds
        if self._transport is not None:
            self._transport.abort()
        return Held(self.kind, seconds)


async def hold_all(
    address: Address, kinds: Sequence[str], patience_s: float, question: bytes = b""
) -> list[Held]:
    """One slow client for each of ``kinds``; gives up on each after ``patience_s``.

    ``question``: a request with an answer of 4 kB, which slow readers send ``QUESTIONS`` times.
    """
    readers = [kind for kind in kinds if kind.startswith("slow")]
    drips = asyncio.ensure_future(
        _hold_drips(address, [kind for kind in kinds if kind in _OPENINGS], patience_s)
    )
    held = await asyncio.gather(*(_hold_reader(address, kind, patience_s, question) for kind in readers))
    return [*await drips, *held]


async def _hold_drips(address: Address, kinds: Sequence[str], patience_s: float) -> list[Held]:
    loop = asyncio.get_running_loop()
    holders = [_Holder(kind) for kind in kinds]
    for number, holder in enumerate(holders):
        await loop.create_connection(lambda h=holder: h, *address)  # type: ignore[misc]
        if number % 20 == 0:
            await asyncio.sleep(20 / _A_SECOND)
    end = time.perf_counter() + patience_s
    while time.perf_counter() < end and any(holder.seconds is None for holder in holders):
        await asyncio.sleep(1.0)  # the pace of the drip
        for holder in holders:
            holder.drip()
    return [holder.end() for holder in holders]


async def _hold_reader(address: Address, kind: str, patience_s: float, question: bytes) -> Held:
    loop = asyncio.get_running_loop()
    client = socket.socket()
    client.setblocking(False)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    try:
        await loop.sock_connect(client, address)
        began = time.perf_counter()
        try:
            await asyncio.wait_for(_read_slowly(client, kind, question), patience_s)
        except TimeoutError:
            return Held(kind, None)
        except OSError:
            pass  # reset: closed as well
        return Held(kind, time.perf_counter() - began)
    finally:
        client.close()


async def _read_slowly(client: socket.socket, kind: str, question: bytes) -> None:
    """Ask much and read nothing, until the server has hung up.

    Its end would show to this client only behind everything that is in the kernel's buffers, so the kernel is asked.
    """
    loop = asyncio.get_running_loop()
    talk = loop.sock_sendall(client, question * QUESTIONS) if kind == "slow read" else _ask_nothing(client)
    asking = asyncio.ensure_future(talk)
    port, server_port = client.getsockname()[1], client.getpeername()[1]
    try:
        while _is_held(server_port, port):  # noqa: ASYNC110 - the kernel has no event for it
            await asyncio.sleep(_LOOK_EVERY_S)
    finally:
        asking.cancel()


async def _ask_nothing(client: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(_REFUSED_TIMES):
        await loop.sock_sendall(client, _REFUSED)
        await asyncio.sleep(_REFUSED_EVERY_S)


_LOOK_EVERY_S = 0.25
_ESTABLISHED = "01"


def _is_held(server_port: int, port: int) -> bool:
    """Whether the server's end of a connection is still open (``/proc/net/tcp``: state and ports in hexadecimal)."""
    return (server_port, port) in _open_pairs(int(time.monotonic() / _LOOK_EVERY_S))


@lru_cache(maxsize=1)
def _open_pairs(_moment: int) -> frozenset[tuple[int, int]]:
    """(local port, remote port) of every open connection, read once a moment."""
    pairs = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state = line.split()[:4]
        if state == _ESTABLISHED:
            pairs.add((int(local.rpartition(":")[2], 16), int(remote.rpartition(":")[2], 16)))
    return frozenset(pairs)
