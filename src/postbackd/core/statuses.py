"""The life of a conversion: its statuses, the words senders use for them, and which message wins.

The messages about one conversion (pending, approved, reversed; months apart) arrive in any order, some of
them twice.  Whatever the order, the same status must result, or two nodes, a retry and a replay would
disagree.  That holds because a message wins by a total order and by nothing else; taking the larger of two is
associative, commutative and does nothing the second time.  The order, from weak to strong:

1. pending, then approved, without a time;
2. messages with the sender's time, by time, then by the rank of ``Status``;
3. rejected, then reversed, without a time.

What follows from it:

- without times a status only goes up: pending, approved, rejected, reversed (see ``TRANSITIONS``).  A late
  "pending" never revives anything, and taking money back wins over giving it, also when the network sends times
  with its approvals and none with its reversals;
- with times a later message may say anything, for example approve what was rejected before.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum


class Status(IntEnum):
    """The number is stored, and is the rank."""

    PENDING = 1
    APPROVED = 2
    REJECTED = 3
    REVERSED = 4

    @property
    def word(self) -> str:
        """What people see and what the API takes."""
        return _WORD_OF[self]


TAKEN_BACK = frozenset({Status.REJECTED, Status.REVERSED})
"""They earn nothing, whatever value the conversion had."""

_WORD_OF = {status: status.name.lower() for status in Status}

TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.APPROVED, Status.REJECTED, Status.REVERSED}),
    Status.APPROVED: frozenset({Status.REJECTED, Status.REVERSED}),
    Status.REJECTED: frozenset({Status.REVERSED}),
    Status.REVERSED: frozenset(),
}
"""Where a status may go when the sender's times are equal or missing.  A later time may go anywhere."""

_FIELD_WORDS = {
    Status.PENDING: (
        "pending hold on_hold onhold on-hold open lead new waiting wait processing in_progress under_review "
        "review unconfirmed unapproved tracked initiated 0"
    ),
    Status.APPROVED: (
        "approved approve accepted accept confirmed confirm paid sale sold ok okay success successful valid "
        "validated complete completed credited locked payable closed cleared settled 1"
    ),
    Status.REJECTED: (
        "rejected reject declined decline denied disapproved trash trashed cancelled canceled cancel "
        "invalid void voided failed fail fraud spam duplicate expired not_approved"
    ),
    Status.REVERSED: (
        "reversed reverse reversal refunded refund partial_refund rfnd chargeback charge_back chargebacked "
        "chargedback charged_back cgbk returned return clawback revoked"
    ),
}
# Other numbers are left out on purpose: 2 is "pending" to Affise and "rejected" to others, -1 is rejected or
# reversed.
_STATUS_OF = {word: status for status, words in _FIELD_WORDS.items() for word in words.split()}


def read_status(text: str, own_words: Mapping[str, str]) -> Status | None:
    """The status that a sender's word means, ``None`` when the word is unknown.

    ``own_words`` are the network's words and their meaning (``pending``, ``approved``, ``rejected`` or
    ``reversed``); they win over the words used in the field.  Case and surrounding white space mean nothing.
    """
    if not own_words:
        status = _STATUS_OF.get(text)
        return status if status is not None else _STATUS_OF.get(text.strip().lower())
    meaning = own_words.get(text)
    word = text.strip().casefold()
    if meaning is None:
        meaning = next((to for own, to in own_words.items() if own.strip().casefold() == word), word)
    return _STATUS_OF.get(meaning.strip().casefold())


def settle(current: Status, current_time_ms: int, new: Status, new_time_ms: int) -> tuple[Status, int]:
    """The status and sender's time that a conversion has after one more message; 0 is "gave no time".

    The order in which messages are settled does not matter, nor how often one is.
    """
    if _strength(new, new_time_ms) > _strength(current, current_time_ms):
        return new, new_time_ms
    return current, current_time_ms


def _strength(status: Status, time_ms: int) -> tuple[int, int, int]:
    """The place of a message in the total order."""
    if time_ms:
        return 2, time_ms, status
    return (3 if status >= Status.REJECTED else 1), 0, status
