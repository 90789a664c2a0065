"""The catalog that a simulated market needs at a server: every name in it says that it is simulated.

Every offer of a campaign has a link of its own, so that the market, not the server's chance, decides who sees what.
There are no targets: nobody outside is told anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from postbackd.catalog.file import CatalogFile, write_file
from postbackd.catalog.urls import click_url
from postbackd.core.model import Campaign, Catalog, CatalogEntry, Network, Offer, Source, WeightedOffer
from postbackd.market.cast import CAMPAIGNS, NETWORKS, OFFERS
from postbackd.market.catalog import make_catalog
from postbackd.market.habits import HABITS

MARK = " (simulated)"
"""What every name of a simulated entry ends with."""

SLUG = "sim-"
"""What every slug of a simulated campaign begins with."""

HEADER = """\
# A simulated market, for `postbackd apply`. Use a data directory of its own: what an applied file does not name is
# removed from the catalog. See docs/how-to/simulate-a-market.md.
"""


class NoMarket(Exception):
    """The file is not the catalog of a simulated market; says what to do."""


class Link(Struct, frozen=True):
    """A campaign's link to one offer, as a source's visitors follow it."""

    name: str
    """Of the campaign in the catalog."""
    slug: str
    preset: str | None
    """Of the source."""
    template: str
    """Path and query with the source's macros."""
    landing: str
    """What the offer's URL begins with, before the click id."""


class Book(Struct, frozen=True):
    """Where everybody in the market sends."""

    keys: dict[str, str]
    """Network of the cast -> its endpoint key."""
    links: dict[tuple[str, str], Link]
    """Campaign and offer of the cast -> link."""


def make_entries(make_key: Callable[[], str]) -> Catalog:
    """The whole catalog, ready to be written."""
    made = make_catalog(make_key)
    roles = {role.name: role for role in NETWORKS}
    types: dict[str, list[str]] = {}
    for offer in OFFERS:
        types.setdefault(offer.network, []).append(offer.type)
    networks = tuple(
        replace(
            entry,
            types=tuple(sorted(set(types[entry.name]))),
            answer="ok" if HABITS[roles[entry.name].habit].wants_ok else "json",
            name=entry.name + MARK,
        )
        for entry in _only(made, Network)
    )
    offers = _only(made, Offer)
    return Catalog(
        generation=0,
        networks=networks,
        sources=tuple(replace(entry, name=entry.name + MARK) for entry in _only(made, Source)),
        offers=tuple(replace(entry, name=entry.name + MARK) for entry in offers),
        campaigns=tuple(_split(_only(made, Campaign), {offer.id: offer.name for offer in offers})),
    )


E = TypeVar("E", bound=CatalogEntry)


def _only(entries: Iterable[CatalogEntry], kind: type[E]) -> list[E]:
    return [entry for entry in entries if isinstance(entry, kind)]


def _split(campaigns: Iterable[Campaign], offers: dict[int, str]) -> Iterable[Campaign]:
    """A campaign for every offer of each."""
    number = 0
    for campaign in campaigns:
        for place, weighted in enumerate(campaign.offers, 1):
            several = len(campaign.offers) > 1
            number -= 1
            yield replace(
                campaign,
                id=number,
                name=_link_name(campaign.name, offers[weighted.offer], several),
                slug=f"{SLUG}{campaign.slug}-{place}" if several else f"{SLUG}{campaign.slug}",
                offers=(WeightedOffer(weighted.offer),),
            )


def _link_name(campaign: str, offer: str, several: bool) -> str:
    return f"{campaign}: {offer}{MARK}" if several else campaign + MARK


def write_catalog(make_key: Callable[[], str]) -> str:
    """The catalog as a file for ``apply``, with new keys."""
    return HEADER + write_file(make_entries(make_key), with_keys=True)


def read_book(file: CatalogFile) -> Book:
    """The addresses of a market whose catalog is this file.  Raises ``NoMarket``."""
    keys = {row.name: row.key for row in file.networks}
    slugs = {row.slug for row in file.campaigns}
    entries = make_entries(str)
    sources = {source.id: source for source in entries.sources}
    missing = [network.name for network in entries.networks if not keys.get(network.name)]
    missing += [campaign.slug for campaign in entries.campaigns if campaign.slug not in slugs]
    if missing:
        raise NoMarket(
            f"{file.path} has no {missing[0]!r} with its key or slug, so it is not the catalog of a simulated market; "
            "make it with 'postbackd simulate catalog > market.toml'"
        )
    by_name = {campaign.name: campaign for campaign in entries.campaigns}
    landings = {role.name: role.url.partition("{click_id}")[0] for role in OFFERS}
    links = {}
    for role in CAMPAIGNS:
        for offer in role.offers:
            campaign = by_name[_link_name(role.name, offer, len(role.offers) > 1)]
            source = sources[campaign.source]
            links[role.name, offer] = Link(
                campaign.name, campaign.slug, source.preset, click_url("", campaign, source), landings[offer]
            )
    return Book({role.name: keys[role.name + MARK] or "" for role in NETWORKS}, links)


def find_strangers(catalog: Catalog) -> list[str]:
    """Names in a catalog that no simulation made."""
    parts: tuple[Sequence[CatalogEntry], ...] = (
        catalog.networks, catalog.sources, catalog.offers, catalog.removed_offers, catalog.campaigns,
        catalog.removed_campaigns, catalog.targets, catalog.rules,
    )  # fmt: skip
    return [entry.name for entries in parts for entry in entries if not entry.name.endswith(MARK)]
