"""What was done to a whole URL while it was copied: white space, quotes, another program's encoding.

These are looked at first, and alone: as long as one of them can be mended, nothing else of the text means anything.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from urllib.parse import unquote

from postbackd.core.linting.records import Edit, Flaw, Known, Severity, flaw
from postbackd.core.linting.url_parts import Parts
from postbackd.core.macro_syntax import WHOLE

_EDGES = "".join(map(chr, range(0x21))) + "\u00a0\u2028\u2029"
_BROKEN_LINE = re.compile(r"[ \t]*[\r\n\u2028\u2029][\r\n\t \u2028\u2029]*|\t+")
_INVISIBLE = re.compile(r"[\u200b-\u200f\u2060\ufeff\u00ad\ud800-\udfff]+")
"""And halves of characters, which nothing can encode."""
_QUOTES = {'"': '"', "'": "'", "`": "`", "<": ">", "“": "”", "‘": "’", "«": "»"}
_ENTITY = re.compile(r"&(?:(?:amp|#38|#x26|#X26);)+")
_BRACE_ENTITY = re.compile(r"&(?:#123|#125|lbrace|rbrace|lcub|rcub|quot|#34|#39|lt|gt);")
_ENCODED_SCHEME = re.compile(r"https?%(?:25)*3A", re.IGNORECASE)


def find_white_space(parts: Parts, known: Known) -> Iterator[Flaw]:
    """Around the URL, and broken lines in it.  A browser takes tabs and line ends out (WHATWG URL), senders do not."""
    text = parts.text
    lead = len(text) - len(text.lstrip(_EDGES))
    tail = len(text.rstrip(_EDGES))
    places = [(0, lead)] if lead else []
    places += [found.span() for found in _BROKEN_LINE.finditer(text, lead, max(lead, tail))]
    places += [(tail, len(text))] if lead <= tail < len(text) else []
    for start, end in places:
        yield flaw(
            "white_space",
            severity=Severity.WARNING,
            place=(start, end),
            cause="White space or a line break was copied into the URL.",
            fix="Take it away.",
            edit=Edit(start, end, ""),
        )


def find_invisible(parts: Parts, known: Known) -> Iterator[Flaw]:
    """Characters that nobody sees, from web pages and chat programs."""
    for found in _INVISIBLE.finditer(parts.text):
        yield flaw(
            "invisible",
            place=(found.start(), found.end()),
            cause=f"An invisible character ({found[0][0]!a}) was copied into the URL.",
            fix="Take it away.",
            edit=Edit(found.start(), found.end(), ""),
        )


def find_quotes(parts: Parts, known: Known) -> Iterator[Flaw]:
    """Quotes or brackets around the whole URL; a macro alone has brackets of its own."""
    text = inner = parts.text
    while len(inner) > 2 and _QUOTES.get(inner[0]) == inner[-1] and not WHOLE.fullmatch(inner):
        inner = inner[1:-1]
    if inner != text:
        yield flaw(
            "quoted",
            (0, len(text)),
            "The quotes around the URL became a part of it when it was copied.",
            "Take them away.",
            inner,
            severity=Severity.WARNING,
        )


def find_entities(parts: Parts, known: Known) -> Iterator[Flaw]:
    """``&amp;`` out of the source of a web page: the name of the next parameter then begins with ``amp;``."""
    for pattern, whole in ((_ENTITY, "&"), (_BRACE_ENTITY, "")):
        for found in pattern.finditer(parts.text):
            plain = whole or html.unescape(found[0])
            yield flaw(
                "html_escaped",
                place=(found.start(), found.end()),
                cause=f"{found[0]} is how web pages write {plain}.",
                fix=f"Write {plain}.",
                edit=Edit(found.start(), found.end(), plain),
            )


def find_encoded_whole(parts: Parts, known: Known) -> Iterator[Flaw]:
    """``https%3A%2F%2F…``: the URL as a parameter of another URL."""
    text = plain = parts.text
    while _ENCODED_SCHEME.match(plain):
        plain = unquote(plain)
    if plain != text:
        yield flaw(
            "encoded_whole",
            place=(0, len(text)),
            cause="The whole URL is percent-encoded, as inside of another URL; nothing can call it.",
            fix="Use it decoded.",
            edit=Edit(0, len(text), plain),
        )
