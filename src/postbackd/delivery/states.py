"""How targets are served: what the database says of them, and what it does not know yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from postbackd.core.deliveries import BROKEN, PAUSED, SLOWED, TargetState

_COLUMNS = ("target", "state", "since_ms", "until_ms", "reason")


class TargetStates:
    """The states of all targets; a target without one is served as usual."""

    def __init__(self) -> None:
        self._known: dict[int, TargetState] = {}
        self._unwritten: dict[int, TargetState] = {}

    @property
    def unwritten(self) -> Sequence[TargetState]:
        """What the database has to be told."""
        return list(self._unwritten.values())

    def read(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take what the database says; what it does not know yet stays."""
        stored = {row["target"]: TargetState(*(row[name] for name in _COLUMNS)) for row in rows}
        self._known = {**stored, **self._unwritten}

    def wrote(self, states: Iterable[TargetState]) -> None:
        """These have been committed."""
        for state in states:
            if self._unwritten.get(state.target) is state:
                del self._unwritten[state.target]

    def is_paused(self, target: int) -> bool:
        """Whether nothing may be sent to it until an operator says so."""
        return self._of(target) == PAUSED

    def cannot_be_served(self, target: int) -> bool:
        """Whether it was noted that it could not be served at all."""
        return self._of(target) == BROKEN and not self._known[target].until_ms

    def is_in_trouble(self, target: int) -> bool:
        """Whether it failed or asked for a pause, also when an earlier run has noted that."""
        return self._of(target) in (BROKEN, SLOWED)

    def note(self, target: int, state: str, until_ms: int, reason: str, now_ms: int) -> None:
        """From now on it is so; an operator's pause is not undone by it."""
        before = self._known.get(target)
        since_ms = before.since_ms if before is not None and before.state == state else now_ms
        noted = TargetState(target, state, since_ms, until_ms, reason, unless_paused=state != PAUSED)
        self._known[target] = self._unwritten[target] = noted

    def _of(self, target: int) -> str:
        state = self._known.get(target)
        return "" if state is None else state.state
