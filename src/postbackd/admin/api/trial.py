"""A test postback: sent to our own front door as a network would, so that everything on the way is tried.

Its click id is a word for tests (``Reason.TEST_EVENT``): it is in the log, is no conversion, moves no money and no
match rate.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from secrets import token_hex
from time import monotonic
from typing import Any
from urllib.parse import urlencode, urlsplit

from msgspec import Struct

from postbackd.admin.api.entries import find
from postbackd.admin.endpoints import Asked, Endpoint, Scope
from postbackd.admin.problems import Problem
from postbackd.core.diagnosis import TEST_CLICK_ID, Reason
from postbackd.core.model import Network
from postbackd.core.params import POSTBACK_NAMES, FieldMap
from postbackd.core.senders import is_guarded

TIMEOUT_S = 8.0

_LARGEST_BODY = 4096

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


class _Reply(Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: str
    milliseconds: float


async def send_test(asked: Asked[None, None]) -> Trial:
    """It takes the way of a real one: name, certificate, proxy, front door, log; and counts nothing."""
    catalog = await asked.desk.store.load_catalog()
    network: Network = find(catalog.networks, asked.path["name"], "network")
    names = FieldMap(POSTBACK_NAMES, network.fields).names
    sent = {names["click_id"][0]: TEST_CLICK_ID, names["transaction_id"][0]: f"test-{token_hex(4)}"}
    path = f"/p/{network.key}?{urlencode(sent)}"
    shown = f"{asked.desk.base_url}{path.replace(network.key, 'KEY')}"
    try:
        reply = await asyncio.to_thread(_ask, asked.desk.base_url, path)
        for _ in range(_MORE_TRIES):
            if reply.status != http.HTTPStatus.NOT_FOUND or is_guarded(network.senders):
                break
            await asyncio.sleep(_PAUSE_S)
            reply = await asyncio.to_thread(_ask, asked.desk.base_url, path)
    except (OSError, http.client.HTTPException) as error:
        return Trial(url=shown, arrived=False, says=_say_unreached(asked.desk.base_url, error))
    return _judge(shown, reply, network)


def _ask(base: str, path: str) -> _Reply:
    """Raises ``OSError`` and ``http.client.HTTPException``.  The address is that of the settings, nobody else's."""
    parts = urlsplit(base)
    if parts.hostname is None or parts.scheme not in ("http", "https"):
        raise Problem(409, f"the public address {base!r} is none; set --public-url")
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=TIMEOUT_S, context=context
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_S)
    began = monotonic()
    try:
        connection.request("GET", path, headers={"User-Agent": "postbackd-test"})
        response = connection.getresponse()
        body = response.read(_LARGEST_BODY).decode("utf-8", "replace")
        headers = {name.lower(): text for name, text in response.getheaders()}
        return _Reply(response.status, headers, body, round((monotonic() - began) * 1000, 1))
    finally:
        connection.close()


def _say_unreached(base: str, error: Exception) -> str:
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"Nothing of ours answered at {base}: {why}. Networks cannot reach it either, or only this machine cannot."


def _judge(url: str, reply: _Reply, network: Network) -> Trial:
    answer = _read_json(reply.body)
    verdict = reply.headers.get("postbackd-verdict")
    is_test = answer.get("reason", Reason.TEST_EVENT.word) == Reason.TEST_EVENT.word
    arrived = verdict is not None and is_test
    if arrived:
        says = (
            f"It arrived and was answered in {reply.milliseconds:g} ms. It is in the log and counts nothing."
        )
    elif reply.status == 404:
        says = _say_unknown(network)
    elif verdict is not None:
        says = f"It arrived, and was judged {verdict}: {answer.get('reason')}."
    else:
        says = (
            f"Something answered {reply.status} that is not our front door: look at the proxy in front of it."
        )
    return Trial(
        url=url, arrived=arrived, says=says, status=reply.status, verdict=verdict, body=reply.body,
        request=reply.headers.get("x-request-id"), milliseconds=reply.milliseconds,
    )  # fmt: skip


def _say_unknown(network: Network) -> str:
    if is_guarded(network.senders):
        return (
            "It was answered 404: this network asks its sender to show more than the key (a token, a signature or an "
            "address), which a test from here cannot."
        )
    return "It was answered 404: the front door does not know this network. Does it use the same database?"


def _read_json(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:  # a network may ask for another answer than JSON
        return {}
    return document if isinstance(document, dict) else {}


ENDPOINTS = (
    Endpoint(
        "POST", "/networks/{name}/test", Scope.OPERATE, "Networks", "Send a test postback to this network's URL.",
        send_test, answer=Trial, problems=(404, 409),
    ),
)  # fmt: skip
