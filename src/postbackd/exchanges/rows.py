"""The rows of a file of postbacks, CSV or NDJSON, one a line.

A line is a row by itself: no field of a postback holds a line break, so a quote that nobody closes spoils its own line
and not the rest of the file.  A row that cannot be used is one with a reason; it is never left out in silence.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec
from msgspec import Struct

from postbackd.core.params import (
    BYTE_ORDER_MARK,
    MAX_LENGTHS,
    POSTBACK_NAMES,
    BodyMalformed,
    FieldMap,
    read_json_body,
)
from postbackd.exchanges.postback import FIELDS, Postback

Others = Literal["refuse", "ignore", "send"]

LINE, REASON, TEXT = "line", "reason", "text"
"""Columns of a file of failed rows; they are skipped when it is read again."""

_OURS = frozenset({LINE, REASON, TEXT})
_LONGEST_LINE = 64 * 1024
_DELIMITERS = ",;\t|"
_FIELD_OF = {
    name: field
    for field, names in FieldMap(POSTBACK_NAMES).names.items()
    if field in FIELDS
    for name in names
}


class RowsError(Exception):
    """The file cannot be used as it is; nothing of it was sent.  The message says what to change."""


class Row(Struct, frozen=True, kw_only=True):
    """One line of the file."""

    line: int
    cells: Mapping[str, str]
    """As they stand in the file, for the file of failed rows."""
    postback: Postback = Postback()
    error: str = ""
    """Why it cannot be sent."""
    key: str = ""
    """Equal for the same row in a later run: a hash of what is sent, and the how-manieth of its like it is."""


def count_lines(path: Path) -> int:
    """How many rows there are at most."""
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


def read_rows(path: Path, others: Others = "refuse", *, needs_click_id: bool = True) -> Iterator[Row]:
    """The rows of a file; its form is seen from its first line.  Raises ``RowsError`` and ``OSError``."""
    with path.open("rb") as file:
        first = file.readline(_LONGEST_LINE).removeprefix(BYTE_ORDER_MARK)
        file.seek(0)
        if not first.strip():
            raise RowsError(
                f"{path} begins with an empty line; its first line is a header (CSV) or a row (NDJSON)"
            )
        reading = _read_objects(file) if first.lstrip()[:1] == b"{" else _read_cells(file, path)
        seen: dict[str, int] = {}
        for line, cells, error in reading:
            yield _make_row(line, cells, error, others, needs_click_id, seen)


def is_ndjson(path: Path) -> bool:
    """Whether the rows are JSON objects."""
    with path.open("rb") as file:
        return file.readline(_LONGEST_LINE).removeprefix(BYTE_ORDER_MARK).lstrip()[:1] == b"{"


Read = tuple[int, Mapping[str, str], str]
"""Number of the line, cells, and what is wrong with it."""


def _lines(file: BinaryIO) -> Iterator[tuple[int, str, str]]:
    """Number, text, and what is wrong with the text."""
    number = 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        if not line.endswith(b"\n") and len(line) == _LONGEST_LINE:
            while (rest := file.readline(_LONGEST_LINE)) and not rest.endswith(b"\n"):
                pass
            yield (
                number,
                line[:200].decode("utf-8", "replace"),
                f"the line is longer than {_LONGEST_LINE // 1024} kB",
            )
            continue
        if number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        line = line.rstrip(b"\r\n")
        if not line.strip():
            continue
        try:
            yield number, line.decode("utf-8"), ""
        except UnicodeDecodeError:
            yield number, line.decode("latin-1"), "the line is not UTF-8"


def _read_objects(file: BinaryIO) -> Iterator[Read]:
    for number, text, error in _lines(file):
        if error:
            yield number, {TEXT: text}, error
            continue
        try:
            found = read_json_body(text.encode())
        except BodyMalformed as problem:
            yield number, {TEXT: text}, f"not JSON: {problem}"
            continue
        if not isinstance(found, dict):
            yield number, {TEXT: text}, "not a JSON object"
            continue
        nested = [name for name, value in found.items() if isinstance(value, dict | list)]
        if nested:
            yield number, {TEXT: text}, f"{nested[0][:40]!r} holds more than one value"
            continue
        yield number, {name: _text_of(value) for name, value in found.items()}, ""


def _text_of(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _read_cells(file: BinaryIO, path: Path) -> Iterator[Read]:
    names: list[str] = []
    delimiter = ","
    for number, text, error in _lines(file):
        if not names:
            delimiter = max(_DELIMITERS, key=text.count)
            names = _read_header(text, delimiter, path)
            continue
        cells = None if error else _split(text, delimiter)
        if cells is None:
            yield number, {TEXT: text}, error or "a quote is not closed in its line"
        elif len(cells) != len(names):
            yield number, {TEXT: text}, f"{len(cells)} cells below {len(names)} names"
        else:
            yield number, dict(zip(names, cells, strict=True)), ""


def _read_header(text: str, delimiter: str, path: Path) -> list[str]:
    names = [name.strip() for name in _split(text, delimiter) or []]
    if not any(_FIELD_OF.get(name.lower()) == "click_id" for name in names):
        raise RowsError(
            f"{path}: the first line names no column for the click id ({', '.join(names)[:120]}); "
            f"write a header such as click_id,type,value,currency,transaction_id,status"
        )
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise RowsError(f"{path}: two columns are called {double!r}; take one out")
    return names


def _split(text: str, delimiter: str) -> list[str] | None:
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error:
        return None


def _make_row(
    line: int,
    cells: Mapping[str, str],
    error: str,
    others: Others,
    needs_click_id: bool,
    seen: dict[str, int],
) -> Row:
    if error:
        return Row(line=line, cells=cells, error=error)
    fields: dict[str, str] = {}
    extra: dict[str, str] = {}
    for name, text in cells.items():
        field = _FIELD_OF.get(name.lower())
        if field is not None:
            fields[field] = fields.get(field) or text.strip()
        elif name not in _OURS:
            extra[name] = text.strip()
    if extra and others == "refuse":
        raise RowsError(_say_unknown(line, next(iter(extra))))
    postback = Postback(**fields, extra=extra if others == "send" else {})
    error = _find_fault(postback, needs_click_id)
    key = "" if error else _key_of(postback, seen)
    return Row(line=line, cells=cells, postback=postback, error=error, key=key)


def _say_unknown(line: int, name: str) -> str:
    close = get_close_matches(name.lower(), _FIELD_OF, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return (
        f"line {line}: nothing is known of {name[:40]!r}{meant} "
        "Rename it, or say what to do with such columns: --other-columns ignore, or send"
    )


def _find_fault(postback: Postback, needs_click_id: bool) -> str:
    if needs_click_id and not postback.click_id:
        return "it has no click id"
    for field, text in postback.fields().items():
        if len(text) > MAX_LENGTHS[field]:
            return f"the {field} is longer than {MAX_LENGTHS[field]} characters"
        if not text.isprintable():
            return f"the {field} holds a control character"
    return ""


def _key_of(postback: Postback, seen: dict[str, int]) -> str:
    digest = hashlib.sha256(msgspec.json.encode(postback, order="sorted")).hexdigest()[:20]
    seen[digest] = seen.get(digest, 0) + 1
    return digest if seen[digest] == 1 else f"{digest}.{seen[digest]}"


def transaction_column(names: Sequence[str]) -> str:
    """The column that holds the transaction id, or the one to add for it."""
    return next((name for name in names if _FIELD_OF.get(name.lower()) == "transaction_id"), "transaction_id")
