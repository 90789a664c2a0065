"""No cell of our CSV is a formula, and reading the text gives back what was written."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postbackd.core.csv_text import cell_text, csv_text, line_text

DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n")


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("start", [*DANGEROUS, " =", "\u00a0@", "\ufeff+", "\uff1d", "|", "%"])
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(start: str) -> None:
    text = f"{start}cmd|' /C calc'!A0"
    assert cell_text(text) == f"'{text}"
    assert read(line_text([text, 1])) == [[f"'{text}", "1"]]


@pytest.mark.parametrize("number", ["-12.50", "+3", "0", "-0.000001", "12345678901234567890.5"])
def test_plain_numbers_stay_numbers(number: str) -> None:
    assert cell_text(number) == number


@pytest.mark.parametrize("text", ["-12.50.1", "-1+1", "+1-1", "--1", "-", "-1e5", "-\u0661", "-1\n"])
def test_what_only_begins_like_a_number_is_text(text: str) -> None:
    assert cell_text(text).startswith("'")


def test_nothing_is_an_empty_cell_and_integers_are_digits() -> None:
    assert csv_text(["a", "b"], [[None, -5], [None, None]]) == "a,b\r\n,-5\r\n,\r\n"
    assert line_text([None]) == '""\r\n'


@settings(max_examples=300)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00")), min_size=1, max_size=4))
def test_no_random_text_becomes_a_formula_or_another_line(cells: list[str]) -> None:
    (line,) = read(line_text(cells))
    assert len(line) == len(cells)
    for cell, given_ in zip(line, cells, strict=True):
        assert cell.removeprefix("'") == given_.removeprefix("'")
        plain = cell.lstrip("+-").replace(".", "", 1)
        assert not cell.startswith(DANGEROUS) or (plain.isascii() and plain.isdigit())
