"""Whether a target is served: paused and resumed by an operator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from postbackd.core.deliveries import BROKEN, SLOWED, TargetState
from postbackd.core.model import Target
from postbackd.store.base import Store, Turn

_HOLDER = "operator"


async def turn(store: Store, target: Target, state: str, reason: str, now_ms: int) -> None:
    """Put a target into a state; empty: it is served as usual."""
    change = TargetState(target.id, state, since_ms=now_ms, until_ms=0, reason=reason)
    await store.take_turn(Turn(holder=_HOLDER, now_ms=now_ms, states=[change]))


async def resume(store: Store, target: Target, now_ms: int) -> Mapping[str, Any] | None:
    """Serve a target as usual.  If it is not paused but left alone until a time, its state: it comes back by itself."""
    for row in await store.query("target_states"):
        if row["target"] == target.id and row["state"] in (BROKEN, SLOWED) and row["until_ms"] > now_ms:
            return row
    await turn(store, target, "", "", now_ms)
    return None
