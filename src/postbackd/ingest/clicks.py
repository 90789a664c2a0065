"""Click requests: record the click, then send the visitor on, or tell the server that registers it where it leads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from postbackd.core.bots import LONGEST_USER_AGENT, is_bot
from postbackd.core.click_id import KeyRing
from postbackd.core.click_ref import MAX_OWN_ID, NEVER_AN_OWN_ID
from postbackd.core.consent import Consent
from postbackd.core.diagnosis import diagnose_click_id
from postbackd.core.model import CONSENT_BIT, NO_CONSENT_BIT, Click, ClickKind
from postbackd.core.money import read_micros
from postbackd.core.params import BYTE_ORDER_MARK, CLICK_NAMES, MAX_CLICK_TEXT, Received, decode_form
from postbackd.core.privacy import MASK_PREFIX, Masker, truncate_ip
from postbackd.ingest import answers
from postbackd.ingest.batcher import Batcher, now_ms
from postbackd.ingest.catalog import Destination, Link, Snapshot
from postbackd.ingest.exchange import Exchange
from postbackd.ingest.flow import Flow
from postbackd.ingest.postbacks import Mint
from postbackd.store.base import Store, StoreUnavailable

_COST_CURRENCY = "USD"
"""Costs are numbers in the account's currency; a symbol is only accepted where it cannot mislead."""

_OWN_ID = "click_id"
_OTHER_CAMPAIGN = "click_id belongs to another campaign"
_NOT_AN_OBJECT = (
    'the body is not a JSON object; send one object in UTF-8, such as {"sub1":"a"}, '
    "or a form with Content-Type: application/x-www-form-urlencoded"
)
_NOT_TEXT = f"click_id must be text of 1 to {MAX_OWN_ID} characters, or a whole number"


class _Unusable(Exception):
    """A registration that cannot be used; says why, and what to do."""


class _Fraction(str):
    """A JSON number with a fraction or exponent: the text it was sent as, told apart from a JSON string."""

    __slots__ = ()


_JSON = msgspec.json.Decoder(float_hook=_Fraction)


class ClickReply:
    """Waits until a visitor's click is stored, then sends the visitor on."""

    __slots__ = ("_click", "_destination", "_exchange", "_flow", "_link", "_snapshot")

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
        self._exchange.reply(answers.write_redirect(url))

    def failed(self) -> None:
        self._flow.refused(now_ms() // 60_000, "unavailable")
        self._exchange.reply(answers.UNAVAILABLE)


class RegistrationReply(ClickReply):
    """Waits until a click that a server registers is stored, then tells its id and where it leads.

    One that was registered before is answered as it was stored then, whatever this request says.
    """

    __slots__ = ("_lookup", "_minted", "_store")

    def __init__(
        self,
        exchange: Exchange,
        click: Click,
        link: Link,
        destination: Destination,
        snapshot: Snapshot,
        flow: Flow,
        *,
        store: Store,
        minted: int | None,
    ) -> None:
        """``minted``: the stamp made for this request, unless it brought a click id of ours."""
        super().__init__(exchange, click, link, destination, snapshot, flow)
        self._store = store
        self._minted = minted

    def stored(self, stamp: int) -> None:
        if stamp == self._minted:
            self._answer(self._click, self._destination)
        else:
            self._lookup = asyncio.ensure_future(self._answer_earlier(stamp))

    def _answer(self, click: Click, destination: Destination) -> None:
        click_id = self._snapshot.rulebook.keys.write(click.stamp, click.campaign)
        url = destination.template.fill(_macro_values(click, click_id, destination))
        self._exchange.reply(answers.write_json(201, {"click_id": click_id, "url": url}))

    async def _answer_earlier(self, stamp: int) -> None:
        """Answer with the click that an earlier request may have stored."""
        try:
            rows = await self._store.query("click", click_id=stamp)
        except StoreUnavailable:
            rows = []
        if not rows:  # or purged since the commit: the same request again makes a new click
            self.failed()
            return
        click = _read_click(rows[0])
        if click.campaign != self._link.campaign.id:
            _refuse(self._exchange, self._flow, _OTHER_CAMPAIGN)
            return
        known = (there for there in self._link.destinations if there.offer == click.offer)
        self._answer(click, next(known, self._destination))


class ClickDesk:
    """Takes click requests in."""

    def __init__(
        self,
        batcher: Batcher,
        store: Store,
        mint: Mint,
        flow: Flow,
        chance: Callable[[], float],
        consent: Consent | None = None,
    ) -> None:
        """``store``: to which the batcher writes.  ``chance`` gives numbers from [0, 1), for the weighted offers.

        ``consent``: what is honoured of what visitors say, if anything.
        """
        self._consent = consent
        self._batcher = batcher
        self._store = store
        self._mint = mint
        self._flow = flow
        self._chance = chance

    def take(self, exchange: Exchange, link: Link, snapshot: Snapshot, query: str) -> None:
        """Queue the click that the request asks for."""
        now = now_ms()
        if exchange.method == b"POST":
            try:
                self._register(exchange, link, snapshot, query, now)
            except _Unusable as error:
                _refuse(exchange, self._flow, str(error))
            return
        received = link.field_map.read_query(query)
        destination = link.choose(self._chance())
        masker = snapshot.rulebook.masker
        click = Click(
            self._mint.mint(now),
            link.campaign.id,
            destination.offer,
            _kind(exchange),
            *_kept_values(received.values, masker),
            _ip_prefix(exchange),
            None,
            _subs(received.values, masker),
        )
        if self._consent is not None:
            click = _shortened(click, self._consent, exchange, received)
        self._count_finds(received.values, click, masker, now)
        self._batcher.add_click(click, ClickReply(exchange, click, link, destination, snapshot, self._flow))

    def _register(self, exchange: Exchange, link: Link, snapshot: Snapshot, query: str, now: int) -> None:
        """Queue a click that a server registers.  Raises ``_Unusable``."""
        rulebook = snapshot.rulebook
        masker = rulebook.masker
        received = _read_registration(exchange, link, query)
        own_id = _read_own_id(received)
        ours = _find_ours(own_id, rulebook.keys, now) if own_id else None
        if ours is not None:  # an id of ours comes back, for example from a server that was away
            stamp, campaign = ours
            own_id = None
            if campaign != link.campaign.id:
                raise _Unusable(_OTHER_CAMPAIGN)
        else:
            stamp = self._mint.mint(now)
        destination = link.choose(self._chance())
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
        if self._consent is not None:
            click = _shortened(click, self._consent, exchange, received)
        self._count_finds(received.values, click, masker, now)
        minted = None if ours else stamp
        reply = RegistrationReply(
            exchange, click, link, destination, snapshot, self._flow, store=self._store, minted=minted
        )
        self._batcher.add_click(click, reply)

    def _count_finds(self, values: Sequence[str | None], click: Click, masker: Masker, now: int) -> None:
        """Count personal data that was replaced: where what is kept is no longer what came."""
        if not (_is_masked(click.source_click_id) or (click.subs and any(map(_is_masked, click.subs)))):
            return
        for field, text in zip(CLICK_NAMES, values, strict=False):
            find = masker.find_opaque if field == "source_click_id" else masker.find
            if field not in ("cost", "country") and text and (kind := find(text)) is not None:
                self._flow.found(now // 60_000, 0, field, kind)


def _is_masked(text: str | None) -> bool:
    return text is not None and text.startswith(MASK_PREFIX)


def _shortened(click: Click, consent: Consent, exchange: Exchange, received: Received) -> Click:
    """The click as it may be kept."""
    says_no = any(exchange.headers.get(name, b"").strip() == b"1" for name in (b"sec-gpc", b"dnt"))
    if not consent.refused(says_no, received.pairs(), click.country):
        given = consent.given(received.pairs())
        return msgspec.structs.replace(click, kind=click.kind | CONSENT_BIT) if given else click
    return msgspec.structs.replace(click, kind=click.kind | NO_CONSENT_BIT, ip_prefix=None, subs=())


def _refuse(exchange: Exchange, flow: Flow, error: str) -> None:
    exchange.reply(answers.write_json(400, {"error": error}))
    flow.refused(now_ms() // 60_000, "click_malformed")


_known_bot = lru_cache(8192)(is_bot)
"""Most visitors have the user agent of many others.  It is remembered here and kept nowhere."""


def _kind(exchange: Exchange) -> ClickKind:
    if exchange.method == b"HEAD":
        return ClickKind.HEAD
    if exchange.prefetch:
        return ClickKind.PREFETCH
    user_agent = exchange.headers.get(b"user-agent")
    if user_agent is not None and exchange.method == b"GET" and _known_bot(user_agent[:LONGEST_USER_AGENT]):
        return ClickKind.BOT
    return ClickKind.COUNTED  # a server that registers clicks is a program, and speaks for a person


def _read_registration(exchange: Exchange, link: Link, query: str) -> Received:
    """What the JSON object or form says and, where it says nothing, the query.  Raises ``_Unusable``."""
    body = exchange.body.removeprefix(BYTE_ORDER_MARK).strip()
    if body[:1] == b"{":
        try:
            return link.field_map.read_json(query, _JSON.decode(body))
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise _Unusable(_NOT_AN_OBJECT) from error
    if body and b"json" in exchange.content_type:
        raise _Unusable(_NOT_AN_OBJECT)
    return link.field_map.read_form(query, decode_form(body))


def _read_own_id(received: Received) -> str | None:
    """The click id that a registration brings: from its body or else from its query.  Raises ``_Unusable``."""
    for name, value in (received.body or {}).items():
        if name.lower() == _OWN_ID and value is not None and type(value) not in (str, int):
            raise _Unusable(_NOT_TEXT)
    texts = (text.strip() for name, text in received.pairs() if name.lower() == _OWN_ID)
    own_id = next(filter(None, texts), None)
    if own_id is None:
        return None
    if len(own_id) > MAX_OWN_ID:
        raise _Unusable(_NOT_TEXT)
    return own_id


def _find_ours(own_id: str, keys: KeyRing, now: int) -> tuple[int, int] | None:
    """``(stamp, campaign)`` when a postback with this id would be one for an id of ours.

    Raises ``_Unusable`` when no postback with it would ever be matched.
    """
    verified = keys.verify(own_id)
    if verified is not None:
        return verified
    finding = diagnose_click_id(own_id, keys, now)
    if finding.repaired and finding.stamp is not None and finding.campaign is not None:
        return finding.stamp, finding.campaign
    if finding.reason in NEVER_AN_OWN_ID:
        raise _Unusable(
            f"click_id is a macro, a test word or a word for no id ({finding.reason.word}), which no postback can "
            "be matched by; send an id of your own, or leave click_id out"
        )
    return None


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
    """The visitor's network, truncated; looked up once a connection, where it is one visitor's."""
    connection = exchange.connection
    if connection.is_shared:
        return truncate_ip(exchange.client)
    if connection.ip_prefix is None:
        connection.ip_prefix = truncate_ip(exchange.client) or ""
    return connection.ip_prefix or None


def _read_click(row: dict[str, Any]) -> Click:
    """A stored click, with what its offer URL may hold."""
    subs = tuple(row[f"sub{number}"] for number in range(1, 11))
    return Click(
        row["click_id"],
        row["campaign"],
        row["offer"],
        row["kind"],
        row["source_click_id"],
        country=row["country"],
        subs=subs,
    )


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
