"""How often a deliverer takes a turn, and how much at a time: as much as leaves others their share of the database."""

from __future__ import annotations

from collections.abc import Mapping

FEWEST_EVENTS, _MOST_EVENTS = 100, 800
"""Events of one turn.  A hundred are written in a millisecond and a half."""

_MOST_CLAIMS, _FEWEST_CLAIMS, _CLAIMS_EACH = 128, 32, 4
"""Deliveries that one turn claims in all, otherwise and while the front door is busy; and for one target at least."""

_LONG_TURN_S = 0.01
"""Nobody else writes to an embedded database meanwhile."""

_OTHERS_SHARE = 16
"""How long others may write after a turn while the front door is busy, in lengths of the turn."""

_FREE_CROWD, _SOME_CROWD = 0.95, 0.1
"""When more than the first part of the turns has to wait, others have much to write; below the other nobody has."""

_BUSY_RATE = 6000
"""Events a second that a front door makes when it is busy."""

_MEMORY = 0.8
"""How much of what is known of the others' business a new turn leaves."""

SHORTEST_TURN_S = 0.005
"""Answers that come close together are committed together."""

_POLL_S, _LONGEST_POLL_S = 0.01, 0.04
"""How often to look when there was nothing to do; the longer it is so, the more seldom."""

_LONGEST_PAUSE_S = 0.04
"""However much the others have to write, some turns are taken."""


class TurnPace:
    """Learns from each turn what the next one should be."""

    def __init__(self) -> None:
        self.events = FEWEST_EVENTS
        """How many events to take."""
        self.pause_s = _POLL_S
        """How long to wait before it."""
        self._crowd = 0.0
        """Which part of the last turns had to wait for somebody else."""
        self._crowded = False
        """Whether the front door is busy: it comes first, and what it makes is delivered a little later."""

    def share(self, rooms: Mapping[int, int]) -> dict[int, int]:
        """How many deliveries to claim for each target, of those for which there is room; all get the same."""
        most = _FEWEST_CLAIMS if self._crowded else _MOST_CLAIMS
        each = max(_CLAIMS_EACH, most // max(1, len(rooms)))
        return {target: min(room, each) for target, room in rooms.items()}

    def rested(self) -> None:
        """There was nothing to do."""
        self.pause_s = min(2 * max(self.pause_s, _POLL_S), _LONGEST_POLL_S)

    def worked(self, events: int, took_s: float, waited_s: float, since_s: float) -> None:
        """A turn with so many events took so long, and of that it waited for somebody else who writes.

        ``since_s``: since the turn before it began.
        """
        self._crowd = _MEMORY * self._crowd + (1 - _MEMORY) * (waited_s > 0)
        many = events >= self.events or events > _BUSY_RATE * since_s
        self._crowded = self._crowd > _FREE_CROWD or (many and self._crowd > _SOME_CROWD)
        held_s = min(took_s - waited_s, _LONG_TURN_S)
        share = _OTHERS_SHARE if self._crowded else 1
        self.pause_s = max(SHORTEST_TURN_S, min(share * held_s, _LONGEST_PAUSE_S))
        if self._crowded or held_s >= _LONG_TURN_S:
            self.events = max(FEWEST_EVENTS, self.events // 2)
        elif events == self.events:
            self.events = min(2 * self.events, _MOST_EVENTS)
