"""A link between nodes and a PostgreSQL server that can be cut at the worst moment.

It listens on a socket of its own and passes the messages of the protocol on, one by one (PostgreSQL documentation,
"Message Formats": a type byte, a length of four bytes that counts itself; only the first message of a client has no
type).  So it knows when a client says COMMIT and when the server has answered that.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from tests.trust.server import wait_until

_COMMIT = b"COMMIT\0"
_QUERY = b"Q"
_PARSE = b"P"
_DONE = b"C"
_GONE = (OSError, asyncio.IncompleteReadError)
_LATE_S = 0.3

_ENDED = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"
_FAREWELL = b"E" + (len(_ENDED) + 4).to_bytes(4, "big") + _ENDED
"""What a server says to the sessions that it ends."""

Rewrite = Callable[[bytes], bytes]


class Cut(Enum):
    """Where a link is cut."""

    REPLY_LOST = "the server has committed and said so, the node does not hear it"
    COMMIT_LATE = "the node has said COMMIT and hears nothing; the server gets to know of it a little later"


@dataclass(eq=False)
class _Connection:
    """One connection of a node."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    cut: Cut | None = None
    """What happens to the COMMIT that is under way."""
    ended: bool = False
    """The node has been told that its session has ended."""

    def end(self) -> None:
        self.client.transport.abort()
        self.server.transport.abort()


class Link:
    """The link, in a thread of its own.  Use as a context manager."""

    def __init__(self, server_socket: Path, rewrite: Rewrite | None = None) -> None:
        """``rewrite``: what becomes of a statement that a client wants to have parsed; must keep its length."""
        self._server_socket = server_socket
        self._rewrite = rewrite
        self._directory = tempfile.TemporaryDirectory(prefix="pb-link-", dir="/tmp")
        self._socket = Path(self._directory.name) / server_socket.name
        self._connections: set[_Connection] = set()
        self._waiting_cuts: list[Cut] = []
        self._down = False
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)
        self.commits = 0
        """COMMITs that the server answered."""
        self.cuts = 0
        """COMMITs that were cut off."""
        self.held = 0
        """COMMITs that wait here now."""
        self._may_commit = asyncio.Event()
        self._may_commit.set()

    def address(self, user: str, database: str) -> str:
        """The address under which nodes reach the server over this link."""
        return f"postgresql://{user}@/{database}?host={quote(self._directory.name, safe='')}"

    # --- from the test's thread -------------------------------------------------------------------------------

    def cut_next(self, cut: Cut, *, then_down: bool = False, deadline_s: float = 20) -> None:
        """Cut the next COMMIT and wait until that has happened; ``then_down``: nobody gets through afterwards."""
        aim = self.cuts + 1
        self._call(lambda: self._waiting_cuts.append(cut))
        wait_until(lambda: self.cuts >= aim, deadline_s, f"a COMMIT to be cut ({cut.value})")
        if then_down:
            self.take_down()

    def hold_commits(self) -> None:
        """From now on a COMMIT waits here, until ``release``."""
        self._may_commit.clear()

    def wait_held(self, deadline_s: float = 20) -> None:
        """Wait until a COMMIT waits here."""
        wait_until(lambda: self.held > 0, deadline_s, "a COMMIT to be held")

    def release(self) -> None:
        self._loop.call_soon_threadsafe(self._may_commit.set)

    def end_sessions(self) -> None:
        """The sessions end as an administrator ends them: the server says so, and hangs up a moment later."""
        self._call(self._say_farewell)

    def _say_farewell(self) -> None:
        for connection in list(self._connections):
            connection.server.transport.abort()
            connection.client.write(_FAREWELL)
            connection.ended = True

    def take_down(self) -> None:
        """Cut everything, and accept nothing until ``put_up``."""
        self._call(self._end_all)

    def put_up(self) -> None:
        self._down = False

    def _end_all(self) -> None:
        self._down = True
        for connection in list(self._connections):
            connection.end()

    def _call(self, work: Callable[[], None]) -> None:
        done = threading.Event()

        def do() -> None:
            work()
            done.set()

        self._loop.call_soon_threadsafe(do)
        done.wait(10)

    def __enter__(self) -> Link:
        self._thread.start()
        if not self._listening.wait(10):
            raise TimeoutError("the link does not listen")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._end_all)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._directory.cleanup()

    # --- in the link's thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_unix_server(self._accept, path=self._socket))
        self._listening.set()
        self._loop.run_forever()
        server.close()
        if ending := asyncio.all_tasks(self._loop):
            self._loop.run_until_complete(asyncio.wait(ending, timeout=5))
        self._loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._down:
            writer.transport.abort()
            return
        try:
            from_server, to_server = await asyncio.open_unix_connection(self._server_socket)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(writer, to_server)
        self._connections.add(connection)
        try:
            await asyncio.gather(
                self._pass_requests(connection, reader), self._pass_answers(connection, from_server)
            )
        except _GONE:
            if connection.ended:
                await asyncio.sleep(_LATE_S)  # the moment is the fault: the message arrives before the end
        finally:
            connection.end()
            self._connections.discard(connection)

    async def _pass_requests(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        first = await reader.readexactly(4)
        connection.server.write(first + await reader.readexactly(int.from_bytes(first, "big") - 4))
        while True:
            kind, message = await _read(reader)
            if kind == _QUERY and message[5:] == _COMMIT and self._waiting_cuts:
                connection.cut = self._waiting_cuts.pop(0)
                if connection.cut is Cut.COMMIT_LATE:
                    await self._commit_late(connection, message)
                    return
            if kind == _QUERY and message[5:] == _COMMIT and not self._may_commit.is_set():
                self.held += 1
                await self._may_commit.wait()
                self.held -= 1
            if kind == _PARSE and self._rewrite is not None:
                message = _rewritten(message, self._rewrite)
            connection.server.write(message)
            await connection.server.drain()

    async def _commit_late(self, connection: _Connection, message: bytes) -> None:
        """Cut the node off, and only then let the server know what it said."""
        connection.client.transport.abort()
        self.cuts += 1
        await asyncio.sleep(_LATE_S)  # the moment is the fault: a message that is long under way
        connection.server.write(message)
        await connection.server.drain()

    async def _pass_answers(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        while True:
            kind, message = await _read(reader)
            if kind == _DONE and message[5:] == _COMMIT:
                self.commits += 1
                if connection.cut is Cut.REPLY_LOST:
                    connection.end()
                    self.cuts += 1
                    return
            connection.client.write(message)
            await connection.client.drain()


async def _read(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """One message: its type, and all its bytes."""
    head = await reader.readexactly(5)
    body = await reader.readexactly(int.from_bytes(head[1:], "big") - 4)
    return head[:1], head + body


def _rewritten(message: bytes, rewrite: Rewrite) -> bytes:
    changed = rewrite(message)
    if len(changed) != len(message):
        raise ValueError("a rewritten statement must keep its length")
    return changed
