"""``postbackd offer``: destination URLs of a network."""

from __future__ import annotations

from typing import Any

import click

from postbackd.catalog.changes import OfferChange, change_offer
from postbackd.catalog.documents import Describer, find_entry
from postbackd.catalog.linting import warn_of_offer
from postbackd.cli.catalog import list_entries, print_entry, remove_entry, show_entry
from postbackd.cli.main import Family
from postbackd.cli.options import as_duration, as_json, takes_data
from postbackd.cli.session import Session, visit
from postbackd.core.model import Catalog, Offer
from postbackd.settings import Settings

_max_help = "The longest time from click to conversion, such as 30d or 12h.  [default: 30d]"
_min_help = "The shortest time from click to conversion; sooner is rejected.  [default: 0s]"
_window_max = click.option("--window-max", callback=as_duration, metavar="TIME", help=_max_help)
_window_min = click.option("--window-min", callback=as_duration, metavar="TIME", help=_min_help)


@click.group(cls=Family)
def offer() -> None:
    """Destination URLs of a network."""


@offer.command("add")
@click.argument("name")
@click.option("--network", "network", required=True, metavar="N", help="The network that pays for it.")
@click.option(
    "--url", required=True, help="Where visitors go, with macros such as {click_id}, {sub1}, {country}."
)
@_window_max
@_window_min
@as_json
@takes_data
def add_offer(
    name: str,
    network: str,
    url: str,
    settings: Settings,
    json_wanted: bool,
    **windows: int | None,
) -> None:
    """Add an offer."""

    async def work(session: Session) -> tuple[Catalog, Offer]:
        catalog = await session.load()
        new = _change(
            catalog, Offer(id=0, name="", network=0, url=""), name=name, url=url, network=network, **windows
        )
        await session.change([new])
        return catalog, new

    catalog, saved = visit(settings, work, create=True)
    for warning in () if json_wanted else warn_of_offer(catalog, saved):
        click.echo(f"note: {warning}", err=True)
    print_entry(Describer(catalog, "").describe(saved), json_wanted)


@offer.command("list")
@as_json
@takes_data
def list_offers(settings: Settings, json_wanted: bool) -> None:
    """All offers."""
    list_entries(settings, "", "offer", ("name", "network", "window_min", "window_max", "url"), json_wanted)


@offer.command("show")
@click.argument("name")
@as_json
@takes_data
def show_offer(name: str, settings: Settings, json_wanted: bool) -> None:
    """One offer."""
    show_entry(settings, "", "offer", name, json_wanted)


@offer.command("set")
@click.argument("name")
@click.option("--name", "new_name", metavar="NAME", help="A new name.")
@click.option("--network", "network", metavar="N", help="Another network.")
@click.option("--url", help="Another destination.")
@_window_max
@_window_min
@as_json
@takes_data
def set_offer(
    name: str,
    new_name: str | None,
    network: str | None,
    url: str | None,
    settings: Settings,
    json_wanted: bool,
    **windows: int | None,
) -> None:
    """Change an offer; what is not named stays."""

    async def work(session: Session) -> tuple[Catalog, Offer]:
        catalog = await session.load()
        entry = find_entry(catalog.offers, name, "offer")
        entry = _change(catalog, entry, name=new_name, url=url, network=network, **windows)
        await session.change([entry])
        return catalog, entry

    catalog, saved = visit(settings, work)
    print_entry(Describer(catalog, "").describe(saved), json_wanted)


@offer.command("remove")
@click.argument("name")
@as_json
@takes_data
def remove_offer(name: str, settings: Settings, json_wanted: bool) -> None:
    """Take an offer out of the catalog; its rows stay."""
    remove_entry(settings, "offer", name, json_wanted)


def _change(catalog: Catalog, entry: Offer, **options: Any) -> Offer:
    """The offer with the given options applied, checked; ``None`` is not given."""
    given = {field: value for field, value in options.items() if value is not None}
    for window in ("window_min", "window_max"):
        if window in given:
            given[window] = f"{given[window]}s"
    return change_offer(catalog, entry, OfferChange(**given))
