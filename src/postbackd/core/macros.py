"""Macros: the ones that an offer URL may hold, and the ones that a sender forgot to fill.

Ours are written ``{name}``.  The macros of other systems (``{{x}}``, ``${x}``, ``[x]``, ``#x#`` …) may stand
in an offer URL too and pass through as they are: the system behind the redirect fills them.  So a template is
never parsed as a URL (``#`` would start a fragment, ``%AD`` would be a byte, ``[`` would be illegal); only
scheme and host are looked at, and values are percent-encoded when they are filled in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, unquote

from postbackd.core.macro_syntax import OPENERS, WHOLE

KNOWN: tuple[str, ...] = (
    "click_id",
    "source_click_id",
    *(f"sub{n}" for n in range(1, 11)),
    "campaign",
    "source",
    "network",
    "offer",
    "country",
)
"""The macros an offer URL may hold, without their braces."""

_LISTED = (
    "{click_id}, {source_click_id}, {sub1} to {sub10}, {campaign}, {source}, {network}, {offer}, {country}"
)

# Foreign double braces and dollar braces first: the longest delimiter decides.
_MACRO = re.compile(r"\{\{[^{}]*\}\}|\$\{[^{}]*\}|\{([^{}]*)\}|[{}]")
SCHEME = re.compile(r"https?://", re.IGNORECASE)
AUTHORITY_END = re.compile(r"[/?#]")
_LENGTHS = (
    r"(?![^:]{255})(?!.*[^.:]{64})"  # a name has 253 letters at most, each part of it 63 (RFC 1035, 2.3.4)
)
HOST = re.compile(
    _LENGTHS + r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?"
)
LAST_PORT = 65535
FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\xa0\\\s\ud800-\udfff]")
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


class MacroError(ValueError):
    """An offer URL that cannot be used; the message says what is wrong and what to do."""


class Template:
    """An offer URL with macros, taken apart once and filled for every click."""

    __slots__ = ("_head", "_tail", "url")

    def __init__(self, url: str, head: str, tail: tuple[tuple[str, str], ...]) -> None:
        """``head``: the text before the first macro; ``tail``: each macro with the text that follows it."""
        self.url = url
        self._head = head
        self._tail = tail

    @property
    def macros(self) -> frozenset[str]:
        """The macros that the URL holds."""
        return frozenset(name for name, _ in self._tail)

    def fill(self, values: Mapping[str, str | None]) -> str:
        """The URL with every macro replaced by its percent-encoded value; absent and ``None`` fill empty.

        The result is printable ASCII whatever the values hold, so it may stand in a header.  Letters and
        digits (all of our click ids) are inserted as they are.
        """
        url = self._head
        for name, literal in self._tail:
            value = values.get(name)
            if value:
                if not (value.isascii() and value.isalnum()):
                    value = quote(value, safe="", errors="replace")
                url += value
            url += literal
        return url


def compile_url(url: str) -> Template:
    """Take an offer URL apart.  Raises ``MacroError`` for an unknown macro and for an unusable URL."""
    _check_url(url)
    literals: list[str] = []
    names: list[str] = []
    literal, end = "", 0
    for found in _MACRO.finditer(url):
        literal += url[end : found.start()]
        end = found.end()
        name = _own_name(found)
        if name is None:
            literal += found.group()
            continue
        literals.append(literal)
        names.append(name)
        literal = ""
    literals.append(literal + url[end:])
    safe = [quote(text, safe=_PRINTABLE) for text in literals]
    return Template(url, safe[0], tuple(zip(names, safe[1:], strict=True)))


def _own_name(found: re.Match[str]) -> str | None:
    """The name of a macro of ours, ``None`` for a foreign one."""
    name = found.group(1)
    if name is not None and name in KNOWN:
        return name
    if name is not None:
        raise MacroError(
            f"unknown macro {{{name}}} in the offer URL; known are {_LISTED}. Use one of these or "
            f"leave it out (write {{{{{name}}}}} or ${{{name}}} if the shop's own system fills it)"
        )
    if len(found.group()) == 1:
        raise MacroError(
            f"the offer URL has a single {found.group()} at position {found.start() + 1}; write macros as "
            "{click_id}, and a literal brace as %7B or %7D"
        )
    return None


def _check_url(url: str) -> None:
    scheme = SCHEME.match(url)
    if scheme is None:
        raise MacroError("the offer URL must start with https:// or http://; write the whole address")
    forbidden = FORBIDDEN.search(url)
    if forbidden:
        raise MacroError(
            f"the offer URL has the forbidden character {forbidden.group()!a} at position "
            f"{forbidden.start() + 1}; remove it, or percent-encode it (a space is %20)"
        )
    _check_authority(AUTHORITY_END.split(url[scheme.end() :], maxsplit=1)[0])


def _check_authority(authority: str) -> None:
    if "@" in authority:
        raise MacroError(
            "the offer URL holds a user name or password before the host; remove everything up to the @"
        )
    if "{" in authority or "}" in authority:
        raise MacroError("the host of the offer URL holds a macro; write the host out, macros go behind it")
    if not authority.isascii():
        raise MacroError("the host of the offer URL has non-ASCII letters; write it in its xn-- form")
    host = HOST.fullmatch(authority)
    if host is None or ".." in authority or int(host.group(1) or "0") > LAST_PORT:
        raise MacroError(
            f"the offer URL has no usable host ({authority!r}); write it like https://shop.example/path"
        )


# --- macros that a sender did not fill --------------------------------------------------------------------

_PLACEHOLDER_WORDS = (
    "REPLACE REPLACE_ME REPLACEME REPLACE_THIS YOUR_CLICK_ID YOUR_CLICKID YOUR_SUBID YOUR_SUB_ID YOUR_ID "
    "INSERT_CLICK_ID INSERT_CLICKID INSERT_CLICK_ID_HERE INSERT_CLICKID_HERE CLICK_ID_HERE CLICKID_HERE "
    "CLICKID CLICK_ID SUBID SUB_ID SUB1 AFF_SUB TXID TRANSACTION_ID PAYOUT AMOUNT OPTIONAL PLACEHOLDER"
)
_PLACEHOLDERS = frozenset(_PLACEHOLDER_WORDS.split())
_LONGEST_MACRO = 200


def looks_like_macro(text: str) -> bool:
    """Whether the whole text is a macro that nobody filled, in any syntax used in the field.

    Also true for a percent-encoded one (``%7Bclickid%7D``) and for placeholder words (``REPLACE_ME``).  False
    for ids, numbers and words: a real value must never be thrown away as a macro.
    """
    if text[:1] not in OPENERS:
        return text in _PLACEHOLDERS
    if len(text) > _LONGEST_MACRO:
        return False
    if WHOLE.fullmatch(text):
        return True
    return "%" in text and WHOLE.fullmatch(unquote(unquote(text))) is not None
