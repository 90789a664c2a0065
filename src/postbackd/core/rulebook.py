"""The catalog in the form in which postbacks are judged; made once a catalog generation and never changed."""

from __future__ import annotations

from postbackd.core.click_id import KeyRing
from postbackd.core.model import Catalog, Dedup, Offer, Postback
from postbackd.core.privacy import Masker
from postbackd.core.rules import judge_again
from postbackd.core.terms import NetworkRules


class Rulebook:
    """Keys, masker, networks and offers by id."""

    __slots__ = ("_silent", "catalog", "dedup", "keys", "masker", "networks", "offers")

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.keys = KeyRing(catalog.signing_keys)
        self.masker = Masker(catalog.privacy_key)
        self.networks = {network.id: NetworkRules(network) for network in catalog.networks}
        self.dedup = {network.id: Dedup[network.dedup.upper()] for network in catalog.networks}
        self.offers: dict[int, Offer] = {
            offer.id: offer for offer in (*catalog.removed_offers, *catalog.offers)
        }

        self._silent = _silent_campaigns(catalog)

    def owes(self, campaign: int | None) -> bool:
        """Whether a source may want to hear of conversions of this campaign; ``None``: not known which it is."""
        return bool(self.catalog.rules) and campaign not in self._silent

    def judge_again(self, original: Postback) -> Postback | None:
        """A stored postback through today's settings; ``None`` when its network was removed."""
        network = self.networks.get(original.request.network)
        return judge_again(original, network, self.keys, self.masker) if network else None


def _silent_campaigns(catalog: Catalog) -> frozenset[int]:
    """Campaigns without any rule, of their own or of their source."""
    sources = {rule.source for rule in catalog.rules}
    campaigns = {rule.campaign for rule in catalog.rules}
    return frozenset(
        campaign.id
        for campaign in (*catalog.campaigns, *catalog.removed_campaigns)
        if campaign.id not in campaigns and campaign.source not in sources
    )
