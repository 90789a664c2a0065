"""What has to be written to bring the roll-ups of a sub id up to date, in steps that each take milliseconds.

A sub id may have another value for every click, so that one hour of it is as large as its clicks are many.  Only what
changed is written, so many rows at a time; nothing is read of a span before all its steps are done, and a step that
is taken twice changes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from itertools import islice

from postbackd.core.rollups import NOTHING, Level, OldHours, SubKey, SubSpan, Tally, first_stamp_of, tally_of
from postbackd.store.base import Store

SUBS = range(1, 11)

STEP_ROWS = 2_000
"""Rows of one transaction."""


async def changed_subs(store: Store, level: Level, start: int, end: int) -> Sequence[SubSpan]:
    """The steps that make what is stored of a day or an hour equal its clicks."""
    span = {"since": first_stamp_of(start), "until": first_stamp_of(end)}
    steps: list[SubSpan] = []
    for sub in SUBS:
        name = f"rollup_day_sub{sub}" if level is Level.DAY else f"rollup_sub{sub}"
        new = {
            (row["campaign"], row["value"], row.get("rest", 0)): tally_of(row)
            for row in await store.query_apart(name, **span)
        }
        old = {
            (row["campaign"], row["value"], row["other"]): tally_of(row)
            for row in await store.query_apart("rollup_sub_values", level=level.value, sub=sub, slot=start)
        }
        steps += _steps(level, start, sub, old, new)
    return steps


def _steps(
    level: Level, slot: int, sub: int, old: Mapping[SubKey, Tally], new: Mapping[SubKey, Tally]
) -> Iterator[SubSpan]:
    changed = iter([
        *((key, NOTHING) for key in sorted(old.keys() - new.keys())),
        *((key, new[key]) for key in sorted(new) if old.get(key) != new[key]),
    ])  # fmt: skip
    while values := dict(islice(changed, STEP_ROWS)):
        yield SubSpan(level, slot, sub, values)


async def old_hours(store: Store, before: int) -> AsyncIterator[OldHours]:
    """The steps that delete the hours before a slot; each has to be taken before the next one is asked for."""
    for sub in SUBS:
        while True:
            asked = {"sub": sub, "before": before}
            rows = await store.query_apart("rollup_old_hours", **asked, most=STEP_ROWS)
            if not rows:
                break
            last = rows[-1]
            yield OldHours(sub, (last["slot"], last["campaign"], last["value"], last["other"]))
