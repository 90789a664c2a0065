"""The planted faults: what is wrong in the market, where, and since when.  Each is one that operators meet."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

MACRO_LITERAL, TRUNCATES, DOUBLE_ENCODES = "macro_literal", "truncates_ids", "double_encodes"
WRONG_FIELD, SILENT = "wrong_field", "silent"
SESSION_TIMEOUT, TARGET_DOWN = "session_timeout", "target_down"

SESSION_MS = 30 * 60_000
"""A landing page with the fault forgets its visitor after so long."""


class Fault(Struct, frozen=True):
    """One planted fault."""

    name: str
    kind: str
    """``network``, ``landing_host`` or ``target``: what ``where`` names."""
    where: str
    since_ms: int
    what: str
    """One sentence."""


_PLANTED = (
    (MACRO_LITERAL, "network", "Bluepeak", DAY_MS, "The network sends the macro {aff_sub} instead of its value."),
    (TRUNCATES, "network", "Fjord Offers", 9 * DAY_MS, "The network cuts the click id off after 20 characters."),
    (
        DOUBLE_ENCODES, "network", "Harbor CPA", 5 * DAY_MS,
        "The network puts quotes around the click id and encodes it twice.",
    ),
    (
        WRONG_FIELD, "network", "Juniper Games", 14 * DAY_MS,
        "The network sends the click id in the parameter p1 and nothing in cid.",
    ),
    (SILENT, "network", "Kestrel Pay", 22 * HOUR_MS, "The network has stopped sending postbacks; visitors still buy."),
    (
        SESSION_TIMEOUT, "landing_host", "go.brightpath.example", 18 * DAY_MS,
        "The landing page forgets the click id when its session ends, 30 minutes after the click.",
    ),
    (TARGET_DOWN, "target", "Newsletter postback", 26 * HOUR_MS, "The target refuses every connection."),
)  # fmt: skip


def plant_faults(now_ms: int) -> Mapping[str, Fault]:
    """Name -> fault; ``now_ms``: the end of the simulated month, from which their ages count."""
    return {
        name: Fault(name, kind, where, now_ms - age_ms, what) for name, kind, where, age_ms, what in _PLANTED
    }
