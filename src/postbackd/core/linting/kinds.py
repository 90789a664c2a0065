"""What a URL is for, told by its shape: what nobody said is found, and the reason for it is said."""

from __future__ import annotations

import re
from collections.abc import Mapping

from postbackd.core.linting.records import Kind, Known
from postbackd.core.linting.url_parts import Parts
from postbackd.core.macros import KNOWN as OFFER_MACROS
from postbackd.core.outgoing import placeholders_left
from postbackd.core.params import CLICK_NAMES
from postbackd.core.templates import ACCOUNT
from postbackd.core.templates import KNOWN as TARGET_MACROS

OWN_PATH = re.compile(r"/([cp])/([^/?#]+)(/pixel\.gif)?")
"""Where this server takes clicks and postbacks; shops have such paths, too."""
HIDDEN_KEY = "KEY"
"""What stands for the key of a network where it is not shown."""
_KEY = re.compile(rf"[A-Za-z0-9_-]{{16,128}}|{HIDDEN_KEY}")

_POSTBACK_WORD = re.compile(r"postback|pstb|callback|/pb\b|s2s|conversion", re.IGNORECASE)
_TARGET_ONLY = frozenset(TARGET_MACROS) - frozenset(OFFER_MACROS)


def find_kind(parts: Parts, known: Known) -> tuple[Kind, str]:
    """The kind, and why it is that one."""
    own = OWN_PATH.fullmatch(parts.path)
    if own is not None and _is_likely_own(own, parts, known):
        kind = Kind.CLICK if own[1] == "c" else Kind.POSTBACK
        return kind, f"its path begins with /{own[1]}/, where this server takes {kind}s"
    for decide in (_by_target_words, _by_partner, _by_own_words):
        found = decide(parts, known)
        if found is not None:
            return found
    return Kind.OFFER, "nothing in it says that it is another kind of URL"


def is_own(parts: Parts, kind: Kind) -> bool:
    """Whether a URL of this kind is one of this server's."""
    own = OWN_PATH.fullmatch(parts.path)
    return own is not None and own[1] == {Kind.CLICK: "c", Kind.POSTBACK: "p"}.get(kind)


def own_hosts(known: Known) -> set[str]:
    """Under which hosts, with their ports, this server is reached."""
    return {Parts(base).authority.lower() for base in known.bases}


def _is_likely_own(own: re.Match[str], parts: Parts, known: Known) -> bool:
    """By its host; by a key's shape; by a parameter of a click, or because no macro of an offer is in it."""
    hosts = own_hosts(known)
    if parts.authority.lower() in hosts or own[2] in ((known.slugs if own[1] == "c" else known.keys) or ()):
        return True
    if own[1] == "p":
        return _KEY.fullmatch(own[2]) is not None
    accepted = {name for names in (known.names.get(Kind.CLICK) or CLICK_NAMES).values() for name in names}
    if any(one.name in accepted for one in parts.parameters):
        return True
    return not hosts and not _own_words(parts) & set(OFFER_MACROS)


def _own_words(parts: Parts) -> set[str]:
    return {macro.word for macro in parts.macros if macro.syntax.opener == "{"}


def _by_target_words(parts: Parts, known: Known) -> tuple[Kind, str] | None:
    words = _own_words(parts)
    theirs = set() if known.partner is None else {macro.strip("{}") for macro in known.partner.macros}
    for word in ("source_click_id", "conversion_id", "delivery_id"):
        if word in words - theirs and (word != "source_click_id" or "click_id" not in words):
            return Kind.TARGET, f"it holds {{{word}}}, which is said to sources"
    if any(word.startswith(ACCOUNT) for word in words):
        return Kind.TARGET, "it holds an account value of a target"
    if left := [
        name for name in placeholders_left(parts.text) if name == "CLICK_ID" or name.startswith("ACCOUNT_")
    ]:
        return Kind.TARGET, f"it holds <{left[0]}>, as the URLs of targets do in presets"
    return None


def _by_partner(parts: Parts, known: Known) -> tuple[Kind, str] | None:
    """A network's or source's own macros stand in what is pasted there."""
    partner = known.partner
    if partner is None:
        return None
    if partner.target_url and Parts(partner.target_url).host == parts.host != "":
        return Kind.TARGET, f"its host is where {partner.name} takes postbacks"
    into = _pasted_into(partner.fields)
    held = [macro.text for macro in parts.macros if macro.text in partner.macros]
    theirs = [text for text in held if text.strip("{}") not in OFFER_MACROS]
    if held and not theirs and _POSTBACK_WORD.search(parts.path):
        theirs = held  # the same word on both sides: the path tells
    ours = [
        word for word in _own_words(parts) if word in OFFER_MACROS and f"{{{word}}}" not in partner.macros
    ]
    if theirs and not ours:
        return into, f"it holds {theirs[0]}, a macro of {partner.name}"
    return None


def _pasted_into(fields: Mapping[str, str]) -> Kind:
    return Kind.POSTBACK if "click_id" in fields else Kind.CLICK


def _by_own_words(parts: Parts, known: Known) -> tuple[Kind, str] | None:
    del known
    words = _own_words(parts)
    if _POSTBACK_WORD.search(parts.path) and (not words <= set(TARGET_MACROS) or not words):
        return Kind.POSTBACK, "its path is that of a postback"
    if "click_id" in words:
        return Kind.OFFER, "it holds {click_id}, which is said to offers"
    if found := sorted(words & _TARGET_ONLY):
        return Kind.TARGET, f"it holds {{{found[0]}}}, which is said to sources"
    return None
