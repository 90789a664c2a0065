"""The generated pages say what the program does."""

from __future__ import annotations

from pathlib import Path

import pytest

from postbackd.cli.reference import make_pages

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize(("name", "text"), make_pages().items(), ids=list(make_pages()))
def test_a_reference_page_is_current(name: str, text: str) -> None:
    current = (FOLDER / name).read_text("utf-8") == text
    assert current, f"{name} is out of date: run 'python -m postbackd.cli.reference'"
