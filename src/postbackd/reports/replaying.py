"""Stored postbacks through today's settings again: what would change, and the change itself.

There is one way in which a postback is judged again, and one in which it is written: that of a fresh one, under the
same unique key.  So nothing is counted twice, and a replay may be stopped, run again and run twice at
once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from postbackd.core.click_id import write_stamp
from postbackd.core.diagnosis import Reason
from postbackd.core.model import Postback
from postbackd.core.rulebook import Rulebook
from postbackd.core.verdicts import Verdict
from postbackd.store.base import Batch, Outcome, Store

PAGE = 200
"""Rows tried in one transaction: short enough for a running server to get its turn."""

Row = Mapping[str, Any]


class Replayed(Struct, frozen=True, kw_only=True):
    """One stored postback and what becomes of it now."""

    request: str
    network: str | None
    before: str
    after: str


class Move(Struct, frozen=True):
    """A postback as it is judged now, and what becomes of it where that is something else than is stored."""

    row: Row
    postback: Postback
    outcome: Outcome


async def replay_page(
    store: Store, rows: Sequence[Row], rulebook: Rulebook, *, dry_run: bool
) -> list[Replayed]:
    """Try one page of rows, write those that change unless it is a ``dry_run``, and say which they are."""
    stored = {row["request_id"]: row for row in rows}
    judged = [
        postback
        for postback in map(rulebook.judge_again, await store.load_postbacks(list(stored)))
        if postback is not None  # its network was removed
    ]
    moves = await find_moves(store, stored, judged, rulebook)
    if moves and not dry_run:
        await store.write(Batch(postbacks=[move.postback for move in moves]), rulebook)
    return [describe_move(move) for move in moves]


async def find_moves(
    store: Store, stored: Mapping[int, Row], judged: Sequence[Postback], rulebook: Rulebook
) -> list[Move]:
    """Which of the judged postbacks would get another verdict or reason; nothing is stored.

    ``stored``: request id -> its row in the log.
    """
    if not judged:
        return []
    rehearsed = await store.rehearse(Batch(postbacks=judged), rulebook)
    return [
        Move(stored[postback.request.request_id], postback, outcome)
        for postback, outcome in zip(judged, rehearsed.outcomes, strict=True)
        if not _is_same(stored[postback.request.request_id], outcome)
    ]


def _is_same(row: Row, outcome: Outcome) -> bool:
    return (outcome.verdict, outcome.reason) == (row["verdict"], row["reason"])


def describe_move(move: Move) -> Replayed:
    """The document of one row that changes."""
    row, outcome = move.row, move.outcome
    return Replayed(
        request=write_stamp(row["request_id"]),
        network=row["network_name"],
        before=verdict_words(row["verdict"], row["reason"]),
        after=verdict_words(outcome.verdict, outcome.reason),
    )


def verdict_words(verdict: int, reason: int) -> str:
    """``unmatched (click_id_foreign)``."""
    word = Verdict(verdict).word
    return f"{word} ({Reason(reason).word})" if reason else word
