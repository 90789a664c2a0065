"""A row that cannot be stored must not fail its neighbours: the batch is halved until that row stands alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from postbackd.core.diagnosis import Reason
from postbackd.core.rules import unusable
from postbackd.store.base import Batch, Outcome, StoreUnavailable, Written

Write = Callable[[Batch], Awaitable[Written]]


async def write_in_parts(write: Write, batch: Batch, poisoned: tuple[type[Exception], ...]) -> Written:
    """Write a batch, as one if that is possible.

    ``write`` commits a batch whole; ``poisoned`` is what it raises when a row of it cannot be stored.  A postback that
    cannot be stored is stored without its texts, as one whose body could not be read.  Raises ``StoreUnavailable``.
    """
    try:
        return await write(batch)
    except poisoned as error:
        return await _write_split(write, batch, poisoned, error)


async def _write_split(
    write: Write, batch: Batch, poisoned: tuple[type[Exception], ...], error: Exception
) -> Written:
    clicks, postbacks = batch.clicks, batch.postbacks
    if len(clicks) + len(postbacks) <= 1:
        if not postbacks:
            raise StoreUnavailable(f"a click cannot be stored: {error}") from error
        bare = unusable(postbacks[0].request, Reason.BODY_MALFORMED, postbacks[0].parameters)
        return await write(Batch(postbacks=[replace(bare, replay=postbacks[0].replay)], flow=batch.flow))
    if clicks and postbacks:
        parts = [Batch(clicks=clicks, flow=batch.flow), Batch(postbacks=postbacks)]
    else:
        half = (len(clicks) + len(postbacks)) // 2
        parts = [
            Batch(clicks[:half], postbacks[:half], batch.flow),
            Batch(clicks[half:], postbacks[half:]),
        ]
    stamps: list[int] = []
    outcomes: list[Outcome] = []
    for part in parts:
        written = await write_in_parts(write, part, poisoned)
        stamps += written.clicks
        outcomes += written.outcomes
    return Written(stamps, outcomes)
