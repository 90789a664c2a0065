"""Replays: postbacks that were not counted, through today's settings again."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from postbackd.admin.api.entries import Cursor
from postbackd.admin.api.health import Moment, read_period
from postbackd.admin.endpoints import Asked, Endpoint, Scope
from postbackd.admin.pages import read_cursor, write_cursor
from postbackd.core.diagnosis import Reason
from postbackd.operations.replays import find_replayable, replay_part

_REASONS = tuple(reason.word for reason in Reason if reason)

_MOST = 5_000


class Replay(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which postbacks."""

    network: Annotated[str, Meta(min_length=1, max_length=100)] | None = None
    reason: (
        Annotated[
            str,
            Meta(
                pattern=f"^({'|'.join(_REASONS)})$",
                description="Only this reason. What was refused for its sender is only tried when its reason is named.",
            ),
        ]
        | None
    ) = None
    since: Moment | None = None
    until: Moment | None = None
    dry_run: Annotated[bool, Meta(description="Only say what would change.")] = False
    limit: Annotated[int, Meta(ge=1, le=_MOST, description="Most postbacks to try in one call.")] = 1000
    cursor: Cursor = None


class ReplayedPostback(Struct, frozen=True, kw_only=True):
    """One stored postback and what becomes of it now."""

    request: str
    network: str | None
    before: str
    after: str


class ReplayAnswer(Struct, frozen=True, kw_only=True):
    """What it came to."""

    tried: int
    changed: list[ReplayedPostback]
    dry_run: bool
    next: str | None
    """Give it as 'cursor' to go on; nothing: all were tried."""


async def replay(asked: Asked[None, Replay]) -> ReplayAnswer:
    """Held, unmatched and rejected ones. What it was first stays in the log; nothing is counted twice."""
    body, desk = asked.body, asked.desk
    wanted: dict[str, Any] = read_period(body.since, body.until, desk.now_ms()).stamps()
    wanted["reason"] = None if body.reason is None else Reason[body.reason.upper()].value
    rulebook = await desk.rulebook()
    if body.network is not None:
        wanted["network"] = await find_replayable(desk.store, rulebook.catalog, body.network)
    after = -1 if body.cursor is None else read_cursor(body.cursor, tuple[int])[0]
    part = await replay_part(desk.store, rulebook, wanted, after, body.limit, dry_run=body.dry_run)
    return ReplayAnswer(
        tried=part.tried,
        changed=msgspec.convert([msgspec.to_builtins(one) for one in part.changed], list[ReplayedPostback]),
        dry_run=body.dry_run,
        next=None if part.after is None else write_cursor(part.after),
    )


ENDPOINTS = (
    Endpoint(
        "POST", "/replay", Scope.OPERATE, "Replay", "Run postbacks that were not counted through again.", replay,
        body=Replay, answer=ReplayAnswer, problems=(404, 409), example={"reason": "macro_literal", "dry_run": True},
    ),
)  # fmt: skip
