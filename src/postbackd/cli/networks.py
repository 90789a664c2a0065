"""``postbackd network``: who sends postbacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from msgspec.structs import replace

from postbackd.catalog.changes import NetworkChange, change_network
from postbackd.catalog.documents import Describer, find_entry
from postbackd.catalog.entries import ANSWERS, DEDUPS, PERSONAL_DATA, make_key
from postbackd.catalog.senders import Made
from postbackd.cli.account_values import sealing
from postbackd.cli.catalog import (
    change_fields,
    list_entries,
    print_entry,
    read_pairs,
    remove_entry,
    show_entry,
)
from postbackd.cli.main import Family
from postbackd.cli.network_senders import rotate, sign_postback
from postbackd.cli.options import as_json, takes_data, takes_settings, takes_urls
from postbackd.cli.sender_options import NAMES, print_made, read_senders, sender_options
from postbackd.cli.session import Session, base_url, print_json, visit
from postbackd.core.model import Catalog, Network
from postbackd.settings import Settings

COLUMNS = ("name", "preset", "currency", "dedup", "strict", "key", "postback_url")


@click.group(cls=Family)
def network() -> None:
    """Affiliate networks and advertisers: who sends postbacks."""


network.add_command(rotate)
network.add_command(sign_postback)

_takes_secrets = takes_settings("data", "store", "public_url", "secret_key")


def _options(command: Any) -> Any:
    """The options that ``add`` and ``set`` share; ``None`` is not given."""
    for option in reversed(
        [
            click.option(
                "--preset", metavar="P", help="What the network calls things; see 'postbackd presets list'."
            ),
            click.option(
                "--currency", metavar="CODE", help="ISO 4217 code of values without one.  [default: USD]"
            ),
            click.option(
                "--dedup",
                type=click.Choice(DEDUPS),
                help="What to do with a repeat that has no transaction id.  [default: ignore]",
            ),
            click.option(
                "--strict/--lenient",
                default=None,
                help="Answer 422 to what cannot be used, instead of 200 with the verdict.  [default: lenient]",
            ),
            click.option(
                "--answer",
                type=click.Choice(ANSWERS),
                help="What the network wants to hear.  [default: json]",
            ),
            click.option(
                "--personal-data",
                type=click.Choice(PERSONAL_DATA),
                help="What becomes of personal data in its postbacks.  [default: replace]",
            ),
            click.option(
                "--field",
                "fields",
                multiple=True,
                metavar="FIELD=NAME,NAME",
                help="Parameter names of a field, such as click_id=aff_sub,sub1; FIELD= for the defaults.",
            ),
            click.option(
                "--type",
                "types",
                multiple=True,
                metavar="TYPE",
                help="A conversion type it may send; none: any.",
            ),
            click.option(
                "--status-word",
                "statuses",
                multiple=True,
                metavar="WORD=STATUS",
                help="What one of its status words means, such as confirmed=approved; WORD= to forget it.",
            ),
        ]
    ):
        command = option(command)
    return command


@network.command("add")
@click.argument("name")
@_options
@sender_options
@as_json
@_takes_secrets
def add_network(name: str, settings: Settings, json_wanted: bool, **options: Any) -> None:
    """Add a network and print the postback URL to paste into it."""
    entry, made = _change(Network(id=0, name="", key=make_key()), name, settings, options)

    async def work(session: Session) -> Network:
        (saved,) = await session.change([entry])
        assert isinstance(saved, Network)
        return saved

    saved = visit(settings, work, create=True)
    document = Describer(Catalog(generation=0), base_url(settings)).describe(saved)
    shown = {field: document[field] for field in ("name", "key", "postback_url")}
    if json_wanted:
        print_json({**shown, **made.document()})
        return
    click.echo(
        f"network {saved.name!r} added; paste this postback URL into it:\n\n  {shown['postback_url']}\n"
    )
    print_made(made)
    if saved.preset is None:
        click.echo(
            "Replace {click_id}, {value} and {txid} by the network's own macros; add &status= if it has one."
        )


@network.command("list")
@as_json
@takes_urls
def list_networks(settings: Settings, json_wanted: bool) -> None:
    """All networks, with their postback URLs."""
    list_entries(settings, base_url(settings), "network", COLUMNS, json_wanted)


@network.command("show")
@click.argument("name")
@as_json
@takes_urls
def show_network(name: str, settings: Settings, json_wanted: bool) -> None:
    """One network, with everything that is set for it."""
    show_entry(settings, base_url(settings), "network", name, json_wanted)


@network.command("set")
@click.argument("name")
@click.option("--name", "new_name", metavar="NAME", help="A new name.")
@click.option("--new-key", is_flag=True, help="A new endpoint key; the old URL stops working at once.")
@click.option("--any-type", is_flag=True, help="Forget the list of types.")
@_options
@sender_options
@as_json
@_takes_secrets
def set_network(
    name: str,
    settings: Settings,
    json_wanted: bool,
    new_name: str | None,
    new_key: bool,
    any_type: bool,
    **options: Any,
) -> None:
    """Change a network; what is not named stays."""

    async def work(session: Session) -> tuple[Network, Made]:
        entry = find_entry((await session.load()).networks, name, "network")
        entry = replace(
            entry,
            key=make_key() if new_key else entry.key,
            types=() if any_type else entry.types,
        )
        entry, made = _change(entry, new_name, settings, options)
        (saved,) = await session.change([entry])
        assert isinstance(saved, Network)
        return saved, made

    saved, made = visit(settings, work)
    document = Describer(Catalog(generation=0), base_url(settings)).describe(saved)
    print_entry(document | made.document() if json_wanted else document, json_wanted)
    if not json_wanted:
        print_made(made)


@network.command("remove")
@click.argument("name")
@as_json
@takes_data
def remove_network(name: str, settings: Settings, json_wanted: bool) -> None:
    """Take a network out of the catalog; its URL stops working, its rows stay."""
    remove_entry(settings, "network", name, json_wanted)


def _change(
    entry: Network, name: str | None, settings: Settings, options: Mapping[str, Any]
) -> tuple[Network, Made]:
    """The network with all given options applied, checked, and what was made for it."""
    senders = read_senders(entry.senders, {option: options[option] for option in NAMES})
    plain = {"name": name} | {option: options[option] for option in _PLAIN}
    change = NetworkChange(**{field: value for field, value in plain.items() if value is not None})
    entry, _ = change_network(entry, change, sealing(settings), base_url(settings))
    given: dict[str, Any] = {"senders": senders}
    if options["fields"]:
        names = change_fields(entry.fields, options["fields"])
        given["fields"] = {field: list(its) for field, its in names.items()}
    if options["types"]:
        given["types"] = list(options["types"])
    if options["statuses"]:
        words = {**entry.statuses, **read_pairs(options["statuses"], "--status-word", "WORD=STATUS")}
        given["statuses"] = {word: meaning.lower() for word, meaning in words.items() if meaning}
    return change_network(entry, NetworkChange(**given), sealing(settings), base_url(settings))


_PLAIN = ("preset", "currency", "dedup", "strict", "answer", "personal_data")
"""Options that are fields of a change as they are."""
