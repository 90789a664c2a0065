"""Postbacks that could be counted after all: a preview, and the repair itself.

A postback is offered when today's settings count it, or when its click id verifies after a repair
(``core.mending``), and in both cases only when a rehearsed transaction says that it would be counted, changed or
found counted.  What was refused for its sender may be forged and is never offered here.  The repair writes exactly what
was offered, by the path of a replay (``reports.replaying``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from postbackd.core.click_id import stamp_ms, write_stamp
from postbackd.core.diagnosis import SENDER_REASONS, Reason
from postbackd.core.mending import Damage, Mend, apply_mend, mend_own, own_id_candidates
from postbackd.core.model import Postback
from postbackd.core.moments import write_moment
from postbackd.core.rulebook import Rulebook
from postbackd.core.verdicts import Verdict
from postbackd.reports.replaying import PAGE, Move, Row, find_moves
from postbackd.store.base import Batch, Store

MOST_ROWS = 20_000
"""Rows looked at in one call, unless told otherwise; the answer says where to go on."""

BY_SETTINGS = "counted by today's settings"

_COUNTED = (Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.UPDATED)

_MAY_BE_OWN = frozenset({Reason.CLICK_ID_FOREIGN, Reason.CLICK_ID_TRUNCATED, Reason.CLICK_ID_ALTERED})


class Repair(Struct, frozen=True):
    """One postback that would be counted."""

    move: Move
    mend: Mend | None
    """``None``: nothing is repaired, the settings have changed since."""
    click: int
    """The stamp of its click."""


class Repairs(Struct, frozen=True, kw_only=True):
    """What one call found, or did."""

    looked_at: int
    found: tuple[dict[str, Any], ...]
    """The first of them, as documents."""
    count: int
    """How many there are among those looked at."""
    next: str | None
    """The request to go on behind; ``None``: there is nothing more."""


Told = Callable[[int], None]
"""Is told how many rows a step looked at."""


async def list_repairs(
    store: Store,
    asked: Mapping[str, Any],
    *,
    most: int = MOST_ROWS,
    shown: int = 100,
    told: Told | None = None,
) -> Repairs:
    """What could be repaired among the next ``most`` rows; nothing is stored.

    ``asked``: ``network``, ``reason``, ``since``, ``until`` and ``after`` of the statement ``replayable``.
    """
    return await _walk(store, asked, most, shown, told, write=False)


async def repair(
    store: Store,
    asked: Mapping[str, Any],
    *,
    most: int = MOST_ROWS,
    shown: int = 100,
    told: Told | None = None,
) -> Repairs:
    """Count what ``list_repairs`` would show.  May be stopped, run again and run twice at once."""
    return await _walk(store, asked, most, shown, told, write=True)


async def _walk(
    store: Store, asked: Mapping[str, Any], most: int, shown: int, told: Told | None, *, write: bool
) -> Repairs:
    rulebook = Rulebook(await store.load_catalog())
    finder = _Finder(store, rulebook, own_ids=bool(await store.query("any_own_id")))
    after, looked, count = int(asked.get("after", -1)), 0, 0
    documents: list[dict[str, Any]] = []
    while looked < most:
        rows = await store.query("replayable", **{**asked, "after": after, "limit": min(PAGE, most - looked)})
        if not rows:
            return Repairs(looked_at=looked, found=tuple(documents), count=count, next=None)
        after, looked = rows[-1]["request_id"], looked + len(rows)
        repairs = await finder.find(rows)
        if repairs and write:
            await store.write(Batch(postbacks=[one.move.postback for one in repairs]), rulebook)
        count += len(repairs)
        documents += [await finder.describe(one) for one in repairs[: max(0, shown - len(documents))]]
        if told is not None:
            told(len(rows))
    return Repairs(looked_at=looked, found=tuple(documents), count=count, next=write_stamp(after))


class _Finder:
    """Finds what can be repaired, a page at a time."""

    def __init__(self, store: Store, rulebook: Rulebook, *, own_ids: bool) -> None:
        self._store = store
        self._rulebook = rulebook
        self._own_ids = own_ids
        self._mixed: bool | None = None

    async def find(self, rows: Sequence[Row]) -> list[Repair]:
        """The repairs among some rows, in their order."""
        stored = {row["request_id"]: row for row in rows if row["reason"] not in SENDER_REASONS}
        postbacks = {p.request.request_id: p for p in await self._store.load_postbacks(list(stored))}
        found = await self._try(stored, {id_: (p, None) for id_, p in postbacks.items()})
        left = {id_: p for id_, p in postbacks.items() if id_ not in found}
        mends = {id_: (p, mend_own(p, self._rulebook.keys)) for id_, p in left.items()}
        found |= await self._try(stored, {id_: pair for id_, pair in mends.items() if pair[1] is not None})
        if self._own_ids:
            found |= await self._find_owned(stored, {id_: p for id_, p in left.items() if id_ not in found})
        return [found[row["request_id"]] for row in rows if row["request_id"] in found]

    async def _try(
        self, stored: Mapping[int, Row], tried: Mapping[int, tuple[Postback, Mend | None]]
    ) -> dict[int, Repair]:
        """Which of the postbacks would be counted with these mends."""
        judged = []
        for postback, mend in tried.values():
            again = self._rulebook.judge_again(apply_mend(postback, mend) if mend else postback)
            if again is None or again.verdict or (again.click.click_id is None and not self._own_ids):
                continue
            judged.append(again)
        repairs = {}
        for move in await find_moves(self._store, stored, judged, self._rulebook):
            if move.outcome.verdict in _COUNTED:
                id_ = move.postback.request.request_id
                repairs[id_] = Repair(move, tried[id_][1], await self._find_click(move.postback))
        return repairs

    async def _find_owned(
        self, stored: Mapping[int, Row], postbacks: Mapping[int, Postback]
    ) -> dict[int, Repair]:
        """Callers' own ids: every candidate is tried, and exactly one click may be found."""
        candidates = {
            id_: own_id_candidates(postback.click_text)
            for id_, postback in postbacks.items()
            if stored[id_]["reason"] in _MAY_BE_OWN
        }
        found: dict[int, Repair] = {}
        torn: set[int] = set()
        for turn in range(max(map(len, candidates.values()), default=0)):
            tried = {
                id_: (postbacks[id_], mends[turn]) for id_, mends in candidates.items() if turn < len(mends)
            }
            for id_, one in (await self._try(stored, tried)).items():
                if found.setdefault(id_, one).click != one.click:
                    torn.add(id_)
        cased = [id_ for id_, one in found.items() if one.mend and one.mend.damage is Damage.CASE]
        if cased and await self._mixes_cases():
            torn.update(cased)
        return {id_: one for id_, one in found.items() if id_ not in torn}

    async def _mixes_cases(self) -> bool:
        """Whether callers write ids in both cases: then two may differ in case alone, and case is not repaired."""
        if self._mixed is None:
            self._mixed = bool(await self._store.query("mixed_own_id"))
        return self._mixed

    async def _find_click(self, postback: Postback) -> int:
        click = postback.click
        if click.click_id is not None:
            return click.click_id
        rows = await self._store.query("own_id", own_id=click.own_id)
        return int(rows[0]["click_id"]) if rows else 0

    async def describe(self, one: Repair) -> dict[str, Any]:
        """What arrived, what it is after the repair, and which click that is."""
        row, postback = one.move.row, one.move.postback
        clicks = await self._store.query("click", click_id=one.click)
        known = clicks[0] if clicks else {}
        field = one.mend.field if one.mend else "click_id"
        campaign = known.get("campaign", postback.click.campaign)
        return {
            "request": write_stamp(row["request_id"]),
            "time": write_moment(stamp_ms(row["request_id"])),
            "network": row["network_name"],
            "reason": Reason(row["reason"]).word,
            "damage": one.mend.damage.value if one.mend else BY_SETTINGS,
            "field": field,
            "received": row["transaction_id"] if field == "transaction_id" else row["click_text"],
            "click_id": self._rulebook.keys.write(one.click, campaign)
            if postback.click.click_id is not None and campaign is not None
            else postback.click.own_id,
            "click": {
                "time": write_moment(stamp_ms(one.click)),
                "campaign": known.get("campaign_name"),
                "offer": known.get("offer_name"),
            },
            "would_be": one.move.outcome.verdict.word,
        }
