"""One request and its answer, as the handlers see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from postbackd.ingest.answers import closing, without_body


class Line(Protocol):
    """The connection that a request came by."""

    ip_prefix: str | None
    """The client's network once somebody has asked for it; kept for the next request, unless it may be another's."""

    familiar_headers: Mapping[bytes, bytes]
    """The kept headers of a ``FamiliarGet``."""

    @property
    def is_shared(self) -> bool:
        """Whether requests of several clients may come by it: a proxy is at the other end."""
        ...

    def client(self, headers: Mapping[bytes, bytes]) -> str:
        """The address of the client that made a request with these headers."""
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
        "headers",
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
    headers: Mapping[bytes, bytes]
    """Those of ``http_bytes.KEPT`` that were sent."""
    prefetch: bool
    keep_alive: bool
    started: float
    answer: bytes | None

    @property
    def client(self) -> str:
        """The address of the client."""
        return self.connection.client(self.headers)

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
    keep_alive = True

    def __init__(self, connection: Line, target: bytes, started: float) -> None:
        self.connection = connection
        self.target = target
        self.headers = connection.familiar_headers
        self.started = started
        self.answer = None
