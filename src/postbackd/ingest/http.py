"""HTTP/1.1 as spoken at the front door: bytes in, complete requests out, answers back in order.

The parser is ``httptools`` (llhttp), strict; this module adds what a server on the open Internet needs: limits of size
and time, refusal of ambiguous messages, and order of answers for pipelined requests.  It knows nothing of clicks
and postbacks.

Refused, and the connection closed, because two programs could read the message differently: ``Content-Length``
with ``Transfer-Encoding``, a bare CR or LF, a missing or double ``Host`` (RFC 9112 sections 3.2, 5, 6.3).
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import perf_counter
from typing import Any, Protocol

import httptools

from postbackd.ingest.answers import closing, write_refusal

FIRST_BYTE_S = 5.0
HEADERS_S = 5.0
BODY_S = 10.0
IDLE_S = 75.0
SLOW_READER_S = 10.0
MAX_LINE = 8 * 1024
MAX_HEADER_BYTES = 16 * 1024
MAX_HEADERS = 64
MAX_BODY = 64 * 1024
MAX_BATCH_BODY = 1024 * 1024
MAX_PIPELINED = 256
"""Requests of one connection that may wait for their answers before it is read on."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Exchange:
    """One request and, later, its answer."""

    __slots__ = (
        "answer",
        "body",
        "connection",
        "content_type",
        "keep_alive",
        "method",
        "prefetch",
        "started",
        "target",
    )

    connection: Connection
    method: bytes
    target: bytes
    body: bytes
    content_type: bytes
    prefetch: bool
    keep_alive: bool
    started: float
    answer: bytes | None

    def reply(self, answer: bytes) -> None:
        """Answer; the bytes leave when every earlier request of the connection has been answered."""
        self.answer = answer if self.keep_alive else closing(answer)
        self.connection.flush()


class Handler(Protocol):
    """The application behind the protocol."""

    now: float
    """A coarse clock in the units of ``perf_counter``, for deadlines."""

    draining: bool
    connections: set[Connection]

    def handle(self, exchange: Exchange) -> None:
        """Answer the exchange now or later, exactly once."""
        ...

    def refused(self, kind: str) -> None:
        """A message was refused before it became a request."""
        ...


class _Refused(Exception):
    """Raised in a parser callback to stop parsing; the answer is in the connection."""


class Connection(asyncio.Protocol):
    """One client connection."""

    __slots__ = (
        "_body",
        "_body_bytes",
        "_content_type",
        "_deadline",
        "_exchanges",
        "_expects_continue",
        "_handler",
        "_head_bytes",
        "_header_bytes",
        "_headers",
        "_hosts",
        "_in_body",
        "_in_message",
        "_parser",
        "_paused",
        "_prefetch",
        "_refusal",
        "_served",
        "_started",
        "_stopped",
        "_target",
        "_transport",
        "_write_paused",
        "ip_prefix",
    )  # fmt: skip

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._parser: Any = httptools.HttpRequestParser(self)
        self._exchanges: deque[Exchange] = deque()
        self._transport: Any = None
        self._deadline = 0.0
        self._refusal: tuple[int, str] | None = None
        self._in_message = self._in_body = self._paused = self._write_paused = self._stopped = False
        self._served = 0
        self._started = 0.0
        self._head_bytes = 0
        self.ip_prefix: str | None = None
        self._reset()

    def _reset(self) -> None:
        """Ready for the next message."""
        self._target = b""
        self._content_type = b""
        self._body = b""
        self._body_bytes: list[bytes] | None = None
        self._prefetch = self._expects_continue = self._in_body = False
        self._hosts = self._headers = self._header_bytes = 0

    # --- asyncio.Protocol ------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=65_536)
        self._deadline = self._handler.now + FIRST_BYTE_S
        self._handler.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stopped = True
        self._handler.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        if self._stopped:
            return
        self._started = perf_counter()
        if not self._in_message:
            self._in_message = True
            self._deadline = self._started + HEADERS_S
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(*(self._refusal or (400, "malformed HTTP request")))
        else:
            if self._in_message and not self._in_body and self._head_bytes > MAX_HEADER_BYTES + MAX_LINE:
                self._refuse(431, "the request's headers are too large")
        if len(self._exchanges) > MAX_PIPELINED and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The client will send no more; stay to send what it waits for."""
        if self._exchanges:
            self._stopped = True
            return True
        return False

    def pause_writing(self) -> None:
        self._write_paused = True
        self._deadline = self._handler.now + SLOW_READER_S
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._write_paused = False
        self._deadline = self._handler.now + IDLE_S
        if not self._paused:
            self._transport.resume_reading()

    # --- httptools callbacks ---------------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        self._target = self._target + url if self._target else url
        if len(self._target) > MAX_LINE:
            self._stop_parsing(414, "the request line is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers += 1
        size = len(name) + len(value)
        self._header_bytes += size
        if size > MAX_LINE or self._header_bytes > MAX_HEADER_BYTES or self._headers > MAX_HEADERS:
            self._stop_parsing(431, "the request's headers are too large or too many")
        length = len(name)
        if length == 4:
            if name.lower() == b"host":
                self._hosts += 1
        elif length == 12:
            if name.lower() == b"content-type":
                self._content_type = value.lower()
        elif length == 14:
            if name.lower() == b"content-length" and value.isdigit() and int(value[:20]) > MAX_BATCH_BODY:
                self._stop_parsing(413, "the body is too large")
        elif length == 11 or length == 7 or length == 5:
            if name.lower() in (b"sec-purpose", b"purpose", b"x-moz") and b"prefetch" in value.lower():
                self._prefetch = True
        elif length == 6 and name.lower() == b"expect":
            self._expects_continue = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        if self._hosts != 1 and (self._hosts > 1 or self._parser.get_http_version() != "1.0"):
            self._stop_parsing(400, "a request needs exactly one Host header")
        self._in_body = True
        self._deadline = self._started + BODY_S
        if self._expects_continue and not self._exchanges:
            self._transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        if self._body_bytes is None:
            if not self._body:
                self._body = body
                self._check_body(len(body))
                return
            self._body_bytes = [self._body]
        self._body_bytes.append(body)
        self._check_body(sum(map(len, self._body_bytes)))

    def _check_body(self, size: int) -> None:
        if size <= MAX_BODY:
            return
        batch = b"ndjson" in self._content_type or self._body.lstrip()[:1] == b"["
        if not batch or size > MAX_BATCH_BODY:
            self._stop_parsing(413, "the body is too large")

    def on_message_complete(self) -> None:
        if self._stopped:  # pipelined behind the last request that this connection may make
            return
        exchange = Exchange()
        exchange.connection = self
        exchange.method = self._parser.get_method()
        exchange.target = self._target
        exchange.body = b"".join(self._body_bytes) if self._body_bytes is not None else self._body
        exchange.content_type = self._content_type
        exchange.prefetch = self._prefetch
        exchange.keep_alive = self._parser.should_keep_alive() and not self._handler.draining
        exchange.started = self._started
        exchange.answer = None
        self._exchanges.append(exchange)
        self._in_message = False
        self._head_bytes = 0
        self._deadline = self._started + IDLE_S
        self._reset()
        self._handler.handle(exchange)
        if not exchange.keep_alive:
            self._stopped = True

    # --- answers ---------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send the answers whose turn it is."""
        exchanges = self._exchanges
        ready = b""
        while exchanges and (answer := exchanges[0].answer) is not None:
            exchange = exchanges.popleft()
            ready = ready + answer if ready else answer
            self._served += 1
            if not exchange.keep_alive:
                self._close(ready)
                return
        if ready:
            self._transport.write(ready)
        if self._paused and len(exchanges) < MAX_PIPELINED // 2:
            self._paused = False
            if not self._write_paused:
                self._transport.resume_reading()
        if self._stopped and not exchanges:
            self._transport.close()

    def _close(self, last_words: bytes) -> None:
        self._stopped = True
        self._exchanges.clear()
        if not self._transport.is_closing():
            self._transport.write(last_words)
            self._transport.close()

    # --- refusals and deadlines ------------------------------------------------------------------------------

    def _stop_parsing(self, status: int, error: str) -> None:
        self._refusal = (status, error)
        raise _Refused(error)

    def _refuse(self, status: int, error: str) -> None:
        """Answer what can be answered, then the refusal, then close: the rest of the bytes cannot be trusted."""
        if self._stopped:
            return
        self._handler.refused(_REFUSAL_KINDS.get(status, "malformed"))
        self._stopped = True
        exchange = Exchange()
        exchange.connection = self
        exchange.keep_alive = False
        exchange.answer = write_refusal(status, error)
        self._exchanges.append(exchange)
        self.flush()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Some clients offer HTTP/2 on every request; going on in HTTP/1.1 is a valid answer (RFC 9110 7.8)."""
        self._parser = httptools.HttpRequestParser(self)
        if rest and not self._stopped:
            self.data_received(rest)

    def check_deadline(self, now: float) -> None:
        """Close the connection when the client is too slow.  Waiting for us is not slow."""
        if now < self._deadline or (self._exchanges and not self._write_paused):
            return
        if self._write_paused:
            self._handler.refused("slow_reader")
            self._transport.abort()
        elif self._in_message:
            self._refuse(408, "the request did not arrive in time")
        else:
            self._transport.close()

    def close_idle(self) -> None:
        """For a server that is going away: close unless a request is under way or the first is still to come."""
        if not self._exchanges and not self._in_message and self._served:
            self._transport.close()

    @property
    def peer(self) -> str:
        """The address of the other end."""
        name = self._transport.get_extra_info("peername")
        return name[0] if name else ""


_REFUSAL_KINDS = {408: "too_slow", 413: "body_too_large", 414: "line_too_long", 431: "headers_too_large"}
