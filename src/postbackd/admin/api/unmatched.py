"""Postbacks that were not counted: what broke, what to change, and the repair of those that can be repaired."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from postbackd.admin.api.health import Moment, read_period
from postbackd.admin.api.log import LogRow
from postbackd.admin.endpoints import Asked, Endpoint, Scope
from postbackd.admin.problems import Problem
from postbackd.catalog.documents import find_network_ever
from postbackd.catalog.errors import NoEntry
from postbackd.catalog.urls import postback_url
from postbackd.core.click_id import read_stamp
from postbackd.core.diagnosis import SENDER_REASONS, Reason
from postbackd.reports.lost_ids import find_lost_ids
from postbackd.reports.repairing import MOST_ROWS, Repairs, list_repairs, repair
from postbackd.reports.unmatched import examine_unmatched
from postbackd.store.base import Store

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Most = Annotated[int, Meta(ge=1, le=100_000, description="Rows to look at; 'next' says where to go on.")]


class UnmatchedQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Of which time and network."""

    since: Moment = "7d"
    until: Moment | None = None
    network: Name | None = None


class Step(Struct, frozen=True, omit_defaults=True):
    """One thing to do."""

    do: str
    url: str | None = None
    """To paste into the network."""
    command: str | None = None


class Repairable(Struct, frozen=True):
    """How many of the newest rows hold an id that verifies after a repair."""

    looked_at: int
    count: int


class UnmatchedGroup(Struct, frozen=True, kw_only=True):
    """The postbacks of one network that were not counted for one reason."""

    network: str
    removed: bool
    """Whether the network was taken out of the catalog."""
    verdict: str
    reason: str
    count: int
    share: float
    """Of all postbacks of the network in this time."""
    first: str
    last: str
    hop: str
    """The broken one: ``source``, ``landing page``, ``advertiser``, ``network``, ``us``, or ``nobody``."""
    why: str
    cause: str
    fix: str
    steps: list[Step]
    repairable: Repairable
    kinds: dict[str, int]
    """Of altered ids, what can be told: ``surrounded``, ``retired``, ``tail_changed``, ``no_click`` ..."""
    arrived_as: dict[str, int]
    """The texts that arrived most often as the click id."""
    examples: list[LogRow]


class Unmatched(Struct, frozen=True, kw_only=True):
    """What was not counted, most postbacks first."""

    since: str | None
    until: str | None
    postbacks: int
    not_counted: int
    groups: list[UnmatchedGroup]


class RepairQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which postbacks to look at."""

    since: Moment | None = None
    until: Moment | None = None
    network: Name | None = None
    reason: Name | None = None
    after: Annotated[str, Meta(max_length=26)] | None = None
    """The ``next`` of the last answer."""
    most: Most = MOST_ROWS


class RepairedClick(Struct, frozen=True):
    """The click that a postback speaks of."""

    time: str
    campaign: str | None
    offer: str | None


class RepairedPostback(Struct, frozen=True, kw_only=True):
    """One postback that can be counted."""

    request: str
    time: str
    network: str | None
    reason: str
    damage: str
    """What was done to the id."""
    field: str
    received: str | None
    click_id: str | None
    """After the repair."""
    click: RepairedClick
    would_be: str
    """Verdict: ``accepted``, ``duplicate`` (counted already) or ``updated``."""


class RepairAnswer(Struct, frozen=True, kw_only=True):
    """What can be repaired, or was."""

    done: bool
    looked_at: int
    count: int
    found: list[RepairedPostback]
    """The first hundred."""
    next: str | None
    """Give it as ``after`` to go on; nothing: these were all."""


async def show_unmatched(asked: Asked[UnmatchedQuery, None]) -> Unmatched:
    """Of every network and reason: how many, since when, the broken hop, what to change, and examples."""
    query, desk = asked.query, asked.desk
    now = desk.now_ms()
    network = await _find_network(desk.store, query.network)
    document = await examine_unmatched(
        desk.store,
        read_period(query.since, query.until, now),
        partial(postback_url, desk.base_url),
        now,
        network,
    )
    return msgspec.convert(document, Unmatched)


async def show_repairable(asked: Asked[RepairQuery, None]) -> RepairAnswer:
    """Postbacks whose id verifies after a repair, or that today's settings count; nothing is changed."""
    found = await list_repairs(asked.desk.store, await _read_asked(asked, asked.query), most=asked.query.most)
    return _answer(found, done=False)


async def repair_unmatched(asked: Asked[None, RepairQuery]) -> RepairAnswer:
    """Count what the same question to ``repairable`` shows; asking twice counts nothing twice."""
    found = await repair(asked.desk.store, await _read_asked(asked, asked.body), most=asked.body.most)
    return _answer(found, done=True)


def _answer(found: Repairs, *, done: bool) -> RepairAnswer:
    return msgspec.convert({**msgspec.to_builtins(found), "done": done}, RepairAnswer)


async def _read_asked(asked: Asked[Any, Any], query: RepairQuery) -> dict[str, Any]:
    chosen: dict[str, Any] = {**read_period(query.since, query.until, asked.desk.now_ms()).stamps()}
    chosen["network"] = await _find_network(asked.desk.store, query.network)
    if query.reason is not None:
        reason = Reason.__members__.get(query.reason.upper())
        if not reason or reason in SENDER_REASONS:
            detail = f"reason is {query.reason!r}; write one that is not about the sender, such as click_id_altered"
            raise Problem(400, detail, field="reason")
        chosen["reason"] = reason.value
    if query.after is not None:
        stamp = read_stamp(query.after)
        if stamp is None:
            detail = f"after is {query.after!r}; write the 'next' of the last answer"
            raise Problem(400, detail, field="after")
        chosen["after"] = stamp
    return chosen


async def _find_network(store: Store, name: str | None) -> int | None:
    if name is None:
        return None
    try:
        return find_network_ever(await store.load_catalog(), await store.load_catalog(removed=True), name).id
    except NoEntry as error:
        raise Problem(400, str(error), field="network") from error


class LostQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Clicks of which time."""

    since: Moment = "33d"
    until: Moment | None = None


class LostHost(Struct, frozen=True):
    """A landing host that was compared."""

    host: str
    clicks: int
    converted: int


class LostIds(Struct, frozen=True, kw_only=True):
    """Where click ids are lost, if anywhere."""

    since: str
    until: str
    found: list[dict[str, Any]]
    """Each with ``kind`` (``age`` or ``page``), ``host``, ``sentence``, and the figures behind it."""
    comparable: int
    """Hosts with enough conversions."""
    needed: int
    hosts: list[LostHost]


async def show_lost_ids(asked: Asked[LostQuery, None]) -> LostIds:
    """Whether ids are lost on a landing page or with age; says nothing unless the evidence is strong."""
    now = asked.desk.now_ms()
    period = read_period(asked.query.since, asked.query.until, now)
    return msgspec.convert(await find_lost_ids(asked.desk.store, period, now), LostIds)


ENDPOINTS = (
    Endpoint(
        "GET", "/unmatched", Scope.READ, "Doctor", "What broke on the way of postbacks that were not counted.",
        show_unmatched, query=UnmatchedQuery, answer=Unmatched,
    ),
    Endpoint(
        "GET", "/unmatched/repairable", Scope.READ, "Doctor", "Show what can be repaired safely.",
        show_repairable, query=RepairQuery, answer=RepairAnswer,
    ),
    Endpoint(
        "POST", "/unmatched/repair", Scope.OPERATE, "Doctor", "Repair and count what can be repaired safely.",
        repair_unmatched, body=RepairQuery, answer=RepairAnswer,
    ),
    Endpoint(
        "GET", "/lost-ids", Scope.READ, "Doctor", "Are click ids lost on a landing page or with age?",
        show_lost_ids, query=LostQuery, answer=LostIds,
    ),
)  # fmt: skip
