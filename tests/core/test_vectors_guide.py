"""``spec/vectors/README.md`` leads through every file of cases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "spec" / "vectors"
GUIDE = (FOLDER / "README.md").read_text("utf-8").splitlines()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_the_guide_names_every_section_of_every_file(path: Path) -> None:
    (row,) = [line for line in GUIDE if line.startswith(f"| `{path.name}` |")]
    named = row.split("|")[2]
    vectors = json.loads(path.read_text("utf-8"))
    sections = {name for name, content in vectors.items() if isinstance(content, list) and name != "keys"}
    if path.stem == "dedup":
        sections.add("keys")  # what is counted once; in the other files keys are those that sign
    assert {f"`{name}`" for name in sections} == set(named.replace(",", " ").split())
    assert row.split("|")[3].strip()
