"""HTTP/1.1 as spoken at the front door: bytes in, complete requests out, answers back in order.

The parser is ``httptools`` (llhttp), strict; this module adds what a server on the open Internet needs: limits of size
and time, refusal of ambiguous messages, and order of answers for pipelined requests.  It knows nothing of clicks
and postbacks.

Clients that keep their connection send the same header lines with every request.  What follows the request line is
therefore remembered from a request that the parser has read; a GET whose request line is plain and is followed by
just the same bytes needs no second reading.  Everything else goes through the parser.

Refused, and the connection closed, because two programs could read the message differently: ``Content-Length``
with ``Transfer-Encoding``, a bare CR or LF, a missing or double ``Host`` (RFC 9112 sections 3.2, 5, 6.3).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, Protocol

import httptools

from postbackd.ingest.answers import FAULT, REFUSAL_KINDS, write_refusal
from postbackd.ingest.client import Proxies, peer_of
from postbackd.ingest.exchange import Exchange, FamiliarGet
from postbackd.ingest.http_bytes import HOST, KEPT, NO_HEADERS, PLAIN_LINE, keep_header, make_plain

log = logging.getLogger("postbackd.ingest")

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


class Handler(Protocol):
    """The application behind the protocol."""

    connections: set[Connection]
    proxies: Proxies | None

    @property
    def now(self) -> float:
        """A coarse clock in the units of ``perf_counter``, for deadlines."""
        ...

    @property
    def draining(self) -> bool: ...

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
        "_chunked",
        "_content_type",
        "_deadline",
        "_exchanges",
        "_expects_continue",
        "_familiar",
        "_fresh",
        "_handler",
        "_head_bytes",
        "_header_bytes",
        "_headers",
        "_hosts",
        "_in_body",
        "_in_message",
        "_kept",
        "_known_host",
        "_lost",
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
        "address",
        "familiar_headers",
        "ip_prefix",
    )  # fmt: skip

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._parser: Any = httptools.HttpRequestParser(self)
        self._exchanges: deque[Exchange] = deque()
        self._fresh: list[Exchange] = []
        self._transport: Any = None
        self._deadline = 0.0
        self._refusal: tuple[int, str] | None = None
        self._in_message = self._in_body = self._paused = self._write_paused = self._stopped = False
        self._lost = False
        self._known_host: bytes | None = None
        self._familiar: bytes | None = None
        """What followed the request line of a GET without a body, after which the connection went on."""
        self._served = 0
        self._started = 0.0
        self._head_bytes = 0
        self.ip_prefix: str | None = None
        self.familiar_headers = NO_HEADERS
        self.address: str | None = None
        """The client, as a proxy said it before the first request (``proxied``)."""
        self._reset()

    def _reset(self) -> None:
        """Ready for the next message."""
        self._target = b""
        self._content_type = b""
        self._body: bytes | bytearray = b""
        self._body_bytes = 0
        self._kept = NO_HEADERS
        self._prefetch = self._expects_continue = self._in_body = self._chunked = False
        self._hosts = self._headers = self._header_bytes = 0

    # --- asyncio.Protocol ------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=65_536)
        self._deadline = self._handler.now + FIRST_BYTE_S
        self._handler.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stopped = self._lost = True
        self._exchanges.clear()
        self._handler.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        if self._stopped:
            return
        self._started = perf_counter()
        if self._in_message:
            self._parse(data)
            return
        line = PLAIN_LINE.match(data)
        if line is not None and data[line.end() :] == self._familiar and not self._handler.draining:
            self._take_familiar(line[1])
        elif data.isascii() and b"pgrade" not in data:
            self._parse(data, None if line is None else data[line.end() :])
        else:
            self._parse(make_plain(data))

    def _parse(self, data: bytes, rest: bytes | None = None) -> None:
        """Let the parser read on.  ``rest``: what follows a plain request line with which ``data`` begins."""
        self._head_bytes += len(data)
        refusal: tuple[int, str] | None = None
        try:
            self._parser.feed_data(data)
        except (
            httptools.HttpParserUpgrade
        ):  # the parser has skipped the body: this request was not read whole
            self._exchanges.remove(self._fresh.pop())
            refusal = (400, "an Upgrade that cannot be ignored; send the request without it")
        except httptools.HttpParserError:
            refusal = self._refusal or (400, "malformed HTTP request")
        else:
            if self._in_message and not self._in_body and self._head_bytes > MAX_HEADER_BYTES + MAX_LINE:
                refusal = (431, "the request's headers are too large")
        if self._fresh:
            if rest is not None and refusal is None and not self._in_message:
                self._remember(rest)
            self._handle_fresh()
        if refusal is not None:
            self._refuse(*refusal)
        else:
            self._pause_when_many()

    def _remember(self, rest: bytes) -> None:
        """The bytes just parsed were a plain request line and ``rest``: the same again will mean the same again."""
        (first, *others) = self._fresh
        plain = not (others or first.body or first.prefetch) and first.keep_alive
        self._familiar = rest if plain else None
        self.familiar_headers = first.headers

    def _take_familiar(self, target: bytes) -> None:
        """As if the parser had read it."""
        self._deadline = self._started + IDLE_S
        exchange = FamiliarGet(self, target, self._started)
        self._exchanges.append(exchange)
        self._handle(exchange)
        self._pause_when_many()

    def _pause_when_many(self) -> None:
        """Read no more from a client that asks faster than it takes its answers."""
        if len(self._exchanges) > MAX_PIPELINED and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _handle_fresh(self) -> None:
        """Hand over the requests that have just become complete, in their order."""
        fresh, self._fresh = self._fresh, []
        for exchange in fresh:
            self._handle(exchange)

    def _handle(self, exchange: Exchange) -> None:
        try:
            self._handler.handle(exchange)
        except Exception:
            log.exception("a request could not be handled")
            exchange.reply(FAULT)

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

    def on_message_begin(self) -> None:
        self._in_message = True
        self._deadline = self._started + HEADERS_S

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
        name = name.lower()
        take = _HEADERS.get(name)
        if take is not None:
            take(self, value)
        elif name in KEPT:
            self._kept = keep_header(self._kept, name, value)

    def _take_host(self, value: bytes) -> None:
        self._hosts += 1
        if value != self._known_host:
            if not HOST.fullmatch(value):
                self._stop_parsing(400, "the Host header is not a host")
            self._known_host = value

    def _take_content_type(self, value: bytes) -> None:
        self._content_type = value.lower()

    def _take_content_length(self, value: bytes) -> None:
        if value.isdigit() and int(value[:20]) > MAX_BATCH_BODY:
            self._stop_parsing(413, "the body is too large")

    def _take_transfer_encoding(self, value: bytes) -> None:
        if self._chunked or value.lower() != b"chunked":
            self._stop_parsing(400, "the only Transfer-Encoding is chunked, once")
        self._chunked = True

    def _take_purpose(self, value: bytes) -> None:
        self._prefetch = self._prefetch or b"prefetch" in value.lower()

    def _take_expect(self, value: bytes) -> None:
        self._expects_continue = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        version = self._parser.get_http_version()
        if version != "1.1" and (version != "1.0" or self._chunked):
            self._stop_parsing(400, "send HTTP/1.1, or HTTP/1.0 without Transfer-Encoding")
        if self._hosts != 1 and (self._hosts or version == "1.1"):
            self._stop_parsing(400, "a request needs exactly one Host header")
        self._in_body = True
        self._deadline = self._started + BODY_S
        if self._expects_continue and not self._exchanges:
            self._transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > MAX_BODY:
            start = (self._body or body)[:64]
            batch = b"ndjson" in self._content_type or start.lstrip()[:1] == b"["
            if not batch or self._body_bytes > MAX_BATCH_BODY:
                self._stop_parsing(413, "the body is too large")
        if not self._body:
            self._body = body
            return
        if isinstance(self._body, bytes):
            self._body = bytearray(self._body)
        self._body += body

    def on_message_complete(self) -> None:
        if self._stopped:  # pipelined behind the last request that this connection may make
            return
        exchange = Exchange()
        exchange.connection = self
        exchange.method = self._parser.get_method()
        exchange.target = self._target
        exchange.body = self._body if isinstance(self._body, bytes) else bytes(self._body)
        exchange.content_type = self._content_type
        exchange.headers = self._kept
        exchange.prefetch = self._prefetch
        exchange.keep_alive = self._parser.should_keep_alive() and not self._handler.draining
        exchange.started = self._started
        exchange.answer = None
        self._exchanges.append(exchange)
        self._fresh.append(exchange)
        self._in_message = False
        self._head_bytes = 0
        self._deadline = self._started + IDLE_S
        self._reset()
        if not exchange.keep_alive:
            self._stopped = True

    # --- answers ---------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send the answers whose turn it is.  A client that has gone gets none, and nobody else waits for it."""
        if self._lost or self._transport.is_closing():
            return
        exchanges = self._exchanges
        if len(exchanges) == 1 and not (self._paused or self._stopped):
            exchange = exchanges[0]
            if exchange.answer is not None and exchange.keep_alive:
                exchanges.clear()
                self._served += 1
                self._transport.write(exchange.answer)
                return
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
        self._handler.refused(REFUSAL_KINDS.get(status, "malformed"))
        self._stopped = True
        exchange = Exchange()
        exchange.connection = self
        exchange.keep_alive = False
        exchange.answer = write_refusal(status, error)
        self._exchanges.append(exchange)
        self.flush()

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

    def close_idle(self, *, unserved: bool, unfinished: bool) -> None:
        """For a server that is going away: close unless a request is under way.

        A connection that has not made its first request is given a moment, and so is a request that has not arrived
        whole: ``unserved`` and ``unfinished`` say that it is over.
        """
        if self._exchanges:
            return
        if not self._in_message:
            if self._served or unserved:
                self._transport.close()
        elif unfinished:
            self._refuse(503, "the server restarts; send the same request again")

    @property
    def is_shared(self) -> bool:
        return self._handler.proxies is not None

    def client(self, headers: Mapping[bytes, bytes]) -> str:
        proxies = self._handler.proxies
        peer = peer_of(self._transport) if self.address is None else self.address
        return peer if proxies is None else proxies.client_of(peer, headers)


_HEADERS: Mapping[bytes, Callable[[Connection, bytes], None]] = {
    b"host": Connection._take_host,
    b"content-type": Connection._take_content_type,
    b"content-length": Connection._take_content_length,
    b"transfer-encoding": Connection._take_transfer_encoding,
    b"sec-purpose": Connection._take_purpose,
    b"purpose": Connection._take_purpose,
    b"x-moz": Connection._take_purpose,
    b"expect": Connection._take_expect,
}
"""The headers that mean something here; all others are only counted."""
