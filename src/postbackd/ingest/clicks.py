"""Click requests: record the click, then send the visitor on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from postbackd.core.click_ref import MAX_OWN_ID
from postbackd.core.macros import looks_like_macro
from postbackd.core.model import Click, ClickKind
from postbackd.core.money import read_micros
from postbackd.core.params import MAX_CLICK_TEXT, BodyMalformed, Received, clean, read_json_body
from postbackd.core.privacy import Masker, truncate_ip
from postbackd.ingest import answers
from postbackd.ingest.batcher import Batcher, now_ms
from postbackd.ingest.catalog import Destination, Link, Snapshot
from postbackd.ingest.exchange import Exchange
from postbackd.ingest.flow import Flow
from postbackd.ingest.postbacks import Mint

_COST_CURRENCY = "USD"
"""Costs are numbers in the account's currency; a symbol is only accepted where it cannot mislead."""


class ClickReply:
    """Waits until the click is stored, then tells where it leads."""

    __slots__ = ("_click", "_destination", "_exchange", "_flow", "_from_server", "_link", "_snapshot")

    def __init__(
        self,
        exchange: Exchange,
        click: Click,
        link: Link,
        destination: Destination,
        snapshot: Snapshot,
        flow: Flow,
    ) -> None:
        self._exchange = exchange
        self._click = click
        self._link = link
        self._destination = destination
        self._snapshot = snapshot
        self._flow = flow

    def stored(self, stamp: int) -> None:
        click_id = self._snapshot.rulebook.keys.write(stamp, self._link.campaign.id)
        url = self._destination.template.fill(_macro_values(self._click, click_id, self._destination))
        exchange = self._exchange
        if exchange.method == b"POST":
            exchange.reply(answers.write_json(201, {"click_id": click_id, "url": url}))
        else:
            exchange.reply(answers.write_redirect(url))

    def failed(self) -> None:
        self._flow.refused(now_ms() // 60_000, "unavailable")
        self._exchange.reply(answers.UNAVAILABLE)


class ClickDesk:
    """Takes click requests in."""

    def __init__(self, batcher: Batcher, mint: Mint, flow: Flow, chance: Callable[[], float]) -> None:
        """``chance`` gives numbers from [0, 1), for the choice among weighted offers."""
        self._batcher = batcher
        self._mint = mint
        self._flow = flow
        self._chance = chance

    def take(self, exchange: Exchange, link: Link, snapshot: Snapshot, query: str) -> None:
        """Queue the click that the request asks for."""
        now = now_ms()
        own_id: str | None = None
        rulebook = snapshot.rulebook
        if exchange.method == b"POST" and exchange.body:
            try:
                received, own_id = _read_registration(exchange, link, query)
            except BodyMalformed as error:
                self._refuse(exchange, f"the body is not usable: {error}", now)
                return
        else:
            received = link.field_map.read_query(query)
        destination = link.choose(self._chance())
        masker = rulebook.masker
        verified = rulebook.keys.verify(own_id) if own_id else None
        if verified is not None:  # an id of ours comes back, for example from a server that was away
            stamp, campaign = verified
            own_id = None
            if campaign != link.campaign.id:
                self._refuse(exchange, "click_id belongs to another campaign", now)
                return
        else:
            stamp = self._mint.mint(now)
        click = Click(
            stamp,
            link.campaign.id,
            destination.offer,
            _kind(exchange),
            *_kept_values(received.values, masker),
            _ip_prefix(exchange),
            masker.mask(own_id) if own_id else None,
            _subs(received.values, masker),
        )
        self._batcher.add_click(click, ClickReply(exchange, click, link, destination, snapshot, self._flow))

    def _refuse(self, exchange: Exchange, error: str, now: int) -> None:
        exchange.reply(answers.write_json(400, {"error": error}))
        self._flow.refused(now // 60_000, "click_malformed")


def _kind(exchange: Exchange) -> ClickKind:
    if exchange.method == b"HEAD":
        return ClickKind.HEAD
    return ClickKind.PREFETCH if exchange.prefetch else ClickKind.COUNTED


def _read_registration(exchange: Exchange, link: Link, query: str) -> tuple[Received, str | None]:
    """A click that a server registers: its fields and the caller's own click id."""
    body = exchange.body
    if body.lstrip()[:1] != b"{":
        if b"json" in exchange.content_type:
            raise BodyMalformed("send one JSON object")
        return link.field_map.read_form(query, body.decode("utf-8", "replace")), None
    content = read_json_body(body)
    own_id = content.get("click_id")
    if own_id is not None:
        own_id = clean(str(own_id)).strip()
        if len(own_id) > MAX_OWN_ID or looks_like_macro(own_id):
            raise BodyMalformed(f"click_id must be text of 1 to {MAX_OWN_ID} characters, not a macro")
    return link.field_map.read_json(query, content), own_id or None


def _kept_values(values: Sequence[str | None], masker: Masker) -> tuple[str | None, int | None, str | None]:
    """``(source_click_id, cost_micros, country)`` as they may be written."""
    source_click_id, cost, country = values[0], values[1], values[2]
    if source_click_id:
        source_click_id = masker.mask_opaque(source_click_id)[:MAX_CLICK_TEXT]
    micros = read_micros(cost, _COST_CURRENCY) if cost else None
    if country:
        country = country.upper() if len(country) == 2 and country.isascii() and country.isalpha() else None
    return source_click_id or None, micros if micros is not None and micros >= 0 else None, country or None


def _subs(values: Sequence[str | None], masker: Masker) -> tuple[str | None, ...]:
    subs = [masker.mask(text)[:MAX_CLICK_TEXT] if text else None for text in values[3:]]
    while subs and subs[-1] is None:
        subs.pop()
    return tuple(subs)


def _ip_prefix(exchange: Exchange) -> str | None:
    """The visitor's network, truncated; looked up once a connection."""
    connection = exchange.connection
    if connection.ip_prefix is None:
        connection.ip_prefix = truncate_ip(connection.peer) or ""
    return connection.ip_prefix or None


def _macro_values(click: Click, click_id: str, destination: Destination) -> dict[str, str | None]:
    values: dict[str, str | None] = {
        "click_id": click_id,
        "source_click_id": click.source_click_id,
        "country": click.country,
        **destination.names,
    }
    for number, text in enumerate(click.subs, start=1):
        values[f"sub{number}"] = text
    return values
