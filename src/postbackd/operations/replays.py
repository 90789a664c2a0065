"""Replays: postbacks that were not counted, through today's settings again, so many at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from postbackd.catalog.documents import find_network_ever
from postbackd.catalog.errors import NotNow
from postbackd.core.model import Catalog
from postbackd.core.rulebook import Rulebook
from postbackd.reports.replaying import PAGE, Replayed, replay_page
from postbackd.store.base import Store


class Part(Struct, frozen=True):
    """What a part of a replay came to."""

    tried: int
    changed: Sequence[Replayed]
    after: int | None
    """The row after which the next part begins; ``None``: nothing is left."""


async def find_replayable(store: Store, catalog: Catalog, name: str) -> int:
    """The id of a network whose postbacks can be judged again: a removed one has no settings to judge by.

    Raises ``NoEntry`` and ``NotNow``.
    """
    network = find_network_ever(catalog, await store.load_catalog(removed=True), name)
    if network not in catalog.networks:
        raise NotNow(f"network {name!r} was removed; its postbacks stay in the log but cannot be replayed")
    return network.id


async def replay_part(
    store: Store, rulebook: Rulebook, asked: Mapping[str, Any], after: int, most: int, *, dry_run: bool
) -> Part:
    """Replay up to ``most`` rows behind ``after``.  ``asked``: parameters of the statement ``replayable``."""
    changed: list[Replayed] = []
    tried = 0
    while tried < most:
        limit = min(PAGE, most - tried)
        rows = await store.query("replayable", **asked, after=after, limit=limit)
        if rows:
            after = rows[-1]["request_id"]
            changed += await replay_page(store, rows, rulebook, dry_run=dry_run)
            tried += len(rows)
        if len(rows) < limit:
            return Part(tried, changed, None)
    return Part(tried, changed, after)
