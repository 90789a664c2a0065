"""A test postback: sent to our own front door as a network would, so that everything on the way is tried.

Its click id is a word for tests (``Reason.TEST_EVENT``): it is in the log, is no conversion, moves no money and no
match rate.
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from http import HTTPStatus
from secrets import token_hex
from urllib.parse import urlencode

from msgspec import Struct

from postbackd.admin.api.entries import find
from postbackd.admin.endpoints import Asked, Endpoint, Scope
from postbackd.admin.problems import Problem
from postbackd.core.deliveries import Outgoing
from postbackd.core.diagnosis import TEST_CLICK_ID
from postbackd.core.exchange import ODD, Exchange, read_said
from postbackd.core.model import Network
from postbackd.core.params import POSTBACK_NAMES, FieldMap
from postbackd.core.senders import is_guarded
from postbackd.delivery.client import make_tls
from postbackd.exchanges.timed import Timer

_TIMEOUT_MS = 8000

_MORE_TRIES, _PAUSE_S = 5, 0.4
"""The front door knows a network that was added just now within a second."""


class Trial(Struct, frozen=True, kw_only=True):
    """What a sender would have been answered."""

    url: str
    """What was asked for, without the network's key."""
    arrived: bool
    """Whether our front door answered and knew the network."""
    says: str
    """In one sentence."""
    status: int | None = None
    verdict: str | None = None
    request: str | None = None
    """Its row in the log."""
    body: str = ""
    milliseconds: float | None = None


async def send_test(asked: Asked[None, None]) -> Trial:
    """It takes the way of a real one: name, certificate, proxy, front door, log; and counts nothing."""
    catalog = await asked.desk.store.load_catalog()
    network: Network = find(catalog.networks, asked.path["name"], "network")
    names = FieldMap(POSTBACK_NAMES, network.fields).names
    sent = {names["click_id"][0]: TEST_CLICK_ID, names["transaction_id"][0]: f"test-{token_hex(4)}"}
    path = f"/p/{network.key}?{urlencode(sent)}"
    shown = f"{asked.desk.base_url}{path.replace(network.key, 'KEY')}"
    request = Outgoing("GET", f"{asked.desk.base_url}{path}", (("User-Agent", "postbackd-test"),))
    with closing(Timer(make_tls(), total_ms=_TIMEOUT_MS)) as timer:
        made = await timer.exchange(request)
        for _ in range(_MORE_TRIES):
            if made.status != HTTPStatus.NOT_FOUND or is_guarded(network.senders):
                break
            await asyncio.sleep(_PAUSE_S)
            made = await timer.exchange(request)
    if made.kind == ODD:
        raise Problem(
            409, f"the public address {asked.desk.base_url!r} is none: {made.error}; set --public-url"
        )
    if made.error:
        return Trial(url=shown, arrived=False, says=_say_unreached(asked.desk.base_url, made.error))
    return _judge(shown, made, network)


def _say_unreached(base: str, why: str) -> str:
    return f"Nothing of ours answered at {base}: {why}. Networks cannot reach it either, or only this machine cannot."


def _judge(url: str, made: Exchange, network: Network) -> Trial:
    said = read_said(made)
    milliseconds = round(made.total_ms, 1)
    if said.verdict and said.is_test:
        says = f"It arrived and was answered in {milliseconds:g} ms. It is in the log and counts nothing."
    elif made.status == HTTPStatus.NOT_FOUND:
        says = _say_unknown(network)
    elif said.verdict:
        says = f"It arrived, and was judged {said.verdict}: {said.reason}."
    else:
        says = (
            f"Something answered {made.status} that is not our front door: look at the proxy in front of it."
        )
    return Trial(
        url=url, arrived=bool(said.verdict) and said.is_test, says=says, status=made.status,
        verdict=said.verdict or None, body=made.body.decode("utf-8", "replace"), request=said.request or None,
        milliseconds=milliseconds,
    )  # fmt: skip


def _say_unknown(network: Network) -> str:
    if is_guarded(network.senders):
        return (
            "It was answered 404: this network asks its sender to show more than the key (a token, a signature or an "
            "address), which a test from here cannot."
        )
    return "It was answered 404: the front door does not know this network. Does it use the same database?"


ENDPOINTS = (
    Endpoint(
        "POST", "/networks/{name}/test", Scope.OPERATE, "Networks", "Send a test postback to this network's URL.",
        send_test, answer=Trial, problems=(404, 409),
    ),
)  # fmt: skip
