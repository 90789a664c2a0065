"""The HTTP client that deliveries go out with.

It does what a delivery needs and nothing else: no redirects are followed, no cookies kept, no proxies taken from the
environment.  Whatever the outside does ends in an ``Answer``, in bounded time and memory.

Every connection goes to a numeric address that ``core.addresses`` has judged in ``_connect``, the only place where a
socket is connected; names, literals and kept connections all come through it.  ``Host``, the name for TLS and the
name in the certificate stay those of the URL.

A kept connection may have been closed by the target at the moment it was used.  When it ends before the first byte of
an answer the request is sent again at once, once, on a new connection.  The target may then get it twice, which is
what "at least once" with a stable id allows.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections import deque
from time import perf_counter

from postbackd.core.addresses import Allowed
from postbackd.core.deliveries import Answer, Outgoing
from postbackd.delivery.body import KEPT
from postbackd.delivery.connection import Connection, Heard
from postbackd.delivery.request import OddRequest, Place, write_request
from postbackd.delivery.resolver import NameNotFound, Resolver

MAX_IDLE = 64
"""Kept connections to one place."""
MAX_IDLE_IN_ALL = 1024
IDLE_S = 20.0
"""Most servers keep an idle connection longer than this, so that few are closed under our hands."""


class _CannotConnect(Exception):
    """The message is a sentence."""


class Client:
    """Sends requests; belongs to the event loop in which it is first used."""

    def __init__(
        self,
        allowed: Allowed,
        tls: ssl.SSLContext | None = None,
        resolver: Resolver | None = None,
        *,
        idle_s: float = IDLE_S,
    ) -> None:
        """``tls``: other trusted authorities (see ``make_tls``).  Raises ``ValueError`` when it verifies nothing."""
        self._allowed = allowed
        self._tls = tls or make_tls()
        if self._tls.verify_mode != ssl.CERT_REQUIRED or not self._tls.check_hostname:
            raise ValueError("deliveries need a TLS context that verifies certificate and name")
        self._resolver = resolver or Resolver()
        self._idle_s = idle_s
        self._idle: dict[Place, deque[Connection]] = {}
        self._idle_in_all = 0
        self._open: set[Connection] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    async def send(
        self, request: Outgoing, *, connect_ms: int, total_ms: int, answer_bytes: int = KEPT
    ) -> Answer:
        """Send a request and hear the answer.  Raises nothing for whatever the outside does.

        ``connect_ms`` bounds look-up, connection and TLS together, ``total_ms`` everything.  ``answer_bytes`` of the
        body are kept.  An answer with a status *and* an error was read only in part, or its body is not what it
        claims to be.
        """
        began = perf_counter()
        try:
            place, written = write_request(request)
            heard = await self._ask(place, written, connect_ms, total_ms, answer_bytes, began)
        except (OddRequest, _CannotConnect) as error:
            return Answer(error=str(error), took_ms=_ms_since(began))
        return Answer(heard.status, heard.body, heard.headers, heard.error, _ms_since(began))

    async def close(self) -> None:
        """Close every connection; what is on its way ends with an error."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in tuple(self._open):
            connection.give_up("postbackd is stopping")

    # --- one request -----------------------------------------------------------------------------------------

    async def _ask(
        self, place: Place, written: bytes, connect_ms: int, total_ms: int, answer_bytes: int, began: float
    ) -> Heard:
        kept = self._take_idle(place)
        if kept is not None:
            heard = await self._hear(kept, written, total_ms, answer_bytes, began)
            if not heard.nothing_came or self._closed:
                return heard
        left_ms = max(1, total_ms - _ms_since(began))
        connection = await self._reach(place, min(connect_ms, left_ms))
        return await self._hear(connection, written, total_ms, answer_bytes, began)

    async def _hear(
        self, connection: Connection, written: bytes, total_ms: int, answer_bytes: int, began: float
    ) -> Heard:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Heard] = loop.create_future()
        left_s = total_ms / 1000 - (perf_counter() - began)
        timer = loop.call_later(
            max(0.0, left_s), connection.give_up, f"no answer within {_seconds(total_ms)}"
        )
        connection.ask(written, future, answer_bytes)
        try:
            return await future
        except asyncio.CancelledError:
            connection.give_up("cancelled")
            raise
        finally:
            timer.cancel()

    # --- connections -----------------------------------------------------------------------------------------

    async def _reach(self, place: Place, limit_ms: int) -> Connection:
        """A new connection to one of the addresses of the place.  Raises ``_CannotConnect``."""
        ends = perf_counter() + limit_ms / 1000
        addresses = await self._find(place, limit_ms)
        error = ""
        for tried, address in enumerate(addresses):
            # A dead address must leave time for the others.
            share_s = (ends - perf_counter()) / (len(addresses) - tried)
            try:
                async with asyncio.timeout(share_s):
                    connection = await self._connect(place, address)
            except TimeoutError:
                error = f"no connection to {address} within {_seconds(limit_ms)}"
            except (OSError, ValueError, _CannotConnect) as problem:
                error = explain(problem)
            else:
                if not self._closed:
                    return connection
                connection.give_up("postbackd is stopping")
                error = "postbackd is stopping"
        raise _CannotConnect(error)

    async def _find(self, place: Place, limit_ms: int) -> tuple[str, ...]:
        if self._closed:
            raise _CannotConnect("postbackd is stopping")
        if place.literal:
            return (place.host,)
        try:
            async with asyncio.timeout(limit_ms / 1000):
                return await self._resolver.addresses(place.host)
        except TimeoutError:
            raise _CannotConnect(
                f"the name {place.host} was not looked up within {_seconds(limit_ms)}"
            ) from None
        except NameNotFound as error:
            raise _CannotConnect(str(error)) from None

    async def _connect(self, place: Place, address: str) -> Connection:
        """Connect to exactly this address, if it may be.  Raises ``_CannotConnect``, ``OSError``, ``ValueError``."""
        refusal = self._allowed.refusal(address, place.port)
        if refusal:
            raise _CannotConnect(refusal)
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        connected = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await connect_socket(connected, address, place.port)
            _, connection = await loop.create_connection(
                lambda: Connection(place, self._keep, self._lost),
                sock=connected,
                ssl=self._tls if place.tls else None,
                server_hostname=place.host if place.tls else None,
            )
        except (ConnectionResetError, ConnectionAbortedError, BrokenPipeError) as error:
            connected.close()
            raise _CannotConnect(_CLOSED_IN_TLS if place.tls else explain(error)) from error
        except BaseException:
            connected.close()
            raise
        if not connection.closed:
            self._open.add(connection)
        return connection

    def _take_idle(self, place: Place) -> Connection | None:
        """The connection that was used last: the others may fall out of use."""
        idle = self._idle.get(place)
        if not idle:
            return None
        self._idle_in_all -= 1
        return idle.pop()

    def _keep(self, connection: Connection) -> None:
        idle = self._idle.setdefault(connection.place, deque())
        if len(idle) >= MAX_IDLE or self._idle_in_all >= MAX_IDLE_IN_ALL or self._closed:
            connection.give_up("")
            return
        connection.idle_since = perf_counter()
        idle.append(connection)
        self._idle_in_all += 1
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(self._idle_s / 4, self._close_idle)

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        idle = self._idle.get(connection.place)
        if idle and connection in idle:
            idle.remove(connection)
            self._idle_in_all -= 1

    def _close_idle(self) -> None:
        """Close what has been idle for too long, the longest idle first in each place."""
        before = perf_counter() - self._idle_s
        for place, idle in tuple(self._idle.items()):
            while idle and idle[0].idle_since < before:
                idle[0].give_up("")
            if not idle:
                del self._idle[place]
        self._sweep = None
        if self._idle and not self._closed:
            self._sweep = asyncio.get_running_loop().call_later(self._idle_s / 4, self._close_idle)


async def connect_socket(connecting: socket.socket, address: str, port: int) -> None:
    """Connect to a numeric address.  (The loop's own ``sock_connect`` asks a resolver first.)  Raises ``OSError``."""
    error = connecting.connect_ex((address, port))
    if error == errno.EINPROGRESS:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_writer(connecting, _set_ready, ready)
        try:
            await ready
        finally:
            loop.remove_writer(connecting)
        error = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))


def _set_ready(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def make_tls(authorities: str | None = None) -> ssl.SSLContext:
    """TLS as deliveries use it: certificate and name verified, TLS 1.2 or later.

    ``authorities``: a PEM file to trust instead of the system's.
    """
    context = ssl.create_default_context(cafile=authorities)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


# --- sentences -----------------------------------------------------------------------------------------------

_CLOSED_IN_TLS = "TLS: the target closed the connection without a reason; perhaps it has no TLS 1.2"

_CERTIFICATE = {
    7: "its signature is wrong",
    9: "not yet valid",
    10: "expired",
    18: "self-signed",
    19: "signed by an authority that is not trusted",
    20: "signed by an unknown authority, or an intermediate certificate is missing",
    21: "signed by an unknown authority, or an intermediate certificate is missing",
    24: "signed by a certificate that may not sign",
    25: "its chain is longer than an authority allows",
    26: "made for another purpose",
    47: "its authority may not sign for this name",
    48: "its authority may not sign for this name",
    62: "made for another name",
    64: "made for another address",
    66: "its key is too weak",
    67: "the key of its authority is too weak",
    68: "its signature is too weak",
    79: "signed by a certificate that may not sign",
}
"""What OpenSSL's verification found, by its number (X509_V_ERR_*)."""


def explain(error: Exception) -> str:
    """Why there is no connection, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        said = error.verify_message or "cannot be verified"
        return f"certificate: {_CERTIFICATE.get(error.verify_code, said.rstrip('.'))}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or str(error)).lower().replace('_', ' ')}"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError | ConnectionAbortedError | BrokenPipeError):
        return "the connection was reset before it was ready"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:g} s"


def _ms_since(began: float) -> int:
    return int((perf_counter() - began) * 1000)
