"""Names of parameters that no field of a network claims: names alone, never a value, a bounded number of them.

A name is noted once it has come twice, so that a value which stands where a name belongs, different each time, is not.
What is not shaped like a name (see ``is_name``) or may be personal data is forgotten like every unmapped value.
"""

from __future__ import annotations

import re

from postbackd.core.privacy import Masker

MOST_NAMES = 64
"""Of one network at a time.  Requests with more than 32 parameters are not counted, so that few have as many."""

_MOST_ONCE = 256
_LONGEST = 40
"""Characters of a name as it is sent; the longest of a preset has 24."""

_NAME = re.compile(rf"[A-Za-z][A-Za-z0-9_.\[\]-]{{0,{_LONGEST - 1}}}")
_MOST_DIGITS = 4
"""More of them make a number of something; ``aff_sub10`` has two, ``adv1_2026`` five."""


class Unmapped:
    """What one process has seen of one network."""

    __slots__ = ("_fresh", "_once", "known")

    def __init__(self) -> None:
        self.known: set[str] = set()
        """As they are sent.  Whoever reads requests asks here first and calls ``meet`` for what is not in it."""
        self._once: set[str] = set()
        self._fresh: list[str] = []

    def meet(self, name: str) -> None:
        """A parameter that no field claims arrived."""
        if len(name) > _LONGEST or len(self.known) >= MOST_NAMES:
            return
        if name in self._once:
            self._once.discard(name)
            self.known.add(name)
            self._fresh.append(name)
            return
        if len(self._once) >= _MOST_ONCE:
            self._once.clear()
        self._once.add(name)

    def take(self, most: int) -> list[str]:
        """Names that became known since the last call, so many at most; the others come next time."""
        taken, self._fresh = self._fresh[:most], self._fresh[most:]
        return taken

    def forget(self) -> None:
        """Have every name noted again that still comes, so that it is known when it came last."""
        self.known.clear()
        self._fresh.clear()


def is_name(text: str, masker: Masker) -> bool:
    """Whether a text may be kept as the name of a parameter."""
    return (
        _NAME.fullmatch(text) is not None
        and sum(character.isdigit() for character in text) <= _MOST_DIGITS
        and masker.find(text) is None
    )
