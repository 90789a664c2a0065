"""One HTTP exchange with the server, which tells three ends apart: answered, never sent, and unknown.

A request whose bytes went out and that was not answered may have been counted or not; only who could not connect knows
that it was not.  So nothing here tries anything again: that is the business of whoever sends.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Mapping
from time import perf_counter
from urllib.parse import urlsplit

from msgspec import Struct

_MOST_HEAD, _MOST_BODY = 16 * 1024, 64 * 1024 * 1024
_IDLE_S = 30.0
"""The server closes idle connections after 75 s: one of ours is not used again when that may be near."""


class Answered(Struct, frozen=True):
    """What was answered."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    took_us: int


class Unanswered(Struct, frozen=True, kw_only=True):
    """What came instead of an answer."""

    sent: bool
    """Whether the server may have read the request."""
    error: str


class Place(Struct, frozen=True):
    """A server."""

    host: str
    port: int
    tls: bool = False

    @property
    def authority(self) -> str:
        """As ``Host`` names it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """Scheme and authority."""
        return f"{'https' if self.tls else 'http'}://{self.authority}"

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine, by its address or the one name that nobody else can answer for."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def read_place(url: str) -> Place:
    """The place of a URL without a path.  Raises ``ValueError`` with what to write."""
    example = "write it as http://127.0.0.1:8080"
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{url!r} is no address of a server ({error}); {example}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no address of a server; {example}")
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f"{url!r} holds more than the address of a server; {example}")
    tls = parts.scheme == "https"
    return Place(parts.hostname, (443 if tls else 80) if port is None else port, tls)


class _Connection(Struct):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    idle_since: float = 0.0


class Connections:
    """Connections to one place, kept while they are good."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._tls = ssl.create_default_context() if place.tls else None
        self._idle: list[_Connection] = []

    async def ask(self, request: bytes, timeout_s: float) -> Answered | Unanswered:
        """Send a request and hear the answer.  Raises nothing for what the other side does."""
        began = perf_counter()
        try:
            async with asyncio.timeout(timeout_s):
                connection = self._take() or await self._connect()
        except (OSError, ssl.SSLError) as error:  # a TimeoutError is one
            return Unanswered(sent=False, error=_explain(error, timeout_s))
        try:
            async with asyncio.timeout(timeout_s - (perf_counter() - began)):
                return await self._exchange(connection, request, began)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            connection.writer.transport.abort()
            return Unanswered(sent=True, error=_explain(error, timeout_s))
        except asyncio.CancelledError:
            connection.writer.transport.abort()
            raise

    def close(self) -> None:
        """Close what is kept."""
        for connection in self._idle:
            connection.writer.transport.abort()
        self._idle.clear()

    def _take(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            fresh = perf_counter() - connection.idle_since < _IDLE_S
            if fresh and not connection.reader.at_eof() and not connection.writer.is_closing():
                return connection
            connection.writer.transport.abort()
        return None

    async def _connect(self) -> _Connection:
        reader, writer = await asyncio.open_connection(
            self._place.host, self._place.port, ssl=self._tls, limit=_MOST_HEAD
        )
        return _Connection(reader, writer)

    async def _exchange(self, connection: _Connection, request: bytes, began: float) -> Answered:
        connection.writer.write(request)
        head = (await connection.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first.split(" ")[1])
        length = int(headers.get("content-length", "0"))
        if length > _MOST_BODY:
            raise ValueError(f"the answer has {length} bytes")
        bodyless = request.startswith(b"HEAD ") or status in (204, 304)
        body = b"" if bodyless or not length else await connection.reader.readexactly(length)
        answered = Answered(status, headers, body, int((perf_counter() - began) * 1_000_000))
        if headers.get("connection", "").lower() == "close":
            connection.writer.transport.abort()
        else:
            connection.idle_since = perf_counter()
            self._idle.append(connection)
        return answered


def _explain(error: BaseException, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, EOFError):  # asyncio.IncompleteReadError
        return "the connection was closed without an answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
