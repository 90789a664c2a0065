"""Targets: where traffic sources are told of conversions, how, and whether each is served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from postbackd.admin.api import entries
from postbackd.admin.desk import Desk
from postbackd.admin.endpoints import Answered, Asked, Endpoint, Scope
from postbackd.admin.pages import Page
from postbackd.catalog.documents import Describer
from postbackd.catalog.targets import (
    NewTarget,
    TargetChange,
    change_row,
    change_target,
    given_accounts,
    new_target,
    write_row,
)
from postbackd.core.deliveries import DeliveryState
from postbackd.core.model import Catalog, Target
from postbackd.core.moments import write_moment
from postbackd.operations import target_states


class TargetQuery(entries.ListQuery, frozen=True, forbid_unknown_fields=True):
    """Which page of the targets."""

    counts: Annotated[
        bool, Meta(description="Also how many deliveries wait and are dead; reads all deliveries.")
    ] = False


class ShownTarget(Struct, frozen=True, kw_only=True):
    """A target, with everything that is set for it except its secrets."""

    id: int
    name: str
    preset: str | None
    kind: str
    url: str | None
    settings: dict[str, Any]
    """Everything else that may be changed, under the names by which it is changed."""
    accounts: list[str]
    """Names of the secrets that are stored; none of them is ever shown."""
    state: str
    """``active``, ``paused`` or ``broken``."""
    since: str | None
    until: str | None
    """When it is tried again."""
    reason: str | None
    waiting: int | None = None
    dead: int | None = None
    signing_secret: str | UnsetType = UNSET
    """What was made just now; it is not shown again."""


class Pause(Struct, frozen=True, forbid_unknown_fields=True):
    """Why nothing is to be sent."""

    reason: Annotated[str, Meta(min_length=1, max_length=200)] = "paused by an operator"


async def _states(desk: Desk) -> Mapping[int, Mapping[str, Any]]:
    return {row["target"]: row for row in await desk.store.query("target_states") if row["state"]}


async def _show(
    desk: Desk,
    target: Target,
    states: Mapping[int, Mapping[str, Any]],
    *,
    made: str = "",
    counts: bool = False,
) -> ShownTarget:
    document = Describer(Catalog(generation=0), "").describe(target)
    plain = {"id": target.id, "name": document.pop("name"), "preset": document.pop("preset")}
    plain |= {"kind": document.pop("kind"), "url": document.pop("url", None)}
    plain |= {"accounts": sorted(document.pop("account")), "settings": document}
    plain |= _describe_state(states.get(target.id))
    for state in (DeliveryState.WAITING, DeliveryState.DEAD) if counts else ():
        (row,) = await desk.store.query("delivery_count", target=target.id, state=int(state))
        plain[state.word] = row["count"]
    if made:
        plain["signing_secret"] = made
    shown: ShownTarget = entries.convert(plain, ShownTarget)
    return shown


def _describe_state(row: Mapping[str, Any] | None) -> dict[str, Any]:
    if row is None:
        return {"state": "active", "since": None, "until": None, "reason": None}
    until = write_moment(row["until_ms"]) if row["until_ms"] else None
    since = write_moment(row["since_ms"])
    return {"state": row["state"], "since": since, "until": until, "reason": row["reason"]}


async def list_targets(asked: Asked[TargetQuery, None]) -> Page[ShownTarget]:
    """In the order in which they were added, with whether each is served."""
    query, desk = asked.query, asked.desk
    catalog, states = await desk.store.load_catalog(), await _states(desk)
    page = entries.page_of(catalog.targets, query, lambda target: target)
    shown = [await _show(desk, target, states, counts=query.counts) for target in page.items]
    return Page(shown, page.next)


async def show_target(asked: Asked[None, None]) -> Answered:
    """With everything that is set for it except its secrets, and how many deliveries wait and are dead."""
    catalog = await asked.desk.store.load_catalog()
    found = entries.find(catalog.targets, asked.path["name"], "target")
    shown = await _show(asked.desk, found, await _states(asked.desk), counts=True)
    return entries.answer(shown, catalog.generation)


async def create_target(asked: Asked[None, NewTarget]) -> Answered:
    """A webhook signs with an account value SECRET; one is made, and shown this once, unless it is given."""
    _, expected = await entries.load(asked)
    entry, made = new_target(write_row(asked.body), given_accounts(asked.body), entries.seal_of(asked.desk))
    saved, catalog = await entries.save(asked, entry, expected)
    return entries.answer(await _show(asked.desk, saved, {}, made=made), catalog.generation)


async def change(asked: Asked[None, TargetChange]) -> Answered:
    """Maps and lists are replaced as a whole; a secret that is null is taken away."""
    catalog, expected = await entries.load(asked)
    found = entries.find(catalog.targets, asked.path["name"], "target")
    entry, made = change_target(
        catalog,
        found,
        change_row(found, asked.body),
        given_accounts(asked.body),
        entries.seal_of(asked.desk),
        new_secret=asked.body.new_secret,
    )
    saved, catalog = await entries.save(asked, entry, expected)
    shown = await _show(asked.desk, saved, await _states(asked.desk), made=made)
    return entries.answer(shown, catalog.generation)


async def pause(asked: Asked[None, Pause]) -> ShownTarget:
    """What is owed to it waits until it is resumed."""
    desk = asked.desk
    entry = entries.find((await desk.store.load_catalog()).targets, asked.path["name"], "target")
    await target_states.turn(desk.store, entry, "paused", asked.body.reason, desk.now_ms())
    return await _show(desk, entry, await _states(desk))


async def resume(asked: Asked[None, None]) -> ShownTarget:
    """What waits for it is sent when it is due.  One that fails is tried again by itself, and stays as it is."""
    desk = asked.desk
    entry = entries.find((await desk.store.load_catalog()).targets, asked.path["name"], "target")
    await target_states.resume(desk.store, entry, desk.now_ms())
    return await _show(desk, entry, await _states(desk))


def _endpoints() -> Sequence[Endpoint]:
    listing, *others = entries.endpoints_of(
        "target", "Targets", ShownTarget, NewTarget, TargetChange,
        {"list": list_targets, "show": show_target, "create": create_target, "change": change},
        {"name": "PropellerAds", "preset": "propellerads", "fill": {"aid": "123", "tid": "456"}},
    )  # fmt: skip
    return entries.replace_query(listing, TargetQuery), *others


ENDPOINTS = (
    *_endpoints(),
    Endpoint(
        "POST", "/targets/{name}/pause", Scope.OPERATE, "Targets", "Send nothing to a target until it is resumed.",
        pause, body=Pause, answer=ShownTarget, problems=(404,), example={"reason": "their server is down"},
    ),
    Endpoint(
        "POST", "/targets/{name}/resume", Scope.OPERATE, "Targets", "Send to a paused target again.",
        resume, answer=ShownTarget, problems=(404,),
    ),
)  # fmt: skip
