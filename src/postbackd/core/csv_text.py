"""CSV text that a spreadsheet shows as it is: no cell of it is ever run as a formula.

A cell that begins with ``= + - @``, a tab or a line break is a formula to some spreadsheet, whoever sent its text.
Such a cell gets an apostrophe in front, which spreadsheets take as "this is text".  Numbers written plainly
(``-12.50``) stay numbers.  Lines and quotes are those of RFC 4180: CRLF, and double quotes doubled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

Value = str | int | None
"""What a cell may hold.  ``None`` is an empty cell; money and rates come as decimal text."""

MEDIA_TYPE = "text/csv; charset=utf-8; header=present"
"""For answers over HTTP."""

_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?", re.ASCII)
_FORMULA_STARTS = "=+-@\t\r\n|%"
# The full-width forms are folded to the ASCII ones by spreadsheets in East Asian settings; | and % begin commands of
# old ones (DDE).
_WIDE_STARTS = "\uff1d\uff0b\uff0d\uff20"
_SKIPPED = " \u00a0\ufeff\u200b\x00\x0b\x0c"
"""What some spreadsheets drop from the beginning of a cell before they look at it."""


def cell_text(value: Value) -> str:
    """The text of one cell, not quoted yet, that no spreadsheet takes for a formula."""
    if value is None:
        return ""
    if isinstance(value, int):
        return str(int(value))
    if _PLAIN_NUMBER.fullmatch(value):
        return value
    seen = value.lstrip(_SKIPPED)
    if value[:1] in ("\t", "\r", "\n") or (seen and seen[0] in _FORMULA_STARTS + _WIDE_STARTS):
        return f"'{value}"
    return value


def line_text(values: Iterable[Value]) -> str:
    """One line with its CRLF.

    A lone cell that is empty is quoted, because a line with nothing on it is skipped by many readers.
    """
    cells = [_quoted(cell_text(value)) for value in values]
    if cells == [""]:
        return '""\r\n'
    return ",".join(cells) + "\r\n"


def csv_text(header: Iterable[Value], lines: Iterable[Iterable[Value]]) -> str:
    """A whole document: the header, then the lines."""
    return line_text(header) + "".join(line_text(line) for line in lines)


def _quoted(text: str) -> str:
    # A semicolon too: spreadsheets in countries with a decimal comma split there.
    if any(mark in text for mark in ',";\r\n\t') or text.startswith((" ", "'")) or text.endswith(" "):
        return '"' + text.replace('"', '""') + '"'
    return text
