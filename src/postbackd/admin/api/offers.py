"""Offers: destination URLs of a network."""

from __future__ import annotations

from msgspec import Struct

from postbackd.admin.api import entries
from postbackd.admin.endpoints import Answered, Asked
from postbackd.admin.pages import Page
from postbackd.catalog.changes import Name, OfferChange, Url, change_offer
from postbackd.catalog.documents import Describer
from postbackd.catalog.linting import warn_of_offer
from postbackd.core.model import Catalog, Offer


class NewOffer(OfferChange, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An offer that is to be added."""

    name: Name
    network: Name
    url: Url


class ShownOffer(Struct, frozen=True, kw_only=True):
    """An offer."""

    id: int
    name: str
    network: str | None
    url: str
    window_min: str
    """The shortest time from click to conversion."""
    window_max: str
    """The longest time from click to conversion."""
    warnings: list[str] = []


def show(catalog: Catalog, offer: Offer) -> ShownOffer:
    """As an answer, with what is doubtful about it."""
    document = Describer(catalog, "").describe(offer)
    warnings = warn_of_offer(catalog, offer)
    shown: ShownOffer = entries.convert(document, ShownOffer, id=offer.id, warnings=warnings)
    return shown


async def list_offers(asked: Asked[entries.ListQuery, None]) -> Page[ShownOffer]:
    """In the order in which they were added."""
    catalog = await asked.desk.store.load_catalog()
    return entries.page_of(catalog.offers, asked.query, lambda offer: show(catalog, offer))


async def show_offer(asked: Asked[None, None]) -> Answered:
    """One offer, by its name."""
    catalog = await asked.desk.store.load_catalog()
    found = entries.find(catalog.offers, asked.path["name"], "offer")
    return entries.answer(show(catalog, found), catalog.generation)


async def create_offer(asked: Asked[None, NewOffer]) -> Answered:
    """The URL has macros such as {click_id}, {sub1} and {country}."""
    catalog, expected = await entries.load(asked)
    entry = change_offer(catalog, Offer(id=0, name="", network=0, url=""), asked.body)
    saved, catalog = await entries.save(asked, entry, expected)
    return entries.answer(show(catalog, saved), catalog.generation)


async def change(asked: Asked[None, OfferChange]) -> Answered:
    """Clicks that were sent already keep the offer that they had."""
    catalog, expected = await entries.load(asked)
    found = entries.find(catalog.offers, asked.path["name"], "offer")
    saved, catalog = await entries.save(asked, change_offer(catalog, found, asked.body), expected)
    return entries.answer(show(catalog, saved), catalog.generation)


ENDPOINTS = entries.endpoints_of(
    "offer", "Offers", ShownOffer, NewOffer, OfferChange,
    {"list": list_offers, "show": show_offer, "create": create_offer, "change": change},
    {"name": "Shoes", "network": "Adnet", "url": "https://shop.example/?cid={click_id}"},
)  # fmt: skip
