"""The postback log: pages of it, one row, the story of an id, and the log as it grows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from starlette.responses import StreamingResponse

from postbackd.admin.api import entries
from postbackd.admin.api.health import Moment, read_period
from postbackd.admin.endpoints import Asked, Endpoint, Scope
from postbackd.admin.pages import Page, read_cursor, write_cursor
from postbackd.admin.problems import Problem, not_found
from postbackd.catalog.documents import find_entry, find_network_ever
from postbackd.catalog.errors import NoEntry
from postbackd.core.click_id import KeyRing, read_stamp
from postbackd.core.diagnosis import Reason
from postbackd.core.verdicts import Verdict
from postbackd.reports.live import RATE, Event, Filter, Kind
from postbackd.reports.log import describe_row, find_click
from postbackd.reports.why import explain
from postbackd.store.base import Store

HEARTBEAT_S = 15.0
"""Between two signs of life of a live log: proxies cut a connection on which nothing happens for a minute."""

RETRY_MS = 2_000
"""How long a browser waits before it connects again."""

LONGEST_S = 900.0
"""After so long a live log ends and the client comes back by itself: whoever lost the right to look has lost it."""

MOST_LISTENERS = 100

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Text = Annotated[str, Meta(min_length=1, max_length=512, description="A click id, as issued or as received.")]


Row = Annotated[str, Meta(max_length=26, description="Also what came behind this row, as Last-Event-ID.")]


class LogQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which rows of the postback log."""

    since: Moment | None = None
    until: Moment | None = None
    network: Name | None = None
    campaign: Name | None = None
    verdict: Name | None = None
    reason: Name | None = None
    click: Text | None = None
    limit: entries.Limit = 100
    cursor: entries.Cursor = None


class LiveQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """What a live log shows."""

    kind: Kind = Kind.POSTBACKS
    network: Name | None = None
    campaign: Name | None = None
    verdict: Name | None = None
    reason: Name | None = None
    click: Text | None = None
    outcome: Annotated[Literal["delivered", "failed"] | None, Meta(description="Of deliveries.")] = None
    rate: Annotated[int, Meta(ge=1, le=200, description="Most rows a second; more are sampled.")] = RATE
    after: Row | None = None


class LogRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row of the postback log."""

    request: str
    time: str
    network: str | None
    channel: str
    verdict: str
    reason: str | None
    click_id: str | None
    """As issued when it is one of ours, as received otherwise."""
    campaign: str | None
    conversion: str | None
    sent: dict[str, str]
    """The other fields as the sender wrote them."""
    bytes: int
    parameters: int
    cause: str | None = None
    fix: str | None = None
    found_in: str | None = None
    would_be_refused: list[str] = []
    sender: str | None = None
    first_verdict: str | None = None
    """What became of it first, where a late match, a replay or a repair has changed it."""
    first_reason: str | None = None


async def list_log(asked: Asked[LogQuery, None]) -> Page[LogRow]:
    """The newest first."""
    query, store = asked.query, asked.desk.store
    period = read_period(query.since, query.until, asked.desk.now_ms()).stamps()
    if query.cursor is not None:
        period["until"] = min(period["until"], read_cursor(query.cursor, tuple[int])[0])
    chosen = await read_filter(store, query)
    statement = "log_of_click" if "click_id" in chosen else "log"
    rows = await store.query(statement, **period, **chosen, limit=query.limit + 1)
    more, rows = len(rows) > query.limit, rows[: query.limit]
    keys = (await asked.desk.rulebook()).keys
    cursor = write_cursor(rows[-1]["request_id"]) if more else None
    return Page([_as_row(describe_row(row, keys)) for row in rows], cursor)


async def show_request(asked: Asked[None, None]) -> LogRow:
    """The row of one request id, as the header X-Request-Id of its answer names it."""
    text = asked.path["request"]
    stamp = read_stamp(text)
    rows = [] if stamp is None else await asked.desk.store.query("postback", request_id=stamp)
    if not rows:
        raise not_found("request", text, "its row may be purged, or it is an id of another kind: ask /why")
    keys: KeyRing = (await asked.desk.rulebook()).keys
    return _as_row(describe_row(rows[0], keys))


def _as_row(document: dict[str, Any]) -> LogRow:
    return msgspec.convert(document, LogRow)


async def show_why(asked: Asked[None, None]) -> dict[str, Any]:
    """The click, its conversions and deliveries, and every event in order; of an unknown id the cause and the fix."""
    text = asked.path["id"].strip()
    if not text:
        raise Problem(400, "the id is empty; name a click, request, conversion, delivery or transaction id")
    return await explain(asked.desk.store, text, asked.desk.now_ms())


async def read_filter(store: Store, query: LogQuery | LiveQuery) -> dict[str, Any]:
    """What the names and words of a query stand for, as parameters of statements.  Raises ``Problem``."""
    chosen: dict[str, Any] = {}
    if query.verdict is not None:
        chosen["verdict"] = _read_word(Verdict, query.verdict, "verdict")
    if query.reason is not None:
        chosen["reason"] = _read_word(Reason, query.reason, "reason")
    if query.network is None and query.campaign is None and query.click is None:
        return chosen
    catalog, ever = await store.load_catalog(), await store.load_catalog(removed=True)
    try:
        if query.network is not None:
            chosen["network"] = find_network_ever(catalog, ever, query.network).id
        if query.campaign is not None:
            campaigns = (*catalog.campaigns, *ever.campaigns, *ever.removed_campaigns)
            chosen["campaign"] = find_entry(campaigns, query.campaign, "campaign").id
    except NoEntry as error:
        raise Problem(400, str(error), field="campaign" if "network" in chosen else None) from error
    if query.click is not None:
        chosen |= await find_click(store, catalog, query.click)
    return chosen


def _read_word(words: Any, text: str, field: str) -> int:
    known = {one.word: one.value for one in words if one}
    value: int | None = known.get(text.strip().lower())
    if value is None:
        raise Problem(400, f"{field} is {text!r}; write one of {', '.join(known)}", field=field)
    return value


# --- as it grows ---------------------------------------------------------------------------------------------------


async def follow(asked: Asked[LiveQuery, None]) -> StreamingResponse:
    """Server-sent events, each row within half a second of its commit.

    ``postback``, ``click`` and ``delivery`` (an attempt that has ended) have an id, by which a client that comes back
    (``Last-Event-ID``) goes on; ``rate`` says each second how many rows there were and how many are shown; ``lost``
    that the client was too slow; ``resumed`` how much was missed; ``away`` and ``back`` that the database could not be
    read.
    """
    query, desk = asked.query, asked.desk
    if desk.feed.listeners >= MOST_LISTENERS:
        detail = f"{MOST_LISTENERS} live logs are open already; close one, or try again later"
        raise Problem(503, detail, headers={"Retry-After": "30"})
    after = _read_after(asked.request.headers.get("last-event-id") or query.after)
    wanted = await read_live_filter(desk.store, query)

    async def events() -> AsyncIterator[str]:
        ends = asyncio.get_running_loop().time() + LONGEST_S
        yield f"retry: {RETRY_MS}\n\n"
        async with desk.feed.listen(query.kind, wanted, rate=query.rate, after=after) as listener:
            while asyncio.get_running_loop().time() < ends:
                told = await listener.take(HEARTBEAT_S)
                yield "".join(map(write_event, told)) or ": alive\n\n"

    # A proxy that gathers answers would hold the events back.
    return StreamingResponse(events(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def read_live_filter(store: Store, query: LiveQuery) -> Filter:
    """Raises ``Problem``, also where a filter says nothing of the kind that is followed."""
    is_delivery = query.kind is Kind.DELIVERIES
    if query.outcome is not None and not is_delivery:
        raise Problem(
            400, "outcome is of deliveries; leave it out, or ask for kind=deliveries", field="outcome"
        )
    if is_delivery:
        for name in ("network", "campaign", "verdict", "reason", "click"):
            if getattr(query, name) is not None:
                raise Problem(400, f"deliveries are filtered by outcome alone; leave {name} out", field=name)
        return Filter(failed=None if query.outcome is None else query.outcome == "failed")
    return Filter(**await read_filter(store, query))


def write_event(event: Event) -> str:
    """One event as the HTML standard writes them (section 9.2.6)."""
    id_ = f"id: {event.id}\n" if event.id else ""
    return f"{id_}event: {event.word}\ndata: {msgspec.json.encode(event.document).decode()}\n\n"


def _read_after(text: str | None) -> int | None:
    if text is None:
        return None
    stamp = read_stamp(text)
    if stamp is None:
        raise Problem(
            400, f"{text!r} is no id of a row; leave it out to see what comes from now on", field="after"
        )
    return stamp


ENDPOINTS = (
    Endpoint(
        "GET", "/log", Scope.READ, "Log", "Rows of the postback log.", list_log, query=LogQuery, answer=Page[LogRow]
    ),
    Endpoint(
        "GET", "/log/live", Scope.READ, "Log", "The log as it grows.", follow,
        query=LiveQuery, gives="text/event-stream",
    ),
    Endpoint(
        "GET", "/log/{request}", Scope.READ, "Log", "One row of the postback log.", show_request,
        answer=LogRow, problems=(404,),
    ),
    Endpoint(
        "GET", "/why/{id}", Scope.READ, "Log", "What became of one id, and why.", show_why, answer=dict[str, Any]
    ),
)  # fmt: skip
