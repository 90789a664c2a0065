"""Sends one request to any endpoint and times each phase of it.

The request is written, the answer parsed and bounded as deliveries do it (``delivery.request``, ``.connection``,
``.resolver``).  Not taken over is the guard of addresses: here an operator names the endpoint on a command line of
their own.  Instead every exchange says which address it was connected to.

Certificates are verified always; another authority may be named, none may be skipped.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from time import perf_counter
from typing import Any, Literal

import msgspec

from postbackd.core.deliveries import Outgoing
from postbackd.core.exchange import CERTIFICATE, CONNECT, CUT, DNS, MALFORMED, ODD, TIMEOUT, TLS, Exchange
from postbackd.delivery.client import connect_socket, explain
from postbackd.delivery.connection import CLOSED, RESET, Connection, Heard
from postbackd.delivery.request import OddRequest, Place, write_request
from postbackd.delivery.resolver import NameNotFound, Resolver

Family = Literal["", "IPv4", "IPv6"]

KEPT_BYTES = 4096
"""Of a body: enough for a verdict with its hints."""

IDLE_S = 30.0
"""Servers close idle connections after 60 s and more (ours after 75 s): who may send nothing twice stays below that."""

_STAGE_KINDS = {"dns": DNS, "connect": CONNECT, "tls": TLS}


class TimedConnection(Connection):
    """Also notes when the answer began, and all of its headers."""

    __slots__ = ("_bodyless", "first_byte_at", "heads", "peer", "tls_version")

    def __init__(self, place: Place, on_lost: Callable[[Connection], None]) -> None:
        self.first_byte_at = 0.0
        self._bodyless = False
        self.peer = self.tls_version = ""
        self.heads: dict[str, str] = {}
        super().__init__(place, _wait_for_finish, on_lost)

    def connection_made(self, transport: Any) -> None:
        """As it is; the handshake is over by now."""
        agreed = transport.get_extra_info("ssl_object")
        self.tls_version = (agreed.version() or "") if agreed else ""
        name = transport.get_extra_info("peername")
        self.peer = str(name[0]) if name else ""
        super().connection_made(transport)

    @property
    def wire_bytes(self) -> int:
        """How much of the answer has come."""
        return self._wire

    def is_fresh(self, idle_s: float) -> bool:
        """Whether nothing says that it is about to be closed: it is open, and was not idle for so long."""
        return not self._transport.is_closing() and perf_counter() - self.idle_since < idle_s

    def _reset(self) -> None:
        self.heads = {}
        super()._reset()

    def ask(self, request: bytes, future: asyncio.Future[Heard], kept: int) -> None:
        """As it is, from a new first byte on."""
        self.first_byte_at = 0.0
        self._bodyless = request.startswith(b"HEAD ")
        super().ask(request, future, kept)

    def data_received(self, data: bytes) -> None:
        """As it is, with the clock."""
        if not self.first_byte_at:
            self.first_byte_at = perf_counter()
        super().data_received(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """As it is, with every header kept: how many there may be is bounded there."""
        super().on_header(name, value)
        if not self._in_body:
            self.heads.setdefault(name.decode("latin-1").lower(), value[:1024].decode("latin-1"))

    def on_headers_complete(self) -> None:
        """As it is; the answer to HEAD is over now, whatever length its head tells (RFC 9110 section 9.3.2)."""
        super().on_headers_complete()
        if self._bodyless and self._in_body and self.heads.get("content-length") != "0":
            self._stop("")  # the parser would wait for that body: the connection is not used again


def _wait_for_finish(connection: Connection) -> None:
    """It is kept once its answer was taken from it (``Timer._finish``)."""


class _Stopped(Exception):
    """No connection came about."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


class _Clock:
    """The phases of one exchange as they end."""

    def __init__(self, total_ms: int) -> None:
        self.began = self._mark = perf_counter()
        self.ends = self.began + total_ms / 1000
        self.total_ms = total_ms
        self.phases: dict[str, float] = {}
        self.stage = "dns"
        self.address = ""

    def start(self, stage: str) -> None:
        """The next phase begins."""
        self.stage, self._mark = stage, perf_counter()

    def stop(self) -> None:
        """The phase has ended well."""
        self.phases[f"{self.stage}_ms"] = (perf_counter() - self._mark) * 1000

    def left_s(self) -> float:
        return max(0.0, self.ends - perf_counter())

    def fill(self, made: Exchange) -> Exchange:
        """The exchange, which is over now, with its times."""
        total_ms = (perf_counter() - self.began) * 1000
        return msgspec.structs.replace(made, total_ms=total_ms, **self.phases)


class Timer:
    """Sends and times requests; belongs to one event loop.  Close it at the end."""

    def __init__(
        self,
        tls: ssl.SSLContext,
        *,
        connect_ms: int = 5000,
        total_ms: int = 10_000,
        kept_bytes: int = KEPT_BYTES,
        resends: bool = True,
        resolver: Resolver | None = None,
    ) -> None:
        """``connect_ms`` bounds look-up, connection and TLS together; ``kept_bytes`` of a body are kept.

        ``resends``: a request is sent once more, on a new connection, when a kept one ends before the first byte of an
        answer; most likely the endpoint closed it at that moment.  Without, it is ``sent`` and not answered.
        """
        self._tls = tls
        self._connect_ms = min(connect_ms, total_ms)
        self._total_ms = total_ms
        self._kept_bytes = kept_bytes
        self._resends = resends
        self._resolver = resolver or Resolver()
        self._idle: dict[Place, deque[TimedConnection]] = {}
        self._open: set[Connection] = set()

    async def exchange(
        self,
        request: Outgoing,
        *,
        keep: bool = False,
        family: Family = "",
        encoding: str = "identity",
        total_ms: int | None = None,
    ) -> Exchange:
        """Send a request and hear the answer; raises nothing for whatever the outside does.

        ``keep``: over a kept connection if there is one, and keep it.  ``total_ms``: another limit for this one.
        """
        clock = _Clock(total_ms or self._total_ms)
        try:
            place, written = write_request(request, encoding)
        except OddRequest as error:
            return Exchange(error=str(error), kind=ODD)
        kept = self._take_idle(place) if keep else None
        if kept is not None:
            heard = await self._hear(kept, written, clock)
            if not (heard.nothing_came and self._resends) or clock.left_s() <= 0:
                return self._finish(kept, heard, clock, reused=True, keep=True)
        try:
            connection = await self._reach(place, family, clock)
        except _Stopped as error:
            return clock.fill(
                Exchange(
                    address=clock.address,
                    port=place.port,
                    error=str(error),
                    kind=error.kind,
                    sent=kept is not None,
                )
            )
        heard = await self._hear(connection, written, clock)
        return self._finish(connection, heard, clock, reused=False, keep=keep)

    def close(self) -> None:
        """Close every connection."""
        for connection in tuple(self._open):
            connection.give_up("stopped")

    # --- the answer ------------------------------------------------------------------------------------------

    async def _hear(self, connection: TimedConnection, written: bytes, clock: _Clock) -> Heard:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Heard] = loop.create_future()
        late = f"no answer within {clock.total_ms / 1000:g} s"
        timer = loop.call_later(clock.left_s(), connection.give_up, late)
        clock.start("first_byte")
        asked = perf_counter()
        connection.ask(written, future, self._kept_bytes)
        try:
            heard = await future
        except asyncio.CancelledError:
            connection.give_up("cancelled")
            raise
        finally:
            timer.cancel()
        if connection.first_byte_at > asked:
            clock.phases["first_byte_ms"] = (connection.first_byte_at - asked) * 1000
        return heard

    def _finish(
        self, connection: TimedConnection, heard: Heard, clock: _Clock, *, reused: bool, keep: bool
    ) -> Exchange:
        made = Exchange(
            address=connection.peer,
            port=connection.place.port,
            reused=reused,
            sent=True,
            status=heard.status,
            headers=dict(connection.heads),
            body=heard.body,
            wire_bytes=connection.wire_bytes,
            tls=connection.tls_version,
            error=heard.error,
            kind=_kind_of(heard) if heard.error else "",
        )
        # Only now may it be asked again: before, the next request would have taken its headers.
        if keep and not connection.closed:
            connection.idle_since = perf_counter()
            self._idle.setdefault(connection.place, deque()).append(connection)
        else:
            connection.give_up("")
        return clock.fill(made)

    # --- the connection --------------------------------------------------------------------------------------

    async def _reach(self, place: Place, family: Family, clock: _Clock) -> TimedConnection:
        """A connection to one of the addresses, which are tried in turn.  Raises ``_Stopped``."""
        ends = min(clock.ends, perf_counter() + self._connect_ms / 1000)
        addresses = await self._find(place, family, clock, ends)
        stopped = _Stopped(CONNECT, "")
        clock.start("connect")
        for tried, address in enumerate(addresses):
            share_s = max(0.001, (ends - perf_counter()) / (len(addresses) - tried))
            try:
                async with asyncio.timeout(share_s):
                    return await self._connect(place, address, clock)
            except TimeoutError:
                what = "no TLS handshake with" if clock.stage == "tls" else "no connection to"
                stopped = _Stopped(TIMEOUT, f"{what} {address} within {share_s:.3g} s")
            except (OSError, ValueError) as error:
                is_certificate = isinstance(error, ssl.SSLCertVerificationError)
                kind = CERTIFICATE if is_certificate else _STAGE_KINDS[clock.stage]
                stopped = _Stopped(kind, _say(error, clock.stage))
        raise stopped

    async def _find(self, place: Place, family: Family, clock: _Clock, ends: float) -> Sequence[str]:
        if place.literal:
            found: Sequence[str] = (place.host,)
        else:
            try:
                async with asyncio.timeout(max(0.0, ends - perf_counter())):
                    found = await self._resolver.addresses(place.host)
            except TimeoutError:
                raise _Stopped(DNS, f"the name {place.host} was not looked up in time") from None
            except NameNotFound as error:
                raise _Stopped(DNS, str(error)) from None
            clock.stop()
        fitting = [one for one in found if not family or (":" in one) == (family == "IPv6")]
        if not fitting:
            raise _Stopped(DNS, f"{place.host} has no {family} address")
        return fitting

    async def _connect(self, place: Place, address: str, clock: _Clock) -> TimedConnection:
        """Raises ``OSError``, ``ValueError``."""
        clock.address = address
        clock.stage = "connect"  # its time runs on from the first address: the dead ones cost it
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        connected = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await connect_socket(connected, address, place.port)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            clock.stop()
            if place.tls:
                clock.start("tls")
            _, made = await asyncio.get_running_loop().create_connection(
                lambda: TimedConnection(place, self._lost),
                sock=connected,
                ssl=self._tls if place.tls else None,
                server_hostname=place.host if place.tls else None,
            )
        except BaseException:
            connected.close()
            raise
        if place.tls:
            clock.stop()
        self._open.add(made)
        return made

    def _take_idle(self, place: Place) -> TimedConnection | None:
        """The connection that was used last, if it can be relied on."""
        idle = self._idle.get(place)
        while idle:
            connection = idle.pop()
            if connection.is_fresh(inf if self._resends else IDLE_S):
                return connection
            connection.give_up("")
        return None

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        idle = self._idle.get(connection.place)
        if idle and connection in idle:
            assert isinstance(connection, TimedConnection)
            idle.remove(connection)


def _say(error: Exception, stage: str) -> str:
    if stage == "tls" and isinstance(error, ConnectionError):
        return "the connection was closed in the middle of the handshake"
    return explain(error)


def _kind_of(heard: Heard) -> str:
    if heard.error.startswith("no answer within"):
        return TIMEOUT
    if heard.nothing_came or heard.error in (CLOSED, RESET) or heard.error.startswith("the connection was"):
        return CUT
    return MALFORMED
