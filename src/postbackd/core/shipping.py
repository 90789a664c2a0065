"""How deliveries to one target become requests, and answers what became of each delivery.

A postback is one request a delivery, filled from the target's template; a webhook is a signed JSON document; a platform
takes many deliveries in one request of its own.  Whoever sends sees no difference.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Protocol
from urllib.parse import quote, quote_plus

from postbackd.core.click_id import KeyRing
from postbackd.core.deliveries import Answer, Delivery, Message, Outgoing
from postbackd.core.model import Catalog, RequestForm, Target
from postbackd.core.outgoing import METHODS, compile_form, compile_forms, delivery_values
from postbackd.core.planning import MACROS_OF_FACTS
from postbackd.core.platforms import PLATFORMS
from postbackd.core.platforms.base import ACCESS_TOKEN, Token
from postbackd.core.replies import BODY_BYTES, Judged, judge_answer
from postbackd.core.webhooks import make_webhook, signing_secrets

POSTBACK, WEBHOOK = "postback", "webhook"
KINDS = (POSTBACK, WEBHOOK, *PLATFORMS)
"""Kinds of targets."""


class ShippingError(ValueError):
    """A target cannot be served as it is; says what to do."""


class Names:
    """Names of what a delivery belongs to, and the full id of its click, for macros."""

    def __init__(self, catalog: Catalog) -> None:
        self._keys = KeyRing(catalog.signing_keys)
        self._sources = {source.id: source.name for source in catalog.sources}
        self._networks = {network.id: network.name for network in catalog.networks}
        self._campaigns = {c.id: c for c in (*catalog.removed_campaigns, *catalog.campaigns)}
        self._offers = {o.id: o for o in (*catalog.removed_offers, *catalog.offers)}

    def of(self, delivery: Delivery) -> dict[str, str]:
        """click_id, campaign, source, offer and network, as far as they are known."""
        owed = delivery.owed
        names = {"click_id": owed.facts.own_id or self._keys.write(owed.click_id, owed.campaign)}
        campaign, offer = self._campaigns.get(owed.campaign), self._offers.get(owed.offer)
        if campaign is not None:
            names["campaign"] = campaign.name
            names["source"] = self._sources.get(campaign.source, "")
        if offer is not None:
            names["offer"] = offer.name
            names["network"] = self._networks.get(offer.network, "")
        return names


class Shipper(Protocol):
    """Serves one target."""

    host: str
    """What the target shares with others at the same place: host and port, or the name of the platform."""
    most: int
    """How many deliveries one request may hold, all of one kind of message."""
    answer_bytes: int
    """How much of an answer ``read`` wants to see."""
    macros: frozenset[str] | None
    """The macros that can be filled from the click; ``None``: any."""

    def refusal(self, delivery: Delivery, now_ms: int) -> str:
        """Why it can never be sent, empty when it can."""
        ...

    def make(self, deliveries: Sequence[Delivery], now_ms: int, token: str = "") -> Outgoing:
        """The request.  ``token``: what was asked for with ``ask_token``, if that is needed."""
        ...

    def show(self, deliveries: Sequence[Delivery], now_ms: int) -> Outgoing:
        """The same for people: ``(NAME)`` stands for a secret."""
        ...

    def read(self, answer: Answer, deliveries: Sequence[Delivery], now_ms: int) -> Sequence[Judged]:
        """What became of each of the deliveries."""
        ...

    def ask_token(self) -> Outgoing | None:
        """The request for an access token, ``None`` when none is needed."""
        ...

    def read_token(self, answer: Answer, now_ms: int) -> Token:
        """The token in the answer.  Raises ``core.platforms.base.TokenRefused``."""
        ...


def make_shipper(target: Target, accounts: Mapping[str, str], names: Names) -> Shipper:
    """What serves a target.  ``accounts``: its secrets, opened.  Raises ``ShippingError``."""
    try:
        if target.how.kind in PLATFORMS:
            return _PlatformShipper(target, accounts, names)
        if target.how.kind == WEBHOOK:
            return _WebhookShipper(target, accounts, names)
        if target.how.kind == POSTBACK:
            return _PostbackShipper(target, accounts, names)
    except ValueError as error:
        raise ShippingError(str(error)) from error
    raise ShippingError(f"kind {target.how.kind!r} is not known; use one of {', '.join(KINDS)}")


class _PlainAnswers:
    """One delivery a request, no token."""

    most = 1
    answer_bytes = BODY_BYTES

    def __init__(self, target: Target, accounts: Mapping[str, str], names: Names) -> None:
        self._target, self._how = target, target.how
        self._accounts = accounts
        self._names = names

    def read(self, answer: Answer, deliveries: Sequence[Delivery], now_ms: int) -> Sequence[Judged]:
        return [judge_answer(answer, self._how, now_ms)] * len(deliveries)

    def ask_token(self) -> Outgoing | None:
        return None

    def read_token(self, answer: Answer, now_ms: int) -> Token:
        raise NotImplementedError  # nobody asks

    def _values(self, delivery: Delivery) -> dict[str, str | None]:
        return delivery_values(delivery, self._how, self._names.of(delivery))


class _PostbackShipper(_PlainAnswers):
    """A request of the target's own form."""

    def __init__(self, target: Target, accounts: Mapping[str, str], names: Names) -> None:
        super().__init__(target, accounts, names)
        words = {message.word: message for message in Message}
        unknown = sorted(target.how.requests.keys() - words.keys())
        if unknown:
            raise ShippingError(f"there is no message {unknown[0]!r}; known are {', '.join(words)}")
        if Message.CONVERSION.word not in target.how.requests:
            raise ShippingError("the target has no request for a conversion; give it a URL")
        compiled = compile_forms(target.how.requests, target.how.on_empty, accounts.keys())
        self._templates = {words[word]: template for word, template in compiled.items()}
        self._by_source_id = {
            message for message, template in self._templates.items() if "source_click_id" in template.macros
        }
        template = self._templates[Message.CONVERSION]
        self.host = f"{template.host}:{template.port}"
        macros: frozenset[str] = frozenset().union(*(t.macros for t in self._templates.values()))
        self.macros: frozenset[str] | None = macros

    def refusal(self, delivery: Delivery, now_ms: int) -> str:
        owed = delivery.owed
        if owed.message not in self._templates:
            return f"the target has no request for a {Message(owed.message).word}"
        # A target that is told of a click by its own id cannot be told without one.
        if owed.message in self._by_source_id and not owed.facts.source_click_id:
            return "the click came without the source's click id; check the parameters of the campaign's link"
        return ""

    def make(self, deliveries: Sequence[Delivery], now_ms: int, token: str = "") -> Outgoing:
        (delivery,) = deliveries
        template = self._templates[Message(delivery.owed.message)]
        return template.fill(self._values(delivery), self._accounts)

    def show(self, deliveries: Sequence[Delivery], now_ms: int) -> Outgoing:
        (delivery,) = deliveries
        template = self._templates[Message(delivery.owed.message)]
        return template.show(self._values(delivery), self._accounts)


class _WebhookShipper(_PlainAnswers):
    """A signed JSON document (Standard Webhooks)."""

    macros: frozenset[str] | None = MACROS_OF_FACTS

    def __init__(self, target: Target, accounts: Mapping[str, str], names: Names) -> None:
        super().__init__(target, accounts, names)
        form = target.how.requests.get(Message.CONVERSION.word)
        if form is None:
            raise ShippingError("the target has no URL; give it one")
        form = RequestForm(url=form.url, method=METHODS[0], headers=form.headers)
        self._template = compile_form(form, target.how.on_empty, accounts.keys())
        self.host = f"{self._template.host}:{self._template.port}"
        self._secrets = signing_secrets(accounts)

    def refusal(self, delivery: Delivery, now_ms: int) -> str:
        return ""

    def make(self, deliveries: Sequence[Delivery], now_ms: int, token: str = "") -> Outgoing:
        (delivery,) = deliveries
        values = self._values(delivery)
        base = self._template.fill(values, self._accounts)
        return make_webhook(base, delivery, values, self._secrets, now_ms)

    def show(self, deliveries: Sequence[Delivery], now_ms: int) -> Outgoing:
        (delivery,) = deliveries
        values = self._values(delivery)
        base = self._template.show(values, self._accounts)
        return make_webhook(base, delivery, values, self._secrets, now_ms)


class _PlatformShipper(_PlainAnswers):
    """The API of a platform, many deliveries a request."""

    macros: frozenset[str] | None = None

    def __init__(self, target: Target, accounts: Mapping[str, str], names: Names) -> None:
        super().__init__(target, accounts, names)
        self._platform = PLATFORMS[target.how.kind]
        self._platform.check_options(target.how.options, accounts.keys())
        self.host = target.how.kind
        self.most = self._platform.most
        self.answer_bytes = self._platform.answer_bytes

    def refusal(self, delivery: Delivery, now_ms: int) -> str:
        return self._platform.check_delivery(delivery, self._how.options, now_ms)

    def make(self, deliveries: Sequence[Delivery], now_ms: int, token: str = "") -> Outgoing:
        accounts = {**self._accounts, ACCESS_TOKEN: token} if token else self._accounts
        return self._make(deliveries, accounts, now_ms)

    def show(self, deliveries: Sequence[Delivery], now_ms: int) -> Outgoing:
        return self._make(deliveries, {name: f"({name})" for name in (*self._accounts, ACCESS_TOKEN)}, now_ms)

    def _make(self, deliveries: Sequence[Delivery], accounts: Mapping[str, str], now_ms: int) -> Outgoing:
        values = [self._values(delivery) for delivery in deliveries]
        return self._platform.make(deliveries, values, self._how.options, accounts, now_ms)

    def read(self, answer: Answer, deliveries: Sequence[Delivery], now_ms: int) -> Sequence[Judged]:
        return self._platform.read(answer, deliveries, now_ms)

    def ask_token(self) -> Outgoing | None:
        return self._platform.ask_token(self._accounts)

    def read_token(self, answer: Answer, now_ms: int) -> Token:
        return self._platform.read_token(answer, now_ms)


class Hider:
    """Takes secrets out of texts for the log: ``(NAME)`` stands for one, as it is or as it was sent.

    To be asked before a text is cut: half a secret is not recognised.
    """

    def __init__(self, accounts: Mapping[str, str]) -> None:
        secrets = [(name, secret) for name, secret in accounts.items() if len(secret) >= _SHORTEST_SECRET]
        longest_first = sorted(secrets, key=lambda pair: len(pair[1]), reverse=True)
        self._names = [name for name, _ in longest_first]
        forms = ("".join(map(_written, secret)) for _, secret in longest_first)
        self._pattern = re.compile("|".join(f"({form})" for form in forms), re.IGNORECASE)

    def hide(self, text: str) -> str:
        """The text without any of the secrets."""
        if not self._names:
            return text
        return self._pattern.sub(lambda found: f"({self._names[(found.lastindex or 1) - 1]})", text)


@lru_cache(256)
def _written(letter: str) -> str:
    """A pattern of the ways in which a letter stands in URLs (also inside of another), forms, JSON and pages."""
    if letter.isascii() and letter.isalnum():
        return letter
    once, code = quote(letter, safe=""), ord(letter)
    ways = {
        letter, once, quote(once, safe=""), quote_plus(letter), json.dumps(letter)[1:-1], html.escape(letter),
        f"\\{letter}", f"\\u{code:04x}", f"&#{code};", f"&#x{code:x};",
    }  # fmt: skip
    return "(?:" + "|".join(map(re.escape, sorted(ways, key=len, reverse=True))) + ")"


_SHORTEST_SECRET = 4
"""A shorter one is found everywhere, and hiding it would tell more than it hides."""
