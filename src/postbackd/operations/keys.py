"""The keys that sign click ids, without their secrets."""

from __future__ import annotations

from collections.abc import Sequence
from secrets import token_bytes
from typing import Any

from postbackd.core.model import SigningKey
from postbackd.core.moments import write_moment
from postbackd.store.base import Store

HEAD_START_MS = 5_000
"""A new key signs from this much later on: running servers read the catalog every second."""


async def rotate_keys(store: Store, now_ms: int, keep: int) -> Sequence[SigningKey]:
    """Let a new random key sign a few seconds from now on; the newest ``keep`` go on verifying."""
    return await store.rotate_signing_key(
        token_bytes(32), now_ms=now_ms, active_from_ms=now_ms + HEAD_START_MS, keep=keep
    )


def describe_keys(stored: Sequence[SigningKey], now: int) -> list[dict[str, Any]]:
    """The keys, oldest first, each with what it does now."""
    active = [key for key in stored if key.active_from_ms <= now]
    documents = []
    for key in stored:
        state = "retired" if key.retired else "signs next" if key not in active else "verifies"
        documents.append({
            "id": key.id,
            "signs_from": write_moment(key.active_from_ms) if key.active_from_ms else None,
            "state": "signs" if active and key is active[-1] else state,
        })  # fmt: skip
    return documents
