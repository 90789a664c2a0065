"""One request and its answer, as the handlers see them."""

from __future__ import annotations

from typing import Protocol

from postbackd.ingest.answers import closing, without_body


class Line(Protocol):
    """The connection that a request came by."""

    ip_prefix: str | None
    """The client's network once somebody has asked for it; kept for the next request."""

    @property
    def peer(self) -> str:
        """The address of the other end."""
        ...

    def flush(self) -> None:
        """Send the answers whose turn it is."""
        ...


class Exchange:
    """One request and, later, its answer."""

    __slots__ = (
        "answer",
        "body",
        "connection",
        "content_type",
        "gpc",
        "keep_alive",
        "method",
        "prefetch",
        "started",
        "target",
    )

    connection: Line
    method: bytes
    target: bytes
    body: bytes
    content_type: bytes
    prefetch: bool
    gpc: bool
    """Whether it carried ``Sec-GPC: 1`` or ``DNT: 1``."""
    keep_alive: bool
    started: float
    answer: bytes | None

    def reply(self, answer: bytes) -> None:
        """Answer; the bytes leave when every earlier request of the connection has been answered."""
        if self.method == b"HEAD":
            answer = without_body(answer)
        self.answer = answer if self.keep_alive else closing(answer)
        self.connection.flush()


class FamiliarGet(Exchange):
    """A GET whose header lines the connection has seen before."""

    __slots__ = ()

    method = b"GET"
    body = b""
    content_type = b""
    prefetch = False
    gpc = False
    keep_alive = True

    def __init__(self, connection: Line, target: bytes, started: float) -> None:
        self.connection = connection
        self.target = target
        self.started = started
        self.answer = None
