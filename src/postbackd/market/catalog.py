"""The cast as entries of a catalog, ready to be saved; and the parameters that a source adds to a campaign's link."""

from __future__ import annotations

from collections.abc import Callable

from postbackd.core.deliveries import Message
from postbackd.core.model import (
    Campaign,
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
from postbackd.market.answers import target_name
from postbackd.market.cast import CAMPAIGNS, NETWORKS, OFFERS, SOURCES
from postbackd.presets import find_preset

_DAY_S = 86_400


def make_catalog(make_key: Callable[[], str]) -> list[CatalogEntry]:
    """New entries, with negative ids by which they refer to each other (see ``store.base.Store.change_catalog``)."""
    networks = {role.name: -number for number, role in enumerate(NETWORKS, 1)}
    sources = {role.name: -number for number, role in enumerate(SOURCES, 1)}
    offers = {role.name: -number for number, role in enumerate(OFFERS, 1)}
    entries: list[CatalogEntry] = [
        Network(
            id=networks[role.name],
            name=role.name,
            key=make_key(),
            preset=role.preset,
            currency=role.currency,
            dedup=role.dedup,
        )
        for role in NETWORKS
    ]
    entries += [
        Source(id=sources[role.name], name=role.name, preset=role.preset, fields=_click_names(role.preset))
        for role in SOURCES
    ]
    entries += [
        Offer(
            id=offers[role.name],
            name=role.name,
            network=networks[role.network],
            url=role.url,
            window_max_s=role.window_days * _DAY_S,
        )
        for role in OFFERS
    ]
    entries += [
        Campaign(
            id=-number,
            name=role.name,
            slug=role.slug,
            source=sources[role.source],
            offers=tuple(WeightedOffer(offers[name], weight) for name, weight in role.offers.items()),
        )
        for number, role in enumerate(CAMPAIGNS, 1)
    ]
    return entries + _make_rules(sources)


def _make_rules(sources: dict[str, int]) -> list[CatalogEntry]:
    """A target a source, and the rule that it is told of every approved conversion."""
    made: list[CatalogEntry] = []
    for number, role in enumerate(SOURCES, 1):
        form = RequestForm(url=role.target_url)
        how = How(requests={Message.CONVERSION.word: form}, final=(404,), fresh_s=role.fresh_s)
        made.append(Target(id=-number, name=target_name(role), preset=role.preset, how=how))
        rule = Rule(id=-number, name=f"{role.name} conversions", source=sources[role.name], target=-number)
        made.append(rule)
    return made


def _click_names(preset_id: str | None) -> dict[str, tuple[str, ...]]:
    preset = None if preset_id is None else find_preset("source", preset_id)
    return {} if preset is None else preset.click_names()
