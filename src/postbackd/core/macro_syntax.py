"""How macros are written in the field: which delimiters there are, and where in a text one stands.

Nothing here knows whose macro a word is.  Longer delimiters come first: ``{{x}}`` must be seen before ``{x}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple


class Syntax(NamedTuple):
    """One way of writing a macro."""

    opener: str
    closer: str
    word: str
    """What may stand between, as a regular expression; never a ``&``, so that no macro reaches over a parameter."""

    @property
    def pattern(self) -> str:
        """The whole macro, as a regular expression."""
        return f"{re.escape(self.opener)}{self.word}{re.escape(self.closer)}"


_NAME = r"[$:_]?[A-Za-z_][\w.:|=,\- ]*"
_DOTTED = r"[A-Za-z_][\w.\-]*"
_COLONED = r"[A-Za-z_][\w.:\-]*"

SYNTAXES: tuple[Syntax, ...] = (
    Syntax("[[[", "]]]", _NAME),
    Syntax("!!!", "!!!", _DOTTED),
    Syntax("{{", "}}", rf"\s*{_NAME}"),
    Syntax("${", "}", _NAME),
    Syntax("[[", "]]", _NAME),
    Syntax("[%", "%]", _NAME),
    Syntax("[=", "]", _NAME),
    Syntax("##", "##", rf"{_DOTTED}(?:\([\w.\-]*\))?"),
    Syntax("%%", "%%", _COLONED),
    Syntax("__", "__", r"[A-Za-z]\w*"),
    Syntax("@@", "@@", _DOTTED),
    Syntax("{", "}", _NAME),
    Syntax("[", "]", _NAME),
    Syntax("#", "#", _DOTTED),
    Syntax("%", "%", _COLONED),
    Syntax("(", ")", r"[A-Za-z_][\w.]*"),
    Syntax("<", ">", r"[A-Za-z_][\w.\- ]*"),
)
"""All of them, the longest opener first."""

WHOLE = re.compile("|".join(syntax.pattern for syntax in SYNTAXES), re.ASCII)
"""For ``fullmatch``: a text that is one macro."""

OPENERS = frozenset(syntax.opener[0] for syntax in SYNTAXES)
"""The characters with which a macro may begin."""

_ESCAPE = r"(?![0-9A-Fa-f]{2}(?:%|[\w.:\-]*%[0-9A-Fa-f]{2}))"
"""``%C3%A4`` is one letter, ``%adid%`` a macro."""

_FIND = re.compile(
    "|".join(
        f"%{_ESCAPE}{syntax.pattern[len(re.escape('%')) :]}" if syntax.opener == "%" else syntax.pattern
        for syntax in SYNTAXES
    ),
    re.ASCII,
)
_BEFORE_HASH = frozenset("=/#_-.,:;|~")
_AROUND_BRACKET = frozenset("=/")
_NAME_BEFORE_INDEX = re.compile(r"(?:^|[?&])[\w.\-]+(?:\[[^\[\]&=]*\])*$", re.ASCII)


class Found(NamedTuple):
    """A macro in a text."""

    start: int
    end: int
    text: str
    syntax: Syntax

    @property
    def word(self) -> str:
        """What stands between its delimiters."""
        return self.text[len(self.syntax.opener) : len(self.text) - len(self.syntax.closer)].strip()


def syntax_of(text: str) -> Syntax | None:
    """How a text is written that is one macro as a whole."""
    for syntax in SYNTAXES:
        if text.startswith(syntax.opener) and re.fullmatch(syntax.pattern, text, re.ASCII):
            return syntax
    return None


def find_macros(text: str, start: int = 0) -> Iterator[Found]:
    """The macros in a URL, from left to right; what only looks like one (``filter[name]=``, ``#top``) is left out."""
    while (found := _FIND.search(text, start)) is not None:
        syntax = syntax_of(found[0])
        if syntax is not None and _stands_alone(text, found.start(), found.end(), syntax):
            yield Found(found.start(), found.end(), found[0], syntax)
            start = found.end()
        else:
            start = found.start() + 1


def _stands_alone(text: str, start: int, end: int, syntax: Syntax) -> bool:
    """Whether delimiters that have another meaning in a URL are delimiters here."""
    before, after = text[start - 1 : start], text[end : end + 1]
    if syntax.opener == "#":
        return before in _BEFORE_HASH
    if syntax.opener in ("(", "<"):
        return before in _AROUND_BRACKET and after in ("", "&", "/", "#")
    if syntax.opener == "__":
        return not (before.isalnum() or after.isalnum())
    if syntax.opener == "[":
        return not (after in ("=", "[", "&", "") and _NAME_BEFORE_INDEX.search(text[:start]))
    return True


def bare(macro: str) -> str:
    """The word inside a macro, or a parameter, as they are compared."""
    return re.sub(r"[^0-9a-z]", "", macro.lower())
