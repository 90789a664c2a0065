"""Challenges that are answered in the handshake (tls-alpn-01, RFC 8737): who asks for one, and what is shown then.

An authority offers the protocol ``acme-tls/1`` and no other.  Python's callback for the name of the server does not say
what a client offers; so, while a challenge is laid out and not otherwise, the first bytes of a connection are looked at
on their way to OpenSSL, which gets them as they came.  Everybody else is shown the certificate as ever.
"""

from __future__ import annotations

import ssl
from typing import Any

from postbackd.core.client_hello import More, read_protocols

PROTOCOL = "acme-tls/1"
_ALONE = (PROTOCOL.encode("ascii"),)


class Observed(ssl.SSLObject):
    """A connection whose client is listened to until it has said what it offers."""

    _incoming: ssl.MemoryBIO | None = None
    _seen = b""
    _wanted = 0
    asks = False
    """Whether the client offers ``acme-tls/1`` alone."""
    answered = False
    """Whether it was shown the certificate for a challenge, and has nothing else to expect of us."""

    def observe(self, incoming: ssl.MemoryBIO) -> None:
        """``incoming``: what the client sends, before OpenSSL takes it from there."""
        self._incoming = incoming

    def do_handshake(self) -> None:
        if self._incoming is not None:
            self._look(self._incoming)
        super().do_handshake()

    def _look(self, incoming: ssl.MemoryBIO) -> None:
        some = incoming.read()
        incoming.write(some)
        self._seen += some
        if len(self._seen) < self._wanted:
            return
        found = read_protocols(self._seen)
        if isinstance(found, More):
            self._wanted = found.wanted
            return
        self.asks = found == _ALONE
        self._incoming, self._seen = None, b""

    def read(self, size: int = 1024, buffer: Any = None) -> Any:
        """Nothing comes after an answered challenge (RFC 8737 section 3): the end of what the client sends."""
        if not self.answered:
            return super().read(size, buffer)
        return b"" if buffer is None else 0

    def pending(self) -> int:
        """After an answered challenge never nothing: a loop that asks first reads, and finds the end at once."""
        return 1 if self.answered else super().pending()


class ObservingContext(ssl.SSLContext):
    """A context for a listening socket that can observe the connections to come."""

    def observe(self, on: bool) -> None:
        self.sslobject_class = Observed if on else ssl.SSLObject

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **options: Any
    ) -> ssl.SSLObject:
        connection = super().wrap_bio(incoming, outgoing, *args, **options)
        if isinstance(connection, Observed):
            connection.observe(incoming)
        return connection
