"""What comes next: the events of a market and the further tries of networks, in order of the market's time."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count

from msgspec import Struct

from postbackd.market.records import Call, Refused, Sale, Standing, Visit


class Try(Struct, frozen=True):
    """One sending of a postback."""

    at_ms: int
    call: Call
    number: int
    """Of the postback, from 1."""
    turn: int
    """1, and one more for each time that the network tries again."""


Step = Visit | Sale | Try


class Agenda:
    """Gives the earliest step; a further try may be added at any time."""

    def __init__(self, events: Iterator[Visit | Call | Refused | Sale | Standing]) -> None:
        self._events = events
        self._later: list[tuple[int, int, Try]] = []
        self._order = count()
        self._calls = count(1)
        self._next: Step | None = self._draw()

    def _draw(self) -> Step | None:
        """The next event that somebody sends or does; what follows from them is not sent."""
        for event in self._events:
            if isinstance(event, Visit | Sale):
                return event
            if isinstance(event, Call):
                return Try(event.at_ms, event, next(self._calls), 1)
        return None

    def add(self, again: Try) -> None:
        """A network will try again."""
        heappush(self._later, (again.at_ms, next(self._order), again))

    def pop(self) -> Step | None:
        """The earliest step; ``None`` when nothing is left to do (so far)."""
        if self._later and (self._next is None or self._later[0][0] < self._next.at_ms):
            return heappop(self._later)[2]
        step, self._next = self._next, None if self._next is None else self._draw()
        return step
