"""Where on its way a click id broke: source, landing page, advertiser, network, or here; decided from what rows show.

Only what the rows can show is said.  Where two hops are possible the one is named that somebody can look at first, and
the sentence says what else it may be.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from postbackd.core.click_id import TEXT_LENGTH, KeyRing, read_unverified, stamp_ms
from postbackd.core.diagnosis import SENDER_REASONS, Reason
from postbackd.core.macro_syntax import bare
from postbackd.core.macros import AUTHORITY_END, KNOWN, SCHEME


class Hop(StrEnum):
    """A station between the visitor and the count, in their order."""

    SOURCE = "source"
    LANDING_PAGE = "landing page"
    ADVERTISER = "advertiser"
    NETWORK = "network"
    US = "us"
    NOBODY = "nobody"
    """Nothing is broken."""


class Altered(StrEnum):
    """What can be told of an id that looks like ours and does not verify."""

    SURROUNDED = "genuine, with other text around it"
    RETIRED = "of a time whose signing key was retired"
    TAIL_CHANGED = "begins like a click that is stored, and its end was changed"
    NO_CLICK = "no click of ours was made at the moment that it spells: forged, or changed at its beginning"
    TOO_OLD = "its click would be purged by now, so nobody can tell whether it was altered or forged"
    UNREADABLE = "one character is none that an id of ours can hold"


class OfferLink(Struct, frozen=True):
    """What the URL of an offer does with the click id."""

    offer: str
    host: str
    parameter: str | None
    """The parameter that carries it; ``""``: the id stands elsewhere in the URL; ``None``: it is not in it."""
    url: str = ""


def read_link(offer: str, url: str) -> OfferLink:
    """What the URL of an offer, with its macros, does with the click id."""
    authority = AUTHORITY_END.split(SCHEME.sub("", url, count=1), maxsplit=1)[0]
    host = authority.rpartition("@")[2].partition(":")[0].lower().removesuffix(".")
    carrying = _CARRYING.search(url)
    if carrying is not None:
        return OfferLink(offer, host, carrying[1], url)
    return OfferLink(offer, host, "" if "{click_id}" in url else None, url)


_CARRYING = re.compile(r"[?&;]([^?&;=#]+)=\{click_id\}")


def add_id(url: str, parameter: str) -> str:
    """The URL of an offer with the click id in a parameter of its query; a fragment stays behind it."""
    head, mark, fragment = url.partition("#")
    joint = "" if head.endswith(("?", "&")) else "&" if "?" in head else "?"
    return f"{head}{joint}{parameter}={{click_id}}{mark}{fragment}"


def move_id(url: str, parameter: str, wanted: str) -> str:
    """The same with the click id in another parameter than it is in."""
    return url.replace(f"{parameter}={{click_id}}", f"{wanted}={{click_id}}")


class Shown(Struct, frozen=True, kw_only=True):
    """What the rows of one network and reason show."""

    network: str
    reason: Reason
    count: int
    total: int
    """Of the network's postbacks in the period."""
    texts: Mapping[str, int] = {}
    """What arrived as the click id -> how often, of the rows that were looked at."""
    hints: Mapping[str, int] = {}
    """What the texts look like."""
    altered: Mapping[Altered, int] = {}
    pixel_only: bool = False
    macro: str | None = None
    """The network's own macro for the click id, where its preset knows it."""
    links: Sequence[OfferLink] = ()
    """Of the network's offers."""
    own_ids: bool = False
    """Whether clicks are registered with callers' own ids."""
    young: float = 0.0
    """Of the ids that are genuine: the share that was made less than ten minutes before the postback."""

    @property
    def share(self) -> float:
        return self.count / max(self.total, self.count)

    @property
    def is_all(self) -> bool:
        return self.share >= NEARLY_ALL


class Broken(Struct, frozen=True):
    """A hop, and why it is that one."""

    hop: Hop
    why: str


NEARLY_ALL = 0.95
"""From this share of a network's postbacks on the setting is wrong that all of them go through."""

YOUNG_MS = 600_000


def find_hop(shown: Shown) -> Broken:
    """The broken hop of one network and reason."""
    if shown.reason in SENDER_REASONS:
        return Broken(Hop.NETWORK, "The sender did not show that it may send for this network.")
    decide = _DECISIONS.get(shown.reason)
    return decide(shown) if decide else Broken(_HOPS.get(shown.reason, Hop.NETWORK), shown.reason.cause)


def _missing(shown: Shown) -> Broken:
    if shown.pixel_only:
        return Broken(
            Hop.ADVERTISER,
            "Only its browser pixel is called without the parameter: the tag on the page lacks it.",
        )
    if shown.is_all:
        return Broken(Hop.NETWORK, "Its postback URL has no parameter for the click id.")
    return Broken(
        Hop.NETWORK,
        f"{shown.share:.0%} of its postbacks have no parameter for the click id and the others do: it has a second "
        "postback URL, of one offer or goal, that lacks it.",
    )


def _empty(shown: Shown) -> Broken:
    without = [link.offer for link in shown.links if link.parameter is None]
    if without:
        return Broken(Hop.US, f"The URL of {_list(without)} does not pass {{click_id}} on.")
    if shown.is_all:
        mismatch = mismatched_link(shown.macro, shown.links)
        if mismatch:
            return Broken(Hop.US, mismatch)
        return Broken(
            Hop.NETWORK,
            "The macro in its postback URL is never filled: it is not the sub id that the offer link fills.",
        )
    return Broken(
        Hop.LANDING_PAGE,
        "Its other postbacks bring an id by the same macro, so these were lost between our redirect and the network: "
        "a page that drops the parameter, or a session that ended.",
    )


def mismatched_link(macro: str | None, links: Sequence[OfferLink]) -> str | None:
    """Offers that pass the id in another sub id than the network's macro reads, in a sentence."""
    if macro is None:
        return None
    wanted = bare(macro)
    wrong = [link for link in links if link.parameter and bare(link.parameter) != wanted]
    if not wrong or len(wrong) != len(links):
        return None
    return (
        f"The URL of {_list([link.offer for link in wrong])} passes the id as {wrong[0].parameter}, and the "
        f"postback URL reads {macro}."
    )


def _macro_literal(shown: Shown) -> Broken:
    literal = next(iter(shown.texts), "")
    inside = literal.strip("{}")
    if shown.macro is not None and literal == shown.macro:
        why = (
            f"It sent its own macro {literal} unfilled: the URL was called by hand, or stands where the network fills "
            "no macros."
        )
    elif literal.startswith("{") and inside in KNOWN:
        why = f"{literal} is a macro of ours: it stands in the network's postback URL, where only the network's work."
    elif shown.macro is not None:
        why = f"{literal} is no macro that it fills; its own is {shown.macro}."
    else:
        why = f"{literal} is no macro that it fills."
    return Broken(Hop.NETWORK, why)


def _truncated(shown: Shown) -> Broken:
    lengths = {len(text.replace("-", "")) for text in shown.texts}
    if len(lengths) == 1:
        (length,) = lengths
        return Broken(
            Hop.NETWORK,
            f"Every id ends after {length} of {TEXT_LENGTH} characters: a field that keeps no more.",
        )
    return Broken(
        Hop.LANDING_PAGE,
        f"The ids end after {min(lengths, default=0)} to {max(lengths, default=0)} of {TEXT_LENGTH} characters: no "
        "field does that, but a page or a person that copies them.",
    )


def _altered(shown: Shown) -> Broken:
    most = Counter(shown.altered).most_common(1)
    kind = most[0][0] if most else Altered.TOO_OLD
    hops = {
        Altered.SURROUNDED: Hop.NETWORK,
        Altered.RETIRED: Hop.US,
        Altered.TAIL_CHANGED: Hop.ADVERTISER,
        Altered.NO_CLICK: Hop.NETWORK,
        Altered.UNREADABLE: Hop.ADVERTISER,
        Altered.TOO_OLD: Hop.NETWORK,
    }
    looked = sum(shown.altered.values())
    said = "; ".join(
        f"{count} of {looked} looked at: {what}" for what, count in Counter(shown.altered).most_common()
    )
    return Broken(hops[kind], f"{said}." if said else Reason.CLICK_ID_ALTERED.cause)


def _foreign(shown: Shown) -> Broken:
    hint = next(iter(Counter(shown.hints)), None)
    what = f"It sends {hint}" if hint else "It sends an id of another system"
    if shown.own_ids and hint is None:
        return Broken(
            Hop.US,
            "No click is registered with these ids: your server has not registered them, or the network changed them.",
        )
    mismatch = mismatched_link(shown.macro, shown.links)
    more = f" {mismatch}" if mismatch else ""
    return Broken(Hop.NETWORK, f"{what} where the sub id with our click id should stand.{more}")


def _not_yet_seen(shown: Shown) -> Broken:
    if shown.young >= 0.5:
        why = (
            f"The ids are genuine, and {shown.young:.0%} were made less than ten minutes before: their clicks may "
            "still come, from the spool of a node or from a server that registers them late."
        )
    else:
        why = (
            "The ids are genuine and old, and this database never had their clicks: another installation with the same "
            "keys has them, or a backup from before them was restored."
        )
    return Broken(Hop.US, why)


def _purged(shown: Shown) -> Broken:
    return Broken(Hop.US, "The ids are ours and their clicks were deleted by age before the conversion came.")


def _before_window(shown: Shown) -> Broken:
    return Broken(
        Hop.SOURCE,
        "Conversions come sooner after the click than the offer allows: automated traffic does that.",
    )


_DECISIONS: Mapping[Reason, Callable[[Shown], Broken]] = {
    Reason.CLICK_ID_MISSING: _missing,
    Reason.CLICK_ID_EMPTY: _empty,
    Reason.MACRO_LITERAL: _macro_literal,
    Reason.CLICK_ID_TRUNCATED: _truncated,
    Reason.CLICK_ID_ALTERED: _altered,
    Reason.CLICK_ID_FOREIGN: _foreign,
    Reason.CLICK_NOT_YET_SEEN: _not_yet_seen,
    Reason.CLICK_PURGED: _purged,
    Reason.CLICK_BEFORE_WINDOW: _before_window,
}

_HOPS: Mapping[Reason, Hop] = {
    Reason.NONE: Hop.NOBODY,
    Reason.TEST_EVENT: Hop.NOBODY,
    Reason.CLICK_AFTER_WINDOW: Hop.US,
    Reason.TYPE_NOT_ALLOWED: Hop.US,
    Reason.STATUS_UNKNOWN: Hop.US,
}
"""Hop of the reasons whose own sentence says enough; the others are the network's."""


def tell_altered(text: str, keys: KeyRing, purged_before: int, has_click: Callable[[int], bool]) -> Altered:
    """What can be told of a click id of reason ``click_id_altered`` in which no genuine one was found.

    ``has_click``: whether a click has this stamp.
    """
    number = read_unverified(text)
    if number is None:
        return Altered.UNREADABLE
    stamp = number >> 64
    if keys.is_retired(stamp):
        return Altered.RETIRED
    if has_click(stamp):
        return Altered.TAIL_CHANGED
    return Altered.TOO_OLD if stamp < purged_before else Altered.NO_CLICK


def is_young(stamp: int, request_id: int) -> bool:
    """Whether a click id was made shortly before the postback that brought it."""
    return stamp_ms(request_id) - stamp_ms(stamp) < YOUNG_MS


def _list(names: Sequence[str]) -> str:
    quoted = [f"offer {name!r}" for name in names[:3]]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(quoted) + more
