"""The catalog as the front door uses it: endpoint keys and slugs to what they lead to.  Swapped as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

from msgspec import Struct

from postbackd.core.macros import Template, compile_url
from postbackd.core.model import Campaign, Catalog, Network
from postbackd.core.params import CLICK_NAMES, FieldMap
from postbackd.core.rulebook import Rulebook
from postbackd.core.terms import NetworkRules
from postbackd.ingest.client import cannot_open
from postbackd.ingest.gate import Guard, make_guard


class Endpoint(Struct, frozen=True):
    """Where a network's postbacks arrive."""

    network: Network
    rules: NetworkRules
    guard: Guard | None = None
    """Asks who sends; ``None``: whoever knows the key may."""


class Destination(Struct, frozen=True):
    """One of a campaign's offers."""

    offer: int
    template: Template
    names: dict[str, str]
    """Macros whose value does not depend on the click."""


class Link(Struct, frozen=True):
    """A campaign as visitors reach it."""

    campaign: Campaign
    field_map: FieldMap
    destinations: Sequence[Destination]
    bounds: Sequence[float]
    """Upper bounds of the destinations' shares of [0, 1)."""

    def choose(self, chance: float) -> Destination:
        """The destination for a number from [0, 1), by weight."""
        for destination, bound in zip(self.destinations, self.bounds, strict=True):
            if chance < bound:
                return destination
        return self.destinations[-1]


class Snapshot:
    """An immutable picture of the catalog."""

    __slots__ = ("_former", "endpoints", "generation", "identity", "links", "rulebook")

    def __init__(self, catalog: Catalog, open_secret: Callable[[str], str] = cannot_open) -> None:
        self.generation = catalog.generation
        self.identity = sha256(catalog.privacy_key).hexdigest()[:16]
        """Tells one database from another; a copy of it is the same."""
        self.rulebook = Rulebook(catalog)
        self.endpoints = {
            network.key: _endpoint(network, self.rulebook.networks[network.id], open_secret)
            for network in catalog.networks
        }
        self._former = {
            former.key: (self.endpoints[network.key], former.until_ms)
            for network in catalog.networks
            for former in network.senders.former_keys
        }
        self.links = {campaign.slug: _link(campaign, catalog) for campaign in catalog.campaigns}

    def former_endpoint(self, key: str, now_ms: int) -> Endpoint | None:
        """The endpoint of a key that was replaced, until its time is over."""
        endpoint, until_ms = self._former.get(key, (None, 0))
        return endpoint if now_ms < until_ms else None


def _endpoint(network: Network, rules: NetworkRules, open_secret: Callable[[str], str]) -> Endpoint:
    return Endpoint(network, rules, make_guard(network, rules.field_map, open_secret))


def _link(campaign: Campaign, catalog: Catalog) -> Link:
    offers = {offer.id: offer for offer in catalog.offers}
    networks = {network.id: network.name for network in catalog.networks}
    sources = {source.id: source for source in catalog.sources}
    source = sources[campaign.source]
    destinations, bounds = [], []
    total = sum(weighted.weight for weighted in campaign.offers)
    reached = 0
    for weighted in campaign.offers:
        offer = offers[weighted.offer]
        names = {
            "campaign": campaign.name,
            "source": source.name,
            "offer": offer.name,
            "network": networks[offer.network],
        }
        destinations.append(Destination(offer.id, compile_url(offer.url), names))
        reached += weighted.weight
        bounds.append(reached / total)
    return Link(campaign, FieldMap(CLICK_NAMES, source.fields), destinations, bounds)
