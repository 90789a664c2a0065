"""Reads the file of a partner's export: looks it through once to know its form, then hands out its records.

Memory does not grow with the file: a line, a few hundred records for the header, and the different values that show how
amounts and times are written.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from msgspec import Struct

from postbackd.core.click_id import KeyRing
from postbackd.core.export_rows import Layout
from postbackd.core.export_values import AmountEvidence, DateEvidence
from postbackd.core.exports import (
    LONGEST_CELL,
    ExportError,
    Given,
    Header,
    check_width,
    find_header,
    guess_delimiter,
    guess_encoding,
)
from postbackd.core.params import windows_1252

MAX_ROWS = 5_000_000
"""Of one file."""

_LONGEST_LINE = 1 << 20
_LONGEST_RECORD = 1 << 21
"""Characters: a cell may hold line breaks, and so a record any number of lines."""

_HEAD_BYTES = 4096
_HEADER_RECORDS = 260
_HEADER_CHARACTERS = 1 << 23
_DELIMITER_LINES = 80
_DELIMITER_CHARACTERS = 1 << 20

Record = tuple[int, list[str] | None]
"""(line, cells); no cells: the record is not valid CSV."""


class Survey(Struct, frozen=True):
    """What looking a file through has shown."""

    layout: Layout
    records: int
    """Behind the header."""


def survey(path: Path, given: Given, own_names: Mapping[str, Sequence[str]], keys: KeyRing) -> Survey:
    """The form of a file.  Raises ``ExportError``, and ``OSError`` when it cannot be read."""
    with path.open("rb") as file:
        guessed, _ = guess_encoding(file.read(_HEAD_BYTES))
    if given.encoding:
        return _survey(path, given.encoding, given, own_names, keys)
    try:
        return _survey(path, guessed, given, own_names, keys)
    except UnicodeDecodeError:
        return _survey(path, "cp1252", given, own_names, keys)


def _survey(
    path: Path, encoding: str, given: Given, own_names: Mapping[str, Sequence[str]], keys: KeyRing
) -> Survey:
    try:
        with _open(path, encoding) as file:
            lines = list(_first_lines(_lines(file, encoding)))
    except UnicodeDecodeError:
        if given.encoding:
            raise ExportError(f"the file is not {given.encoding}; leave --encoding out") from None
        raise
    delimiter = given.delimiter or guess_delimiter(lines)
    head: list[list[str]] = []
    held = 0
    for _, cells in read_records(path, encoding, delimiter):
        check_width(cells or [])  # before many of them are held
        head.append(cells or [])
        held += sum(map(len, cells or []))
        if len(head) >= _HEADER_RECORDS or held > _HEADER_CHARACTERS:
            break
    header = find_header(head, own_names, keys, given)
    return _weigh(path, encoding, delimiter, header, given)


def _first_lines(lines: Iterator[str]) -> Iterator[str]:
    """Enough to see what stands between the cells."""
    held = 0
    for _, line in zip(range(_DELIMITER_LINES), lines, strict=False):
        yield line
        held += len(line)
        if held > _DELIMITER_CHARACTERS:
            return


def _weigh(path: Path, encoding: str, delimiter: str, header: Header, given: Given) -> Survey:
    """Look at every amount and time."""
    amounts, dates = AmountEvidence(), DateEvidence()
    value, time = header.columns.get("value", -1), header.columns.get("time", -1)
    records = -1 - header.record
    for _, cells in read_records(path, encoding, delimiter):
        records += 1
        if records <= 0 or cells is None:
            continue
        if 0 <= value < len(cells):
            amounts.add(cells[value])
        if 0 <= time < len(cells):
            dates.add(cells[time])
    if records > MAX_ROWS:
        raise ExportError(
            f"the file has {records:,} rows, and at most {MAX_ROWS:,} are read; split it by date"
        )
    decimal, amount_note = (given.decimal, "") if given.decimal else amounts.decide()
    order, date_note = (given.dates, "") if given.dates else dates.decide()
    layout = Layout(
        encoding=encoding,
        delimiter=delimiter,
        header=header,
        decimal=decimal,
        dates=order,
        clocks=dates.clocks or header.clock is not None,
        decimals=amounts.decimals(decimal),
        notes=tuple(
            note for note in (amount_note if value >= 0 else "", date_note if time >= 0 else "") if note
        ),
    )
    return Survey(layout, records)


def read_records(path: Path, encoding: str, delimiter: str) -> Iterator[Record]:
    """The records of a file and the lines on which they begin; blank lines are none.

    Raises ``ExportError`` where a quotation mark is never closed, and ``UnicodeDecodeError``.
    """
    csv.field_size_limit(LONGEST_CELL)
    with _open(path, encoding) as file:
        lines = _Measured(_lines(file, encoding))
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        while True:
            line = reader.line_num + 1
            lines.size = 0
            try:
                cells: list[str] | None = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "field larger" in str(error) or "unexpected end" in str(error):
                    raise _never_closed(line) from None
                cells = None
            except _Endless:
                raise _never_closed(line) from None
            filled = cells is None or any(cell.strip() for cell in cells)
            if filled and (line > 1 or not _is_separator_line(cells)):
                yield line, cells


class _Endless(Exception):
    """A record goes on and on."""


class _Measured:
    """Lines, and how much of them was handed out; raises ``_Endless`` when that is too much for one record."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.size = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.size += len(line)
        if self.size > _LONGEST_RECORD:
            raise _Endless
        return line


def _never_closed(line: int) -> ExportError:
    return ExportError(
        f"a quotation mark on line {line} or soon after it is never closed, so that nothing behind it can be told "
        "apart; close it"
    )


def _is_separator_line(cells: list[str] | None) -> bool:
    """``sep=;``, which Excel writes and reads."""
    return bool(cells) and cells is not None and len(cells) <= 2 and cells[0].lower().startswith("sep=")


@contextmanager
def _open(path: Path, encoding: str) -> Iterator[TextIO]:
    """As text.  UTF-8 has to be valid; of UTF-16 what is not is replaced."""
    strict = encoding == "utf-8"
    codec = "latin-1" if encoding == "cp1252" else encoding
    with path.open("r", encoding=codec, errors="strict" if strict else "replace", newline="") as file:
        yield file


def _lines(file: TextIO, encoding: str) -> Iterator[str]:
    """Without the byte order mark."""
    number = 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        if len(line) >= _LONGEST_LINE and not line.endswith("\n"):
            raise ExportError(
                f"line {number} is longer than {_LONGEST_LINE:,} characters; is it a table of conversions?"
            )
        if number == 1:
            line = line.removeprefix("\ufeff")
        yield windows_1252(line) if encoding == "cp1252" else line
