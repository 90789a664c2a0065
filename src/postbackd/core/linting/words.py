"""Whose macros count in a URL, and which known one a word is nearest to."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from msgspec import Struct

from postbackd.core.linting.records import Kind, Known
from postbackd.core.linting.url_parts import Parameter
from postbackd.core.macro_syntax import Found, Syntax, bare, syntax_of
from postbackd.core.macros import KNOWN as OFFER_MACROS
from postbackd.core.params import CLICK_NAMES, POSTBACK_NAMES
from postbackd.core.templates import ACCOUNT
from postbackd.core.templates import KNOWN as TARGET_MACROS

_CLOSE = 0.75
"""Similarity (``difflib``) from which a word is called a misspelling of another."""
_MODIFIER = re.compile(r"[:|].*", re.DOTALL)


class Words(Struct, frozen=True, kw_only=True):
    """The macros that are filled in one kind of URL."""

    filler: str
    """Who fills them."""
    macros: Mapping[str, str]
    """Macro -> field."""
    is_complete: bool
    """Whether there are no others."""
    ours: bool

    @property
    def syntaxes(self) -> set[Syntax]:
        """How they are written."""
        return {syntax for macro in self.macros if (syntax := syntax_of(macro)) is not None}

    def spelling_of(self, word: str) -> str | None:
        """The one macro that has the same letters and digits."""
        alike = [macro for macro in self.macros if bare(macro) == bare(word)] if bare(word) else []
        return alike[0] if len(alike) == 1 else None

    def holds(self, macro: Found) -> bool:
        """Whether it is filled as it is written; a modifier (``{x:2}``) belongs to the filler."""
        if macro.text in self.macros:
            return True
        plain = _MODIFIER.sub("", macro.word)
        return not self.ours and f"{macro.syntax.opener}{plain}{macro.syntax.closer}" in self.macros

    def has_sibling(self, word: str) -> bool:
        """Whether another number of the same word is known: ``aff_sub2`` beside ``aff_sub``."""
        stem = _stem(word)
        numbered = not self.is_complete and stem and bare(word)[-1:].isdigit()
        return bool(numbered) and any(_stem(macro) == stem for macro in self.macros)

    def nearest(self, word: str) -> str | None:
        """The macro that was probably meant; other digits are another word."""
        digits = re.sub(r"[^0-9]", "", word)
        by_bare = {bare(macro): macro for macro in self.macros if re.sub(r"[^0-9]", "", macro) == digits}
        near = difflib.get_close_matches(bare(word), by_bare, 1, _CLOSE)
        return by_bare[near[0]] if near else None


def _stem(word: str) -> str:
    return re.sub(r"[0-9]", "", bare(word))


OFFER_WORDS = Words(
    filler="this server", macros={f"{{{name}}}": name for name in OFFER_MACROS}, is_complete=True, ours=True
)


def words_of(kind: Kind, known: Known) -> Words | None:
    """The macros that are filled in this kind of URL; ``None``: nobody knows them."""
    if kind is Kind.OFFER:
        return OFFER_WORDS
    if kind is Kind.TARGET:
        names = (*TARGET_MACROS, *(f"{ACCOUNT}{name}" for name in sorted(known.accounts or ())))
        return Words(
            filler="this server", macros={f"{{{name}}}": name for name in names}, is_complete=True, ours=True
        )
    partner = known.partner
    if partner is None or not partner.macros:
        return None
    return Words(filler=partner.name, macros=partner.macros, is_complete=False, ours=False)


def names_of(kind: Kind, known: Known) -> Mapping[str, tuple[str, ...]]:
    """Field -> the parameters by which this server reads it."""
    return known.names.get(kind) or (CLICK_NAMES if kind is Kind.CLICK else POSTBACK_NAMES)


def field_of(parameter: Parameter, names: Mapping[str, Iterable[str]]) -> str | None:
    """The field that a parameter means; names are read as written and in lower case."""
    lower = parameter.name.lower()
    for field, accepted in names.items():
        if any(name in (parameter.name, lower) or name.lower() == lower for name in accepted):
            return field
    return None
