"""What is wrong with a URL before it is pasted anywhere: where, why, and how it should read.

A check is a function that finds flaws; the table ``CHECKS`` holds them all, in stages.  A flaw may bring an edit, and
an edit is *safe* when it can mean nothing else than what was meant.  The mended URL has all safe edits and nothing
else: what cannot be mended safely is only named.

Stage by stage and round by round: as long as a stage has safe edits, they are made and the text is looked at anew, for
what a later stage would say of a text that is mangled means nothing.  All places are those of the text as given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from msgspec.structs import replace

from postbackd.core.linting import form, macro_checks, meaning, secrecy, wrapping
from postbackd.core.linting.kinds import find_kind
from postbackd.core.linting.records import (
    Edit,
    Flaw,
    Kind,
    Known,
    Linted,
    Severity,
    Vocabulary,
    flaw,
)
from postbackd.core.linting.url_parts import Parts

__all__ = ["CHECKS", "Edit", "Flaw", "Kind", "Known", "Linted", "Severity", "Vocabulary", "lint"]

Find = Callable[[Parts, Known, Kind], Iterator[Flaw]]


def _of_any_kind(find: Callable[[Parts, Known], Iterator[Flaw]]) -> Find:
    def found(parts: Parts, known: Known, kind: Kind) -> Iterator[Flaw]:
        return find(parts, known)

    return found


CHECKS: tuple[tuple[Find, ...], ...] = (
    (_of_any_kind(wrapping.find_white_space), _of_any_kind(wrapping.find_invisible)),
    (_of_any_kind(wrapping.find_quotes),),
    (_of_any_kind(wrapping.find_entities), _of_any_kind(wrapping.find_encoded_whole)),
    (form.find_scheme,),
    (form.find_separators, form.find_fragment),
    (macro_checks.find_encoded, macro_checks.find_unclosed, macro_checks.find_placeholders),
    (form.find_double_encoding, form.find_unencoded),
    (macro_checks.find_words,),
    (
        *(form.find_http, form.find_host, form.find_local, form.find_twice, form.find_size),
        *(meaning.find_id, meaning.find_parameters, meaning.find_owner),
        *(secrecy.find_personal, secrecy.find_secrets, secrecy.find_keys),
    ),
)
"""All checks, in stages."""

MAX_CHARACTERS = 8192
"""The front door reads no longer line, and nothing else is sure to."""

MOST_FLAWS = 100
"""That many are told, and how many more there are."""

_MOST_ROUNDS = 100


def lint(url: str, known: Known, kind: Kind | None = None) -> Linted:
    """Look at a URL.  Whatever the text is, there is an answer.  ``kind``: what it is for, if that is known."""
    if len(url) > MAX_CHARACTERS or not url.strip():
        return _no_url(url, known, kind)
    text, places, flaws = url, _Places(len(url)), dict[tuple[str, int], Flaw]()
    read: dict[Kind, str] = {}
    """What it was taken for, and why at first: what was mended since is no reason."""
    for _ in range(_MOST_ROUNDS):
        meant, why = (kind, "you said so") if kind is not None else find_kind(Parts(text), known)
        read.setdefault(meant, why)
        found, edits = _look(text, known, meant)
        for one in found:
            start, end = places.before(one.start, one.end)
            flaws.setdefault((one.check, start), replace(one, start=start, end=end))
        if not edits:
            break
        text = _apply(text, edits)
        places.change(edits)
    in_order = sorted(_without_echoes(flaws.values()), key=lambda one: (one.start, one.end))
    return Linted(
        url=url,
        kind=meant,
        why=read[meant],
        whose=known.partner.name if known.partner else None,
        flaws=tuple(in_order[:MOST_FLAWS]),
        more=max(0, len(in_order) - MOST_FLAWS),
        mended=text if text != url else None,
    )


def _no_url(url: str, known: Known, kind: Kind | None) -> Linted:
    cause = "There is no URL." if not url.strip() else f"It is longer than {MAX_CHARACTERS:,} characters."
    check = "long" if url.strip() else "empty"
    found = flaw(check, (0, len(url)), cause, "Give the URL as it is pasted into the network or source.")
    why = "you said so" if kind else "nothing in it says that it is another kind of URL"
    whose = known.partner.name if known.partner else None
    return Linted(url=url, kind=kind or Kind.OFFER, why=why, whose=whose, flaws=(found,), mended=None)


def _look(text: str, known: Known, kind: Kind) -> tuple[list[Flaw], list[Edit]]:
    """The flaws up to the first stage that can mend something, and its edits."""
    parts = Parts(text)
    flaws: list[Flaw] = []
    for stage in CHECKS:
        found = [one for find in stage for one in find(parts, known, kind)]
        flaws += found
        edits = _choose(text, found)
        if edits:
            return flaws, edits
    return flaws, []


_ECHOES = frozenset({"macro_unknown", "parameter_unknown"})
"""What else is said of a place with personal data goes away with it."""


def _without_echoes(flaws: Iterable[Flaw]) -> list[Flaw]:
    listed = list(flaws)
    personal = [one for one in listed if one.check == "personal_data"]
    return [
        one
        for one in listed
        if one.check not in _ECHOES
        or not any(other.start < one.end and one.start < other.end for other in personal)
    ]


def _choose(text: str, flaws: Sequence[Flaw]) -> list[Edit]:
    """The safe edits that change something, from left to right; of two that touch the first, the other comes later."""
    chosen: list[Edit] = []
    safe = [one.edit for one in flaws if one.safe and one.edit is not None]
    for edit in sorted(safe, key=lambda edit: edit[:2]):
        changes = text[edit.start : edit.end] != edit.text
        if changes and (not chosen or (chosen[-1].end <= edit.start and chosen[-1].start < edit.start)):
            chosen.append(edit)
    return chosen


def _apply(text: str, edits: Sequence[Edit]) -> str:
    pieces, end = [], 0
    for edit in edits:
        pieces += [text[end : edit.start], edit.text]
        end = edit.end
    return "".join((*pieces, text[end:]))


class _Places:
    """Where the characters of an edited text stood in the text as given."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._spans = [(place, place + 1) for place in range(length)]
        """Of each character."""

    def before(self, start: int, end: int) -> tuple[int, int]:
        """The span as given."""
        first = self._spans[start][0] if start < len(self._spans) else self._length
        return first, max(first, self._spans[end - 1][1] if end > start else first)

    def change(self, edits: Sequence[Edit]) -> None:
        """Follow the edits: what was put in stands for what was there."""
        spans, at = list[tuple[int, int]](), 0
        for edit in edits:
            spans += self._spans[at : edit.start]
            spans += [self.before(edit.start, edit.end)] * len(edit.text)
            at = edit.end
        self._spans = spans + self._spans[at:]
