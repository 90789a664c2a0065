"""Servers that do what a careful one must not: the negative controls of T17 and T18.

``Naive`` believes ``Content-Length`` where ``Transfer-Encoding`` is given as well, takes a bare LF for a line end,
reads numbers as ``int`` does, keeps every connection open for ever and executes whatever then looks like a request.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.trust.corpus.wire import Address

_TRANSACTION = re.compile(rb"txid=([A-Za-z0-9-]+)")
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Naive:
    """A careless server; ``executed`` holds the transaction id of every request that it carried out."""

    def __init__(self) -> None:
        self.executed: list[str] = []
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while line := await reader.readline():
                await self._execute(line, reader)
                writer.write(_ANSWER)
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return  # the other side gave up, sent a line of more than 64 kB, or the test is over
        finally:
            self.open -= 1
            writer.transport.abort()

    async def _execute(self, line: bytes, reader: asyncio.StreamReader) -> None:
        length = 0
        while (header := await reader.readline()).strip():
            name, _, value = header.partition(b":")
            if name.strip().lower() == b"content-length":
                length = _read_length(value)
        await reader.readexactly(length)
        found = _TRANSACTION.search(line)
        if found:
            self.executed.append(found[1].decode())


def _read_length(value: bytes) -> int:
    try:
        return max(0, int(value))
    except ValueError:
        return 0


@asynccontextmanager
async def naive_server() -> AsyncIterator[tuple[Naive, Address]]:
    """A careless server on a free port of the loopback, for as long as the block runs."""
    naive = Naive()
    server = await asyncio.start_server(naive.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    try:
        yield naive, (host, port)
    finally:
        server.close()
