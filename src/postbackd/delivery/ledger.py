"""What the database has not been told yet, and how it is told: one turn, one transaction.

A row that the database refuses must not keep the others waiting, and must not be tried again for ever.  The turn is
halved until that row stands alone; then what cannot be stored is left out of it, and the reason is kept in its
place: of an answer its texts, of a delivery that is owed everything but what it is about, so that it is dead from
the start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from msgspec.structs import replace

from postbackd.core.deliveries import Delivery, DeliveryState, Happened, Settled, put_aside
from postbackd.delivery.states import TargetStates
from postbackd.store.base import Store, Turn, TurnRefused

_T = TypeVar("_T")

log = logging.getLogger("postbackd.delivery")

_SAID_AT_MOST = 1000
"""Refusals that are remembered, so that each is said once."""


class Ledger:
    """Of one deliverer."""

    def __init__(self, store: Store, hide: Callable[[str], str]) -> None:
        """``hide``: a text of the outside as it may be kept."""
        self._store = store
        self._hide = hide
        self.settled: list[Settled] = []
        self.states = TargetStates()
        self.left: set[int] = set()
        """Events that cannot be taken from the outbox: they stay there, and are not planned again."""
        self._said: set[str] = set()

    @property
    def empty(self) -> bool:
        """Whether the database knows everything."""
        return not (self.settled or self.states.unwritten)

    async def commit(self, turn: Turn, took: Callable[[Sequence[Delivery]], None]) -> None:
        """Commit a turn together with all that the database has not been told.

        ``took`` is given what was claimed.  What was to be told stays so until it has been committed.
        """
        await self._commit(replace(turn, settled=list(self.settled), states=self.states.unwritten), took)

    async def _commit(self, turn: Turn, took: Callable[[Sequence[Delivery]], None]) -> None:
        try:
            claimed = await self._store.take_turn(turn)
        except TurnRefused as error:
            parts = divide(turn)
            for part in parts:
                await self._commit(part, took)
            if not parts:
                await self._put_aside(turn, self._hide(str(error)))
            return
        self._is_told(turn)
        took(claimed)

    async def _put_aside(self, turn: Turn, reason: str) -> None:
        """Store what is left of something that cannot be stored as it is."""
        for poorer in make_poorer(turn, f"it could not be stored: {reason}"):
            try:
                await self._store.take_turn(poorer)
            except TurnRefused:
                continue
            self._say("%s was put aside: the database refuses it (%s)", name(turn), reason)
            break
        else:
            self._say("%s cannot even be put aside: the database refuses it (%s)", name(turn), reason)
            self.left |= _numbers(turn.planned)
        self._is_told(turn)

    def _is_told(self, turn: Turn) -> None:
        del self.settled[: len(turn.settled)]
        self.states.wrote(turn.states)

    def _say(self, sentence: str, *about: str) -> None:
        said = sentence % about
        if said not in self._said and len(self._said) < _SAID_AT_MOST:
            self._said.add(said)
            log.error("%s", said)


def divide(turn: Turn) -> Sequence[Turn]:
    """The turn in parts, to be committed one after the other; empty when it is about one thing alone."""
    alone = replace(turn, settled=(), planned=(), owed=(), states=(), rooms={})
    kinds = [
        [replace(alone, settled=half) for half in _halve(turn.settled)],
        [
            replace(alone, planned=half, owed=[owed for owed in turn.owed if owed.event in _numbers(half)])
            for half in _halve(turn.planned)
        ],
        [replace(alone, states=half) for half in _halve(turn.states)],
        [replace(alone, rooms=dict(half)) for half in _halve(list(turn.rooms.items()))],
    ]
    parts = [part for kind in kinds for part in kind]
    return parts if len(parts) > 1 else ()


def _halve(whole: Sequence[_T]) -> Sequence[Sequence[_T]]:
    """The two halves, of one thing itself, of nothing nothing."""
    middle = len(whole) // 2
    return [half for half in (whole[:middle], whole[middle:]) if half]


def _numbers(events: Sequence[Happened]) -> set[int]:
    return {event.event for event in events}


def make_poorer(turn: Turn, reason: str) -> Iterator[Turn]:
    """What can be stored instead of a turn that is about one thing, from that which keeps the most of it."""
    for settled in turn.settled:
        if settled.attempt is not None:
            attempt = replace(settled.attempt, excerpt="", error=reason)
            yield replace(turn, settled=[replace(settled, reason=settled.reason and reason, attempt=attempt)])
        yield replace(turn, settled=[Settled(settled.delivery, DeliveryState.DEAD, 0, reason)])
    if turn.planned:
        dead = [put_aside(owed, reason) for owed in turn.owed]
        for place in range(len(turn.owed) if len(turn.owed) > 1 else 0):
            yield replace(turn, owed=[*turn.owed[:place], dead[place], *turn.owed[place + 1 :]])
        yield replace(turn, owed=dead)


def name(turn: Turn) -> str:
    """What a turn is about that is about one thing, for the log."""
    for settled in turn.settled:
        return f"what became of delivery {settled.delivery.id}"
    for event in turn.planned:
        return f"what follows from event {event.event} of conversion {event.conversion_id}"
    for state in turn.states:
        return f"the state {state.state!r} of target {state.target}"
    return f"what waits for target {', '.join(map(str, turn.rooms))}"
