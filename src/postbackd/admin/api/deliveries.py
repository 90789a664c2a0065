"""Deliveries: what targets are told, one message at a time, each attempt of it, and sending it again."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from postbackd.admin.api.entries import Cursor, Limit
from postbackd.admin.api.health import Moment, read_period
from postbackd.admin.endpoints import Asked, Endpoint, Scope
from postbackd.admin.pages import Page, read_cursor, write_cursor
from postbackd.admin.problems import Problem
from postbackd.catalog.errors import NoEntry
from postbackd.core.deliveries import DeliveryState
from postbackd.operations import deliveries as work
from postbackd.operations.deliveries import Wanted
from postbackd.reports.deliveries import NoDelivery, find_delivery

State = Literal["waiting", "delivered", "dead", "cancelled"]
Name = Annotated[str, Meta(min_length=1, max_length=100)]


class DeliveryQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which deliveries; the times speak of the postback that a delivery follows from."""

    state: State | None = None
    target: Name | None = None
    rule: Name | None = None
    since: Moment | None = None
    until: Moment | None = None
    limit: Limit = 100
    cursor: Cursor = None


class ShownDelivery(Struct, frozen=True, kw_only=True):
    """One message that a target is owed."""

    delivery: str
    time: str
    target: str | None
    rule: str | None
    campaign: str | None
    message: str
    """``conversion``, ``adjustment`` or ``retraction``."""
    type: str
    transaction_id: str | None
    status: str
    value: str
    currency: str
    state: str
    attempts: int
    next_attempt: str | None
    """While it waits and it is known when its turn comes."""
    note: str | None
    """What it waits for beside that."""
    target_state: str | None
    settled: str | None
    reason: str | None
    expires: str | None
    click_id: str
    request: str
    conversion: str


class Attempt(Struct, frozen=True, kw_only=True):
    """One try to tell it."""

    attempt: int
    time: str
    ms: int
    http_status: int | None
    """Nothing: there was no answer."""
    answer: str | None
    error: str | None
    """Nothing: it was a success."""


class ToldDelivery(ShownDelivery, frozen=True, kw_only=True):
    """One message with all that is known of it."""

    facts: dict[str, Any]
    """What it may say of its click."""
    attempt_log: list[Attempt]


class Selection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Named deliveries, those that a filter finds, or everything: one of the three."""

    ids: Annotated[list[Annotated[str, Meta(min_length=1, max_length=40)]], Meta(max_length=1000)] = (
        msgspec.field(default_factory=list)
    )
    target: Name | None = None
    rule: Name | None = None
    since: Moment | None = None
    until: Moment | None = None
    everything: bool = False
    dry_run: Annotated[bool, Meta(description="Only say how many.")] = False


class Retry(Selection, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to send now; everything: all that is dead."""

    state: Annotated[State | None, Meta(description="With a filter; not given: the dead ones.")] = None


class Cancel(Selection, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to cancel of all that waits."""

    reason: Annotated[str, Meta(min_length=1, max_length=200)] = "by an operator"


class SentDelivery(Struct, frozen=True, kw_only=True):
    """What became of one that was named."""

    delivery: str
    state: str
    sent_as: str | None
    """The id under which it goes out; nothing: it was left as it is."""
    note: str | None


class CancelledDelivery(Struct, frozen=True, kw_only=True):
    """What became of one that was named."""

    delivery: str
    cancelled: bool
    state: str


class Retried(Struct, frozen=True, kw_only=True):
    """What was found and sent."""

    found: int
    left_out: int
    """Sent again before, or no longer true, or the target is gone."""
    sent: int
    done: bool
    deliveries: list[SentDelivery] = []
    """Those that were named."""


class Cancelled(Struct, frozen=True, kw_only=True):
    """What was found and cancelled."""

    found: int
    cancelled: int
    done: bool
    deliveries: list[CancelledDelivery] = []
    """Those that were named."""


async def list_deliveries(asked: Asked[DeliveryQuery, None]) -> Page[ShownDelivery]:
    """Newest first."""
    query, desk = asked.query, asked.desk
    period = read_period(query.since, query.until, desk.now_ms())
    wanted = await work.ask_for(desk.store, Wanted(query.state, query.target, query.rule, period))
    if query.cursor is not None:
        wanted["last"] = read_cursor(query.cursor, tuple[int])[0]
    rows = await desk.store.query("deliveries", **wanted, limit=query.limit + 1)
    describer = await work.open_describer(desk.store, desk.now_ms())
    shown = [msgspec.convert(describer.describe(row), ShownDelivery) for row in rows[: query.limit]]
    more = write_cursor(rows[query.limit]["number"]) if len(rows) > query.limit else None
    return Page(shown, more)


async def show_delivery(asked: Asked[None, None]) -> ToldDelivery:
    """With each of its attempts, by its id, or the number after the dash alone."""
    desk = asked.desk
    try:
        row = await find_delivery(desk.store, asked.path["id"])
    except NoDelivery as error:
        raise NoEntry(str(error)) from error
    describer = await work.open_describer(desk.store, desk.now_ms())
    return msgspec.convert(await describer.tell(desk.store, row), ToldDelivery)


def _read(asked: Asked[None, Any], state: str | None) -> Wanted:
    """What is wanted, when one of the three is named."""
    body: Selection = asked.body
    period = read_period(body.since, body.until, asked.desk.now_ms())
    wanted = Wanted(state, body.target, body.rule, period)
    if bool(body.ids) + (not wanted.is_everything) + body.everything != 1:
        raise Problem(422, "name either ids, or a filter such as target or since, or everything", field="ids")
    return wanted


async def retry(asked: Asked[None, Retry]) -> Retried:
    """One that waits is sent at once under its id. One that has ended is sent again under a new id; with a filter not
    if that was done before, or if its conversion has changed since."""
    body, desk = asked.body, asked.desk
    wanted = _read(asked, body.state)
    if body.ids:
        if body.dry_run:
            rows = await work.find_all(desk.store, body.ids)
            return Retried(found=len(rows), left_out=0, sent=0, done=False)
        sent = await work.send_these(desk.store, body.ids, desk.now_ms)
        told = msgspec.convert(sent, list[SentDelivery])
        count = sum(one.sent_as is not None for one in told)
        return Retried(found=len(told), left_out=len(told) - count, sent=count, done=True, deliveries=told)
    state = body.state or DeliveryState.DEAD.word
    chosen = await work.choose_resendable(desk.store, msgspec.structs.replace(wanted, state=state))
    count = 0 if body.dry_run else await work.resend(desk.store, chosen, desk.now_ms, _unwatched)
    return Retried(found=chosen.count, left_out=chosen.left_out, sent=count, done=not body.dry_run)


async def cancel(asked: Asked[None, Cancel]) -> Cancelled:
    """What is being sent at this moment is left alone."""
    body, desk = asked.body, asked.desk
    wanted = _read(asked, None)
    if body.ids:
        if body.dry_run:
            return Cancelled(found=len(await work.find_all(desk.store, body.ids)), cancelled=0, done=False)
        done = await work.cancel_these(desk.store, body.ids, body.reason, desk.now_ms)
        told = msgspec.convert(done, list[CancelledDelivery])
        return Cancelled(
            found=len(told), cancelled=sum(one.cancelled for one in told), done=True, deliveries=told
        )
    chosen = await work.choose_waiting(desk.store, wanted)
    count = 0 if body.dry_run else await work.cancel(desk.store, chosen, body.reason, desk.now_ms, _unwatched)
    return Cancelled(found=chosen.count, cancelled=count, done=not body.dry_run)


def _unwatched(_: int) -> None:
    """Nobody looks how far it is."""


ENDPOINTS = (
    Endpoint(
        "GET", "/deliveries", Scope.READ, "Deliveries", "List deliveries, newest first.", list_deliveries,
        query=DeliveryQuery, answer=Page[ShownDelivery], problems=(404,),
    ),
    Endpoint(
        "GET", "/deliveries/{id}", Scope.READ, "Deliveries", "Show one delivery with its attempts.",
        show_delivery, answer=ToldDelivery, problems=(404,),
    ),
    Endpoint(
        "POST", "/deliveries/retry", Scope.OPERATE, "Deliveries", "Send deliveries now.", retry, body=Retry,
        answer=Retried, problems=(404, 409, 422), example={"target": "PropellerAds", "dry_run": True},
    ),
    Endpoint(
        "POST", "/deliveries/cancel", Scope.OPERATE, "Deliveries", "Cancel deliveries that wait.", cancel,
        body=Cancel, answer=Cancelled, problems=(404, 422), example={"target": "PropellerAds", "dry_run": True},
    ),
)  # fmt: skip
