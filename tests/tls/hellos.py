"""First messages of real TLS clients, and two ends of a handshake within this process."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Sequence


def client_context(protocols: Sequence[str] = (), version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Of a client that takes any certificate; ``version``: the only one that it speaks."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(list(protocols))
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def first_message(
    name: str | None, protocols: Sequence[str] = (), version: ssl.TLSVersion | None = None
) -> bytes:
    """What a client sends first, in one record."""
    outgoing = ssl.MemoryBIO()
    client = client_context(protocols, version).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake without a server")


def in_records(message: bytes, sizes: Iterable[int]) -> bytes:
    """The message of one record in several of these sizes, the last one of what is left."""
    head, body = message[:3], message[5:]
    found = b""
    for size in sizes:
        found += head + len(body[:size]).to_bytes(2) + body[:size]
        body = body[size:]
        if not body:
            return found
    return found + head + len(body).to_bytes(2) + body


class Meeting:
    """A client and a server; bytes go to the server in pieces of a given size."""

    def __init__(
        self,
        server: ssl.SSLContext,
        client: ssl.SSLContext,
        name: str | None = "a.example",
        piece: int = 65_536,
    ) -> None:
        self._piece = piece
        self._to_client, self._to_server, self._from_client = (ssl.MemoryBIO() for _ in range(3))
        self.server = server.wrap_bio(self._to_server, self._to_client, server_side=True)
        self.client = client.wrap_bio(self._to_client, self._from_client, server_hostname=name)

    def shake_hands(self) -> None:
        """Raises ``ssl.SSLError`` as one of the ends does."""
        waiting = {self.client, self.server}
        for _ in range(6):
            if self.client in waiting and self._step(self.client):
                waiting.discard(self.client)
            while piece := self._from_client.read(self._piece):
                self._to_server.write(piece)
                if self.server in waiting and self._step(self.server):
                    waiting.discard(self.server)
            if not waiting:
                return
        raise AssertionError("the handshake does not end")

    @staticmethod
    def _step(end: ssl.SSLObject) -> bool:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def say(self, words: bytes) -> None:
        """From the client to the server."""
        self.client.write(words)
        self._to_server.write(self._from_client.read())
