"""Which click does a postback speak of?  By its id or not at all; never by IP address or "last click"."""

from __future__ import annotations

from postbackd.core.click_id import TEXT_LENGTH, KeyRing
from postbackd.core.diagnosis import Reason, diagnose_click_id
from postbackd.core.model import ClickRef
from postbackd.core.params import Received
from postbackd.core.privacy import Masker

MAX_OWN_ID = 128
"""Longest click id of a caller's own, in characters."""

NEVER_AN_OWN_ID = frozenset(
    {Reason.CLICK_ID_MISSING, Reason.CLICK_ID_EMPTY, Reason.MACRO_LITERAL, Reason.TEST_EVENT}
)
"""Findings after which an id cannot be a caller's own either."""

_LONGEST_DASHED_ID = TEXT_LENGTH + 14


def find_click(received: Received, keys: KeyRing, masker: Masker, now_ms: int) -> ClickRef:
    """The slow path, for a postback whose click id field does not verify as it stands.

    In this order: a repair that verifies, a click id sent as the transaction id (some networks call it so), a
    click id in any other parameter, and last the chance that the text is a caller's own id.
    """
    text, transaction_id = received.values[0], received.values[4]
    finding = diagnose_click_id(text, keys, now_ms)
    if finding.stamp is not None and finding.repaired:
        return ClickRef(finding.stamp, finding.campaign, None, finding.reason)
    if not text and transaction_id and (verified := keys.verify(transaction_id)):
        return ClickRef(*verified)
    if elsewhere := _search_elsewhere(received, keys):
        name, stamp, campaign = elsewhere
        return ClickRef(stamp, campaign, None, Reason.CLICK_ID_IN_OTHER_FIELD, masker.mask(name)[:64])
    own_id = None
    if text and len(text) <= MAX_OWN_ID and finding.reason not in NEVER_AN_OWN_ID:
        own_id = masker.mask(text)
    return ClickRef(None, None, own_id, finding.reason)


def _search_elsewhere(received: Received, keys: KeyRing) -> tuple[str, int, int] | None:
    """``(parameter, stamp, campaign)`` of a click id of ours in a parameter that is not mapped to it."""
    for name, text in received.pairs():
        if TEXT_LENGTH <= len(text) <= _LONGEST_DASHED_ID and (verified := keys.verify(text.strip())):
            return name, *verified
    return None
