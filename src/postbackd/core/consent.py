"""Whether the visitor of a click may be tracked, where the operator honours what browsers and pages say.

Two things refuse: ``Sec-GPC: 1`` (Global Privacy Control) or ``DNT: 1``, where they are honoured; and a consent
parameter that is named and holds anything but a clear yes, or is missing.  Either is enough.  Both are asked only for
the countries that are listed, and for clicks whose country is not known; without a list they are asked everywhere.

A refused click is sent on and converts by its click id.  It keeps the source's click id, cost and country; no sub ids
and no network address, and no platform that needs consent is told of it.  That a visitor said yes is kept with the
click, for platforms that ask.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

_YES = frozenset({"1", "true", "yes", "y", "granted", "given", "accepted"})


class Consent(Struct, frozen=True):
    """What is honoured."""

    gpc: bool
    parameter: str
    """Empty: none."""
    countries: frozenset[str]
    """ISO 3166 codes; empty: everywhere."""

    def refused(self, gpc: bool, pairs: Iterable[tuple[str, str]], country: str | None) -> bool:
        """Whether the click is to be kept short.  ``gpc``: whether the request carried either header."""
        if self.countries and country is not None and country not in self.countries:
            return False
        if self.gpc and gpc:
            return True
        return bool(self.parameter) and not self.given(pairs)

    def given(self, pairs: Iterable[tuple[str, str]]) -> bool:
        """Whether the visitor said a clear yes.  Of one who was not asked nothing is known."""
        if not self.parameter:
            return False
        name = self.parameter.casefold()
        said = next((text for key, text in pairs if key.casefold() == name), "")
        return said.strip().casefold() in _YES


def make_consent(gpc: bool, parameter: str, countries: str) -> Consent | None:
    """``None``: nothing is honoured.  Raises ``ValueError`` when a country is no two-letter code."""
    codes = frozenset(code.strip().upper() for code in countries.split(",") if code.strip())
    for code in codes:
        if not (len(code) == 2 and code.isascii() and code.isalpha()):
            raise ValueError(f"{code!r} is no two-letter country code such as DE")
    return Consent(gpc, parameter.strip(), codes) if gpc or parameter.strip() else None


TRACKING_ONLY = frozenset({"postback", "webhook"})
"""Kinds of targets that are told of a conversion by the source's own click id, and need no consent of the visitor here:
all others are ad platforms that match what they are told with people."""
