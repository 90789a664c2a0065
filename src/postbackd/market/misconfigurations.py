"""Misconfigurations by name: what each does to a network's postbacks, and under which reason a tracker must show it.

Each is one that operators meet.  ``apply`` changes the parameters of one postback; ``{id}`` stands for the click id.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from postbackd.market.cast import NetworkRole
from postbackd.market.faults import (
    DOUBLE_ENCODES,
    MACRO_LITERAL,
    SESSION_TIMEOUT,
    SILENT,
    TRUNCATES,
    WRONG_FIELD,
)
from postbackd.market.records import Spelling
from postbackd.market.tracker import Message

DOUBLES, DEAF, HTML_ESCAPED = "sends_doubles", "deaf_to_answers", "html_escaped"


class Misconfiguration(Struct, frozen=True, kw_only=True):
    """One thing that can be wrong at a network or on a landing page."""

    name: str
    what: str
    """One sentence."""
    kind: str = "network"
    """``network`` or ``landing_host``: where it can be planted."""
    verdict: str = ""
    """What becomes of its postbacks; empty: they are counted."""
    reason: str = ""
    """Under which it has to be found; empty: it is none of those that the tracker can know."""
    sets: Mapping[str, str | None] = {}
    """Parameters as they are sent instead; ``None``: not sent at all."""
    spelling: Spelling = Spelling.WHOLE
    status: str = ""
    """As which its statuses are understood, whatever was meant."""
    finds: bool = True
    """Whether a postback still leads to its click."""

    @property
    def takes_the_id(self) -> bool:
        """Whether sales are lost for good where only these postbacks tell of them."""
        return self.verdict == "unmatched"


def _unmatched(name: str, what: str, reason: str, spelling: Spelling = Spelling.ABSENT, **sets: str | None) -> (
    Misconfiguration
):  # fmt: skip
    return Misconfiguration(
        name=name, what=what, verdict="unmatched", reason=reason, sets=sets, spelling=spelling, finds=False
    )


def _refused(name: str, what: str, reason: str, verdict: str = "rejected", **sets: str | None) -> (
    Misconfiguration
):  # fmt: skip
    return Misconfiguration(name=name, what=what, verdict=verdict, reason=reason, sets=sets)


MACRO = "<macro>"
"""In ``sets``: the network's own macro for the click id."""

_ALL = (
    _unmatched(MACRO_LITERAL, "The network sends its macro instead of the click id.", "macro_literal", cid=MACRO),
    _unmatched("id_missing", "The network's URL has no click id parameter.", "click_id_missing", cid=None),
    _unmatched("id_empty", "The network passes no click id on.", "click_id_empty", cid=""),
    _unmatched(
        TRUNCATES, "The network cuts the click id off after 20 characters.", "click_id_truncated", Spelling.TRUNCATED
    ),
    _unmatched(
        "alters_ids", "A hop changes the last character of the click id.", "click_id_altered", Spelling.ALTERED
    ),
    _unmatched(
        "foreign_ids", "The network sends an id of its own instead of ours.", "click_id_foreign",
        cid="3f2b8c1e-77d0-4a5e-9c41-0e6d2b{sale}",
    ),
    Misconfiguration(
        name=DOUBLE_ENCODES, what="The network puts quotes around the click id and encodes it twice.",
        reason="click_id_double_encoded", spelling=Spelling.DOUBLE_ENCODED,
    ),
    Misconfiguration(
        name=WRONG_FIELD, what="The network sends the click id in p1 and nothing in cid.",
        reason="click_id_in_other_field", sets={"cid": "", "p1": "{id}"},
    ),
    Misconfiguration(
        name="changes_case", what="The network writes click ids in capitals, which harms nothing.",
        spelling=Spelling.CAPITALS,
    ),
    Misconfiguration(
        name="test_word", what="The network's live URL still holds the word test.", verdict="rejected",
        reason="test_event", sets={"cid": "test"}, spelling=Spelling.ABSENT, finds=False,
    ),
    _refused("value_macro", "The network does not fill its payout macro.", "value_macro_literal", payout="{payout}"),
    _refused("value_words", "The network sends a word for the amount.", "value_invalid", payout="free"),
    _refused("unknown_currency", "The network sends a currency that is none.", "currency_unknown", "held", cur="EURO"),
    _refused("unknown_type", "The network sends a type that was not agreed.", "type_not_allowed", type="bonus"),
    _refused(
        "too_many_parameters", "The network sends everything it knows, 40 parameters.", "too_many_parameters",
        **{f"x{number}": "1" for number in range(40)},
    ),
    Misconfiguration(
        name="unknown_status", what="The network sends status words that nobody has mapped.",
        reason="status_unknown", sets={"status": "zq_done"}, status="pending",
    ),
    Misconfiguration(
        name="unreadable_time", what="The network writes the time in words.", reason="timestamp_out_of_range",
        sets={"time": "yesterday"},
    ),
    Misconfiguration(
        name=HTML_ESCAPED, what="The network's URL was pasted with &amp; instead of &, which harms nothing.",
    ),
    Misconfiguration(name=DOUBLES, what="The network sends every postback twice at the same moment."),
    Misconfiguration(name=DEAF, what="The network takes no answer for a success, and retries whatever it is told."),
    Misconfiguration(name=SILENT, what="The network has stopped sending postbacks; visitors still buy."),
    Misconfiguration(
        name=SESSION_TIMEOUT, kind="landing_host", verdict="unmatched", reason="click_id_empty", finds=False,
        what="The landing page forgets the click id when its session ends, 30 minutes after the click.",
        sets={"cid": ""}, spelling=Spelling.ABSENT,
    ),
)  # fmt: skip

MISCONFIGURATIONS: Mapping[str, Misconfiguration] = {one.name: one for one in _ALL}
"""By name, in the order in which they are listed."""

COOKIE_LOST = Misconfiguration(
    name="cookie_lost", kind="visitor", verdict="unmatched", reason="click_id_empty", finds=False,
    what="The visitor's browser has lost the cookie with the click id.",
    sets={"cid": ""}, spelling=Spelling.ABSENT,
)  # fmt: skip
"""No fault that is planted: it happens to some visitors everywhere."""


def apply(
    one: Misconfiguration, parameters: Mapping[str, str], network: NetworkRole, sale: int
) -> dict[str, str]:
    """The parameters of a postback as they are sent."""
    changed = {
        name: None
        if text is None
        else text.replace(MACRO, network.macro).replace("{sale}", f"{sale & 0xFFFFFF:06x}")
        for name, text in one.sets.items()
    }
    # What is sent in addition stands right behind the click id.
    names = ["cid", *(name for name in changed if name not in parameters), *list(parameters)[1:]]
    sent = ((name, changed.get(name, parameters.get(name))) for name in names)
    return {name: text for name, text in sent if text is not None}


def understand(one: Misconfiguration | None, message: Message) -> Message:
    """What a tracker can understand of a message that was sent so."""
    if one is None:
        return message
    return Message(
        verdict=one.verdict,
        reason=one.reason,
        status=one.status or message.status,
        given=message.given or bool(one.status),
        finds=one.finds,
    )
