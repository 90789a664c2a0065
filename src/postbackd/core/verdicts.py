"""The closed list of verdicts and the order they have in the database."""

from __future__ import annotations

from enum import IntEnum


class Verdict(IntEnum):
    """What became of one postback.  The number is stored, the lower-case name is what people see."""

    ACCEPTED = 1
    DUPLICATE = 2
    UPDATED = 3
    HELD = 4
    UNMATCHED = 5
    REJECTED = 6
    QUEUED = 7
    """Kept on the disk until the database is back, which then says what becomes of it.  Never in the database."""

    @property
    def word(self) -> str:
        return self.name.lower()


FINAL = tuple(verdict for verdict in Verdict if verdict is not Verdict.QUEUED)
"""What the log can hold."""

_NUMBERS = frozenset(FINAL)


def word_of(number: int) -> str:
    """What people see of a stored number.  One that a damaged row holds is no verdict, and takes no report away."""
    return Verdict(number).word if number in _NUMBERS else f"unknown ({number})"
