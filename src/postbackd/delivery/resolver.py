"""Names to addresses, so that a dead name server stops nobody but those who need it.

The system's resolver blocks, for ten seconds and more when nobody answers it.  It runs in threads of our own, at most
one look-up a name and ``LANE`` at a time.  A look-up that takes longer than ``PATIENCE_S`` is waited for beside the
lane, and names that could not be looked up before have a narrow lane of their own, so that dead names do not hold up
the others.  The threads are daemons: a look-up that hangs does not hold up the end of the program.

Nothing is judged here: an answer is a list of addresses, and each is judged where it is connected to.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

FRESH_S = 30.0
"""How long an answer is used.  Kept connections outlive it anyway."""
NEGATIVE_S = 5.0
LANE = 8
NARROW_LANE = 2
PATIENCE_S = 1.0
MAX_THREADS = 64
"""Of a lane, with those that hang."""
MAX_NAMES = 10_000
MAX_ADDRESSES = 8

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
LookUp = Callable[[str], Sequence[AddressInfo]]


class NameNotFound(Exception):
    """The message is a sentence."""


def look_up(host: str) -> Sequence[AddressInfo]:
    """Ask the system.  ASCII bytes, so that Python does no IDNA of its own.  Raises ``OSError``."""
    return socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)


class Resolver:
    """Belongs to one event loop."""

    def __init__(
        self, look_up: LookUp = look_up, *, fresh_s: float = FRESH_S, patience_s: float = PATIENCE_S
    ) -> None:
        self._look_up = look_up
        self._fresh_s = fresh_s
        self._known: dict[str, tuple[float, tuple[str, ...], str]] = {}
        """Name -> until when, addresses, and why there are none."""
        self._asked: dict[str, asyncio.Future[None]] = {}
        self._lanes = (_Lane(LANE, patience_s), _Lane(NARROW_LANE, patience_s))

    async def addresses(self, host: str) -> tuple[str, ...]:
        """The addresses of a name in the order in which to try them, at least one.  Raises ``NameNotFound``."""
        known = self._known.get(host)
        if known is None or known[0] <= monotonic():
            # A caller that gives up does not end the look-up: others may wait for it, and the next one needs it.
            await asyncio.shield(self._ask(host))
            known = self._known[host]
        _, found, error = known
        if error:
            raise NameNotFound(error)
        return found

    def _ask(self, host: str) -> asyncio.Future[None]:
        future = self._asked.get(host)
        if future is None:
            loop = asyncio.get_running_loop()
            future = self._asked[host] = loop.create_future()
            before = self._known.get(host)
            lane = self._lanes[before is not None and bool(before[2])]
            lane.run(lambda done: self._start(loop, host, done))
        return future

    def _start(self, loop: asyncio.AbstractEventLoop, host: str, done: Callable[[], None]) -> None:
        def settle(found: tuple[str, ...], error: str) -> None:
            self._settle(host, found, error)
            done()

        def work() -> None:
            found, error = self._find(host)
            try:
                loop.call_soon_threadsafe(settle, found, error)
            except RuntimeError:
                return  # the loop was closed meanwhile: nobody waits any more

        threading.Thread(target=work, name=f"look-up of {host[:40]}", daemon=True).start()

    def _find(self, host: str) -> tuple[tuple[str, ...], str]:
        """Runs in a thread."""
        try:
            rows = self._look_up(host)
        except socket.gaierror as error:
            if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
                return (), f"the name {host} was not found"
            return (), f"the name {host} could not be looked up: {(error.strerror or str(error)).lower()}"
        except (OSError, ValueError) as error:
            return (), f"the name {host} could not be looked up: {error}"
        addresses = tuple(dict.fromkeys(str(row[4][0]) for row in rows))[:MAX_ADDRESSES]
        return (addresses, "") if addresses else ((), f"the name {host} has no address")

    def _settle(self, host: str, found: tuple[str, ...], error: str) -> None:
        now = monotonic()
        if len(self._known) >= MAX_NAMES:
            self._known = {name: row for name, row in self._known.items() if row[0] > now}
            if len(self._known) >= MAX_NAMES:
                self._known.clear()
        self._known[host] = (now + (min(NEGATIVE_S, self._fresh_s) if error else self._fresh_s), found, error)
        future = self._asked.pop(host)
        if not future.done():
            future.set_result(None)


class _Lane:
    """Starts so many pieces of work at a time, the others in their order."""

    def __init__(self, width: int, patience_s: float) -> None:
        self._free = width
        self._patience_s = patience_s
        self._running = 0
        self._waiting: deque[Callable[[Callable[[], None]], None]] = deque()

    def run(self, start: Callable[[Callable[[], None]], None]) -> None:
        """``start`` is called now or later, with what it has to call when it is done."""
        self._waiting.append(start)
        self._next()

    def _next(self) -> None:
        while self._free and self._running < MAX_THREADS and self._waiting:
            self._free -= 1
            self._running += 1
            self._begin(self._waiting.popleft())

    def _begin(self, start: Callable[[Callable[[], None]], None]) -> None:
        in_lane = True

        def leave() -> None:
            nonlocal in_lane
            self._free += in_lane
            in_lane = False
            self._next()

        def done() -> None:
            self._running -= 1
            timer.cancel()
            leave()

        timer = asyncio.get_running_loop().call_later(self._patience_s, leave)
        start(done)
