"""``postbackd campaign``: tracked links."""

from __future__ import annotations

from collections.abc import Sequence

import click
from msgspec import UNSET

from postbackd.catalog.changes import CampaignChange, Share, change_campaign
from postbackd.catalog.documents import Describer, find_entry
from postbackd.cli.catalog import list_entries, print_entry, remove_entry, show_entry
from postbackd.cli.main import Family
from postbackd.cli.options import as_json, takes_data, takes_urls
from postbackd.cli.session import Session, base_url, print_json, visit
from postbackd.core.model import Campaign, Catalog
from postbackd.settings import Settings

_offer_help = "An offer and its share of the visitors; name the option once an offer.  [weight: 1]"


@click.group(cls=Family)
def campaign() -> None:
    """Tracked links: a source and one or more offers."""


@campaign.command("add")
@click.argument("name")
@click.option("--source", "source", required=True, metavar="S", help="The traffic source that uses the link.")
@click.option("--offer", "offers", required=True, multiple=True, metavar="O[:WEIGHT]", help=_offer_help)
@click.option("--slug", metavar="SLUG", help="The last part of the link.  [default: made from the name]")
@as_json
@takes_urls
def add_campaign(
    name: str,
    source: str,
    offers: Sequence[str],
    slug: str | None,
    settings: Settings,
    json_wanted: bool,
) -> None:
    """Add a campaign and print the click URL to paste into the source."""

    async def work(session: Session) -> tuple[Catalog, Campaign]:
        catalog = await session.load()
        taken = {entry.slug for entry in (await session.load(removed=True)).campaigns}
        change = CampaignChange(
            name=name,
            slug=UNSET if slug is None else slug,
            source=source,
            offers=read_offers(catalog, offers),
        )
        entry = change_campaign(catalog, Campaign(id=0, name="", slug="", source=0, offers=()), change, taken)
        await session.change([entry])
        return catalog, entry

    catalog, saved = visit(settings, work, create=True)
    document = Describer(catalog, base_url(settings)).describe(saved)
    if json_wanted:
        print_json({field: document[field] for field in ("name", "slug", "click_url")})
    else:
        click.echo(
            f"campaign {saved.name!r} added; paste this URL into the source:\n\n  {document['click_url']}\n"
        )


@campaign.command("list")
@as_json
@takes_urls
def list_campaigns(settings: Settings, json_wanted: bool) -> None:
    """All campaigns, with their click URLs."""
    columns = ("name", "slug", "source", "offers", "click_url")
    list_entries(settings, base_url(settings), "campaign", columns, json_wanted)


@campaign.command("show")
@click.argument("name")
@as_json
@takes_urls
def show_campaign(name: str, settings: Settings, json_wanted: bool) -> None:
    """One campaign, by its name or slug."""
    show_entry(settings, base_url(settings), "campaign", name, json_wanted)


@campaign.command("set")
@click.argument("name")
@click.option("--name", "new_name", metavar="NAME", help="A new name; the link stays.")
@click.option("--source", "source", metavar="S", help="Another traffic source.")
@click.option("--offer", "offers", multiple=True, metavar="O[:WEIGHT]", help="All offers anew, with weights.")
@click.option("--slug", metavar="SLUG", help="Another link; the old one stops working.")
@as_json
@takes_urls
def set_campaign(
    name: str,
    new_name: str | None,
    source: str | None,
    offers: Sequence[str],
    slug: str | None,
    settings: Settings,
    json_wanted: bool,
) -> None:
    """Change a campaign; what is not named stays."""

    async def work(session: Session) -> tuple[Catalog, Campaign]:
        catalog = await session.load()
        entry = find_entry(catalog.campaigns, name, "campaign")
        given = {"name": new_name, "slug": slug, "source": source}
        change = CampaignChange(
            **{field: text for field, text in given.items() if text is not None},
            offers=read_offers(catalog, offers) if offers else UNSET,
        )
        entry = change_campaign(catalog, entry, change, ())
        await session.change([entry])
        return catalog, entry

    catalog, saved = visit(settings, work)
    print_entry(Describer(catalog, base_url(settings)).describe(saved), json_wanted)


@campaign.command("remove")
@click.argument("name")
@as_json
@takes_data
def remove_campaign(name: str, settings: Settings, json_wanted: bool) -> None:
    """Take a campaign out of the catalog; its link stops working, its rows stay."""
    remove_entry(settings, "campaign", name, json_wanted)


def read_offers(catalog: Catalog, texts: Sequence[str]) -> list[Share]:
    """``OFFER`` or ``OFFER:WEIGHT`` arguments; an offer whose own name ends like a weight is found first."""
    names = {entry.name for entry in catalog.offers}
    shares = []
    for text in texts:
        name, colon, weight = text.rpartition(":")
        if text in names or not colon or (name not in names and not _is_number(weight)):
            name, weight = text, "1"
        elif not _is_number(weight):
            raise click.UsageError(f"--offer {text!r}: the weight {weight!r} is not a whole number from 1 on")
        shares.append(Share(offer=name, weight=int(weight[:9])))
    return shares


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
