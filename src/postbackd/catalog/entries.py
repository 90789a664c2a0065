"""What a catalog entry may hold, checked in one place for commands and files alike."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Collection, Mapping
from secrets import choice

from postbackd.catalog.errors import EntryError
from postbackd.core.conditions import ConditionError, compile_condition
from postbackd.core.deliveries import Message
from postbackd.core.macros import MacroError, compile_url
from postbackd.core.model import (
    Campaign,
    Catalog,
    CatalogEntry,
    How,
    Network,
    Offer,
    Rule,
    SigningKey,
    Source,
    Target,
)
from postbackd.core.money import CURRENCIES
from postbackd.core.params import CLICK_NAMES, POSTBACK_NAMES
from postbackd.core.payouts import PayoutError, compile_payout
from postbackd.core.platforms import PLATFORMS
from postbackd.core.replies import PatternError, check_patterns
from postbackd.core.sender_rules import check_senders
from postbackd.core.shipping import WEBHOOK, Names, ShippingError, make_shipper
from postbackd.core.statuses import Status
from postbackd.core.webhooks import write_secret
from postbackd.presets import Preset, Role, find_preset

DEDUPS = ("ignore", "update", "add", "hold")
ANSWERS = ("json", "ok", "204")
PERSONAL_DATA = ("replace", "drop", "refuse")

KEY_LENGTH = 26
"""Characters of an endpoint key: 130 random bits, so that nobody finds one by trying."""

_KEY_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_KEY = re.compile(r"[A-Za-z0-9_-]{16,128}")
_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?")
_LONGEST_NAME = 100
_MOST_WEIGHT = 1_000_000

ON_CHANGE = ("adjust", "ignore")
ON_REVERSAL = ("retract", "adjust", "ignore")
FRESH_FROM = ("conversion", "click")

_ACCOUNT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_LONGEST_TEXT = 16_384
"""Of a URL, a body or a header, in characters."""
_MOST_NAMES = 100
_SECRET_HEADERS = frozenset({"authorization", "cookie", "x-api-key", "api-key", "x-auth-token"})
_DAY_S = 86_400
_NUMBERS: Mapping[str, tuple[str, int, int]] = {
    "fresh_s": ("fresh", 0, 3650 * _DAY_S),
    "connect_ms": ("connect_timeout", 10, 60_000),
    "total_ms": ("timeout", 10, 120_000),
    "concurrency": ("concurrency", 1, 1000),
}
"""Field of ``How`` -> what people call it, the least and the most."""
_MOST_ATTEMPTS = 50
_LONGEST_PAUSE_S = 30 * _DAY_S
_LONGEST_DELAY_S = 90 * _DAY_S


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
    elif isinstance(entry, Campaign):
        _check_campaign(entry)
    elif isinstance(entry, Target):
        _check_target(entry)
    else:
        _check_rule(entry)


def _check_network(network: Network) -> None:
    if not _KEY.fullmatch(network.key):
        raise EntryError("key", "16 to 128 letters, digits, - and _; leave it out to have one made")
    if network.currency not in CURRENCIES:
        raise EntryError("currency", f"{network.currency!r} is no ISO 4217 code; write one like USD or EUR")
    if network.dedup not in DEDUPS:
        raise EntryError("dedup", f"{network.dedup!r} must be one of {', '.join(DEDUPS)}")
    if network.answer not in ANSWERS:
        raise EntryError("answer", f"{network.answer!r} must be one of {', '.join(ANSWERS)}")
    if network.personal_data not in PERSONAL_DATA:
        raise EntryError(
            "personal_data", f"{network.personal_data!r} must be one of {', '.join(PERSONAL_DATA)}"
        )
    if any(not type_.strip() or len(type_) > 64 for type_ in network.types):
        raise EntryError("types", "a type is 1 to 64 characters")
    words = {status.word for status in Status}
    for word, meaning in network.statuses.items():
        if not word.strip() or meaning not in words:
            raise EntryError(
                "statuses", f"{word!r} must mean one of {', '.join(sorted(words))}, not {meaning!r}"
            )
    _check_fields(network.fields, POSTBACK_NAMES)
    try:
        check_senders(network.senders)
    except ValueError as error:
        raise EntryError("senders", str(error)) from error


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


# --- targets and rules -------------------------------------------------------------------------------------------


def _check_target(target: Target) -> None:
    how = target.how
    for name in target.secrets:
        if not _ACCOUNT_NAME.fullmatch(name):
            raise EntryError(
                "account", f"{name!r} is no name; it has letters, digits and _, such as ACCESS_TOKEN"
            )
    _check_forms(how)
    _check_words(how)
    for field, patterns in (("success", how.success), ("failure", how.failure)):
        try:
            check_patterns(patterns)
        except PatternError as error:
            raise EntryError(field, str(error)) from error
    for field, (called, least, most) in _NUMBERS.items():
        if not least <= getattr(how, field) <= most:
            raise EntryError(called, f"must be {_span(field, least, most)}")
    if len(how.schedule_s) > _MOST_ATTEMPTS or any(not 0 <= s <= _LONGEST_PAUSE_S for s in how.schedule_s):
        raise EntryError("schedule", f"at most {_MOST_ATTEMPTS} pauses of at most 30d each")
    if any(not 200 <= status <= 599 for status in how.final) or len(how.final) > _MOST_NAMES:
        raise EntryError("final", "an HTTP status is a number from 200 to 599")
    if how.fresh_from not in FRESH_FROM:
        raise EntryError("fresh_from", f"{how.fresh_from!r} must be one of {', '.join(FRESH_FROM)}")
    # The values do not matter here, only their names; a webhook's secret was looked at before it was sealed.
    accounts = dict.fromkeys(target.secrets, STAND_IN)
    try:
        make_shipper(target, accounts, _NO_NAMES)
    except ShippingError as error:
        raise EntryError("options" if how.kind in PLATFORMS else "request", str(error)) from error


STAND_IN = write_secret(bytes(32))
"""Has the form of every secret and is none."""

_NO_NAMES = Names(Catalog(generation=0, signing_keys=(SigningKey(id=0, secret=bytes(32), active_from_ms=0),)))


def _span(field: str, least: int, most: int) -> str:
    if field == "fresh_s":
        return "at most 3650d; 0s for whatever its age"
    unit = " ms" if field.endswith("_ms") else ""
    return f"from {least} to {most}{unit}"


def _check_forms(how: How) -> None:
    for form in how.requests.values():
        texts = {"url": [form.url], "body": [form.body], "headers": [*form.headers.values()]}
        for field, written in texts.items():
            if any(len(text) > _LONGEST_TEXT for text in written):
                raise EntryError(field, f"has more than {_LONGEST_TEXT} characters; shorten it")
        if len(form.headers) > _MOST_NAMES:
            raise EntryError("headers", f"there are more than {_MOST_NAMES}")
        for name, text in form.headers.items():
            if name.lower() in _SECRET_HEADERS and "{account." not in text:
                advice = f"write it like '{name}: {{account.TOKEN}}' and give the account value TOKEN"
                raise EntryError(
                    "headers", f"{name} carries a secret, which is not stored in the open; {advice}"
                )


def _check_words(how: How) -> None:
    words = [status.word for status in Status]
    for field, pairs in (("types", how.types), ("statuses", how.statuses)):
        if len(pairs) > _MOST_NAMES or any(
            not text.strip() or len(text) > _LONGEST_NAME or not text.isprintable()
            for pair in pairs.items()
            for text in pair
        ):
            raise EntryError(
                field, f"at most {_MOST_NAMES} words of 1 to {_LONGEST_NAME} printable characters"
            )
    for word in how.statuses:
        if word not in words:
            raise EntryError("statuses", f"{word!r} is no status of ours; there are {', '.join(words)}")


def _check_rule(rule: Rule) -> None:
    if (rule.source is None) == (rule.campaign is None):
        raise EntryError("source", "a rule is of a source or of a campaign; name one of the two")
    try:
        compile_condition(rule.condition)
    except ConditionError as error:
        at = error.position - 1
        before, after = rule.condition[max(0, at - 30) : at], rule.condition[at : at + 30]
        message = f"position {error.position}, {f'{before}>>{after}<<'!r}: {error.problem}"
        raise EntryError("when", message) from error
    try:
        compile_payout(rule.payout)
    except PayoutError as error:
        raise EntryError("payout", str(error)) from error
    if not 0 <= rule.delay_s <= _LONGEST_DELAY_S:
        raise EntryError("delay", "must be at most 90d")
    if rule.on_change not in ON_CHANGE:
        raise EntryError("on_change", f"{rule.on_change!r} must be one of {', '.join(ON_CHANGE)}")
    if rule.on_reversal not in ON_REVERSAL:
        raise EntryError("on_reversal", f"{rule.on_reversal!r} must be one of {', '.join(ON_REVERSAL)}")


def can_be_told(how: How, message: Message) -> bool:
    """Whether a target takes messages of this kind."""
    if how.kind in PLATFORMS:
        return message not in PLATFORMS[how.kind].cannot(how.options)
    return how.kind == WEBHOOK or message.word in how.requests


def usual_reactions(how: How) -> tuple[str, str]:
    """``on_change`` and ``on_reversal`` of a rule that says nothing of them: what the target can be told."""
    adjusts = can_be_told(how, Message.ADJUSTMENT)
    on_reversal = "retract" if can_be_told(how, Message.RETRACTION) else "adjust" if adjusts else "ignore"
    return "adjust" if adjusts else "ignore", on_reversal


def check_reactions(rule: Rule, target: Target) -> None:
    """Raise ``EntryError`` when the rule wants the target to be told what it cannot take; says what to add."""
    wanted = (
        ("on_change", rule.on_change, "adjust", Message.ADJUSTMENT),
        ("on_reversal", rule.on_reversal, "adjust", Message.ADJUSTMENT),
        ("on_reversal", rule.on_reversal, "retract", Message.RETRACTION),
    )
    for field, reaction, verb, message in wanted:
        if reaction == verb and not can_be_told(target.how, message):
            raise EntryError(field, f"{_say_cannot(target, message, verb)}; or write ignore")


def what_cannot_be_told(how: How) -> dict[str, str]:
    """What the API of a platform never takes, ``change`` or ``reversal``, and why; nothing where a URL is all it needs.

    A reversal that can be told as a value of 0 can be told.
    """
    if how.kind not in PLATFORMS:
        return {}
    cannot = PLATFORMS[how.kind].cannot(how.options)
    change, reversal = cannot.get(Message.ADJUSTMENT, ""), cannot.get(Message.RETRACTION, "")
    said = {"change": change, "reversal": reversal if change else ""}
    return {what: why for what, why in said.items() if why}


def _say_cannot(target: Target, message: Message, verb: str) -> str:
    if target.how.kind in PLATFORMS:
        return f"target {target.name!r}: {PLATFORMS[target.how.kind].cannot(target.how.options)[message]}"
    step = f"postbackd target set {shlex.quote(target.name)} --{verb}-url URL"
    return f"target {target.name!r} has no request for {message.word}s; give it one with: {step}"


def doubts(catalog: Catalog, rule: Rule) -> list[str]:
    """What is doubtful about a rule that can be stored, in sentences without a stop."""
    reached = _reached(catalog, rule)
    if reached is not None and not reached:
        return [_OUTRULED]
    return compile_condition(rule.condition).warnings(
        offers={offer.name for offer in (*catalog.removed_offers, *catalog.offers)},
        networks={network.name for network in catalog.networks},
        campaigns={campaign.name for campaign in (*catalog.removed_campaigns, *catalog.campaigns)},
        reached=reached,
    )


_OUTRULED = (
    "the rule can never fire: every campaign of its source has rules of its own, which are followed instead; "
    "remove these, or add this one to a campaign"
)


def _reached(catalog: Catalog, rule: Rule) -> set[str] | None:
    """The campaigns that follow the rule: its own, or those of its source without rules of their own.

    ``None``: the source has no campaign yet.
    """
    campaigns = (*catalog.removed_campaigns, *catalog.campaigns)
    if rule.campaign is not None:
        return {campaign.name for campaign in campaigns if campaign.id == rule.campaign}
    of_source = [campaign for campaign in campaigns if campaign.source == rule.source]
    with_own = {other.campaign for other in catalog.rules}
    return {campaign.name for campaign in of_source if campaign.id not in with_own} if of_source else None


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
