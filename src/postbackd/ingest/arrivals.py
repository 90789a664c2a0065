"""Connections in the middle of their TLS handshake.

Until it has succeeded the protocol behind it hears nothing, so that neither the deadlines nor the counts of the front
door would know of a client that connects and says nothing.  The loop ends a handshake that takes too long; here it is
counted, and a process that ends knows who is about to ask something.
"""

from __future__ import annotations

from collections import deque
from time import perf_counter
from typing import Any

from postbackd.ingest.http import FIRST_BYTE_S, Connection, Handler

HANDSHAKE_S = FIRST_BYTE_S
"""What a TLS handshake may take."""

SHUTDOWN_S = 2.0
"""How long a client that was told goodbye over TLS may take to say so too."""

_GIVEN_UP_S = HANDSHAKE_S + 1.0


class _Arriving(Connection):
    """A connection that knows whether it came about."""

    __slots__ = ("made",)

    def __init__(self, handler: Handler) -> None:
        super().__init__(handler)
        self.made = False

    def connection_made(self, transport: Any) -> None:
        self.made = True
        super().connection_made(transport)


class Arrivals:
    """Those who have connected and are not known yet."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._waiting: deque[tuple[float, _Arriving]] = deque()

    def greet(self) -> Connection:
        """The protocol for a connection that was just accepted."""
        connection = _Arriving(self._handler)
        self._waiting.append((perf_counter(), connection))
        return connection

    def look(self, now: float) -> None:
        """Count the handshakes that came to nothing."""
        waiting = self._waiting
        while waiting:
            began, connection = waiting[0]
            if not connection.made:
                if now - began < _GIVEN_UP_S:
                    return
                self._handler.refused("tls_handshake")
            waiting.popleft()

    @property
    def expected(self) -> bool:
        """Whether a handshake may be under way."""
        return any(not connection.made for _, connection in self._waiting)
