"""Macros: encoded, unclosed, in the wrong delimiters, misspelt, unknown, or of the wrong system."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

from postbackd.core.linting.records import Flaw, Kind, Known, Severity, flaw
from postbackd.core.linting.url_parts import Parameter, Parts
from postbackd.core.linting.words import Words, field_of, names_of, words_of
from postbackd.core.macro_syntax import SYNTAXES, Found, Syntax, find_macros, syntax_of
from postbackd.core.macros import KNOWN as OFFER_MACROS
from postbackd.core.macros import looks_like_macro
from postbackd.core.outgoing import convert_preset_url, placeholders_left
from postbackd.core.templates import KNOWN as TARGET_MACROS

_SIGNS = r"[{}\[\]<>()$%#!@_=]"
_ESCAPED_SIGN = r"%(?:25)*(?:7[BbDd]|5[BbDd]|2[348951]|3[CcEeDd]|40|5[Ff])"
_ENCODED = re.compile(
    rf"(?:{_SIGNS}|{_ESCAPED_SIGN}){{1,4}}?[A-Za-z][\w.:|,\-]{{0,100}}?(?:{_ESCAPED_SIGN}|{_SIGNS}){{1,4}}(?![\w.])",
    re.ASCII,
)
"""Bounded everywhere, so that no text makes it slow."""
_BROKEN = re.compile(r"([{\[(<$%#!@_=]*)([A-Za-z][\w.:|,\-]*?)([}\])>%#!@_]*)", re.ASCII)
_OWN_WORDS = frozenset((*OFFER_MACROS, *TARGET_MACROS, "txid"))
"""``{txid}`` stands in the postback URL of a network without a preset, to be replaced."""


def find_encoded(parts: Parts, known: Known, kind: Kind) -> Iterator[Flaw]:
    """``%7Bclick_id%7D``: who fills macros does not find it."""
    words = words_of(kind, known)
    for value in parts.values:
        for found in _ENCODED.finditer(value.value):
            macro = found[0]
            while "%25" in macro:
                macro = macro.replace("%25", "%")
            macro = unquote(macro)
            if macro == found[0] or not _may_be_meant(macro, words):
                continue
            start = value.at + found.start()
            yield flaw(
                "macro_encoded",
                (start, value.at + found.end()),
                f"{found[0]} is {macro} percent-encoded, which {_filler(words)} does not fill.",
                f"Write {macro}.",
                macro,
                safe=words is None or words.spelling_of(macro) is not None,
            )


def _may_be_meant(macro: str, words: Words | None) -> bool:
    """Whether somebody fills macros that are written like this; without a vocabulary, brackets alone are sure signs."""
    syntax = syntax_of(macro)
    if syntax is None or words is None:
        return syntax is not None and syntax.opener[0] in "{[$"
    return syntax in words.syntaxes and (not words.ours or words.spelling_of(macro) is not None)


def _filler(words: Words | None) -> str:
    return words.filler if words else "the network or source"


# --- unclosed -------------------------------------------------------------------------------------------------


def find_unclosed(parts: Parts, known: Known, kind: Kind) -> Iterator[Flaw]:
    """A delimiter without its other half."""
    words = words_of(kind, known)
    for value in (*parts.values, *_cut_by_hash(parts, words)):
        yield from _look_for_halves(value, words, kind)


def _cut_by_hash(parts: Parts, words: Words | None) -> Iterator[Parameter]:
    """``a=#s2&b=…``: what is read as a fragment and is half a macro, when the network writes macros with ``#``."""
    if words is None or not any("#" in syntax.opener for syntax in words.syntaxes):
        return
    at, text = parts.fragment_at, parts.text
    end = min((place for mark in "&/" if (place := text.find(mark, at)) >= 0), default=len(text))
    last = parts.parameters[-1] if parts.parameters else None
    if last is None or at == len(text) or last.end != at:
        return
    yield Parameter(
        last.start, last.name, text[last.at : end], last.at, tuple(find_macros(text[last.at : end]))
    )


def _look_for_halves(value: Parameter, words: Words | None, kind: Kind) -> Iterator[Flaw]:
    gap_from, text = 0, value.value
    spans = [(macro.start - value.at, macro.end - value.at) for macro in value.macros]
    if len(spans) == 1 and _is_lopsided(text, *spans[0]):
        spans = []
    for start, end in (*spans, (len(text), len(text))):
        gap = text[gap_from:start]
        broken = _BROKEN.fullmatch(gap)
        if broken is not None and (broken[1] or broken[3]) and not _is_word(broken):
            yield from _name_half(value.at + gap_from, broken, words)
        elif kind in (Kind.OFFER, Kind.TARGET):
            yield from _lone_braces(value.at + gap_from, gap)
        gap_from = end


def _is_lopsided(text: str, start: int, end: int) -> bool:
    """``{{x}``: one macro inside of more delimiters than it has."""
    before, after = text[:start], text[end:]
    return (before + after) != "" and all(sign in "{}[]<>()$%#!@_=" for sign in before + after)


def _is_word(broken: re.Match[str]) -> bool:
    """Underscores, signs of equality and the like, which names and values may have around them."""
    around = broken[1] + broken[3]
    return not any(sign in "{}[]<>$%#" for sign in around) and not around.startswith(("__", "!!", "@@"))


def _name_half(at: int, broken: re.Match[str], words: Words | None) -> Iterator[Flaw]:
    written = broken[0]
    macro = words.spelling_of(broken[2]) if words else None
    fitting = [syntax for syntax in SYNTAXES if broken[1] == syntax.opener or broken[3] == syntax.closer]
    if macro is None and fitting:
        usual = next((syntax for syntax in fitting if words and syntax in words.syntaxes), fitting[0])
        macro = f"{usual.opener}{broken[2]}{usual.closer}"
    is_known = words is not None and macro in words.macros
    if macro == written or macro is None:
        return
    yield flaw(
        "macro_unclosed",
        (at, at + len(written)),
        f"{written} has not both of its delimiters, so {_filler(words)} fills nothing there.",
        f"Write {macro}." if is_known else f"Write both delimiters, as in {macro}.",
        macro,
        safe=is_known,
    )


def _lone_braces(at: int, gap: str) -> Iterator[Flaw]:
    for found in re.finditer(r"[{}]", gap):
        yield flaw(
            "macro_unclosed",
            (at + found.start(), at + found.end()),
            f"A single {found[0]} begins or ends no macro, and a URL with it cannot be saved.",
            "Write macros as {click_id}, and a literal brace as %7B or %7D.",
            None,
            safe=False,
        )


# --- delimiters, spelling, whose ------------------------------------------------------------------------------


def find_words(parts: Parts, known: Known, kind: Kind) -> Iterator[Flaw]:
    """Every macro, against those that are known."""
    words = words_of(kind, known)
    if words is None:
        return
    placeholders = {f"<{name}>" for name in placeholders_left(parts.text)}
    for value in parts.values:
        for macro in value.macros:
            if words.holds(macro) or macro.text in placeholders:
                continue
            if _is_lopsided(value.value, macro.start - value.at, macro.end - value.at):
                continue
            found = (
                _judge_own(macro, words, known, kind, parts)
                if words.ours
                else _judge_theirs(macro, value, words, known, kind)
            )
            if found is not None:
                yield found


def _judge_own(macro: Found, words: Words, known: Known, kind: Kind, parts: Parts) -> Flaw | None:
    """A macro in an offer or target URL: single braces are ours, everything else passes through."""
    theirs = _of_partner(macro, known, kind)
    if theirs is not None:
        return theirs
    ours = words.spelling_of(macro.word)
    if macro.syntax.opener != "{":
        id_macro = "{click_id}" if kind is Kind.OFFER else "{source_click_id}"
        if ours is None:
            return None
        lacks = ours == id_macro and all(other.text != ours for other in parts.macros)
        return flaw(
            "macro_delimiter",
            (macro.start, macro.end),
            f"{macro.text} is passed on as it stands: this server's macros have single braces.",
            f"Write {ours}, unless the system behind it fills {macro.text}.",
            ours,
            safe=lacks,
            severity=Severity.ERROR if lacks else Severity.WARNING,
        )
    if macro.word.startswith("account.") and known.accounts is None and kind is Kind.TARGET:
        return None
    if ours is not None:
        return _misspelt(macro, ours)
    return _unknown(macro, words, f"write {{{{{macro.word}}}}} if the receiver fills it")


def _of_partner(macro: Found, known: Known, kind: Kind) -> Flaw | None:
    """A network's or source's own macro where ours are filled."""
    partner = known.partner
    if partner is None or macro.text not in partner.macros:
        return None
    field = partner.macros[macro.text]
    ours = {"click_id": "{click_id}"} if kind is Kind.OFFER else {"source_click_id": "{source_click_id}"}
    text = ours.get(field)
    return flaw(
        "macro_misplaced",
        (macro.start, macro.end),
        f"{macro.text} is filled by {partner.name} in the URL that it calls or sends visitors to, not in this one.",
        f"Write {text}." if text else "Use a macro of this server, or take it away.",
        text,
        safe=True,
    )


def _judge_theirs(macro: Found, value: Parameter, words: Words, known: Known, kind: Kind) -> Flaw | None:
    """A macro in a click or postback URL, where the network or source fills its own."""
    assert known.partner is not None
    if macro.text in known.partner.withheld:
        return None  # said elsewhere
    ours = macro.syntax.opener == "{" and macro.word in _OWN_WORDS
    field = field_of(value, names_of(kind, known)) if value.name else None
    fitting = known.partner.fields.get(field or "")
    spelling = words.spelling_of(macro.word)
    if spelling is not None and not (ours and fitting and spelling != fitting):
        return _respell(macro, spelling, words)
    if ours and fitting is not None:
        return flaw(
            "macro_misplaced",
            (macro.start, macro.end),
            f"{macro.text} is a macro of this server, and {words.filler} does not fill it.",
            f"Write {fitting}.",
            fitting,
        )
    if words.has_sibling(macro.word):
        return None if macro.syntax in words.syntaxes else _respell(macro, _rewritten(macro, words), words)
    return _unknown(macro, words, "look it up there")


def _rewritten(macro: Found, words: Words) -> str:
    syntax: Syntax = min(words.syntaxes)
    return f"{syntax.opener}{macro.word}{syntax.closer}"


def _respell(macro: Found, right: str, words: Words) -> Flaw:
    if right[len(right) - len(right.lstrip("{[$#%!@_(<")) :].startswith(macro.word):
        return flaw(
            "macro_delimiter",
            (macro.start, macro.end),
            f"{words.filler} writes its macros in other delimiters and sends {macro.text} as it stands.",
            f"Write {right}.",
            right,
            safe=right in words.macros or len(words.syntaxes) == 1,
        )
    return _misspelt(macro, right)


def _misspelt(macro: Found, right: str) -> Flaw:
    return flaw(
        "macro_spelling",
        (macro.start, macro.end),
        f"{macro.text} is spelt otherwise than {right}, so it may not be filled.",
        f"Write {right}.",
        right,
        safe=True,
    )


def _unknown(macro: Found, words: Words, otherwise: str) -> Flaw:
    near = words.nearest(macro.word)
    sure = words.is_complete or near is not None
    if near is not None:
        cause, fix = f"{macro.text} is no macro that {words.filler} fills.", f"Did you mean {near}?"
    elif words.is_complete:
        cause, fix = f"{macro.text} is no macro that {words.filler} fills.", f"Leave it out, or {otherwise}."
    else:
        cause = f"{macro.text} is none of the macros that are known of {words.filler}."
        fix = f"If it is not one of its others ({otherwise}), it is sent as it stands."
    return flaw(
        "macro_unknown",
        (macro.start, macro.end),
        cause,
        fix,
        near,
        safe=False,
        severity=Severity.ERROR if sure else Severity.WARNING,
    )


# --- what was to be replaced ----------------------------------------------------------------------------------


def find_placeholders(parts: Parts, known: Known, kind: Kind) -> Iterator[Flaw]:
    """``<CLICK_ID>``, ``REPLACE_ME``: what a template asks its user to fill in."""
    for name in placeholders_left(parts.text):
        for found in re.finditer(re.escape(f"<{name}>"), parts.text):
            text = _convert(found[0]) if kind is Kind.TARGET else None
            yield flaw(
                "placeholder",
                (found.start(), found.end()),
                f"{found[0]} stands for something that was not filled in.",
                f"Write {text}." if text else "Write what it stands for.",
                text,
            )
    for value in parts.parameters:
        if value.macros or not value.value or not looks_like_macro(value.value) or "%" in value.value:
            continue
        field = field_of(value, names_of(kind, known)) if kind.is_theirs else None
        text = known.partner.fields.get(field or "") if known.partner else None
        yield flaw(
            "placeholder",
            (value.at, value.end),
            f"{value.value} stands for something that was not filled in.",
            f"Write {text}." if text else "Write the macro that fills it.",
            text,
        )


def _convert(placeholder: str) -> str | None:
    """What stands for it in a target's URL, see ``core.outgoing``."""
    text = convert_preset_url(f"https://host.example/{placeholder}").removeprefix("https://host.example/")
    return None if text == placeholder else text
