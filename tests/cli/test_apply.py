"""The catalog as a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run

FILE = """
[[network]]
name = "N"
preset = "wannads"

[[source]]
name = "S"
preset = "popads"

[[offer]]
name = "O"
network = "N"
url = "https://shop.example/{click_id}"
window_max = "7d"

[[campaign]]
name = "C"
source = "S"
offers = ["O"]
"""


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "catalog.toml"
    path.write_text(text, "utf-8")
    return str(path)


def test_a_file_is_shown_as_a_plan_first_and_applied_with_yes(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path, FILE)
    shown = run("apply", file)
    assert "+ campaign 'C'" in shown.out
    assert "run it again with --yes" in shown.out
    assert run("campaign", "list", "--json").json == []
    applied = run("apply", file, "--yes", "--json").json
    assert applied["applied"] is True
    assert [(change["action"], change["kind"]) for change in applied["changes"]] == [
        ("create", kind) for kind in ("network", "source", "offer", "campaign")
    ]
    assert run("apply", file, "--yes", "--json").json == {"changes": [], "applied": False}
    assert run("network", "show", "N", "--json").json["statuses"]["credited"] == "approved"
    assert run("source", "show", "S", "--json").json["parameters"]["sub1"] == ["sub1", "site_id"]


@pytest.mark.parametrize("options", [(), ("--no-keys",)])
def test_what_is_exported_changes_nothing_when_applied(
    filled: Run, tmp_path: Path, options: tuple[str, ...]
) -> None:
    filled(
        "network", "add", "Odd", "--field", "click_id=a,b", "--status-word", "ja=approved", "--type", "sale"
    )
    exported = filled("export", *options).out
    assert "secrets" in exported or options
    assert filled("apply", write(tmp_path, exported), "--json").json["changes"] == []


def test_an_export_builds_the_same_catalog_elsewhere(filled: Run, tmp_path: Path) -> None:
    file = str(tmp_path / "out.toml")
    filled("export", "--output", file)
    assert Path(file).stat().st_mode & 0o777 == 0o600
    elsewhere = str(tmp_path / "elsewhere")
    filled("apply", file, "--yes", "--data", elsewhere)
    assert filled("export", "--data", elsewhere).out == filled("export").out


def test_the_plan_names_what_changes_and_what_goes_without_showing_keys(filled: Run, tmp_path: Path) -> None:
    key = filled("network", "show", "TUNE", "--json").json["key"]
    text = filled("export").out.replace('"30d"', '"7d"').replace("Summer Sale", "Winter Sale")
    text = text.replace("summer-sale", "winter-sale").replace(key, "k" * 26)
    plan = filled("apply", write(tmp_path, text))
    assert "window_max: '30d' -> '7d'" in plan.out
    assert "+ campaign 'Winter Sale'" in plan.out
    assert "- campaign 'Summer Sale'" in plan.out
    assert key not in plan.out
    filled("apply", write(tmp_path, text), "--yes")
    assert [row["name"] for row in filled("campaign", "list", "--json").json] == ["Winter Sale"]
    assert filled("network", "show", "TUNE", "--json").json["key"] == "k" * 26


def test_a_conflict_leaves_everything_as_it_was(filled: Run, tmp_path: Path) -> None:
    filled("campaign", "add", "Old", "--source", "Propeller", "--offer", "Shop", "--slug", "taken")
    filled("campaign", "remove", "Old")
    before = filled("export").out
    text = before.replace('"30d"', '"7d"').replace("summer-sale", "taken")
    assert "removed campaign 'Old'" in filled("apply", write(tmp_path, text), "--yes", code=1).err
    assert filled("export").out == before


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[network]]\nname = 'x'\ncurrency = 'EURO'", "network 'x': currency: 'EURO' is no ISO 4217 code"),
        ("[[network]]\nname = 'x'\nstrict = 'yes'", "network 'x': strict: Expected `bool`, got `str`"),
        ("[[network]]\ncurrency = 'USD'", "network number 1: missing required field `name`"),
        ("[[network]]\nname = 'x'\ncolour = 'red'", "network 'x': contains unknown field `colour`"),
        ("[[network]]\nname = 'x'\n[[network]]\nname = 'x'", "two networks of this name"),
        ("[[networks]]\nname = 'x'", "'networks' is not known"),
        ("network = 'x'", "network must be written as [[network]]"),
        (FILE.replace('network = "N"', 'network = "M"'), "offer 'O': network: the file has no network 'M'"),
        (FILE.replace('["O"]', '["P"]'), "campaign 'C': offers: the file has no offer 'P'"),
        (FILE.replace("7d", "soon"), "offer 'O': window_max: 'soon' is no duration"),
        (FILE.replace("{click_id}", "{clickid}"), "offer 'O': url: unknown macro {clickid}"),
        (FILE.replace("popads", "tune"), "source 'S': preset: there is no source preset 'tune'"),
        ("= broken", "not TOML"),
    ],
)
def test_a_mistake_is_named_with_its_file_entry_and_field(
    run: Run, tmp_path: Path, text: str, sentence: str
) -> None:
    ran = run("apply", write(tmp_path, text), "--yes", code=1)
    assert "catalog.toml: " in ran.err
    assert sentence in ran.err
    assert ran.err.count("\n") == 1


def test_a_file_that_is_not_there_is_one_line(run: Run, tmp_path: Path) -> None:
    assert "No such file" in run("apply", str(tmp_path / "nope.toml"), code=1).err
