"""Entries of the catalog as people and scripts see them, and finding one by its name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from postbackd.catalog.errors import NoEntry
from postbackd.catalog.sender_rows import describe_senders
from postbackd.catalog.target_rows import write_target
from postbackd.catalog.urls import click_url, postback_url
from postbackd.core.model import Campaign, Catalog, CatalogEntry, Network, Offer, Rule, Source, Target
from postbackd.core.params import CLICK_NAMES, FieldMap
from postbackd.reports.period import write_duration

E = TypeVar("E", Network, Source, Offer, Campaign, Target, Rule)


def find_entry(entries: Iterable[E], name: str, kind: str) -> E:
    """The entry of this name (a campaign's slug will do).  Raises ``NoEntry`` naming the ones there are."""
    known = list(entries)
    for entry in known:
        if name in (entry.name, getattr(entry, "slug", None)):
            return entry
    names = ", ".join(repr(entry.name) for entry in known[:10]) or "none"
    raise NoEntry(f"there is no {kind} {name!r} (there are: {names}); see 'postbackd {kind} list'")


def find_network_ever(catalog: Catalog, ever: Catalog, name: str) -> Network:
    """As ``find_entry``, but if no network has the name: the last one that had it before it was removed."""
    candidates = {network.id: network for network in (*catalog.networks, *reversed(ever.networks))}
    return find_entry(candidates.values(), name, "network")


class Describer:
    """Catalog entries as documents, with names in place of ids and the URLs to paste."""

    def __init__(self, catalog: Catalog, base: str) -> None:
        self._base = base
        self._networks = {network.id: network.name for network in catalog.networks}
        self._sources = {source.id: source for source in catalog.sources}
        self._offers = {offer.id: offer.name for offer in catalog.offers}
        self._campaigns = {campaign.id: campaign.name for campaign in catalog.campaigns}
        self._targets = {target.id: target.name for target in catalog.targets}

    def describe(self, entry: CatalogEntry) -> dict[str, Any]:
        """The document of any entry."""
        if isinstance(entry, Network):
            return self._network(entry)
        if isinstance(entry, Source):
            return self._source(entry)
        if isinstance(entry, Offer):
            return self._offer(entry)
        if isinstance(entry, Campaign):
            return self._campaign(entry)
        if isinstance(entry, Target):
            accounts = dict.fromkeys(sorted(entry.secrets), "(set)")
            return {"name": entry.name, "preset": None, **write_target(entry), "account": accounts}
        return self._rule(entry)

    def _network(self, network: Network) -> dict[str, Any]:
        return {
            "name": network.name,
            "key": network.key,
            "postback_url": postback_url(self._base, network),
            "preset": network.preset,
            "currency": network.currency,
            "dedup": network.dedup,
            "strict": network.strict,
            "answer": network.answer,
            "personal_data": network.personal_data,
            "fields": {field: list(names) for field, names in network.fields.items()},
            "types": list(network.types),
            "statuses": network.statuses,
            "senders": describe_senders(network.senders),
        }

    def _source(self, source: Source) -> dict[str, Any]:
        names = FieldMap(CLICK_NAMES, source.fields).names
        return {
            "name": source.name,
            "preset": source.preset,
            "fields": {field: list(names) for field, names in source.fields.items()},
            "parameters": {field: list(accepted) for field, accepted in names.items()},
        }

    def _offer(self, offer: Offer) -> dict[str, Any]:
        return {
            "name": offer.name,
            "network": self._networks.get(offer.network),
            "url": offer.url,
            "window_min": write_duration(offer.window_min_s),
            "window_max": write_duration(offer.window_max_s),
        }

    def _campaign(self, campaign: Campaign) -> dict[str, Any]:
        source = self._sources.get(campaign.source)
        return {
            "name": campaign.name,
            "slug": campaign.slug,
            "click_url": click_url(self._base, campaign, source),
            "source": source.name if source else None,
            "offers": [
                {"offer": self._offers.get(weighted.offer), "weight": weighted.weight}
                for weighted in campaign.offers
            ],
        }

    def _rule(self, rule: Rule) -> dict[str, Any]:
        source = self._sources.get(rule.source or 0)
        return {
            "name": rule.name,
            "source": source.name if source else None,
            "campaign": self._campaigns.get(rule.campaign or 0),
            "target": self._targets.get(rule.target),
            "when": rule.condition,
            "delay": write_duration(rule.delay_s),
            "payout": rule.payout,
            "on_change": rule.on_change,
            "on_reversal": rule.on_reversal,
        }
