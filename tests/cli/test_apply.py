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


# --- targets and rules -------------------------------------------------------------------------------------------

TOLD = (
    FILE
    + """
[[target]]
name = "Pop"
preset = "popads"

[[target]]
name = "Own"
url = "https://x.example/?id={source_click_id}&key={account.KEY}"
retract_url = "https://x.example/undo?id={source_click_id}"
account = ["KEY"]
timeout = "1500ms"
schedule = ["0s", "5s"]
types = { sale = "order" }

[[rule]]
name = "All"
source = "S"
target = "Pop"

[[rule]]
name = "Some"
campaign = "C"
target = "Own"
when = "type = sale and country = DE"
payout = "80%"
delay = "10m"
"""
)
VALUES = ("--account", "Pop:AID=s3cr3t-aid", "--account", "Own:KEY=s3cr3t-key")


def test_targets_and_rules_are_applied_with_the_values_that_no_file_holds(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path, TOLD)
    ran = run("apply", file, "--yes", code=1)
    assert "target 'Pop': account: the value AID is not stored; give it with: " in ran.err
    assert f"postbackd apply {file} --yes --account Pop:AID=-" in ran.err
    plan = run("apply", file, *VALUES)
    assert "+ rule 'Some'" in plan.out
    assert run("target", "list", "--json").json == []
    applied = run("apply", file, "--yes", *VALUES)
    assert "s3cr3t" not in plan.out + plan.err + applied.out + applied.err
    assert run("apply", file, "--json").json["changes"] == []
    assert run("target", "show", "Pop", "--json").json["fresh"] == "2d"
    assert run("rule", "show", "Some", "--json").json["on_reversal"] == "retract"
    assert run("rule", "show", "All", "--json").json["on_reversal"] == "ignore"


def test_an_export_names_account_values_and_applies_to_what_it_came_from(run: Run, tmp_path: Path) -> None:
    run("apply", write(tmp_path, TOLD), "--yes", *VALUES)
    run(
        "target", "add", "Hook", "--kind", "webhook", "--url", "https://h.example/", "--header", "X-A: {sub1}"
    )
    run(
        "target", "add", "M", "--preset", "meta", "--option", "pixel_id=1", "--account", "ACCESS_TOKEN=s3cr3t"
    )
    text = run("export").out
    assert "s3cr3t" not in text
    assert "Account values of targets are not in it" in text
    assert 'account = [\n    "KEY",\n]' in text
    exported = write(tmp_path, text)
    assert run("apply", exported, "--json").json["changes"] == []
    elsewhere = ("--data", str(tmp_path / "elsewhere"))
    values = (*VALUES, "--account", f"Hook:SECRET=whsec_{'A' * 32}", "--account", "M:ACCESS_TOKEN=s3cr3t")
    run("apply", exported, "--yes", *values, *elsewhere)
    assert run("export", *elsewhere).out == text


def test_stored_account_values_stay_are_replaced_when_given_and_go_when_not_named(
    run: Run, tmp_path: Path
) -> None:
    run("apply", write(tmp_path, TOLD), "--yes", *VALUES)
    plan = run("apply", write(tmp_path, TOLD), "--account", "Own:KEY=s3cr3t-new")
    assert "account values: '(old values)' -> '(new values)'" in plan.out
    assert "s3cr3t" not in plan.out
    less = TOLD.replace("&key={account.KEY}", "").replace('account = ["KEY"]', "account = []")
    run("apply", write(tmp_path, less), "--yes")
    assert run("target", "show", "Own", "--json").json["account"] == {}
    ran = run("apply", write(tmp_path, TOLD), "--yes", code=1)
    assert "give it with: postbackd target set Own --account KEY=-" in ran.err


def test_what_a_file_no_longer_names_goes_rules_first(run: Run, tmp_path: Path) -> None:
    run("apply", write(tmp_path, TOLD), "--yes", *VALUES)
    empty = run("apply", write(tmp_path, ""), "--yes", "--json").json
    assert len(empty["changes"]) == 8
    assert run("target", "list", "--json").json == run("source", "list", "--json").json == []


def test_a_doubtful_rule_in_a_file_is_a_warning(run: Run, tmp_path: Path) -> None:
    text = TOLD.replace("type = sale and country = DE", "offer = P")
    ran = run("apply", write(tmp_path, text), *VALUES)
    assert "warning: rule 'Some': there is no offer 'P'" in ran.err


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('target = "Pop"', 'target = "Pup"', "rule 'All': target: the file has no target 'Pup'"),
        ('campaign = "C"', 'campaign = "D"', "rule 'Some': campaign: the file has no campaign 'D'"),
        ('campaign = "C"', "", "rule 'Some': source: a rule is of a source or of a campaign"),
        ("type = sale", "type >= 5", "rule 'Some': when: position 6"),
        ("80%", "half", "rule 'Some': payout: 'half' is no payout"),
        (
            'delay = "10m"',
            'on_change = "adjust"',
            "rule 'Some': on_change: target 'Own' has no request for adjust",
        ),
        ("{source_click_id}&key", "{click}&key", "target 'Own': request: the URL, position 23"),
        ("1500ms", "soon", "target 'Own': timeout: 'soon' is no time-out"),
        ('"5s"]', '"5"]', "target 'Own': schedule: '5' is no duration"),
        (
            '"Pop"\npreset = "popads"',
            '"Pop"\npreset = "tapjoy"',
            "target 'Pop': preset: there is no target preset 'tapjoy'",
        ),
        ("types = {", "secrets = {", "target 'Own': contains unknown field `secrets`"),
        ("types = {", "options = {", "target 'Own': options: a target of kind postback has none"),
    ],
)
def test_a_mistake_in_a_target_or_rule_is_named(
    run: Run, tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    assert old in TOLD
    assert sentence in run("apply", write(tmp_path, TOLD.replace(old, new)), *VALUES, code=1).err


def test_an_account_value_for_a_target_that_is_not_in_the_file_is_refused(run: Run, tmp_path: Path) -> None:
    ran = run("apply", write(tmp_path, TOLD), "--account", "Pup:AID=s3cr3t", code=2)
    assert "the file has no target 'Pup'" in ran.err
    assert "s3cr3t" not in ran.err
