"""The example catalog of a first start, and the commands that show it at work."""

from __future__ import annotations

from msgspec import Struct

from postbackd.catalog.entries import make_key
from postbackd.catalog.urls import click_url, postback_url
from postbackd.core.deliveries import Message
from postbackd.core.model import (
    Campaign,
    Catalog,
    CatalogEntry,
    How,
    Network,
    Offer,
    RequestForm,
    Rule,
    Source,
    Target,
    WeightedOffer,
)

NAME = "example"
"""Name of everything in the example, and slug of the campaign."""

OFFER_URL = "https://shop.example/?sub1={click_id}"

RECEIVER_PORT = 8090
"""Where ``postbackd receiver`` listens, which plays the part of the traffic source."""


class Example(Struct, frozen=True, kw_only=True):
    """What the example consists of."""

    network: Network
    source: Source
    campaign: Campaign
    delivers: bool
    """Whether the source is told of conversions."""


def make_example() -> list[CatalogEntry]:
    """The example as new entries (negative ids) for ``store.catalog.change_catalog``."""
    return [
        Network(id=-1, name=NAME, key=make_key()),
        Source(id=-1, name=NAME),
        Offer(id=-1, name=NAME, network=-1, url=OFFER_URL),
        Campaign(id=-1, name=NAME, slug=NAME, source=-1, offers=(WeightedOffer(-1),)),
        Target(id=-1, name=NAME, how=How(requests={Message.CONVERSION.word: RequestForm(url=_TARGET_URL)})),
        Rule(id=-1, name=NAME, source=-1, target=-1),
    ]


_TARGET_URL = (
    f"http://127.0.0.1:{RECEIVER_PORT}/postback?click_id={{source_click_id}}&payout={{value}}&currency={{currency}}"
    "&delivery_id={delivery_id}"
)


def find_example(catalog: Catalog) -> Example | None:
    """The example in a catalog; ``None`` when it is not there or not complete any longer."""
    networks = {network.name: network for network in catalog.networks}
    sources = {source.name: source for source in catalog.sources}
    campaigns = {campaign.slug: campaign for campaign in catalog.campaigns}
    if NAME not in networks or NAME not in sources or NAME not in campaigns:
        return None
    return Example(
        network=networks[NAME],
        source=sources[NAME],
        campaign=campaigns[NAME],
        delivers=any(rule.name == NAME for rule in catalog.rules),
    )


def is_empty(catalog: Catalog) -> bool:
    """Whether nothing was ever set up."""
    return not (catalog.networks or catalog.sources or catalog.offers or catalog.campaigns or catalog.targets)


def describe_example(example: Example, base: str, program: str) -> str:
    """What a first start prints: both URLs and the lines to try.  ``program``: how to call postbackd."""
    click = f"{click_url(base, example.campaign, example.source)}?source_click_id=demo"
    postback = f"{base}/p/{example.network.key}"
    words = f"""\
click URL     {click_url(base, example.campaign, example.source)}
postback URL  {postback_url(base, example.network)}

Try it in another terminal. A click is recorded and sent on to the offer:

  CLICK=$(curl -s -o /dev/null -w '%{{redirect_url}}' '{click}' | sed 's/.*sub1=//'); echo "$CLICK"

A conversion is accepted; sent again, it is a duplicate:

  curl -s "{postback}?click_id=$CLICK&value=12.50&txid=A-1001"; echo
"""
    if example.delivers:
        words += f"""
The traffic source is told of it. This plays its part, and prints what it is told:

  {program} receiver --count 1
"""
    return words
