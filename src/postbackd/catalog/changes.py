"""Changes of networks, sources, offers, campaigns and rules: what may be given, and what becomes of the entry.

A change holds only what is given (``UNSET``: it stays); a new entry is a change of an empty one.  Every function checks
the whole entry and raises ``EntryError``, or ``NoEntry`` for a name that is not known.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from postbackd.catalog.accounts import Seal
from postbackd.catalog.documents import find_entry
from postbackd.catalog.entries import check_entry, check_reactions, make_slug, need_preset, usual_reactions
from postbackd.catalog.errors import EntryError, NoEntry
from postbackd.catalog.senders import Duration, Made, SendersChange, change_senders
from postbackd.core.model import Campaign, Catalog, Network, Offer, Rule, Source, WeightedOffer
from postbackd.reports.period import read_duration

Name = Annotated[str, Meta(min_length=1, max_length=100, description="How people call it.")]
Word = Annotated[str, Meta(min_length=1, max_length=100)]
Names = Annotated[list[Word], Meta(min_length=1, max_length=100)]
PresetName = Annotated[
    str | None, Meta(description="Id or name of a preset, see /presets; null or none takes it away.")
]
Url = Annotated[str, Meta(min_length=1, max_length=8000, description="Where visitors go, with macros.")]
Status = Literal["pending", "approved", "rejected", "reversed"]


class Change(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is given; the rest stays."""


class NetworkChange(Change, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change of a network; what is left out stays."""

    name: Name | UnsetType = UNSET
    key: (
        Annotated[
            str,
            Meta(
                pattern=r"^[A-Za-z0-9_-]{16,128}$",
                description="Its endpoint key; one is made when there is none.",
            ),
        ]
        | UnsetType
    ) = UNSET
    preset: PresetName | UnsetType = UNSET
    currency: (
        Annotated[str, Meta(pattern="^[A-Za-z]{3}$", description="ISO 4217 code of values without one.")]
        | UnsetType
    ) = UNSET
    dedup: Literal["ignore", "update", "add", "hold"] | UnsetType = UNSET
    strict: bool | UnsetType = UNSET
    answer: Literal["json", "ok", "204"] | UnsetType = UNSET
    personal_data: Literal["replace", "drop", "refuse"] | UnsetType = UNSET
    fields: (
        Annotated[
            dict[str, Names],
            Meta(description="Our field -> names of its parameters, first found wins."),
        ]
        | UnsetType
    ) = UNSET
    types: (
        Annotated[list[Word], Meta(description="Conversion types it may send; empty: any.", max_length=100)]
        | UnsetType
    ) = UNSET
    statuses: (
        Annotated[dict[str, Status], Meta(description="Its own status words -> what they mean.")] | UnsetType
    ) = UNSET
    senders: SendersChange | UnsetType = UNSET


class SourceChange(Change, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change of a source; what is left out stays."""

    name: Name | UnsetType = UNSET
    preset: PresetName | UnsetType = UNSET
    fields: dict[str, Names] | UnsetType = UNSET


class OfferChange(Change, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change of an offer; what is left out stays."""

    name: Name | UnsetType = UNSET
    network: Annotated[Name, Meta(description="The network that pays for it.")] | UnsetType = UNSET
    url: Url | UnsetType = UNSET
    window_min: Duration | UnsetType = UNSET
    window_max: Duration | UnsetType = UNSET


class Share(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One offer of a campaign, and its share of the visitors."""

    offer: Name
    weight: Annotated[int, Meta(ge=1, le=1_000_000)] = 1


Shares = Annotated[list[Share], Meta(min_length=1, max_length=1000)]


class CampaignChange(Change, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change of a campaign; what is left out stays."""

    name: Name | UnsetType = UNSET
    slug: (
        Annotated[
            str,
            Meta(
                pattern=r"^[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?$",
                description="The last part of its link; made from the name when there is none.",
            ),
        ]
        | UnsetType
    ) = UNSET
    source: Annotated[Name, Meta(description="The traffic source that uses the link.")] | UnsetType = UNSET
    offers: Shares | UnsetType = UNSET


class RuleChange(Change, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change of a rule; what is left out stays."""

    name: Name | UnsetType = UNSET
    source: Annotated[Name, Meta(description="Conversions of all campaigns of this source.")] | UnsetType = (
        UNSET
    )
    campaign: Annotated[Name, Meta(description="Conversions of this campaign alone.")] | UnsetType = UNSET
    target: Annotated[Name, Meta(description="Which target is told.")] | UnsetType = UNSET
    when: (
        Annotated[
            str,
            Meta(
                max_length=4000,
                description="Which conversions; empty: every approved one.",
                examples=["type = sale"],
            ),
        ]
        | UnsetType
    ) = UNSET
    delay: Duration | UnsetType = UNSET
    payout: (
        Annotated[str, Meta(max_length=100, description="'fixed 2.50 USD', 80%, or empty: as received.")]
        | UnsetType
    ) = UNSET
    on_change: Literal["adjust", "ignore"] | UnsetType = UNSET
    on_reversal: Literal["retract", "adjust", "ignore"] | UnsetType = UNSET


def given(change: Struct, *left_out: str) -> dict[str, Any]:
    """The fields that are given, texts without spaces around them."""
    values = {field: getattr(change, field) for field in change.__struct_fields__ if field not in left_out}
    return {
        field: value.strip() if isinstance(value, str) else value
        for field, value in values.items()
        if value is not UNSET
    }


# --- networks ----------------------------------------------------------------------------------------------------


def change_network(entry: Network, change: NetworkChange, seal: Seal, base: str) -> tuple[Network, Made]:
    """The network, and what was made for it.  ``base``: what its URLs begin with."""
    if change.preset is not UNSET:
        entry = _give_network_preset(entry, change.preset)
    values = given(change, "preset", "senders")
    if "currency" in values:
        values["currency"] = values["currency"].upper()
    if "fields" in values:
        values["fields"] = _tuples(values["fields"])
    if "types" in values:
        values["types"] = tuple(dict.fromkeys(type_.strip().casefold() for type_ in values["types"]))
    entry = replace(entry, **values)
    made = Made()
    if change.senders is not UNSET:
        senders, made = change_senders(entry, change.senders, seal, base)
        entry = replace(entry, senders=senders)
    check_entry(entry)
    return entry, made


def _give_network_preset(entry: Network, text: str | None) -> Network:
    """With its status words and the answer it wants; ``none`` takes the preset away."""
    if text is None or text.casefold() == "none":
        return replace(entry, preset=None)
    preset = need_preset("network", text)
    return replace(
        entry,
        preset=preset.id,
        answer=preset.answer or entry.answer,
        statuses={**preset.statuses, **entry.statuses},
    )


def _tuples(fields: dict[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    return {field: tuple(name.strip() for name in names) for field, names in fields.items()}


# --- sources and offers --------------------------------------------------------------------------------------------


def change_source(entry: Source, change: SourceChange) -> Source:
    """A preset brings its words for sub1 to sub10; ``none`` takes the preset away."""
    if change.preset is not UNSET:
        if change.preset is None or change.preset.casefold() == "none":
            entry = replace(entry, preset=None)
        else:
            preset = need_preset("source", change.preset)
            entry = replace(entry, preset=preset.id, fields=preset.click_names())
    values = given(change, "preset")
    if "fields" in values:
        values["fields"] = _tuples(values["fields"])
    entry = replace(entry, **values)
    check_entry(entry)
    return entry


def change_offer(catalog: Catalog, entry: Offer, change: OfferChange) -> Offer:
    values = given(change, "network", "window_min", "window_max")
    for field in ("window_min", "window_max"):
        if getattr(change, field) is not UNSET:
            values[f"{field}_s"] = _read_duration(field, getattr(change, field))
    entry = replace(entry, **values)
    check_entry(entry)
    if change.network is not UNSET:
        entry = replace(entry, network=refer("network", catalog.networks, change.network).id)
    return entry


def _read_duration(field: str, text: str) -> int:
    try:
        return read_duration(text)
    except ValueError as error:
        raise EntryError(field, str(error)) from error


def refer(field: str, entries: Sequence[Any], name: str, kind: str | None = None) -> Any:
    """The entry that a field names.  Raises ``Unknown``."""
    try:
        return find_entry(entries, name, kind or field)
    except NoEntry as error:
        raise Unknown(field, str(error)) from error


class Unknown(NoEntry):
    """A field names an entry that is not there."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


# --- campaigns ---------------------------------------------------------------------------------------------------


def change_campaign(
    catalog: Catalog, entry: Campaign, change: CampaignChange, slugs_ever: Collection[str]
) -> Campaign:
    """``slugs_ever``: of all campaigns, removed ones too."""
    entry = replace(entry, **given(change, "source", "offers"))
    if not entry.slug:
        entry = replace(entry, slug=make_slug(entry.name, slugs_ever))
    if change.source is not UNSET:
        entry = replace(entry, source=refer("source", catalog.sources, change.source).id)
    if change.offers is not UNSET:
        offers = (
            WeightedOffer(refer("offers", catalog.offers, share.offer, "offer").id, share.weight)
            for share in change.offers
        )
        entry = replace(entry, offers=tuple(offers))
    check_entry(entry)
    return entry


# --- rules -------------------------------------------------------------------------------------------------------


def new_rule(catalog: Catalog, change: RuleChange) -> Rule:
    """A rule that does not say what to do when a conversion changes does what its target can be told."""
    if (change.source is UNSET) == (change.campaign is UNSET):
        raise EntryError("source", "name one: a source for all its campaigns, or a campaign")
    if change.target is UNSET:
        raise EntryError("target", "name the target that is told")
    told = refer("target", catalog.targets, change.target)
    on_change, on_reversal = usual_reactions(told.how)
    entry = Rule(id=0, name="", target=told.id, on_change=on_change, on_reversal=on_reversal)
    return change_rule(catalog, entry, change)


def change_rule(catalog: Catalog, entry: Rule, change: RuleChange) -> Rule:
    """It holds for what happens from now on."""
    if change.source is not UNSET and change.campaign is not UNSET:
        raise EntryError("source", "a rule is of a source or of a campaign; name one of the two")
    if change.source is not UNSET:
        entry = replace(entry, source=refer("source", catalog.sources, change.source).id, campaign=None)
    if change.campaign is not UNSET:
        entry = replace(entry, campaign=refer("campaign", catalog.campaigns, change.campaign).id, source=None)
    if change.target is not UNSET:
        entry = replace(entry, target=refer("target", catalog.targets, change.target).id)
    values = given(change, "source", "campaign", "target", "when", "delay")
    if change.when is not UNSET:
        values["condition"] = change.when.strip()
    if change.delay is not UNSET:
        values["delay_s"] = _read_duration("delay", change.delay)
    entry = replace(entry, **values)
    check_entry(entry)
    check_reactions(entry, next(target for target in catalog.targets if target.id == entry.target))
    return entry
