"""The example catalog of a first start, and the commands that show it at work."""

from __future__ import annotations

from msgspec import Struct

from postbackd.cli.entries import make_key
from postbackd.cli.urls import click_url, postback_url
from postbackd.core.model import Campaign, Catalog, Network, Offer, Source, WeightedOffer

NAME = "example"
"""Name of the example network, source, offer and campaign, and slug of the campaign."""

OFFER_URL = "https://shop.example/?sub1={click_id}"


class Example(Struct, frozen=True, kw_only=True):
    """What the example consists of."""

    network: Network
    source: Source
    campaign: Campaign


def make_example() -> list[Network | Source | Offer | Campaign]:
    """The example as new entries (negative ids) for ``store.catalog.change_catalog``."""
    return [
        Network(id=-1, name=NAME, key=make_key()),
        Source(id=-1, name=NAME),
        Offer(id=-1, name=NAME, network=-1, url=OFFER_URL),
        Campaign(id=-1, name=NAME, slug=NAME, source=-1, offers=(WeightedOffer(-1),)),
    ]


def find_example(catalog: Catalog) -> Example | None:
    """The example in a catalog; ``None`` when it is not there or not complete any longer."""
    networks = {network.name: network for network in catalog.networks}
    sources = {source.name: source for source in catalog.sources}
    campaigns = {campaign.slug: campaign for campaign in catalog.campaigns}
    if NAME not in networks or NAME not in sources or NAME not in campaigns:
        return None
    return Example(network=networks[NAME], source=sources[NAME], campaign=campaigns[NAME])


def is_empty(catalog: Catalog) -> bool:
    """Whether nothing was ever set up."""
    return not (catalog.networks or catalog.sources or catalog.offers or catalog.campaigns)


def describe_example(example: Example, base: str) -> str:
    """What a first start prints: both URLs and the two ``curl`` lines."""
    click = f"{click_url(base, example.campaign, example.source)}?source_click_id=demo"
    postback = f"{base}/p/{example.network.key}"
    return f"""\
click URL     {click_url(base, example.campaign, example.source)}
postback URL  {postback_url(base, example.network)}

Try it in another terminal. A click is recorded and sent on to the offer:

  CLICK=$(curl -s -o /dev/null -w '%{{redirect_url}}' '{click}' | sed 's/.*sub1=//'); echo "$CLICK"

A conversion is accepted; sent again, it is a duplicate:

  curl -s "{postback}?click_id=$CLICK&value=12.50&txid=A-1001"; echo
"""
