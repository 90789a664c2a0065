"""What to change so that a kind of postback counts next time: the exact URL, or the exact command.

Nothing general stands here: every step is built from the catalog, from the preset of the network and from what its
rows brought.  Where nothing exact can be said there is no step, and the fix of the reason has to do.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from postbackd.core.diagnosis import Reason
from postbackd.core.hops import Shown, add_id, move_id
from postbackd.core.macro_syntax import bare
from postbackd.core.macros import looks_like_macro
from postbackd.core.model import Network

WriteUrl = Callable[[Network], str]
"""The postback URL of a network, to paste into it."""

Step = dict[str, str]
"""``do``, and where there is one ``url`` or ``command``."""

_DAY_MS = 86_400_000


class Facts(Struct, frozen=True):
    """What steps are made of."""

    network: Network
    shown: Shown
    rows: Sequence[Mapping[str, Any]]
    ages: Mapping[str, int]
    """Offer -> age of the conversion that is furthest out of its window."""
    mendable: int
    removed: bool


def say_steps(facts: Facts, write_url: WriteUrl) -> list[Step]:
    """The steps, in the order in which to take them."""
    if facts.removed:
        return [{"do": "The network was removed: have it switch its postback URL off."}]
    reason = facts.shown.reason
    steps = _of_sub_id(facts) if reason in _WRONG_ID else []
    if reason in _WRONG_URL:
        steps.append(_mended_url(facts, write_url))
    if reason in _BUILT:
        steps += _BUILT[reason](facts)
    if facts.mendable:
        steps.append(_repair(facts))
    return steps


_WRONG_ID = frozenset({Reason.CLICK_ID_EMPTY, Reason.CLICK_ID_TRUNCATED, Reason.CLICK_ID_FOREIGN})

_WRONG_URL = frozenset(
    {
        Reason.CLICK_ID_MISSING,
        Reason.CLICK_ID_EMPTY,
        Reason.MACRO_LITERAL,
        Reason.CLICK_ID_ALTERED,
        Reason.CLICK_ID_DOUBLE_ENCODED,
        Reason.CLICK_ID_FOREIGN,
        Reason.VALUE_INVALID,
        Reason.VALUE_MACRO_LITERAL,
        Reason.CURRENCY_UNKNOWN,
        Reason.REPEAT_WITHOUT_TRANSACTION_ID,
        Reason.TOO_MANY_PARAMETERS,
        Reason.FIELD_TOO_LONG,
        Reason.TOKEN_MISSING,
        Reason.PERSONAL_DATA,
    }
)


def _mended_url(facts: Facts, write_url: WriteUrl) -> Step:
    name = facts.network.name
    if facts.shown.macro is None:
        do = f"Set this postback URL at {name}, and put its own macros where {{click_id}}, {{value}}, {{txid}} stand."
    else:
        do = f"Set this postback URL at {name}; {facts.shown.macro} is its macro for the click id."
    return {"do": do, "url": write_url(facts.network)}


def _of_sub_id(facts: Facts) -> list[Step]:
    """Offers whose URL does not pass the id, or passes it in a field that the network does not send back."""
    steps = []
    wanted = bare(facts.shown.macro) if facts.shown.macro else None
    for link in facts.shown.links:
        parameter = wanted or "SUB_ID"
        if link.parameter is None:
            steps.append(
                {
                    "do": f"Let the URL of offer {link.offer!r} pass the id on.",
                    "command": _command("offer", "set", link.offer, "--url", add_id(link.url, parameter)),
                }
            )
        elif wanted and link.parameter and bare(link.parameter) != wanted:
            steps.append(
                {
                    "do": f"Offer {link.offer!r} passes the id as {link.parameter}, and {facts.shown.macro} reads "
                    f"{parameter}: pass it there, or use the macro of {link.parameter} in the postback URL.",
                    "command": _command(
                        "offer", "set", link.offer, "--url", move_id(link.url, link.parameter, parameter)
                    ),
                }
            )
        elif facts.shown.reason is Reason.CLICK_ID_TRUNCATED and link.parameter:
            steps.append(
                {
                    "do": f"Offer {link.offer!r} passes the id as {link.parameter}: take one that keeps 26 characters."
                }
            )
    return steps


def _repair(facts: Facts) -> Step:
    return {
        "do": "Look at what can be repaired among those that came already; --yes counts them.",
        "command": _command(
            "unmatched", "repair", "--network", facts.network.name, "--reason", facts.shown.reason.word
        ),
    }


def _replay(facts: Facts) -> Step:
    return {
        "do": "Then count those that came already.",
        "command": _command("replay", "--network", facts.network.name, "--reason", facts.shown.reason.word),
    }


def _set(facts: Facts, *options: str) -> str:
    return _command("network", "set", facts.network.name, *options)


def _command(*words: str) -> str:
    return shlex.join(["postbackd", *words])


# --- reasons whose setting is here ---------------------------------------------------------------------------------


def _after_window(facts: Facts) -> list[Step]:
    steps: list[Step] = []
    for offer, age_ms in facts.ages.items():
        days = age_ms // _DAY_MS + 1
        steps.append(
            {
                "do": f"If conversions this old should count: the oldest of offer {offer!r} came {days - 1} days after "
                "the click.",
                "command": _command("offer", "set", offer, "--window-max", f"{days}d"),
            }
        )
    return [*steps, _replay(facts)] if steps else []


def _before_window(facts: Facts) -> list[Step]:
    steps: list[Step] = [
        {
            "do": f"If conversions this quick should count: the quickest of offer {offer!r} came {age_ms / 1000:.1f} s "
            "after the click.",
            "command": _command("offer", "set", offer, "--window-min", f"{max(0, age_ms // 1000)}s"),
        }
        for offer, age_ms in facts.ages.items()
    ]
    return [*steps, _replay(facts)] if steps else []


def _type_not_allowed(facts: Facts) -> list[Step]:
    words = [str(word).strip().lower() for word in _most(facts, "type")]
    if not words:
        return []
    options = [part for word in (*facts.network.types, *words) for part in ("--type", word)]
    return [
        {"do": f"Allow {', '.join(words)}, if it should count.", "command": _set(facts, *options)},
        _replay(facts),
    ]


def _status_unknown(facts: Facts) -> list[Step]:
    return [
        {"do": f"Say what {word!r} means.", "command": _set(facts, "--status-word", f"{word}=approved")}
        for word in _most(facts, "status")
    ]


def _currency_unknown(facts: Facts) -> list[Step]:
    sent = [str(word) for word in _most(facts, "currency")]
    macros = [word for word in sent if looks_like_macro(word)]
    words = ", ".join(repr(word) for word in sent if word not in macros)
    usual = f"If its values are in {facts.network.currency}, as is set here, take the currency out of the URL"
    steps: list[Step] = []
    if macros:
        unfilled = ", ".join(macros)
        steps.append(
            {"do": f"It did not fill the macro {unfilled}: write its own spelling of it. {usual} instead."}
        )
    if words or not macros:
        steps.append({"do": f"It sent {words or 'no currency'}. {usual}."})
    return steps


def _sender_ip(facts: Facts) -> list[Step]:
    return [
        {
            "do": f"If {facts.network.name} confirms that it sends from {sender}: allow it.",
            "command": _set(facts, "--allow-ip", sender),
        }
        for sender in _most(facts, "sender")
    ]


def _token(facts: Facts) -> list[Step]:
    return [
        {
            "do": "Make a new token and put it into the network's postback URL.",
            "command": _command("network", "rotate", facts.network.name, "token"),
        }
    ]


def _signature(facts: Facts) -> list[Step]:
    return [
        {
            "do": "Compare secret and scheme with the network's; until they agree refuse nobody, and see who would be.",
            "command": _set(facts, "--observe", "signature"),
        }
    ]


def _repeat(facts: Facts) -> list[Step]:
    return [
        {
            "do": "To count each of these repeats as a conversion of its own (ignore: as the same one).",
            "command": _set(facts, "--dedup", "add"),
        },
        _replay(facts),
    ]


def _other_field(facts: Facts) -> list[Step]:
    return [
        {"do": f"The id came in {found!r}: map it.", "command": _set(facts, "--field", f"click_id={found}")}
        for found in _most(facts, "found_in")
    ]


def _purged(facts: Facts) -> list[Step]:
    ages = [
        (row["request_id"] >> 22) - (row["click_id"] >> 22)
        for row in facts.rows
        if row["click_id"] is not None
    ]
    if not ages:
        return []
    days = max(ages) // _DAY_MS + 1
    return [
        {
            "do": f"If conversions this old should count: keep clicks {days} days at least, as the oldest that was "
            f"looked at came {days - 1} days after its click, and see that the windows of its offers allow it. What is "
            "deleted does not come back.",
            "command": f"POSTBACKD_KEEP_CLICKS_DAYS={days} postbackd serve",
        }
    ]


def _not_yet_seen(facts: Facts) -> list[Step]:
    if facts.shown.young >= 0.5:
        return [{"do": "Wait: each is matched by itself when its click arrives."}]
    return [{"do": "Find the installation that has the clicks, or send their postbacks there."}]


def _most(facts: Facts, column: str) -> list[str]:
    """The values that the rows brought most often."""
    found = Counter(row[column] for row in facts.rows if row[column])
    return [value for value, _ in found.most_common(3)]


_BUILT: Mapping[Reason, Callable[[Facts], list[Step]]] = {
    Reason.CLICK_AFTER_WINDOW: _after_window,
    Reason.CLICK_BEFORE_WINDOW: _before_window,
    Reason.TYPE_NOT_ALLOWED: _type_not_allowed,
    Reason.STATUS_UNKNOWN: _status_unknown,
    Reason.CURRENCY_UNKNOWN: _currency_unknown,
    Reason.SENDER_IP_NOT_ALLOWED: _sender_ip,
    Reason.TOKEN_MISSING: _token,
    Reason.TOKEN_INVALID: _token,
    Reason.SIGNATURE_MISSING: _signature,
    Reason.SIGNATURE_INVALID: _signature,
    Reason.REPEAT_WITHOUT_TRANSACTION_ID: _repeat,
    Reason.CLICK_ID_IN_OTHER_FIELD: _other_field,
    Reason.CLICK_PURGED: _purged,
    Reason.CLICK_NOT_YET_SEEN: _not_yet_seen,
}
