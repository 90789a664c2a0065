"""Networks: who sends postbacks, under which URL, and what a sender has to show."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from postbackd.admin.api import entries
from postbackd.admin.api.jobs import run_once
from postbackd.admin.endpoints import Answered, Asked, Endpoint, Scope
from postbackd.admin.pages import Page
from postbackd.admin.problems import Problem
from postbackd.catalog import senders
from postbackd.catalog.changes import Name, NetworkChange, change_network
from postbackd.catalog.documents import Describer
from postbackd.catalog.entries import check_entry, make_key
from postbackd.catalog.senders import Duration, Made
from postbackd.core.linting.kinds import HIDDEN_KEY
from postbackd.core.model import Catalog, Network
from postbackd.core.moments import write_moment
from postbackd.reports.period import read_duration


class NewNetwork(NetworkChange, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A network that is to be added."""

    name: Name


class ShownNetwork(Struct, frozen=True, kw_only=True):
    """A network, with everything that is set for it."""

    id: int
    name: str
    key: str | None
    """Secret: shown to whoever may change the catalog."""
    postback_url: str
    """To paste into the network, with its own macros where its preset knows them."""
    preset: str | None
    currency: str
    dedup: str
    strict: bool
    answer: str
    personal_data: str
    fields: dict[str, list[str]]
    types: list[str]
    statuses: dict[str, str]
    senders: dict[str, Any]
    """What a sender has to show beside the key: modes of the steps, addresses, how it signs."""
    token: str | UnsetType = UNSET
    """What was made just now; it is not shown again."""
    signing_secret: str | UnsetType = UNSET
    """What was made just now; it is not shown again."""


class Rotation(Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be replaced."""

    what: senders.What
    overlap: Annotated[Duration, Meta(description="How long the former one is still good.")] = "7d"
    end_former: Annotated[bool, Meta(description="Make nothing new; end the former one now.")] = False
    secret: Annotated[
        str | None, Meta(description="The new signing secret, if the network made it; never shown.")
    ] = None


class Rotated(Struct, frozen=True, kw_only=True):
    """What was made is shown this once."""

    name: str
    former_until: str | None
    key: str
    postback_url: str
    token: str | UnsetType = UNSET
    signing_secret: str | UnsetType = UNSET


class Signing(Struct, frozen=True, forbid_unknown_fields=True):
    """A postback to try a network's steps out with."""

    parameters: Annotated[dict[str, Annotated[str, Meta(max_length=500)]], Meta(max_length=32)] = (
        msgspec.field(default_factory=dict)
    )
    body: Annotated[str, Meta(max_length=10_000, description="Makes it a POST.")] = ""
    as_parameters: Annotated[
        bool, Meta(description="Put an hmac signature into the URL instead of a header.")
    ] = False


class Signed(Struct, frozen=True):
    """A signed postback."""

    curl: str
    """For a shell; the token is not in it, because nobody knows it any more."""


def show(asked: Asked[Any, Any], network: Network, made: Made | None = None) -> ShownNetwork:
    """For whoever asks."""
    is_open = Scope.CATALOG in asked.who.scopes
    seen = network if is_open else msgspec.structs.replace(network, key=HIDDEN_KEY)
    document = Describer(Catalog(generation=0), asked.desk.base_url).describe(seen)
    document |= {"id": network.id, "key": network.key if is_open else None}
    document |= (made or Made()).document()
    return msgspec.convert(document, ShownNetwork)


async def list_networks(asked: Asked[entries.ListQuery, None]) -> Page[ShownNetwork]:
    """In the order in which they were added, with their postback URLs."""
    catalog = await asked.desk.store.load_catalog()
    return entries.page_of(catalog.networks, asked.query, lambda network: show(asked, network))


async def show_network(asked: Asked[None, None]) -> Answered:
    """With everything that is set for it."""
    catalog = await asked.desk.store.load_catalog()
    found = entries.find(catalog.networks, asked.path["name"], "network")
    return entries.answer(show(asked, found), catalog.generation)


async def create_network(asked: Asked[None, NewNetwork]) -> Answered:
    """Answers the postback URL to paste into it."""
    _, expected = await entries.load(asked)
    empty = Network(id=0, name="", key=make_key())
    entry, made = change_network(empty, asked.body, entries.seal_of(asked.desk), asked.desk.base_url)
    saved, catalog = await entries.save(asked, entry, expected)
    return entries.answer(show(asked, saved, made), catalog.generation)


async def change(asked: Asked[None, NetworkChange]) -> Answered:
    """A new key stops the old URL at once; see ``rotate`` for a change with an overlap."""
    catalog, expected = await entries.load(asked)
    found = entries.find(catalog.networks, asked.path["name"], "network")
    entry, made = change_network(found, asked.body, entries.seal_of(asked.desk), asked.desk.base_url)
    saved, catalog = await entries.save(asked, entry, expected)
    return entries.answer(show(asked, saved, made), catalog.generation)


async def rotate(asked: Asked[None, Rotation]) -> Answered:
    """The former one is good for a while."""
    catalog, expected = await entries.load(asked)
    body, now = asked.body, asked.desk.now_ms()
    entry = entries.find(catalog.networks, asked.path["name"], "network")
    until_ms = now + read_duration(body.overlap) * 1000
    if body.end_former:
        entry, made = senders.end_former(entry, body.what), Made()
    else:
        seal = entries.seal_of(asked.desk)
        entry, made = senders.rotate(entry, body.what, now, until_ms, body.secret, seal)
    check_entry(entry)
    saved, catalog = await entries.save(asked, entry, expected)
    shown = show(asked, saved, made)
    answer = Rotated(
        name=saved.name,
        former_until=None if body.end_former else write_moment(until_ms),
        key=saved.key,
        postback_url=shown.postback_url,
        token=shown.token,
        signing_secret=shown.signing_secret,
    )
    return entries.answer(answer, catalog.generation)


async def sign(asked: Asked[None, Signing]) -> Signed:
    """It is only made, not sent."""
    body = asked.body
    network = entries.find((await asked.desk.store.load_catalog()).networks, asked.path["name"], "network")
    if any("=" in name or not name.strip() for name in body.parameters):
        raise Problem(422, "a parameter has a name without =", field="parameters")
    arguments = [f"--param={name}={text}" for name, text in body.parameters.items()]
    arguments += [f"--body={body.body}"] if body.body else []
    arguments += ["--as-parameters"] if body.as_parameters else []
    result = await run_once(asked.desk, ["network", "sign", "--json", *arguments, "--", network.name])
    return msgspec.convert(result, Signed)


ENDPOINTS = (
    *entries.endpoints_of(
        "network", "Networks", ShownNetwork, NewNetwork, NetworkChange,
        {"list": list_networks, "show": show_network, "create": create_network, "change": change},
        {"name": "Adnet", "preset": "everflow", "currency": "USD"},
    ),
    Endpoint(
        "POST", "/networks/{name}/rotate", Scope.CATALOG, "Networks",
        "Replace a network's key, token or signing secret.", rotate, body=Rotation, answer=Rotated,
        conditional=True, problems=(404, 409, 422), example={"what": "key", "overlap": "7d"},
    ),
    Endpoint(
        "POST", "/networks/{name}/sign", Scope.CATALOG, "Networks",
        "Sign a postback, to try a network's steps out.", sign, body=Signing, answer=Signed, problems=(404, 422),
        example={"parameters": {"click_id": "CLICK_ID", "value": "2.50"}},
    ),
)  # fmt: skip
