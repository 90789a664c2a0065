"""One connection to a target: one request at a time, its answer read within bounds.

The parser is ``httptools`` (llhttp), strict.  An answer ends where its length, its last chunk or, without either, the
connection says.  A connection is used again only when nothing about the last answer was unusual: bytes behind it,
an answer before the request had gone out, a body longer than we keep, or anything the parser disliked close it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import httptools

from postbackd.delivery.body import BodyReader
from postbackd.delivery.request import Place

MAX_HEAD = 16 * 1024
MAX_HEADERS = 64
MAX_WIRE = 128 * 1024
"""Bytes of one answer that are read in all: chunk extensions and compressed bodies can be long for nothing."""
MAX_INTERIM = 8
"""Answers 1xx before the one that counts."""

_KEPT_HEADERS = {b"retry-after": "retry-after", b"content-type": "content-type", b"location": "location"}
_MAX_VALUE = 1024

CLOSED = "the connection was closed without an answer"
RESET = "the connection was reset before an answer"
_EARLY = "the target spoke before it was asked"
_CUT = "the connection was closed in the middle of the answer"


class Heard:
    """What one request was answered; made once it is over."""

    __slots__ = ("body", "error", "headers", "nothing_came", "status")

    def __init__(self, status: int, headers: dict[str, str], body: bytes, error: str) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.error = error
        self.nothing_came = False
        """Whether the connection ended before the first byte of an answer."""


class _Stop(Exception):
    """Raised in a parser callback: no more is to be read."""


class Connection(asyncio.Protocol):
    """Made by ``delivery.client`` around a socket that is connected."""

    __slots__ = (
        "_body",
        "_chunked",
        "_complete",
        "_counted",
        "_encoding",
        "_error",
        "_extra",
        "_future",
        "_headers",
        "_in_body",
        "_interim",
        "_keep",
        "_kept",
        "_lengthy",
        "_on_idle",
        "_on_lost",
        "_parser",
        "_sizes",
        "_spoke_early",
        "_status",
        "_transport",
        "_wire",
        "closed",
        "idle_since",
        "place",
    )  # fmt: skip

    def __init__(
        self, place: Place, on_idle: Callable[[Connection], None], on_lost: Callable[[Connection], None]
    ) -> None:
        """``on_idle`` is called when the connection can be used again, ``on_lost`` when it no longer can."""
        self._parser: Any = httptools.HttpResponseParser(self)
        self._transport: Any = None
        self._future: asyncio.Future[Heard] | None = None
        self._on_idle = on_idle
        self._on_lost = on_lost
        self.place = place
        self.closed = False
        self._spoke_early = False
        self.idle_since = 0.0
        self._interim = 0
        self._wire = 0
        self._kept = 0
        self._reset()

    def _reset(self) -> None:
        """Ready for the next head."""
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body: BodyReader | None = None
        self._encoding = b""
        self._error = ""
        self._counted = self._sizes = 0
        self._in_body = self._lengthy = self._chunked = False
        self._complete = self._extra = self._keep = False

    def ask(self, request: bytes, future: asyncio.Future[Heard], kept: int) -> None:
        """Send a request; the future gets what was heard, whatever happens.  The connection must be idle.

        ``kept``: so many bytes of the body are.
        """
        self._future = future
        self._kept = kept
        self._wire = self._interim = 0
        self._reset()
        if self.closed or self._transport.is_closing():
            self._end(_EARLY if self._spoke_early else CLOSED, nothing_came=True)
        else:
            self._transport.write(request)

    def give_up(self, error: str) -> None:
        """End it; who waits for an answer hears ``error``."""
        self._end(error)

    # --- asyncio.Protocol ------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._future is None:  # nobody asked: what comes now could be taken for the next answer
            self._spoke_early = True
            self._close()
            return
        self._wire += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._error = "the answer switches to another protocol (101)"
        except httptools.HttpParserError as error:
            self._extra = True
            if not (self._complete or self._error or isinstance(error, httptools.HttpParserCallbackError)):
                self._error = f"the answer is not HTTP/1.1: {str(error)[:100] or 'malformed'}"
        if self._complete or self._extra or self._error:
            self._finish()
        elif self._wire > MAX_HEAD and not self._in_body:
            self._end(f"the head of the answer is larger than {MAX_HEAD // 1024} kB")
        elif self._wire > max(MAX_WIRE, 2 * self._kept):
            self._finish()

    def eof_received(self) -> None:
        """Nothing more will come; ``connection_lost`` follows."""

    def connection_lost(self, exc: Exception | None) -> None:
        if self._future is not None:
            self._hear_end(exc)
        self._close()

    def _hear_end(self, exc: Exception | None) -> None:
        if self._in_body and not (self._lengthy or self._chunked or exc):
            self._finish()  # HTTP/1.0: the end of the connection is the end of the body
        elif self._wire:
            self._end(_CUT)
        elif isinstance(exc, ssl.SSLError):
            self._end(f"TLS: {(exc.reason or 'broken').lower().replace('_', ' ')}", nothing_came=True)
        else:
            self._end(RESET if exc else CLOSED, nothing_came=True)

    # --- httptools callbacks ---------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:
            self._extra = True
            raise _Stop

    def on_header(self, name: bytes, value: bytes) -> None:
        self._counted += 1
        self._sizes += len(name) + len(value)
        if self._counted > MAX_HEADERS or self._sizes > MAX_HEAD:
            self._stop(f"the answer has more than {MAX_HEADERS} headers or {MAX_HEAD // 1024} kB of them")
        if self._in_body:
            return  # a trailer
        name = name.lower()
        if name in _KEPT_HEADERS:
            self._headers.setdefault(_KEPT_HEADERS[name], value[:_MAX_VALUE].decode("latin-1"))
        elif name == b"content-length":
            self._lengthy = True
        elif name == b"content-encoding":
            self._encoding = value.strip().lower()
        elif name == b"transfer-encoding":
            if self._chunked or value.lower() != b"chunked":
                self._stop("the answer has a Transfer-Encoding other than chunked")
            self._chunked = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if not 100 <= status < 600:
            self._stop(f"the answer has the status {status}, which does not exist")
        if status == 101:
            self._stop("the answer switches to another protocol (101)")
        self._status = status
        self._in_body = status >= 200

    def on_body(self, body: bytes) -> None:
        if self._body is None:
            self._body = BodyReader(self._encoding, self._kept)
        if not self._body.take(body):
            self._extra = True
            raise _Stop

    def on_message_complete(self) -> None:
        if self._status >= 200:
            self._complete = True
            self._keep = self._parser.should_keep_alive()
            return
        self._interim += 1
        if self._interim > MAX_INTERIM:
            self._stop(f"more than {MAX_INTERIM} answers 1xx and none that counts")
        self._reset()

    def _stop(self, error: str) -> None:
        self._error = error
        raise _Stop

    # --- the end ---------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """There is an answer, whole or as much of it as is wanted."""
        clean = self._complete and self._keep and not (self._extra or self._error)
        if not clean or self.closed or self._transport.get_write_buffer_size():
            self._end(self._error)
            return
        self._tell(self._error)
        self._on_idle(self)

    def _end(self, error: str, *, nothing_came: bool = False) -> None:
        self._close()
        self._tell(error, nothing_came=nothing_came)

    def _tell(self, error: str, *, nothing_came: bool = False) -> None:
        future, self._future = self._future, None
        if future is None or future.done():
            return
        body = self._body
        status = self._status if self._in_body else 0
        heard = Heard(
            status, self._headers, body.content if body else b"", error or (body.error if body else "")
        )
        heard.nothing_came = nothing_came
        future.set_result(heard)

    def _close(self) -> None:
        if not self.closed:
            self.closed = True
            self._transport.abort()
            self._on_lost(self)
