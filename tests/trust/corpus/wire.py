"""Raw bytes to a server and its answers back, without an HTTP library that would mend what must stay broken."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

Address = tuple[str, int]

_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    head: bytes
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a header, ``None`` when it is not there."""
        found = re.search(
            rb"\r\n" + re.escape(name.encode()) + rb":[ \t]*([^\r\n]*)", self.head, re.IGNORECASE
        )
        return found[1].decode("latin-1").strip() if found else None


def split_answers(received: bytes) -> tuple[list[Answer], bytes]:
    """The complete answers in what was received, and the rest.  ``100 Continue`` is left out."""
    answers: list[Answer] = []
    while (end := received.find(b"\r\n\r\n")) >= 0:
        head = received[: end + 2]
        status = _STATUS.match(head)
        if status is None:
            break
        body, rest = _split_body(head, received[end + 4 :])
        if body is None:
            break
        received = rest
        if status[1] != b"100":
            answers.append(Answer(int(status[1]), head, body))
    return answers, received


def _split_body(head: bytes, rest: bytes) -> tuple[bytes | None, bytes]:
    if _CHUNKED.search(head):
        end = rest.find(b"0\r\n\r\n")
        return (rest[:end], rest[end + 5 :]) if end >= 0 else (None, rest)
    length = _LENGTH.search(head)
    size = int(length[1]) if length else 0
    return (rest[:size], rest[size:]) if len(rest) >= size else (None, rest)


@dataclass(frozen=True)
class Heard:
    """What came back on one connection."""

    received: bytes
    closed: bool
    """The server ended the connection while we listened."""
    seconds: float

    @property
    def answers(self) -> list[Answer]:
        return split_answers(self.received)[0]

    @property
    def statuses(self) -> list[int]:
        """Every status line, complete answer or not (an answer to HEAD says a length that does not follow)."""
        return [int(status) for status in _STATUS.findall(self.received)]


async def say(address: Address, raw: bytes, quiet_s: float, limit_s: float) -> Heard:
    """Send the bytes on a new connection and listen until it ends, is quiet after an answer, or time is up.

    ``quiet_s`` counts from the last byte received and only when something was received.
    """
    began = perf_counter()
    received = bytearray()
    reader, writer = await asyncio.open_connection(*address)
    sending = asyncio.ensure_future(_send(writer, raw))
    closed = False
    try:
        while (left := limit_s - (perf_counter() - began)) > 0:
            patience = min(left, quiet_s) if received else left
            part = await asyncio.wait_for(reader.read(65_536), patience)
            if not part:
                closed = True
                break
            received += part
    except TimeoutError:
        pass  # quiet, or out of time: that is what the caller asks about
    except OSError:
        closed = True
    sending.cancel()
    writer.transport.abort()
    return Heard(bytes(received), closed, perf_counter() - began)


async def _send(writer: asyncio.StreamWriter, raw: bytes) -> None:
    try:
        writer.write(raw)
        await writer.drain()
    except OSError:
        return  # refused while we were still talking; what was answered is read by the other side


class Connection:
    """A keep-alive connection for requests whose answers are awaited in order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._rest = b""

    @classmethod
    async def open(cls, address: Address) -> Connection:
        return cls(*await asyncio.open_connection(*address, limit=1 << 20))

    async def ask(self, requests: Sequence[bytes]) -> list[Answer]:
        """Send the requests at once (pipelined) and wait for all their answers.

        Raises ``ConnectionError`` when the connection ends before.
        """
        self._writer.write(b"".join(requests))
        answers: list[Answer] = []
        while len(answers) < len(requests):
            part = await self._reader.read(262_144)
            if not part:
                raise ConnectionError(f"closed after {len(answers)} of {len(requests)} answers")
            more, self._rest = split_answers(self._rest + part)
            answers += more
        return answers

    def close(self) -> None:
        self._writer.transport.abort()


def get(path: str) -> bytes:
    """A GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: postbackd.example\r\n\r\n".encode()


def post(path: str, content_type: str, body: bytes) -> bytes:
    """A POST request with a body of known length."""
    head = f"POST {path} HTTP/1.1\r\nHost: postbackd.example\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
