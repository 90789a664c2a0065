"""URLs, looked at with what the catalog and the presets know: the one way to ``core.linting`` for commands and the API.

A network or source is named by its name here, or as a preset; the catalog may be empty.  Of the URLs of this server
the key or slug names it by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from msgspec import Struct

from postbackd.catalog.errors import EntryError
from postbackd.core.hops import read_link
from postbackd.core.linting import Flaw, Kind, Known, Linted, Severity, Vocabulary, lint
from postbackd.core.linting.form import is_local
from postbackd.core.linting.kinds import OWN_PATH
from postbackd.core.linting.url_parts import Parts
from postbackd.core.model import Catalog, Network, Offer, Source
from postbackd.core.outgoing import convert_preset_url
from postbackd.core.params import CLICK_NAMES, POSTBACK_NAMES, FieldMap
from postbackd.core.sender_rules import TOKEN_PARAMETER
from postbackd.core.senders import ANYBODY
from postbackd.core.signature import TIME
from postbackd.presets import Preset, find_preset, find_signing, load_presets


class Whose(Struct, frozen=True):
    """What a URL is for, as far as somebody said it: at most one of them."""

    network: str | None = None
    source: str | None = None
    preset: str | None = None


ANYBODYS = Whose()
"""Nobody said what for."""

EMPTY = Catalog(generation=0)


class Linter:
    """Looks at URLs with what is known of one network or source."""

    def __init__(
        self,
        catalog: Catalog | None,
        bases: Sequence[str] = (),
        whose: Whose = ANYBODYS,
        kind: Kind | None = None,
    ) -> None:
        """``catalog``: ``None`` where there is none.

        ``bases``: scheme and host of this server; those that are local say nothing.

        Raises ``EntryError`` for a network, source or preset that there is not.
        """
        self._catalog = catalog or EMPTY
        self._has_catalog = catalog is not None
        self._bases = tuple(base.rstrip("/") for base in bases if not is_local(Parts(base).host))
        self._kind = kind
        self._network: Network | None = None
        self._source: Source | None = None
        self._preset: Preset | None = None
        if sum(name is not None for name in (whose.network, whose.source, whose.preset)) > 1:
            raise EntryError("preset", "name one: a network, a source or a preset")
        if whose.network is not None:
            self._network, self._preset = self._find_network(whose.network)
        elif whose.source is not None:
            self._source, self._preset = self._find_source(whose.source)
        elif whose.preset is not None:
            self._preset = _find_preset("preset", whose.preset)

    def lint(self, url: str) -> Linted:
        """One URL."""
        network, source, preset = self._owner(url)
        vocabulary = None if preset is None else describe_preset(preset, self._kind, network)
        known = Known(
            partner=vocabulary or _nameless(network, source),
            bases=self._bases,
            names=_names(network, source, preset),
            asked=_asked(network),
            keys=self._keys() if self._has_catalog else None,
            slugs=frozenset(campaign.slug for campaign in self._catalog.campaigns)
            if self._has_catalog
            else None,
            network=network.name if network is not None and network is self._network else None,
            links=tuple(
                read_link(offer.name, offer.url)
                for offer in self._catalog.offers
                if network is not None and offer.network == network.id
            ),
        )
        return lint(url, known, self._kind)

    def _owner(self, url: str) -> tuple[Network | None, Source | None, Preset | None]:
        """Who was named, or whom the URL names: by its key, its slug, or the host where somebody is told."""
        parts = Parts(url.strip())
        own = OWN_PATH.fullmatch(parts.path)
        if self._network or self._source or self._preset:
            return self._network, self._source, self._preset
        if own is None:
            return None, None, _told_at(parts.host)
        if own[1] == "p":
            name = self._keys().get(own[2])
            network = next((one for one in self._catalog.networks if one.name == name), None)
            return network, None, _preset_of("network", network)
        campaign = next((one for one in self._catalog.campaigns if one.slug == own[2]), None)
        source = next((one for one in self._catalog.sources if campaign and one.id == campaign.source), None)
        return None, source, _preset_of("source", source)

    def _keys(self) -> dict[str, str]:
        keys = {network.key: network.name for network in self._catalog.networks}
        former = {
            old.key: network.name for network in self._catalog.networks for old in network.senders.former_keys
        }
        return former | keys

    def _find_network(self, name: str) -> tuple[Network | None, Preset | None]:
        network = next((one for one in self._catalog.networks if one.name == name), None)
        return network, _preset_of("network", network) if network else _find_preset("network", name)

    def _find_source(self, name: str) -> tuple[Source | None, Preset | None]:
        source = next((one for one in self._catalog.sources if one.name == name), None)
        return source, _preset_of("source", source) if source else _find_preset("source", name)


def _told_at(host: str) -> Preset | None:
    """Who takes postbacks at this host."""
    return _target_hosts().get(host)


@cache
def _target_hosts() -> dict[str, Preset]:
    """Of two presets that share a host the first; those where every user has another host are left out."""
    told = [(Parts(preset.target_url or ""), preset) for preset in reversed(load_presets())]
    return {parts.host: preset for parts, preset in told if parts.host and "<" not in parts.authority}


def _preset_of(role: Any, entry: Network | Source | None) -> Preset | None:
    return find_preset(role, entry.preset) if entry is not None and entry.preset else None


def _find_preset(field: str, name: str) -> Preset:
    """By id, by name, or by the one id or name that begins with what was written."""
    role: Any = None if field == "preset" else field
    found = find_preset(role, name)
    if found is not None:
        return found
    begins = [
        preset
        for preset in load_presets()
        if (role is None or role in preset.roles)
        and (preset.id.startswith(name.casefold()) or preset.name.casefold().startswith(name.casefold()))
    ]
    if len(begins) == 1 and name.strip():
        return begins[0]
    there = (
        f"there are: {', '.join(preset.id for preset in begins[:5])}"
        if begins and name.strip()
        else "see 'postbackd presets list'"
    )
    where = "preset" if role is None else f"{field} here and no preset of one"
    raise EntryError(field, f"there is no {where} {name!r}; {there}")


def _nameless(network: Network | Source | None, source: Source | None) -> Vocabulary | None:
    """Somebody of whom nothing but the name is known."""
    named = network or source
    return None if named is None else Vocabulary(name=named.name)


def _names(network: Network | None, source: Source | None, preset: Preset | None) -> dict[Kind, Any]:
    clicks = source.fields if source else preset.click_names() if preset and "source" in preset.roles else {}
    postbacks = network.fields if network else {}
    return {
        Kind.CLICK: FieldMap(CLICK_NAMES, clicks).names,
        Kind.POSTBACK: FieldMap(POSTBACK_NAMES, postbacks).names,
    }


def _asked(network: Network | None) -> frozenset[str]:
    """What the senders of a network have to show in the URL; of an unknown network, what ours may."""
    senders = ANYBODY if network is None else network.senders
    scheme = senders.scheme
    signing = find_signing(network.preset) if network is not None and network.preset else None
    names = {*(signing.asks if signing and scheme else ()), *({scheme.parameter, TIME} if scheme else ())}
    return frozenset(names | ({TOKEN_PARAMETER} if network is None or senders.tokens else set()))


def describe_preset(preset: Preset, kind: Kind | None = None, network: Network | None = None) -> Vocabulary:
    """What a preset calls things."""
    signing = find_signing(preset.id)
    asks = (
        set(signing.asks.values())
        if signing and (network is None or network.senders.scheme is not None)
        else set()
    )
    words = {macro: word for word, macro in preset.others.items()}
    cents = dict.fromkeys(preset.in_cents, "an amount in hundredths")
    extra = dict.fromkeys(asks, "what its signature needs")
    return Vocabulary(
        name=preset.name,
        macros={**words, **cents, **extra, **{macro: field for field, macro in preset.fields.items()}},
        fields=preset.fields,
        withheld=frozenset(preset.left_out) - asks,
        in_cents=frozenset(preset.in_cents),
        appended=preset.click_id_parameter or "",
        target_url=convert_preset_url(preset.target_url) if preset.target_url else "",
    )


def warn_of_offer(catalog: Catalog, offer: Offer) -> list[str]:
    """What is doubtful about the URL of an offer, a sentence each."""
    network = next((one for one in catalog.networks if one.id == offer.network), None)
    name = network.name if network is not None else None
    linted = Linter(catalog, (), Whose(network=name), Kind.OFFER).lint(offer.url)
    return [f"{flaw.cause} {flaw.fix}" for flaw in linted.flaws if flaw.severity is not Severity.ADVICE]


def describe_linted(linted: Linted) -> dict[str, Any]:
    """As a document."""
    return {
        "url": linted.url,
        "kind": linted.kind.value,
        "why": linted.why,
        "whose": linted.whose,
        "ok": not linted.has_errors,
        "flaws": [_describe_flaw(linted.url, flaw) for flaw in linted.flaws],
        "more": linted.more,
        "mended": linted.mended,
    }


def _describe_flaw(url: str, flaw: Flaw) -> dict[str, Any]:
    return {
        "check": flaw.check,
        "severity": flaw.severity.value,
        "start": flaw.start,
        "end": flaw.end,
        "text": url[flaw.start : flaw.end],
        "cause": flaw.cause,
        "fix": flaw.fix,
        "mended": flaw.safe,
    }
