"""The catalog as a TOML file: errors name the entry and the field, and what is written reads back the same.

What a file leaves out has its default; a network's key and a campaign's slug stay what they are, or are made.
References are by name.  Account values of targets are named and never written.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import tomli_w
from msgspec import Struct

from postbackd.catalog.sender_rows import SendersRow, write_senders
from postbackd.catalog.target_rows import TargetRow, write_target
from postbackd.core.model import Campaign, Catalog, Network, Offer, Rule, Source
from postbackd.reports.period import write_duration

HEADER = """\
# The catalog of a postbackd, for `postbackd apply`.
# The keys of networks are secrets: whoever has one can send postbacks. Keep this file as private as a password.
# Account values of targets are not in it: what is stored stays, and a missing one has to be given. The same holds
# for the signing secrets of networks.
"""

HEADER_WITHOUT_KEYS = """\
# The catalog of a postbackd, for `postbackd apply`, without the keys of networks: existing ones stay as they are.
# Account values of targets are not in it: what is stored stays, and a missing one has to be given. The same holds
# for the signing secrets of networks.
"""


class FileError(Exception):
    """The file cannot be used; the message names the file, the entry and the field."""


class NetworkRow(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One ``[[network]]``; ``None`` is what the preset or the stored entry says."""

    name: str
    key: str | None = None
    preset: str | None = None
    currency: str = "USD"
    dedup: str = "ignore"
    strict: bool = False
    answer: str | None = None
    personal_data: str = "replace"
    fields: dict[str, list[str]] = {}
    types: list[str] = []
    statuses: dict[str, str] | None = None
    senders: SendersRow | None = None


class SourceRow(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One ``[[source]]``."""

    name: str
    preset: str | None = None
    fields: dict[str, list[str]] | None = None


class OfferRow(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One ``[[offer]]``."""

    name: str
    network: str
    url: str
    window_min: str = "0s"
    window_max: str = "30d"


class Share(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One offer of a campaign."""

    offer: str
    weight: int = 1


class CampaignRow(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One ``[[campaign]]``; an offer may be written as its name alone."""

    name: str
    slug: str | None = None
    source: str
    offers: list[str | Share]


class RuleRow(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One ``[[rule]]``; ``None`` is what its target can be told."""

    name: str
    source: str | None = None
    campaign: str | None = None
    target: str
    when: str = ""
    delay: str = "0s"
    payout: str = ""
    on_change: str | None = None
    on_reversal: str | None = None


class CatalogFile(Struct, frozen=True, kw_only=True):
    """All rows of a file."""

    path: str
    networks: tuple[NetworkRow, ...]
    sources: tuple[SourceRow, ...]
    offers: tuple[OfferRow, ...]
    campaigns: tuple[CampaignRow, ...]
    targets: tuple[TargetRow, ...]
    rules: tuple[RuleRow, ...]


R = TypeVar("R", NetworkRow, SourceRow, OfferRow, CampaignRow, TargetRow, RuleRow)

SECTIONS = ("network", "source", "offer", "campaign", "target", "rule")


def read_file(path: Path) -> CatalogFile:
    """The rows of a file.  Raises ``FileError``."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}; name a file that can be read") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: not TOML: {error}; see what 'postbackd export' writes") from error
    return read_text(text, str(path))


def read_text(text: str, path: str) -> CatalogFile:
    """The rows of a file's text.  Raises ``FileError``."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FileError(f"{path}: not TOML: {error}; see what 'postbackd export' writes") from error
    return read_document(document, path)


def read_document(document: Mapping[str, Any], path: str) -> CatalogFile:
    """The rows of a file as a document.  ``path``: how messages call it.  Raises ``FileError``."""
    unknown = sorted(document.keys() - set(SECTIONS))
    if unknown:
        known = ", ".join(f"[[{section}]]" for section in SECTIONS)
        raise FileError(f"{path}: {unknown[0]!r} is not known; use {known}")
    return CatalogFile(
        path=path,
        networks=_read_rows(path, document, "network", NetworkRow),
        sources=_read_rows(path, document, "source", SourceRow),
        offers=_read_rows(path, document, "offer", OfferRow),
        campaigns=_read_rows(path, document, "campaign", CampaignRow),
        targets=_read_rows(path, document, "target", TargetRow),
        rules=_read_rows(path, document, "rule", RuleRow),
    )


def _read_rows(path: str, document: Mapping[str, Any], kind: str, type_: type[R]) -> tuple[R, ...]:
    rows = document.get(kind, [])
    if not isinstance(rows, list):
        raise FileError(f"{path}: {kind} must be written as [[{kind}]], once an entry")
    read: dict[str, R] = {}
    for number, row in enumerate(rows, 1):
        name = row.get("name") if isinstance(row, dict) else None
        label = f"{kind} {name!r}" if isinstance(name, str) else f"{kind} number {number}"
        try:
            entry = msgspec.convert(row, type_)
        except msgspec.ValidationError as error:
            raise FileError(f"{path}: {label}: {_explain(str(error))}") from error
        if entry.name in read:
            raise FileError(f"{path}: {label}: name: there are two {kind}s of this name; rename one")
        read[entry.name] = entry
    return tuple(read.values())


def _explain(message: str) -> str:
    """``field: what is wrong`` from what msgspec says."""
    sentence, at, place = message.partition(" - at `$")
    field = place.strip("`").lstrip(".")
    return f"{field}: {sentence}" if at and field else sentence.replace("Object ", "").replace("object ", "")


def write_file(catalog: Catalog, *, with_keys: bool) -> str:
    """The catalog as TOML text."""
    header = HEADER if with_keys else HEADER_WITHOUT_KEYS
    return header + "\n" + tomli_w.dumps(write_document(catalog, with_keys=with_keys))


def write_document(catalog: Catalog, *, with_keys: bool) -> dict[str, Any]:
    """The catalog as the rows of a file."""
    networks = {network.id: network.name for network in catalog.networks}
    sources = {source.id: source.name for source in catalog.sources}
    offers = {offer.id: offer.name for offer in catalog.offers}
    campaigns = {campaign.id: campaign.name for campaign in catalog.campaigns}
    targets = {target.id: target.name for target in catalog.targets}
    return {
        "network": [_network_row(network, with_keys) for network in catalog.networks],
        "source": [_source_row(source) for source in catalog.sources],
        "offer": [_offer_row(offer, networks) for offer in catalog.offers],
        "campaign": [_campaign_row(campaign, sources, offers) for campaign in catalog.campaigns],
        "target": [write_target(target) for target in catalog.targets],
        "rule": [_rule_row(rule, sources, campaigns, targets) for rule in catalog.rules],
    }


def _network_row(network: Network, with_keys: bool) -> dict[str, Any]:
    row = {
        "name": network.name,
        "key": network.key if with_keys else None,
        "preset": network.preset,
        "currency": network.currency,
        "dedup": network.dedup,
        "strict": network.strict,
        "answer": network.answer,
        "personal_data": network.personal_data,
        "types": list(network.types),
        "fields": {field: list(names) for field, names in network.fields.items()},
        "statuses": network.statuses,
        "senders": write_senders(network.senders, with_keys=with_keys),
    }
    return _without_none(row)


def _source_row(source: Source) -> dict[str, Any]:
    fields = {field: list(names) for field, names in source.fields.items()}
    return _without_none({"name": source.name, "preset": source.preset, "fields": fields})


def _offer_row(offer: Offer, networks: Mapping[int, str]) -> dict[str, Any]:
    return {
        "name": offer.name,
        "network": networks[offer.network],
        "url": offer.url,
        "window_min": write_duration(offer.window_min_s),
        "window_max": write_duration(offer.window_max_s),
    }


def _campaign_row(
    campaign: Campaign, sources: Mapping[int, str], offers: Mapping[int, str]
) -> dict[str, Any]:
    return {
        "name": campaign.name,
        "slug": campaign.slug,
        "source": sources[campaign.source],
        "offers": [
            {"offer": offers[weighted.offer], "weight": weighted.weight} for weighted in campaign.offers
        ],
    }


def _rule_row(
    rule: Rule, sources: Mapping[int, str], campaigns: Mapping[int, str], targets: Mapping[int, str]
) -> dict[str, Any]:
    row = {
        "name": rule.name,
        "source": sources.get(rule.source or 0),
        "campaign": campaigns.get(rule.campaign or 0),
        "target": targets[rule.target],
        "when": rule.condition,
        "delay": write_duration(rule.delay_s),
        "payout": rule.payout,
        "on_change": rule.on_change,
        "on_reversal": rule.on_reversal,
    }
    return _without_none(row)


def _without_none(row: dict[str, Any]) -> dict[str, Any]:
    """TOML has no null: what is not set is left out."""
    return {field: value for field, value in row.items() if value is not None}
