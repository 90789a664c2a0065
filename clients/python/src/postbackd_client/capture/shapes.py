"""What may be kept as a click id, told from its text alone.

A wrong value is worse than none: kept, it would push out a good one and come back from the tracker as
`unmatched` weeks later.  Only what can never be right is refused; whether an id is *known* is the tracker's to say.
No state, no clock, linear in the length of hostile text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Optional
from urllib.parse import unquote

LONGEST_CLICK_ID = 128
"""Characters that a tracker's click id field holds (postbackd takes no more)."""
LONGEST_OTHER_ID = 512
"""The ids of ad platforms are longer: fbclid and ttclid of some hundred characters are common."""

EMPTY = "empty"
TOO_LONG = "too_long"
MACRO_LITERAL = "macro_literal"
BAD_CHARACTERS = "bad_characters"
NOT_POSTBACKD = "not_postbackd"
"""Why a value is refused (`refusal` says when)."""

_AROUND = " \t\r\n\"'"
_STANDS_FOR_NOTHING = frozenset(
    ["", "0", "-", "null", "(null)", "[null]", "undefined", "none", "nil", "nan", "na", "n/a", "false"]
)
# Letters, digits and what ids in the field are joined with.  Neither white space nor quotes nor brackets: a value
# ends up in URLs, logs and pages of shops.  No @ either: an e-mail address is personal data, not a click.
_PERMITTED = re.compile(r"[A-Za-z0-9._~:/|+=!$*,;-]+")
# Crockford base32, dashes between the characters allowed, I and L read as 1, O as 0.  130 bits of text for 128 of
# id: the first digit is 7 at most.
_POSTBACKD = re.compile(r"-*[0-7ilo](?:-*[0-9a-hj-np-tv-zilo]){25}-*", re.IGNORECASE | re.ASCII)
_LONGEST_POSTBACKD = 64

_WORD = r"[$:_]?[A-Za-z_][\w.:|=,\- ]*"
_SPACED_WORD = r"\s*" + _WORD
_BRACKETED = (
    ("{{", "}}", _SPACED_WORD),
    ("${", "}", _WORD),
    ("{", "}", _WORD),
    ("[[[", "]]]", _WORD),
    ("[[", "]]", _WORD),
    ("[%", "%]", _WORD),
    ("[=", "=]", _WORD),
    ("[", "]", _WORD),
    ("<", ">", r"[A-Za-z_][\w.\- ]*"),
    ("(", ")", r"[A-Za-z_][\w.]*"),
    ("##", "##", r"[A-Za-z_][\w.\-]*(?:\([\w.\-]*\))?"),
    ("#", "#", r"[A-Za-z_][\w.\-]*"),
    ("%%", "%%", r"[A-Za-z_][\w.:\-]*"),
    ("%", "%", r"[A-Za-z_][\w.:\-]*"),
    ("__", "__", r"[A-Za-z]\w*"),
    ("!!!", "!!!", r"[A-Za-z_][\w.\-]*"),
    ("@@", "@@", r"[A-Za-z_][\w.\-]*"),
)
"""How the networks of the field write macros: opening, closing, what stands between."""
_MACRO = re.compile(
    "|".join(f"{re.escape(opening)}{word}{re.escape(closing)}" for opening, closing, word in _BRACKETED),
    re.ASCII,
)
_INSIDE = re.compile(r"\{\{?[$:_]?[A-Za-z][\w.:]*\}|__[A-Z_]{3,}__|\[[A-Z_]{3,}\]|##[A-Z_]{3,}##", re.ASCII)
"""Macros that are part of a longer value: `lp1-{clickid}`."""
_PLACEHOLDERS = frozenset(
    [
        "AFF_SUB",
        "AMOUNT",
        "CLICKID",
        "CLICKID_HERE",
        "CLICK_ID",
        "CLICK_ID_HERE",
        "INSERT_CLICKID",
        "INSERT_CLICKID_HERE",
        "INSERT_CLICK_ID",
        "INSERT_CLICK_ID_HERE",
        "OPTIONAL",
        "PAYOUT",
        "PLACEHOLDER",
        "REPLACE",
        "REPLACEME",
        "REPLACE_ME",
        "REPLACE_THIS",
        "SUB1",
        "SUBID",
        "SUB_ID",
        "TRANSACTION_ID",
        "TXID",
        "YOUR_CLICKID",
        "YOUR_CLICK_ID",
        "YOUR_ID",
        "YOUR_SUBID",
        "YOUR_SUB_ID",
    ]
)
_LONGEST_MACRO = 200


def refusal(text: str, longest: int = LONGEST_CLICK_ID) -> Optional[str]:
    """Why a value cannot be a click id of any tracker, or ``None`` when it may be one."""
    if text.strip(_AROUND).casefold() in _STANDS_FOR_NOTHING:
        return EMPTY
    if len(text) > longest:
        return TOO_LONG
    if is_macro(text) or _holds_macro(text):
        return MACRO_LITERAL
    return None if _PERMITTED.fullmatch(text) else BAD_CHARACTERS


def is_postbackd(text: str) -> bool:
    """Whether a text has the shape of postbackd's own ids; that it was issued only the server can say."""
    return len(text) <= _LONGEST_POSTBACKD and _POSTBACKD.fullmatch(text) is not None


def is_macro(text: str) -> bool:
    """Whether the whole text is a macro that nobody filled, percent-encoded or not, or a word such as `REPLACE_ME`."""
    if text in _PLACEHOLDERS:
        return True
    return len(text) <= _LONGEST_MACRO and any(_MACRO.fullmatch(one) for one in _readings(text))


def _holds_macro(text: str) -> bool:
    return len(text) <= _LONGEST_MACRO and any(_INSIDE.search(one) for one in _readings(text))


def _readings(text: str) -> Iterator[str]:
    yield text
    bare = unquote(unquote(text)).strip(_AROUND)
    if bare != text:
        yield bare
