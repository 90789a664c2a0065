"""What an erasure would erase, and the certificates of those that were made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from postbackd.catalog.errors import NoEntry
from postbackd.core.click_id import KeyRing
from postbackd.core.moments import write_moment
from postbackd.core.privacy import Masker
from postbackd.store.base import Store
from postbackd.upkeep import erasing


class Found(Struct, frozen=True):
    """What is held under an id."""

    reference: str
    """Keyed hash of the id, by which the certificate names it."""
    clicks: Sequence[int]
    requests: Sequence[int]
    """Rows of the postback log that name no click that is known."""


async def look(store: Store, kind: str, value: str, network: str | None) -> Found:
    """What would be erased.  ``kind``: ``click_id``, ``transaction_id`` or ``identity``.

    Raises ``NoEntry`` when that is nothing, and no erasure of it was interrupted.
    """
    masker = Masker((await store.load_catalog()).privacy_key)
    reference = masker.conceal(0, value).removeprefix("erased:")
    clicks, requests = await find(store, masker, kind, value, network)
    interrupted = any(
        row["reference"] == reference and row["done_ms"] is None for row in await store.query("erasures")
    )
    if not clicks and not requests and not interrupted:
        raise NoEntry(
            "nothing is held under this id; 'postbackd why ID' says what became of it, 'postbackd erase list' what was "
            "erased; the sale of a click that was purged is found by --transaction-id"
        )
    return Found(reference, sorted(clicks), sorted(requests))


async def find(
    store: Store, masker: Masker, kind: str, value: str, network: str | None
) -> tuple[set[int], set[int]]:
    """Clicks, and log rows without one, that hold an id.  Raises ``NoEntry`` for a network that never was."""
    catalog = await store.load_catalog(removed=True)
    if kind == "click_id":
        verified = KeyRing(catalog.signing_keys).verify(value)
        if verified is not None:
            return {verified[0]}, set()
        own_ids = (masker.mask(value), masker.conceal(0, masker.mask(value)))
        clicks = {row["click_id"] for own_id in own_ids for row in await store.query("own_id", own_id=own_id)}
        clicks = clicks or await erasing.find_purged(store, own_ids[0])
        rows = await store.query("postbacks_of_identity", identity=own_ids[0])
        return clicks, {row["request_id"] for row in rows if row["click_id"] is None}
    if kind == "identity":
        clicks, requests = await erasing.find_identity(store, value)
        if (hashed := masker.mask(value)) != value:  # an address as it is: kept as a keyed hash
            more_clicks, more_requests = await erasing.find_identity(store, hashed)
            return clicks | more_clicks, requests | more_requests
        return clicks, requests
    numbers = [entry.id for entry in catalog.networks if entry.name == network]
    if network is not None and not numbers:
        raise NoEntry(f"there is no network {network!r}; see 'postbackd network list'")
    texts: Sequence[str] = list(dict.fromkeys((value, masker.mask(value))))
    return await erasing.find_clicks(store, texts, numbers[0] if numbers else None)


def describe_certificate(row: dict[str, Any]) -> dict[str, Any]:
    """One row of the statement about erasures."""
    return {
        "id": row["id"],
        "at": write_moment(row["at_ms"]),
        "asked": row["asked"],
        "reference": row["reference"],
        "erased": msgspec.json.decode(row["counts"]),
        "completed": write_moment(row["done_ms"]) if row["done_ms"] else None,
    }
