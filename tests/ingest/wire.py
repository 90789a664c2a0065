"""A scripted transport, a handler that records, and a small reader of answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from postbackd.ingest.answers import write_answer
from postbackd.ingest.client import Proxies
from postbackd.ingest.exchange import Exchange
from postbackd.ingest.http import Connection

GET = b"GET /a?x=1 HTTP/1.1\r\nHost: h\r\n\r\n"


def head(*fields: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: h") -> bytes:
    """The head of a request, or all of one without a body."""
    lines = [line, *([host] if host else []), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n"


class Answer(NamedTuple):
    """One answer as a client reads it."""

    status: int
    headers: dict[str, str]
    body: bytes


def read_answers(data: bytes, methods: Sequence[str] = ()) -> list[Answer]:
    """All answers in a stream; ``methods``: what was asked, GET when not told.  Rest bytes are an error."""
    answers: list[Answer] = []
    while data:
        head, blank, data = data.partition(b"\r\n\r\n")
        assert blank, head
        line, *fields = head.decode("latin-1").split("\r\n")
        version, status, _ = line.split(" ", 2)
        assert version == "HTTP/1.1"
        headers = {name.lower(): value.strip() for name, _, value in (f.partition(":") for f in fields)}
        assert len(headers) == len(fields)
        code = int(status)
        asked = methods[len(answers)] if len(answers) < len(methods) else "GET"
        length = 0 if asked == "HEAD" or code in (100, 204) else int(headers["content-length"])
        answers.append(Answer(code, headers, data[:length]))
        assert len(data) >= length
        data = data[length:]
    return answers


class ScriptedTransport:
    """The other end of a connection, without a network."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False
        self.aborted = False
        self.reading = True
        self.high: int | None = None

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high

    def write(self, data: bytes) -> None:
        assert not self.closed, "written after the end"
        self.sent += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_extra_info(self, name: str) -> Any:
        return ("192.0.2.1", 5000) if name == "peername" else None


class RecordingHandler:
    """Answers every request with its own target, at once or when told to."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.now = 1000.0
        self.draining = False
        self.proxies: Proxies | None = None
        self.connections: set[Connection] = set()
        self.exchanges: list[Exchange] = []
        self.refusals: list[str] = []
        self.at_once = at_once

    def handle(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        if self.at_once:
            self.answer(exchange)

    def answer(self, exchange: Exchange) -> None:
        exchange.reply(write_answer(200, exchange.target))

    def refused(self, kind: str) -> None:
        self.refusals.append(kind)


class Line:
    """One connection: handler, transport and protocol together."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.handler = RecordingHandler(at_once=at_once)
        self.transport = ScriptedTransport()
        self.connection = Connection(self.handler)
        self.connection.connection_made(self.transport)

    def feed(self, *chunks: bytes) -> None:
        """Bytes as they arrive; none do after the end or while reading is paused."""
        for chunk in chunks:
            if not self.transport.closed:
                self.connection.data_received(chunk)

    def answers(self, methods: Sequence[str] = ()) -> list[Answer]:
        return read_answers(self.transport.sent, methods)

    def ended(self) -> bool:
        """Whether the connection was closed from this side."""
        return self.transport.closed

    def is_read(self) -> bool:
        """Whether more bytes are taken from the client."""
        return self.transport.reading

    @property
    def statuses(self) -> list[int]:
        return [answer.status for answer in self.answers()]

    @property
    def requests(self) -> list[tuple[bytes, bytes, bytes]]:
        return [(e.method, e.target, e.body) for e in self.handler.exchanges]


def refusal_of(*chunks: bytes) -> int:
    """The status with which bytes are refused; the connection must be closed, and no request must have come of it."""
    line = Line()
    line.feed(*chunks)
    assert line.requests == []
    (answer,) = line.answers()
    assert answer.headers["connection"] == "close"
    assert line.transport.closed
    assert len(line.handler.refusals) == 1
    return answer.status
