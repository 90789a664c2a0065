"""What is told of a URL, and what has to be known to tell it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from msgspec import Struct

from postbackd.core.hops import OfferLink


class Kind(StrEnum):
    """What a URL is for."""

    CLICK = "click"
    """Pasted into a source: ``/c/{campaign}``, with the source's macros."""
    OFFER = "offer"
    """Where visitors are sent: the link that a network gave, with our macros."""
    POSTBACK = "postback"
    """Pasted into a network: ``/p/{key}``, with the network's macros."""
    TARGET = "target"
    """Where a source is told of conversions, with our macros."""

    @property
    def is_theirs(self) -> bool:
        """Whether its macros are those of the source or network that it is pasted into."""
        return self in (Kind.CLICK, Kind.POSTBACK)


class Severity(StrEnum):
    """How much a flaw costs."""

    ERROR = "error"
    """Conversions are lost, or counted wrongly."""
    WARNING = "warning"
    """It works, and will not for ever, or tells more than it should."""
    ADVICE = "advice"
    """It works."""


class Edit(NamedTuple):
    """A part of the text, and what should stand there."""

    start: int
    end: int
    text: str


class Flaw(Struct, frozen=True, kw_only=True):
    """One thing that is wrong with a URL."""

    check: str
    severity: Severity
    start: int
    """Where: the characters of the URL from here to ``end``."""
    end: int
    cause: str
    fix: str
    edit: Edit | None = None
    """What should stand there, where that is known."""
    safe: bool = False
    """Whether the edit can mean nothing else than what was meant; only then it is in the mended URL."""


def flaw(
    check: str,
    place: tuple[int, int],
    cause: str,
    fix: str,
    edit: Edit | str | None = None,
    *,
    severity: Severity = Severity.ERROR,
    safe: bool = True,
) -> Flaw:
    """A flaw at a place; an edit that is a text stands in for the place.  Without an edit nothing is safe."""
    made = Edit(*place, edit) if isinstance(edit, str) else edit
    return Flaw(
        check=check,
        severity=severity,
        start=place[0],
        end=place[1],
        cause=cause,
        fix=fix,
        edit=made,
        safe=safe and made is not None,
    )


class Vocabulary(Struct, frozen=True, kw_only=True):
    """What one network or source calls things."""

    name: str
    macros: Mapping[str, str] = {}
    """Macro -> the field of ours that it fills, or what it is in its own words."""
    fields: Mapping[str, str] = {}
    """Field of ours -> the macro that fills it."""
    withheld: frozenset[str] = frozenset()
    """Macros that carry personal data or secrets."""
    in_cents: frozenset[str] = frozenset()
    """Macros for money that count hundredths."""
    appended: str = ""
    """The parameter that a source appends by itself and that carries its click id."""
    target_url: str = ""
    """Where it is told of conversions, with our macros."""


class Known(Struct, frozen=True, kw_only=True):
    """What is known beside the URL.  Everything may be unknown."""

    partner: Vocabulary | None = None
    """The network or source that the URL is for."""
    bases: tuple[str, ...] = ()
    """Scheme and host under which this server is reached."""
    names: Mapping[Kind, Mapping[str, tuple[str, ...]]] = {}
    """Field -> the parameters that are accepted for it, where a network or source has its own."""
    asked: frozenset[str] = frozenset()
    """Parameters that a network's sender has to send beside the fields: token, signature."""
    accounts: frozenset[str] | None = None
    """Account values of the target; ``None``: not known."""
    keys: Mapping[str, str] | None = None
    """Key of a postback URL -> its network; ``None``: not known."""
    slugs: frozenset[str] | None = None
    """Campaigns; ``None``: not known."""
    network: str | None = None
    """The network of the catalog that the URL is for."""
    links: tuple[OfferLink, ...] = ()
    """Of its offers."""


class Linted(Struct, frozen=True, kw_only=True):
    """A URL, looked at."""

    url: str
    kind: Kind
    why: str
    """Why it is taken for that, in a sentence."""
    whose: str | None = None
    """The network or source that it was looked at for."""
    flaws: tuple[Flaw, ...]
    """In the order of their places."""
    more: int = 0
    """Flaws that are not listed."""
    mended: str | None
    """The URL with all safe edits; ``None``: there are none."""

    @property
    def has_errors(self) -> bool:
        """Whether conversions would be lost or counted wrongly."""
        return self.more > 0 or any(one.severity is Severity.ERROR for one in self.flaws)
