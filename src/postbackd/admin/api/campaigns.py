"""Campaigns: tracked links, each with the URL to paste into its source."""

from __future__ import annotations

from msgspec import Struct

from postbackd.admin.api import entries
from postbackd.admin.endpoints import Answered, Asked
from postbackd.admin.pages import Page
from postbackd.catalog.changes import CampaignChange, Name, Share, Shares, change_campaign
from postbackd.catalog.documents import Describer
from postbackd.core.model import Campaign


class NewCampaign(CampaignChange, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A campaign that is to be added."""

    name: Name
    source: Name
    offers: Shares


class ShownCampaign(Struct, frozen=True, kw_only=True):
    """A campaign, with its ready link."""

    id: int
    name: str
    slug: str
    click_url: str
    """To paste into the source, with the source's own macros where its preset knows them."""
    source: str | None
    offers: list[Share]


def show(describer: Describer, campaign: Campaign) -> ShownCampaign:
    """As an answer."""
    shown: ShownCampaign = entries.convert(describer.describe(campaign), ShownCampaign, id=campaign.id)
    return shown


async def list_campaigns(asked: Asked[entries.ListQuery, None]) -> Page[ShownCampaign]:
    """In the order in which they were added, with their links."""
    catalog = await asked.desk.store.load_catalog()
    describer = Describer(catalog, asked.desk.base_url)
    return entries.page_of(catalog.campaigns, asked.query, lambda campaign: show(describer, campaign))


async def show_campaign(asked: Asked[None, None]) -> Answered:
    """One campaign, by its name or slug."""
    catalog = await asked.desk.store.load_catalog()
    found = entries.find(catalog.campaigns, asked.path["name"], "campaign")
    return entries.answer(show(Describer(catalog, asked.desk.base_url), found), catalog.generation)


async def create_campaign(asked: Asked[None, NewCampaign]) -> Answered:
    """Answers the link to paste into the source."""
    catalog, expected = await entries.load(asked)
    ever = {campaign.slug for campaign in (await asked.desk.store.load_catalog(removed=True)).campaigns}
    empty = Campaign(id=0, name="", slug="", source=0, offers=())
    saved, catalog = await entries.save(asked, change_campaign(catalog, empty, asked.body, ever), expected)
    return entries.answer(show(Describer(catalog, asked.desk.base_url), saved), catalog.generation)


async def change(asked: Asked[None, CampaignChange]) -> Answered:
    """With another slug the old link stops working; the list of offers is replaced as a whole."""
    catalog, expected = await entries.load(asked)
    found = entries.find(catalog.campaigns, asked.path["name"], "campaign")
    saved, catalog = await entries.save(asked, change_campaign(catalog, found, asked.body, ()), expected)
    return entries.answer(show(Describer(catalog, asked.desk.base_url), saved), catalog.generation)


ENDPOINTS = entries.endpoints_of(
    "campaign", "Campaigns", ShownCampaign, NewCampaign, CampaignChange,
    {"list": list_campaigns, "show": show_campaign, "create": create_campaign, "change": change},
    {"name": "Summer", "source": "PropellerAds", "offers": [{"offer": "Shoes"}]},
)  # fmt: skip
