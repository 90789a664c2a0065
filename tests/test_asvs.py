"""The table of ASVS items: whatever test it names exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "asvs.md"
NAMED = re.compile(r"\b(tests/[\w/]+\.py)(?:::(\w+))?")
STATES = ("met", "met, but for one", "open", "not met", "n.a.", "operator's")


def missing(text: str) -> list[str]:
    """What is named and does not exist."""
    return [
        found[0]
        for found in NAMED.finditer(text)
        if not (ROOT / found[1]).is_file()
        or (
            found[2]
            and not re.search(rf"^(async )?def {found[2]}\(", (ROOT / found[1]).read_text(), re.MULTILINE)
        )
    ]


def rows() -> list[list[str]]:
    """The cells of every item."""
    lines = [line for line in TABLE.read_text().splitlines() if re.match(r"\| \d", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_test_that_is_named_exists() -> None:
    assert missing(TABLE.read_text()) == []
    assert missing((ROOT / "SECURITY.md").read_text()) == []


def test_a_test_that_does_not_exist_would_be_found() -> None:
    """The control of the test above."""
    assert missing("`tests/test_asvs.py::test_nothing`, tests/none.py") == [
        "tests/test_asvs.py::test_nothing",
        "tests/none.py",
    ]


def test_every_item_has_its_level_a_state_and_a_reason_or_a_place() -> None:
    assert len(rows()) > 60
    seen: set[str] = set()
    for items, levels, what, state, where in rows():
        for item in items.split(", "):
            assert re.fullmatch(r"([1-9]|1[0-7])\.\d{1,2}\.\d{1,2}", item), item
            assert item not in seen
            seen.add(item)
        assert set(levels.split(", ")) <= {"1", "2"}, items
        assert what
        assert state in STATES, items
        assert where or state == "n.a.", items
