"""Targets that do what they must not, and what the client has to make of each.  Used by the tests and by T14."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.delivery.targets import OK, Script, Talk, answers, target

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
NO_ANSWER = r"^no answer within [\d.]+ s$"
NO_CONNECTION = r"^no connection to 127\.0\.0\.1 within [\d.]+ s$"
CUT = r"^the connection was closed in the middle of the answer$"
NOT_HTTP = r"^the answer is not HTTP/1\.1"
TOO_LARGE = r"^the (head of the )?answer (is larger than|has more than)"


@dataclass(frozen=True)
class Expected:
    """What a request to a bad target must end with."""

    error: str = "^$"
    """A regular expression; the default: none."""
    status: int = 0
    body: bytes | None = None
    """``None``: whatever came."""
    headers: Mapping[str, str] | None = None


def after_request(*pieces: bytes) -> Script:
    """Read one request, send this, close."""

    async def script(talk: Talk) -> None:
        if await talk.request():
            await talk.say(*pieces)

    return script


def reset_after(*pieces: bytes) -> Script:
    """Read one request, send this, reset."""

    async def script(talk: Talk) -> None:
        if await talk.request():
            await talk.say(*pieces)
            await asyncio.sleep(0.02)  # what was sent must be read before the reset throws it away
            talk.reset()

    return script


def flooding(start: bytes, piece: bytes) -> Script:
    async def script(talk: Talk) -> None:
        if await talk.request():
            await talk.say(start)
            await talk.flood(piece)

    return script


def dripping(start: bytes, content: bytes) -> Script:
    async def script(talk: Talk) -> None:
        if await talk.request():
            await talk.say(start)
            await talk.drip(content)

    return script


def stalling(*pieces: bytes) -> Script:
    async def script(talk: Talk) -> None:
        if await talk.request():
            await talk.say(*pieces)
            await talk.silence()

    return script


async def close_at_once(talk: Talk) -> None:
    return


async def reset_at_once(talk: Talk) -> None:
    talk.reset()


async def read_nothing(talk: Talk) -> None:
    talk.writer.transport.pause_reading()  # type: ignore[attr-defined]  # StreamWriter's transport can
    await asyncio.Event().wait()


async def answer_early(talk: Talk) -> None:
    """Before a byte of the request was read."""
    await talk.say(OK)
    await talk.silence()


def _bomb(size: int) -> bytes:
    squeezed = gzip.compress(b"\0" * size, 9)
    return HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(squeezed) + squeezed


def _with_headers(*lines: bytes, body: bytes = b"OK") -> bytes:
    head = b"".join(line + b"\r\n" for line in lines)
    return HEAD + head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def _status(line: bytes, *headers: bytes) -> bytes:
    return (
        b"HTTP/1.1 " + line + b"\r\n" + b"".join(h + b"\r\n" for h in headers) + b"Content-Length: 0\r\n\r\n"
    )


SCRIPTED: dict[str, tuple[Script, Expected]] = {
    "closes at once": (close_at_once, Expected("^the connection was closed without an answer$")),
    "resets at once": (reset_at_once, Expected("^the connection was (reset|closed)")),
    "closes after the request": (after_request(), Expected("^the connection was closed without an answer$")),
    "resets after the request": (reset_after(), Expected("^the connection was reset before an answer$")),
    "closes in the status line": (after_request(b"HTTP/1.1 2"), Expected(CUT)),
    "resets in the status line": (reset_after(b"HTTP/1.1 2"), Expected(CUT)),
    "closes in the headers": (after_request(HEAD + b"Content-"), Expected(CUT)),
    "resets in the headers": (reset_after(HEAD + b"Content-Type: text/plain\r\n"), Expected(CUT)),
    "closes in the body": (after_request(HEAD + b"Content-Length: 9\r\n\r\nOK"), Expected(CUT, 200, b"OK")),
    "resets in the body": (reset_after(HEAD + b"Content-Length: 9\r\n\r\nOK"), Expected(CUT, 200, b"OK")),
    "closes before the last chunk": (after_request(CHUNKED + b"2\r\nOK\r\n"), Expected(CUT, 200, b"OK")),
    "never answers": (stalling(), Expected(NO_ANSWER)),
    "stalls in the headers": (stalling(HEAD), Expected(NO_ANSWER)),
    "stalls in the body": (
        stalling(HEAD + b"Content-Length: 9\r\n\r\nOK"),
        Expected(NO_ANSWER, 200, b"OK"),
    ),
    "drips its headers": (dripping(HEAD, b"X: " + b"x" * 10_000), Expected(NO_ANSWER)),
    "drips its body": (dripping(HEAD + b"\r\n", b"x" * 10_000), Expected(NO_ANSWER, 200)),
    "endless body": (flooding(HEAD + b"\r\n", b"x" * 65_536), Expected("^$", 200, b"x" * 4096)),
    "endless chunks": (flooding(CHUNKED, b"8\r\n12345678\r\n" * 99), Expected("^$", 200, b"12345678" * 512)),
    "body of 8 EB": (
        flooding(HEAD + b"Content-Length: 9000000000000000000\r\n\r\n", b"x" * 65_536),
        Expected("^$", 200, b"x" * 4096),
    ),
    "endless headers": (flooding(HEAD, b"X-Header: value\r\n" * 20), Expected(TOO_LARGE)),
    "one endless header": (flooding(HEAD + b"X: ", b"x" * 4096), Expected(TOO_LARGE)),
    "endless reason": (flooding(b"HTTP/1.1 200 ", b"x" * 4096), Expected(TOO_LARGE)),
    "65 headers": (answers(_with_headers(*[b"X: x"] * 65)), Expected(TOO_LARGE)),
    "endless trailers": (flooding(CHUNKED + b"0\r\n", b"X: x\r\n" * 99), Expected(TOO_LARGE, 200)),
    "endless chunk extension": (flooding(CHUNKED + b"2;x=", b"x" * 4096), Expected("^$", 200, b"")),
    "endless 1xx": (
        flooding(b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 9),
        Expected("^more than 8 answers 1xx"),
    ),
    "switches the protocol": (
        answers(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        Expected(r"\(101\)$"),
    ),
    "gzip bomb": (answers(_bomb(64 << 20)), Expected("^$", 200, b"\0" * 4096)),
    "gzip that is none": (
        answers(_with_headers(b"Content-Encoding: gzip")),
        Expected("^the body is not compressed as", 200, b""),
    ),
    "encoding nobody asked for": (
        answers(_with_headers(b"Content-Encoding: br")),
        Expected("^the body is encoded as 'br'", 200, b""),
    ),
    "chunk size that is none": (answers(CHUNKED + b"zz\r\nOK\r\n0\r\n\r\n"), Expected(NOT_HTTP, 200)),
    "chunk size beyond 64 bits": (answers(CHUNKED + b"1" + b"0" * 16 + b"\r\nOK"), Expected(NOT_HTTP, 200)),
    "chunk longer than its size": (answers(CHUNKED + b"1\r\nOK\r\n0\r\n\r\n"), Expected(NOT_HTTP, 200, b"O")),
    "length and chunks": (
        answers(HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n0\r\n\r\n"),
        Expected(NOT_HTTP),
    ),
    "two lengths": (answers(_with_headers(b"Content-Length: 1")), Expected(NOT_HTTP)),
    "negative length": (after_request(HEAD + b"Content-Length: -1\r\n\r\nOK"), Expected(NOT_HTTP)),
    "transfer encoding of its own": (
        after_request(HEAD + b"Transfer-Encoding: gzip\r\n\r\nOK"),
        Expected("^the answer has a Transfer-Encoding other than chunked$"),
    ),
    "speaks SSH": (answers(b"SSH-2.0-OpenSSH_9.2\r\n"), Expected(NOT_HTTP)),
    "speaks TLS": (answers(b"\x15\x03\x01\x00\x02\x02\x46"), Expected(NOT_HTTP)),
    "speaks HTTP/0.9": (answers(b"<html>OK</html>"), Expected(NOT_HTTP)),
    "NUL in a header": (answers(_with_headers(b"X: a\0b")), Expected(NOT_HTTP)),
    "status 999": (answers(_status(b"999 No")), Expected("^the answer has the status 999")),
    "status of two digits": (answers(_status(b"20 OK")), Expected(NOT_HTTP)),
    "redirect to the metadata service": (
        answers(_status(b"302 Found", b"Location: http://169.254.169.254/latest/")),
        Expected("^$", 302, b"", {"location": "http://169.254.169.254/latest/"}),
    ),
    "redirect to itself": (answers(_status(b"307 Again", b"Location: /")), Expected("^$", 307, b"")),
    "answer behind the answer": (answers(OK + OK), Expected("^$", 200, b"OK")),
    "204 with a body": (
        answers(b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nOK"),
        Expected("^$", 204, b""),
    ),
    "closes after each answer": (answers(OK, close=True), Expected("^$", 200, b"OK")),
    "answers before it has read": (answer_early, Expected("^the target spoke before it was asked$")),
    "HTTP/1.0 without a length": (
        after_request(b"HTTP/1.0 200 OK\r\n\r\n", b"OK"),
        Expected("^$", 200, b"OK"),
    ),
    "empty answer to HTTP/1.0": (after_request(b"HTTP/1.0 200 OK\r\n\r\n"), Expected("^$", 200, b"")),
    "reads nothing": (read_nothing, Expected(NO_ANSWER)),
} | {
    f"Retry-After {name}": (
        answers(_status(b"429 Slow", b"Retry-After: " + value)),
        Expected("^$", 429, b"", {"retry-after": value.decode("latin-1")[:1024]}),
    )
    for name, value in {
        "in seconds": b"120",
        "as a date": b"Wed, 21 Oct 2026 07:28:00 GMT",
        "negative": b"-5",
        "in words": b"soon, please",
        "of 4 kB": b"9" * 4096,
        "beyond ASCII": b"\xff\xfe",
    }.items()
}
"""Name -> what it does, and what must come of it.  Those below need more than a script."""


@asynccontextmanager
async def refusing() -> AsyncIterator[int]:
    """A port that nobody listens on, and nobody else is given while the block runs."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@asynccontextmanager
async def swallowing() -> AsyncIterator[int]:
    """A port whose queue of connections is full: SYN is not answered any more."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        try:
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(address)
            await asyncio.sleep(0.02)
            yield address[1]
        finally:
            for one in waiting:
                one.close()


@asynccontextmanager
async def stalling_tls() -> AsyncIterator[int]:
    """A port that takes the client's first message of TLS and says nothing."""

    async def script(talk: Talk) -> None:
        await talk.silence()

    async with target(script) as running:
        yield running.port


@asynccontextmanager
async def plain_for_tls() -> AsyncIterator[int]:
    """A port that speaks HTTP where TLS is expected."""

    async def script(talk: Talk) -> None:
        await talk.reader.read(100)
        await talk.say(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    async with target(script) as running:
        yield running.port


PORTS = {
    "refuses connections": (refusing, "http", Expected("^connection refused$")),
    "swallows connections": (swallowing, "http", Expected(NO_CONNECTION)),
    "stalls in TLS": (stalling_tls, "https", Expected(NO_CONNECTION)),
    "speaks HTTP instead of TLS": (
        plain_for_tls,
        "https",
        Expected("^TLS: (wrong version number|.*unknown protocol)"),
    ),
}
"""Name -> a port, the scheme to use on it, and what must come of it."""


def server_tls(certificate: str, key: str) -> ssl.SSLContext:
    """For a target that speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
