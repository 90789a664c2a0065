"""What a database must be able to do for the write path (``store.write``), one set of rows a call."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from postbackd.core.model import Click, Postback
from postbackd.core.rollups import Kind
from postbackd.core.rules import Conversion

Row = tuple[Any, ...]
Key = tuple[int, str, str]
"""(click id stamp, type, transaction id): what is counted once."""

StoredClick = tuple[int, int, int]
"""(campaign, offer, kind) of a click."""


class Transaction(Protocol):
    """One open transaction of a database.  Every call takes and gives whole sets of rows."""

    async def add_clicks(self, clicks: Sequence[Click]) -> None: ...
    async def claim_own_ids(self, own_ids: Mapping[str, int]) -> Mapping[str, int]:
        """Register own ids for stamps; returns the stamp that holds each, which may be an earlier click's."""
        ...

    async def find_own_ids(self, own_ids: Sequence[str]) -> Mapping[str, int]: ...
    async def find_clicks(self, stamps: Sequence[int]) -> Mapping[int, StoredClick]: ...
    async def find_erased(self, stamps: Sequence[int]) -> set[int]:
        """Which of these clicks were erased; asked of clicks that are not found only."""
        ...

    async def purged_before(self) -> int:
        """Clicks with a smaller stamp have been purged."""
        ...

    async def add_conversions(self, rows: Sequence[Row]) -> int:
        """Insert the rows whose key is new; returns how many that were."""
        ...

    async def find_conversions(self, keys: Sequence[Key]) -> Mapping[Key, Conversion]: ...
    async def lock_conversions(self, keys: Sequence[Key]) -> Mapping[Key, Conversion]:
        """As ``find_conversions``; nobody else changes them before this transaction has ended."""
        ...

    async def change_conversions(self, changed: Mapping[Key, Conversion]) -> None:
        """Store these states; each with the checksum that it carries."""
        ...

    async def add_history(self, rows: Sequence[Row]) -> None: ...
    async def add_events(self, rows: Sequence[Row]) -> None:
        """Put what happened to conversions into the outbox, in this order."""
        ...

    async def add_postbacks(self, rows: Sequence[Row]) -> None: ...
    async def change_postbacks(self, rows: Sequence[Row]) -> None: ...
    async def mark_slots(self, marks: Collection[tuple[Kind, int]]) -> None:
        """Have slots rolled up again."""
        ...

    async def add_waiting(self, rows: Sequence[tuple[str, int]]) -> None: ...
    async def take_waiting(self, click_refs: Sequence[str]) -> Sequence[Postback]:
        """Postbacks that wait for these clicks, oldest first; they wait no longer."""
        ...

    async def add_pixel_conversions(self, keys: Sequence[tuple[int, str]]) -> None: ...
    async def take_pixel_conversions(self, keys: Sequence[tuple[int, str]]) -> set[tuple[int, str]]:
        """Which of these (click, type) the pixel brought without a transaction id; they are not pending any longer."""
        ...

    async def has_pixel_conversions(self) -> bool: ...
    async def first_conversion(self, click_id: int, type_: str) -> Key | None:
        """The oldest conversion of a click and type."""
        ...

    async def rename_conversion(self, key: Key, transaction_id: str, checksum: int | None) -> None: ...
