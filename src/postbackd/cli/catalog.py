"""What the catalog families share: find an entry by name, say what it is, print a list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from postbackd.cli.entries import EntryError, check_entry
from postbackd.cli.sender_rows import describe_senders
from postbackd.cli.session import Session, print_json, visit
from postbackd.cli.target_rows import write_target
from postbackd.cli.urls import click_url, postback_url
from postbackd.core.model import Campaign, Catalog, CatalogEntry, Network, Offer, Rule, Source, Target
from postbackd.core.params import CLICK_NAMES, FieldMap
from postbackd.reports.period import write_duration
from postbackd.reports.table import format_table
from postbackd.settings import Settings

E = TypeVar("E", Network, Source, Offer, Campaign, Target, Rule)


def find_entry(entries: Iterable[E], name: str, kind: str) -> E:
    """The entry of this name (a campaign's slug will do).  Raises ``ClickException`` naming the ones there are."""
    known = list(entries)
    for entry in known:
        if name in (entry.name, getattr(entry, "slug", None)):
            return entry
    names = ", ".join(repr(entry.name) for entry in known[:10]) or "none"
    raise click.ClickException(
        f"there is no {kind} {name!r} (there are: {names}); see 'postbackd {kind} list'"
    )


def find_network_ever(catalog: Catalog, ever: Catalog, name: str) -> Network:
    """As ``find_entry``, but if no network has the name: the last one that had it before it was removed."""
    candidates = {network.id: network for network in (*catalog.networks, *reversed(ever.networks))}
    return find_entry(candidates.values(), name, "network")


def check_arguments(entry: CatalogEntry) -> None:
    """``check_entry`` for a command: what is wrong becomes a usage error."""
    try:
        check_entry(entry)
    except EntryError as error:
        raise click.UsageError(str(error)) from error


def read_pairs(texts: Sequence[str], option: str, form: str) -> dict[str, str]:
    """Arguments with an equals sign as a dictionary; ``form`` says how to write one, such as ``NAME=VALUE``."""
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise click.UsageError(f"{option} {text!r} is not usable; write it as {form}")
        pairs[name.strip()] = value.strip()
    return pairs


def change_fields(fields: Mapping[str, tuple[str, ...]], texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """``FIELD=NAME,NAME`` arguments put into a mapping; ``FIELD=`` takes the field out, so that its defaults hold."""
    changed = dict(fields)
    for field, names in read_pairs(texts, "--field", "FIELD=NAME").items():
        changed.pop(field, None)
        if names:
            changed[field] = tuple(name.strip() for name in names.split(","))
    return changed


# --- documents ---------------------------------------------------------------------------------------------------


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


# --- printing ----------------------------------------------------------------------------------------------------


def print_entry(document: Mapping[str, Any], json_wanted: bool) -> None:
    """One entry: a field a line, or JSON."""
    if json_wanted:
        print_json(document)
        return
    width = max(len(name) for name in document)
    for name, value in document.items():
        click.echo(f"{name.ljust(width)}  {_cell(value)}")


def print_entries(
    documents: Sequence[Mapping[str, Any]], columns: Sequence[str], kind: str, json_wanted: bool
) -> None:
    """A list: a table of some columns, or an array of whole documents."""
    if json_wanted:
        print_json(documents)
    elif documents:
        click.echo(format_table(columns, [[_cell(row[column]) for column in columns] for row in documents]))
    else:
        click.echo(f"no {kind} yet; add one with 'postbackd {kind} add'", err=True)


def print_warnings(warnings: Iterable[str]) -> None:
    """On standard error, a line each."""
    for warning in warnings:
        stop = "" if warning.endswith("?") else "."
        click.echo(f"postbackd: warning: {warning}{stop}", err=True)


def _cell(value: Any) -> str:
    """A value of a document on one line."""
    if value is None or value in ({}, [], (), ""):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return " ".join(f"{name}={_cell(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ",".join(_cell(inner) for inner in value)
    return str(value)


# --- the verbs that are the same for every kind ------------------------------------------------------------------


def load_or_empty(settings: Settings) -> Catalog:
    """The catalog; before the first start an empty one, as nothing is set up yet."""
    return Catalog(generation=0) if is_fresh(settings) else visit(settings, lambda session: session.load())


def is_fresh(settings: Settings) -> bool:
    """Whether the data directory is not there, or holds nothing of a database; if unsure it is not fresh."""
    if settings.store is not None:
        return False
    try:
        return not any(path.name.startswith("postbackd.db") for path in Path(settings.data).iterdir())
    except FileNotFoundError:
        return True
    except OSError:
        return False


def list_entries(settings: Settings, base: str, kind: str, columns: Sequence[str], json_wanted: bool) -> None:
    """``KIND list``."""
    catalog = load_or_empty(settings)
    describer = Describer(catalog, base)
    entries: Sequence[CatalogEntry] = getattr(catalog, f"{kind}s")
    print_entries([describer.describe(entry) for entry in entries], columns, kind, json_wanted)


def show_entry(settings: Settings, base: str, kind: str, name: str, json_wanted: bool) -> None:
    """``KIND show NAME``."""
    catalog = visit(settings, lambda session: session.load())
    entry: CatalogEntry = find_entry(getattr(catalog, f"{kind}s"), name, kind)
    print_entry(Describer(catalog, base).describe(entry), json_wanted)


def remove_entry(settings: Settings, kind: str, name: str, json_wanted: bool) -> None:
    """``KIND remove NAME``."""

    async def work(session: Session) -> str:
        catalog = await session.load()
        entry: CatalogEntry = find_entry(getattr(catalog, f"{kind}s"), name, kind)
        await session.change(removals=[entry])
        return entry.name

    removed = visit(settings, work)
    if json_wanted:
        print_json({"removed": removed})
    else:
        click.echo(f"{kind} {removed!r} removed; what it did stays in the reports")
