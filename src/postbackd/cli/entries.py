"""What a catalog entry may hold, checked in one place for commands and files alike."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from secrets import choice

from postbackd.core.macros import MacroError, compile_url
from postbackd.core.model import Campaign, CatalogEntry, Network, Offer, Source
from postbackd.core.money import CURRENCIES
from postbackd.core.params import CLICK_NAMES, POSTBACK_NAMES
from postbackd.core.statuses import Status
from postbackd.presets import Preset, Role, find_preset

DEDUPS = ("ignore", "update", "add", "hold")
ANSWERS = ("json", "ok", "204")

KEY_LENGTH = 26
"""Characters of an endpoint key: 130 random bits, so that nobody finds one by trying."""

_KEY_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_KEY = re.compile(r"[A-Za-z0-9_-]{16,128}")
_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?")
_LONGEST_NAME = 100
_MOST_WEIGHT = 1_000_000


class EntryError(ValueError):
    """A field of an entry cannot be what it is; ``field`` names it, the message says what it may be."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


def check_entry(entry: CatalogEntry) -> None:
    """Raise ``EntryError`` for the first field that cannot be stored."""
    if not entry.name or entry.name != entry.name.strip() or not entry.name.isprintable():
        raise EntryError("name", f"{entry.name!r} must be printable text without spaces around it")
    if len(entry.name) > _LONGEST_NAME:
        raise EntryError("name", f"at most {_LONGEST_NAME} characters, not {len(entry.name)}")
    if isinstance(entry, Network):
        _check_network(entry)
    elif isinstance(entry, Source):
        _check_fields(entry.fields, CLICK_NAMES)
    elif isinstance(entry, Offer):
        _check_offer(entry)
    else:
        _check_campaign(entry)


def _check_network(network: Network) -> None:
    if not _KEY.fullmatch(network.key):
        raise EntryError("key", "16 to 128 letters, digits, - and _; leave it out to have one made")
    if network.currency not in CURRENCIES:
        raise EntryError("currency", f"{network.currency!r} is no ISO 4217 code; write one like USD or EUR")
    if network.dedup not in DEDUPS:
        raise EntryError("dedup", f"{network.dedup!r} must be one of {', '.join(DEDUPS)}")
    if network.answer not in ANSWERS:
        raise EntryError("answer", f"{network.answer!r} must be one of {', '.join(ANSWERS)}")
    if any(not type_.strip() or len(type_) > 64 for type_ in network.types):
        raise EntryError("types", "a type is 1 to 64 characters")
    words = {status.word for status in Status}
    for word, meaning in network.statuses.items():
        if not word.strip() or meaning not in words:
            raise EntryError(
                "statuses", f"{word!r} must mean one of {', '.join(sorted(words))}, not {meaning!r}"
            )
    _check_fields(network.fields, POSTBACK_NAMES)


def _check_fields(fields: Mapping[str, tuple[str, ...]], known: Collection[str]) -> None:
    taken: dict[str, str] = {}
    for field, names in fields.items():
        if field not in known:
            raise EntryError("fields", f"{field!r} is no field; known are {', '.join(known)}")
        if not names:
            raise EntryError("fields", f"{field} needs at least one parameter name")
        for name in names:
            if not name or not name.isprintable() or re.search(r"[\s&=?#]", name):
                raise EntryError("fields", f"{name!r} cannot be a parameter name")
            if taken.setdefault(name.lower(), field) != field:
                raise EntryError(
                    "fields", f"parameter {name!r} is given to both {taken[name.lower()]} and {field}"
                )


def _check_offer(offer: Offer) -> None:
    try:
        compile_url(offer.url)
    except MacroError as error:
        raise EntryError("url", str(error)) from error
    if not 0 <= offer.window_min_s < offer.window_max_s <= 3650 * 86_400:
        raise EntryError(
            "window_max", "the window must end after it begins, and at most 3650d after the click"
        )


def _check_campaign(campaign: Campaign) -> None:
    if not _SLUG.fullmatch(campaign.slug):
        raise EntryError(
            "slug", f"{campaign.slug!r} must be 1 to 64 of a-z, 0-9, - and _, such as summer-sale"
        )
    if not campaign.offers:
        raise EntryError("offers", "a campaign needs at least one offer")
    if len({weighted.offer for weighted in campaign.offers}) != len(campaign.offers):
        raise EntryError("offers", "the same offer is named twice; give it the sum of the weights instead")
    if any(not 1 <= weighted.weight <= _MOST_WEIGHT for weighted in campaign.offers):
        raise EntryError("offers", f"a weight is a whole number from 1 to {_MOST_WEIGHT}")


def make_key() -> str:
    """A new unguessable endpoint key."""
    return "".join(choice(_KEY_ALPHABET) for _ in range(KEY_LENGTH))


def make_slug(name: str, taken: Collection[str]) -> str:
    """A slug for a campaign's name that no campaign has or had."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    stem = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:50].strip("-") or "campaign"
    number, slug = 1, stem
    while slug in taken:
        number += 1
        slug = f"{stem}-{number}"
    return slug


def need_preset(role: Role, text: str) -> Preset:
    """The preset of this id or name.  Raises ``EntryError``."""
    preset = find_preset(role, text)
    if preset is None:
        raise EntryError("preset", f"there is no {role} preset {text!r}; 'postbackd presets list' shows all")
    return preset
