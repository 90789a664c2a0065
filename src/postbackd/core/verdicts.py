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

    @property
    def word(self) -> str:
        return self.name.lower()


MATCHED = frozenset({Verdict.ACCEPTED, Verdict.DUPLICATE, Verdict.UPDATED})
"""Verdicts of a postback that found its click."""

REPLAYABLE = frozenset({Verdict.HELD, Verdict.UNMATCHED, Verdict.REJECTED})
"""Verdicts that a replay may change after the cause was repaired."""
