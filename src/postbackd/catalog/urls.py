"""The URLs that people paste into other systems.

Templates are text, never parsed as URLs: other systems' macros hold ``#``, ``[`` and ``%``.
"""

from __future__ import annotations

from postbackd.core.model import Campaign, Network, Source
from postbackd.core.params import CLICK_NAMES, POSTBACK_NAMES, FieldMap
from postbackd.core.sender_rules import TOKEN_PARAMETER
from postbackd.presets import find_preset, find_signing

OWN_MACROS = {"click_id": "{click_id}", "value": "{value}", "transaction_id": "{txid}"}
"""What stands in a postback URL for a network without a preset: to be replaced by the network's own macros."""

_ORDER = ("click_id", "value", "transaction_id", "currency", "status", "type", "time")


def postback_url(base: str, network: Network) -> str:
    """The URL to paste into the network, with its macros where its preset knows them.

    Parameter names are ours, or the ones that are mapped for this network.
    """
    preset = find_preset("network", network.preset) if network.preset else None
    macros = preset.fields if preset is not None and "click_id" in preset.fields else OWN_MACROS
    names = FieldMap(POSTBACK_NAMES, network.fields).names
    pairs = [f"{names[field][0]}={macros[field]}" for field in _ORDER if field in macros and names[field]]
    return f"{base}/p/{network.key}?{'&'.join(pairs + _asked_of_sender(network))}"


def _asked_of_sender(network: Network) -> list[str]:
    """What a known sender's signature needs in the URL, and the place of the token, which nobody knows any more."""
    pairs = []
    signing = find_signing(network.preset) if network.preset else None
    if signing is not None and network.senders.scheme is not None:
        pairs = [f"{name}={macro}" for name, macro in signing.asks.items()]
    return [*pairs, f"{TOKEN_PARAMETER}=TOKEN"] if network.senders.tokens else pairs


def click_url(base: str, campaign: Campaign, source: Source | None) -> str:
    """The URL to paste into the source, with the macros of its preset; bare where there is none."""
    url = f"{base}/c/{campaign.slug}"
    preset = find_preset("source", source.preset) if source is not None and source.preset else None
    if preset is None or source is None:
        return url
    names = FieldMap(CLICK_NAMES, source.fields).names
    pairs = [
        f"{names[field][0]}={macro}" for field, macro in preset.click_parameters().items() if names[field]
    ]
    return f"{url}?{'&'.join(pairs)}" if pairs else url
