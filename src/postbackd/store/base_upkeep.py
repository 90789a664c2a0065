"""What a store promises to the regular work of the admin role: alarms and roll-ups.  Part of ``base.Store``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from postbackd.core.alarm_notices import Notice
from postbackd.core.alarm_words import Word
from postbackd.core.alarms import Change, Key, Quiet
from postbackd.core.grouping import Grouping
from postbackd.core.rhythm import HourCount
from postbackd.core.rollups import Kind, Mark, Put


class AlarmStep(Struct, frozen=True, kw_only=True):
    """One look of the keeper of alarms, committed together."""

    holder: str
    now_ms: int
    counted_ms: int
    """The log has been counted up to this time."""
    hours: Sequence[HourCount] = ()
    """As they are now; they replace what was counted of the same hours."""
    words: Sequence[Word] = ()
    changes: Sequence[Change] = ()
    notices: Mapping[int, Sequence[Notice]] = {}
    """Place in ``changes`` -> what has to be told of it; ids are given, and written into alarm and body, here."""


class KeepsAlarms(Protocol):
    """What the keeper of the alarms asks of a store."""

    async def hold_alarms(self, holder: str, now_ms: int, until_ms: int) -> bool:
        """Become, or stay, the one who keeps the alarms until then; ``False``: somebody else is."""
        ...

    async def write_alarms(self, step: AlarmStep) -> Sequence[int] | None:
        """Commit one look; returns the ids of the alarms in ``changes``.

        ``None``: nothing was stored, because the holder is another one by now.  Raises
        ``store.database.ConstraintViolated`` when somebody has raised one of the alarms already.
        """
        ...

    async def settle_notices(self, notices: Sequence[Notice]) -> None:
        """Store what became of them."""
        ...

    async def quiet_alarm(self, quiet: Quiet) -> None:
        """Say nothing of it, from now on; replaces what was said of it before."""
        ...

    async def unquiet_alarm(self, key: Key) -> bool:
        """Speak of it again; ``False``: nobody had asked for quiet."""
        ...

    async def forget_alarms(self, hours_before: int, campaigns_before: int, ended_before_ms: int) -> None:
        """Delete counts of earlier hours (of networks, of campaigns), and alarms and words that are over."""
        ...


class KeepsRollups(Protocol):
    """What the keeper of the roll-ups, and reports, ask of a store."""

    async def claim_rollups(self, holder: int, now_ms: int) -> Mapping[str, int] | None:
        """Become the one that keeps the roll-ups; returns how far they have come, ``None``: somebody else does."""
        ...

    async def give_up_rollups(self, holder: int) -> None:
        """Let somebody else keep them."""
        ...

    async def put_rollups(self, step: Put) -> bool:
        """Commit a step of the keeper; ``False``: somebody else has taken over, and nothing was done."""
        ...

    async def put_facts(self, holder: int, clicks: Sequence[int]) -> bool:
        """Roll up the conversions of these clicks as they are now; ``False`` as above."""
        ...

    async def rollup_marks(self, limit: int) -> Sequence[Mark]:
        """The oldest marks: slots whose raw rows were written or changed after they had been rolled up."""
        ...

    async def mark_slots(self, marks: Collection[tuple[Kind, int]]) -> None:
        """Have slots rolled up again."""
        ...

    async def aggregate(self, asked: Grouping) -> Sequence[Sequence[Any]]:
        """Answer one question to the roll-ups; see ``store.grouping`` for the columns."""
        ...
