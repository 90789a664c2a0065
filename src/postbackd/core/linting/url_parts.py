"""A URL with macros, taken apart without parsing it as a URL: macros are opaque, and nothing is refused.

Whatever the text is, it has parts; the checks say what is wrong with them.  All places are those of the text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from postbackd.core.macro_syntax import Found, find_macros
from postbackd.core.macros import AUTHORITY_END, SCHEME
from postbackd.core.params import decode

_DOMAIN = re.compile(r"(?://)?(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}(?::[0-9]+)?(?=[/?#]|$)")


class Parameter(NamedTuple):
    """One parameter of the query."""

    start: int
    name: str
    value: str
    at: int
    """Where the value begins."""
    macros: tuple[Found, ...]
    """In the value."""

    @property
    def end(self) -> int:
        return self.at + len(self.value)

    @property
    def is_macro(self) -> bool:
        """Whether the value is macros alone."""
        return bool(self.macros) and sum(len(macro.text) for macro in self.macros) == len(self.value)


class Parts:
    """The parts of one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        scheme = SCHEME.match(text)
        self.scheme = scheme[0][:-3].lower() if scheme else ""
        domain = None if scheme else _DOMAIN.match(text)
        self.host_at = scheme.end() if scheme else (2 if text.startswith("//") else 0)
        end = AUTHORITY_END.search(text, self.host_at)
        self.path_at = end.start() if end else len(text)
        if not scheme and domain is None:
            self.path_at = self.host_at = 0
        self.macros = tuple(find_macros(text, self.path_at))
        self._starts = [macro.start for macro in self.macros]
        self.fragment_at = self._find_outside("#", self.path_at, len(text))
        self.query_at = self._find_outside("?", self.path_at, self.fragment_at)

    def is_inside(self, place: int) -> bool:
        """Whether a macro covers the place."""
        before = bisect_right(self._starts, place) - 1
        return before >= 0 and place < self.macros[before].end

    def _find_outside(self, mark: str, start: int, end: int) -> int:
        """The first of a character outside of macros, or ``end``."""
        found = self.text.find(mark, start, end)
        while found >= 0 and self.is_inside(found):
            found = self.text.find(mark, found + 1, end)
        return end if found < 0 else found

    @property
    def authority(self) -> str:
        return self.text[self.host_at : self.path_at]

    @property
    def host(self) -> str:
        """Lower case, without a port."""
        return re.sub(r":[0-9]*$", "", self.authority.rpartition("@")[2]).lower().removesuffix(".")

    @property
    def path(self) -> str:
        return self.text[self.path_at : self.query_at]

    @property
    def query(self) -> str:
        return self.text[self.query_at + 1 : self.fragment_at]

    @property
    def fragment(self) -> str:
        return self.text[self.fragment_at + 1 :]

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """Those of the query, empty ones left out."""
        return tuple(self._read_parameters(self.query_at + 1, self.fragment_at))

    @cached_property
    def values(self) -> tuple[Parameter, ...]:
        """The parameters, and the pieces of the path as parameters without a name."""
        return (*self._read_path(), *self.parameters)

    def _read_path(self) -> Iterator[Parameter]:
        start = self.path_at
        for piece in self.path.split("/"):
            if piece:
                yield Parameter(start, "", piece, start, self._macros_in(start, start + len(piece)))
            start += len(piece) + 1

    def _read_parameters(self, start: int, end: int) -> Iterator[Parameter]:
        for pair in self.text[start:end].split("&") if start <= end else ():
            name, equals, value = pair.partition("=")
            at = start + len(name) + len(equals)
            if pair:
                yield Parameter(start, decode(name), value, at, self._macros_in(at, at + len(value)))
            start += len(pair) + 1

    def _macros_in(self, start: int, end: int) -> tuple[Found, ...]:
        first = bisect_right(self._starts, start - 1)
        return tuple(
            macro
            for macro in self.macros[first : bisect_right(self._starts, end)]
            if start <= macro.start and macro.end <= end
        )
