"""Connections in the middle of their TLS handshake.

Until it has succeeded the protocol behind it hears nothing, so that neither the deadlines nor the counts of the front
door would know of a client that connects and says nothing.  The loop ends a handshake that takes too long; here it is
counted, and a process that ends knows who is about to ask something.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from postbackd.ingest.client import peer_of
from postbackd.ingest.http import FIRST_BYTE_S, Connection, Handler

HANDSHAKE_S = FIRST_BYTE_S
"""What a TLS handshake may take."""

SHUTDOWN_S = 2.0
"""How long a client that was told goodbye over TLS may take to say so too."""

_GIVEN_UP_S = HANDSHAKE_S + 1.0


class _Arriving(Connection):
    """A connection that says when it came about."""

    __slots__ = ("_waiting",)

    def __init__(self, handler: Handler, waiting: dict[_Arriving, float]) -> None:
        super().__init__(handler)
        self._waiting = waiting

    def connection_made(self, transport: Any) -> None:
        self._waiting.pop(self, None)
        super().connection_made(transport)
        proxies = self._handler.proxies
        if proxies is not None and proxies.protocol and peer_of(transport) in proxies.trusted:
            # No PROXY header stands before a handshake that succeeded, so that nobody knows who this is.  A program
            # that passes bytes on writes no header of HTTP either: whatever one says would be the client's own word.
            self._handler.refused("proxy_header")
            self._stopped = True
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Part with the parser, which knows us too: the 50 kB of a TLS session would wait for the cycle collector."""
        super().connection_lost(exc)
        self._parser = None


class Arrivals:
    """Those who have connected and are not known yet."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._waiting: dict[_Arriving, float] = {}
        """When each connected, oldest first."""

    def greet(self) -> Connection:
        """The protocol for a connection that was just accepted."""
        connection = _Arriving(self._handler, self._waiting)
        self._waiting[connection] = perf_counter()
        return connection

    def look(self, now: float) -> None:
        """Count the handshakes that came to nothing."""
        while self._waiting:
            connection, began = next(iter(self._waiting.items()))
            if now - began < _GIVEN_UP_S:
                return
            del self._waiting[connection]
            self._handler.refused("tls_handshake")

    @property
    def expected(self) -> bool:
        """Whether a handshake may be under way."""
        return bool(self._waiting)
