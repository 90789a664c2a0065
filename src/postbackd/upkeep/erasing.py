"""Erases whole: pass after pass until nothing is left, whoever writes beside it.

What is being written while the first pass runs is met by the next one: a request that had already found its click, a
message on its way whose answer is noted afterwards, what lies in a spool.  May be stopped at any moment and run again:
the certificate stays open until the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

from postbackd.core.deliveries import Facts
from postbackd.core.privacy import Masker
from postbackd.store.base import Erased, Erasing, Store

PAUSE_S = 2.0
"""Longer than a batch takes to be committed that had found its click before the first pass."""

IN_FLIGHT_S = 15.0
"""Longer than a message takes to be sent and its answer to be noted."""

_MOST_PASSES = 10


class Ended(Struct, frozen=True):
    """What an erasure did."""

    id: int
    counts: dict[str, int]
    left: int
    """Places in the files that hold some still; 0: complete."""


async def erase(
    store: Store,
    erasing: Erasing,
    masker: Masker,
    now_ms: Callable[[], int],
    *,
    rewrite: bool,
    pause_s: float = PAUSE_S,
) -> Ended:
    """Erase, and end the certificate when nothing is left."""
    erased = await store.erase(erasing, masker)
    resumed = erased.resumed
    erasing = msgspec.structs.replace(erasing, certificate=erased.id)
    await asyncio.sleep(IN_FLIGHT_S if erased.in_flight else pause_s)
    for _ in range(_MOST_PASSES):
        again = await store.erase(erasing, masker)
        if not again.changed:
            break
        erased = again
        await asyncio.sleep(pause_s)
    left = await store.scrub(erasing, everywhere=resumed, rewrite=rewrite)
    if not left:
        await store.end_erasure(erased.id, now_ms())
    return Ended(erased.id, _counts(erased, again), left)


def _counts(*passes: Erased) -> dict[str, int]:
    return max((one.counts for one in passes), key=lambda counts: sum(counts.values()))


async def find_clicks(
    store: Store, transaction_ids: Sequence[str], network: int | None
) -> tuple[set[int], set[int]]:
    """The clicks that have any of these transaction ids, and the log rows that do and name no click."""
    clicks: set[int] = set()
    requests: set[int] = set()
    for transaction_id in transaction_ids:
        for row in await store.query("conversions_of_transaction", transaction_id=transaction_id):
            if network is None or row["network"] == network:
                clicks.add(row["click_id"])
        for row in await store.query("postbacks_of_transaction", transaction_id=transaction_id):
            if network is not None and row["network"] != network:
                continue
            if row["click_id"] is None:
                requests.add(row["request_id"])
            else:
                clicks.add(row["click_id"])
    return clicks, requests


async def find_identity(store: Store, identity: str) -> tuple[set[int], set[int]]:
    """The same for a value that callers chose, as it is kept: a keyed hash, or a text.

    A conversion keeps some of its click for longer than the click and the log are kept.
    """
    found = await _facts_like(store, identity)
    clicks = {click for click, facts in found if facts is None or identity in _texts(facts)}
    for name in ("clicks_of_identity", "conversions_of_identity", "facts_of_identity"):
        clicks |= {row["click_id"] for row in await store.query(name, identity=identity)}
    requests: set[int] = set()
    for row in await store.query("postbacks_of_identity", identity=identity):
        if row["click_id"] is None:
            requests.add(row["request_id"])
        else:
            clicks.add(row["click_id"])
    return clicks, requests


async def find_purged(store: Store, own_id: str) -> set[int]:
    """Clicks under a caller's own id that are gone, and of which a delivery still knows it."""
    found = await _facts_like(store, own_id)
    return {click for click, facts in found if facts is None or facts.own_id == own_id}


_FACTS_A_QUESTION = 10_000
"""Each question reads on from where the one before ended; so the last one is not asked whether there are more."""


async def _facts_like(store: Store, text: str) -> list[tuple[int, Facts | None]]:
    """Clicks, and what a delivery knows of each, where that may be a text; ``None`` where it cannot be read."""
    # With its quotation marks, or it would be found in every longer one.  A backslash would not stand for itself.
    written = msgspec.json.encode(text).decode().replace("\\", "_")
    found: list[tuple[int, Facts | None]] = []
    after = 0
    while True:
        rows = await store.query(
            "deliveries_like", pattern=f"%{written}%", after=after, limit=_FACTS_A_QUESTION
        )
        found += [(row["click_id"], _read_facts(row["facts"])) for row in rows]
        if len(rows) < _FACTS_A_QUESTION:
            return found
        after = rows[-1]["number"]


def _read_facts(text: str) -> Facts | None:
    try:
        return msgspec.json.decode(text, type=Facts)
    except msgspec.MsgspecError:
        return None


def _texts(facts: Facts) -> set[str]:
    return {text for text in (facts.source_click_id, facts.own_id, *facts.subs) if text}
