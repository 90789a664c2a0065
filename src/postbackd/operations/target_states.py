"""Whether a target is served: paused and resumed by an operator."""

from __future__ import annotations

from postbackd.core.deliveries import TargetState
from postbackd.core.model import Target
from postbackd.store.base import Store, Turn

_HOLDER = "operator"


async def turn(store: Store, target: Target, state: str, reason: str, now_ms: int) -> None:
    """Put a target into a state; empty: it is served as usual."""
    change = TargetState(target.id, state, since_ms=now_ms, until_ms=0, reason=reason)
    await store.take_turn(Turn(holder=_HOLDER, now_ms=now_ms, states=[change]))
