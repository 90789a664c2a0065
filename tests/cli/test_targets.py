"""Targets: what is saved, what is refused, and that no secret ever comes out again."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from postbackd.catalog.target_rows import TargetRow, read_target, write_target
from postbackd.cli.account_values import seal_values
from postbackd.core.webhooks import read_secret
from postbackd.presets import load_presets
from postbackd.sealing import KEY_NAME, find_sealer
from postbackd.settings import Settings
from tests.cli.conftest import Run

DEADLINE_S = 30

PROPELLER = ("target", "add", "Prop", "--preset", "propellerads", "--account", "AID=s3cr3t-aid")
HOOK = ("target", "add", "Hook", "--kind", "webhook", "--url", "https://hook.example/in")


def test_a_preset_fills_the_url_and_what_is_known_of_the_source(run: Run) -> None:
    run(*PROPELLER, "--account", "TID=s3cr3t-tid")
    shown = run("target", "show", "Prop", "--json").json
    assert shown["url"] == (
        "https://ad.propellerads.com/conversion.php?aid={account.AID}&pid=&tid={account.TID}"
        "&visitor_id={source_click_id}&payout={value}&goal={goal}"
    )
    assert shown["final"] == [400]
    run("target", "add", "Pop", "--preset", "popads", "--account", "AID=1")
    shown = run("target", "show", "Pop", "--json").json
    assert (shown["fresh"], shown["fresh_from"]) == ("2d", "click")
    run("target", "add", "Eva", "--preset", "evadav", "--final", "400", "--status", "pending=hold")
    shown = run("target", "show", "Eva", "--json").json
    assert shown["failure"] == [r'"status"\s*:\s*"error"']
    assert (shown["final"], shown["statuses"]) == ([400], {"pending": "hold"})


def test_an_option_is_added_to_the_words_of_the_preset(run: Run) -> None:
    run("target", "add", "K", "--preset", "kadam", "--status", "pending=wait", "--type", "sale=order")
    shown = run("target", "show", "K", "--json").json
    assert shown["statuses"] == {
        "approved": "approved",
        "pending": "wait",
        "rejected": "rejected",
        "reversed": "rejected",
    }
    assert shown["types"] == {"sale": "order"}


def test_account_values_and_placeholders_that_are_missing_are_named(run: Run) -> None:
    ran = run("target", "add", "Prop", "--preset", "propellerads", code=2)
    assert "add --account AID=... --account TID=..." in ran.err
    ran = run(
        "target", "add", "A", "--preset", "adcash", "--account", "ID=1", "--account", "EVENT_ID=2", code=2
    )
    assert "add --fill ADCASH_HOST=..." in ran.err
    given = ("--account", "ID=1", "--account", "EVENT_ID=2", "--fill", "ADCASH_HOST=pixelhere.com")
    assert "{account.ID}" in run("target", "add", "A", "--preset", "adcash", *given).out
    assert run("target", "show", "A", "--json").json["url"].startswith("https://pixelhere.com/et/event.php?")
    ran = run("target", "add", "B", "--preset", "evadav", "--fill", "HOST=x", code=2)
    assert "the URL asks for no <HOST>, but for nothing" in ran.err


def test_what_stands_behind_a_placeholder_may_be_a_macro(run: Run) -> None:
    run("target", "add", "T", "--preset", "trafficstars", "--account", "KEY=k", "--fill", "GOAL_ID={goal}")
    assert "goalid={goal}&" in run("target", "show", "T", "--json").json["url"]


def test_a_secret_is_asked_for_on_a_terminal_without_being_shown(run: Run, data: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "postbackd", "target", "add", "P", "--preset", "popads"]
    with subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        watchdog = threading.Timer(DEADLINE_S, process.kill)
        watchdog.start()
        os.close(theirs)
        assert process.stdout is not None
        said = process.stdout.read(len("AID: "))
        os.write(ours, b"s3cr3t-aid\n")  # not before: what was typed ahead is thrown away
        said += process.stdout.read()
        watchdog.cancel()
    os.close(ours)
    assert process.returncode == 0, said
    assert b"s3cr3t" not in said
    assert opened(data) == {"P": {"AID": "s3cr3t-aid"}}


def test_values_of_minus_are_read_from_standard_input_one_a_line(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("first\nsec=ond \n"))
    run("target", "add", "P", "--preset", "propellerads", "--account", "AID=-", "--account", "TID=-")
    assert opened(data) == {"P": {"AID": "first", "TID": "sec=ond "}}
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert "no value for AID" in run("target", "set", "P", "--account", "AID=-", code=2).err


def opened(data: Path) -> dict[str, dict[str, str]]:
    """The account values that are stored, by target."""
    sealer = find_sealer(None, data, create=False)
    db = apsw.Connection(str(data / "postbackd.db"))
    rows = db.execute("SELECT name, secrets FROM targets WHERE removed_ms IS NULL").fetchall()
    db.close()
    return {
        str(name): {key: sealer.open(sealed) for key, sealed in msgspec.json.decode(str(secrets)).items()}
        for name, secrets in rows
    }


def test_no_secret_comes_out_again_or_reaches_the_database(filled: Run, data: Path) -> None:
    filled(*PROPELLER, "--account", "TID=s3cr3t-tid")
    filled("rule", "add", "R", "--source", "Propeller", "--target", "Prop")
    commands: list[tuple[str, ...]] = [
        ("target", "list"),
        ("target", "show", "Prop"),
        ("target", "set", "Prop", "--timeout", "4s"),
        ("rule", "test", "--sample", "type=sale"),
        ("export",),
        ("target", "pause", "Prop"),
        ("target", "resume", "Prop"),
    ]
    for command in commands:
        for form in (command, (*command, "--json")):
            ran = filled(*form)
            assert "s3cr3t" not in ran.out + ran.err
    assert "(set)" in filled("target", "show", "Prop").out
    assert all(b"s3cr3t" not in path.read_bytes() for path in data.iterdir())
    assert (data / KEY_NAME).stat().st_mode & 0o777 == 0o600
    assert opened(data) == {"Prop": {"AID": "s3cr3t-aid", "TID": "s3cr3t-tid"}}


@pytest.mark.parametrize(
    "arguments",
    [
        (*PROPELLER, "--account", "s3cr3t-tid"),
        (*PROPELLER, "--account", "TID=s3cr3t\x07"),
        (*PROPELLER, "--account", "T ID=s3cr3t"),
        (*HOOK, "--header", "Authorization: Bearer s3cr3t"),
        (*HOOK, "--account", "SECRET=s3cr3t"),
        (*HOOK, "--account", "SECRET=whsec_s3cr3t"),
        (*PROPELLER, "--account", "TID=s3cr3t", "--url", "https://x.example/{account.TOD}"),
    ],
)
def test_no_error_message_shows_a_secret(run: Run, arguments: tuple[str, ...]) -> None:
    ran = run(*arguments, code=2)
    assert "s3cr3t" not in ran.out + ran.err


def test_a_webhook_gets_a_secret_that_is_shown_once(run: Run, data: Path) -> None:
    made = run(*HOOK, "--json").json
    assert len(read_secret(made["signing_secret"])) == 32
    assert opened(data) == {"Hook": {"SECRET": made["signing_secret"]}}
    assert made["signing_secret"] not in run("target", "show", "Hook", "--json").out
    assert "whsec_" not in run("target", "set", "Hook", "--timeout", "4s").out
    newer = run("target", "set", "Hook", "--new-secret").out.split()[-1]
    assert opened(data) == {"Hook": {"OLD_SECRET": made["signing_secret"], "SECRET": newer}}
    run("target", "set", "Hook", "--account", "OLD_SECRET=")
    assert opened(data) == {"Hook": {"SECRET": newer}}
    given = "whsec_" + "A" * 32
    assert "whsec_" not in run(*HOOK[:2], "Mine", *HOOK[3:], "--account", f"SECRET={given}").out


def test_a_key_of_another_length_is_refused_with_what_to_do(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTBACKD_SECRET_KEY", "short")
    ran = run(*HOOK, code=1)
    assert "32 bytes in base64" in ran.err
    assert "short" not in ran.err


def test_where_the_key_is_is_said_when_the_database_is_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(data=str(tmp_path), store="postgresql://db.example/p")
    seal_values({"A": "s3cr3t"}, settings)
    said = capsys.readouterr().err
    assert str(tmp_path / KEY_NAME) in said
    assert "POSTBACKD_SECRET_KEY" in said
    key = (tmp_path / KEY_NAME).read_text("ascii").strip()
    seal_values(
        {"A": "s3cr3t"}, Settings(data=str(tmp_path), store="postgresql://db.example/p", secret_key=key)
    )
    assert capsys.readouterr().err == ""


def test_a_platform_asks_for_its_options_and_account_values(run: Run) -> None:
    bare = ("target", "add", "M", "--preset", "meta")
    assert "options: option pixel_id is missing" in run(*bare, code=2).err
    meta = (*bare, "--option", "pixel_id=123")
    assert "account value ACCESS_TOKEN is missing" in run(*meta, code=2).err
    run(*meta, "--account", "ACCESS_TOKEN=t", "--type", "sale=Purchase")
    shown = run("target", "show", "M", "--json").json
    assert (shown["kind"], shown["options"], shown["fresh"]) == ("meta", {"pixel_id": "123"}, "7d")
    assert "makes its own" in run("target", "set", "M", "--url", "https://x.example/", code=2).err
    run("target", "set", "M", "--option", "test_event_code=T1")
    assert run("target", "show", "M", "--json").json["options"] == {
        "pixel_id": "123",
        "test_event_code": "T1",
    }


POST = (
    *("--url", "https://x.example/in?id={source_click_id}", "--body-type", "json"),
    *("--body", '{"event":"{type}","value":"{value:number}"}', "--account", "TOKEN=t"),
    *("--header", "Authorization: Bearer {account.TOKEN}", "--header", "X-One: 1"),
    *("--adjust-url", "https://x.example/change", "--retract-url", "https://x.example/undo"),
)


def test_a_request_of_ones_own_is_saved_and_changed_where_it_is_named(run: Run) -> None:
    run("target", "add", "X", *POST, "--on-empty", "empty", "--schedule", "0s,5s,1m", "--timeout", "1500ms")
    before = run("target", "show", "X", "--json").json
    assert before["method"] == "POST"
    assert (before["schedule"], before["timeout"]) == (["0s", "5s", "1m"], "1500ms")
    changes = ("--header", "x-one:", "--retract-url", "", "--schedule", "", "--failure", "no", "--name", "Y")
    run("target", "set", "X", *changes)
    after = run("target", "show", "Y", "--json").json
    assert after == before | {
        "name": "Y",
        "headers": {"Authorization": "Bearer {account.TOKEN}"},
        "retract_url": "",
        "schedule": [],
        "failure": ["no"],
    }
    run("target", "set", "Y", "--body", "", "--method", "GET", "--failure", "")
    after = run("target", "show", "Y", "--json").json
    assert (after["method"], after["body"], after["body_type"], after["failure"]) == ("GET", "", "", [])


URL = ("--url", "https://x.example/?id={source_click_id}")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "url: a target of kind postback needs one"),
        (
            ("--url", "https://x.example/?id={clickid}"),
            "position 23, 'tps://x.example/?id=>>{clickid}<<': unknown macro",
        ),
        (("--url", "https://x.example/?id={click_id"), "a single {"),
        (("--url", "https://x.example/<ACCOUNT_AID>"), "add --account AID=..."),
        (("--url", "ftp://x.example/"), "must start with https://"),
        (("--url", "https://me:pw@x.example/"), "a user name or password"),
        (
            (*URL, "--retract-url", "https://x.example/{"),
            "request: of the retraction, the URL, position 19, ",
        ),
        (
            (*URL, "--adjust-url", "https://me:pw@x.example/"),
            "of the adjustment, the URL, position 9: a user",
        ),
        ((*URL, "--body", "{", "--body-type", "json"), "the JSON body, position 2, '{>><<'"),
        ((*URL, "--body", "a=b"), "say 'form' or 'json'"),
        ((*URL, "--body", "a=b", "--body-type", "form", "--method", "GET"), "a GET request has no body"),
        ((*URL, "--header", "nothing"), "write it as 'NAME: VALUE'"),
        ((*URL, "--header", "Host: x"), "is set by the sender"),
        ((*URL, "--success", "(a+)+"), "success: the pattern '(a+)+'"),
        ((*URL, "--failure", "("), "failure: the pattern '('"),
        ((*URL, "--final", "often"), "--final 'often' is no HTTP status"),
        ((*URL, "--final", "100"), "final: an HTTP status is a number from 200 to 599"),
        ((*URL, "--fresh", "old"), "fresh: 'old' is no duration"),
        ((*URL, "--fresh", "9999d"), "fresh: must be at most 3650d"),
        ((*URL, "--schedule", "0s,soon"), "schedule: 'soon' is no duration"),
        ((*URL, "--schedule", "99d"), "schedule: at most 50 pauses of at most 30d"),
        ((*URL, "--timeout", "5m"), "timeout: '5m' is no time-out; write a number and s or ms"),
        ((*URL, "--timeout", "500s"), "timeout: must be from 10 to 120000 ms"),
        ((*URL, "--connect-timeout", "1ms"), "connect_timeout: must be from 10 to 60000 ms"),
        ((*URL, "--concurrency", "0"), "concurrency: must be from 1 to 1000"),
        ((*URL, "--status", "paid=yes"), "statuses: 'paid' is no status of ours"),
        ((*URL, "--type", "sale"), "--type 'sale' is not usable; write it as OURS=THEIRS"),
        ((*URL, "--option", "pixel_id=1"), "options: a target of kind postback has none"),
        ((*URL, "--preset", "nope"), "there is no target preset 'nope'"),
        ((*URL, "--preset", "impact"), "there is no target preset 'impact'"),
        ((*URL, "--preset", "meta", "--kind", "tiktok"), "kind: the preset is of kind meta"),
        ((*URL, "--kind", "webhook", "--method", "POST"), "method: a target of kind webhook makes its own"),
    ],
)
def test_what_cannot_be_sent_is_refused_in_one_line_with_its_place(
    run: Run, data: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    ran = run("target", "add", "X", *arguments, code=2)
    assert sentence in ran.err
    assert ran.err.count("\n") == 1
    assert not data.exists()


def test_a_target_is_paused_and_resumed(run: Run) -> None:
    run("target", "add", "X", *URL)
    run("target", "pause", "X", "--reason", "too many complaints")
    (row,) = run("target", "list", "--counts", "--json").json
    assert (row["state"], row["reason"], row["until"]) == ("paused", "too many complaints", None)
    assert (row["waiting"], row["dead"]) == (0, 0)
    assert "too many complaints" in run("target", "list").out
    run("target", "resume", "X", "--json")
    assert run("target", "show", "X", "--json").json["state"] == "active"
    assert "there is no target 'Y'" in run("target", "pause", "Y", code=1).err


def test_a_target_that_a_rule_needs_stays_what_the_rule_needs(filled: Run) -> None:
    filled("target", "add", "X", *URL, "--retract-url", "https://x.example/undo")
    filled("rule", "add", "R", "--source", "Propeller", "--target", "X")
    ran = filled("target", "set", "X", "--retract-url", "", code=2)
    assert "rule 'R' needs it: on_reversal: target 'X' has no request for retractions" in ran.err
    assert "still used by rule 'R'" in filled("target", "remove", "X", code=1).err
    filled("rule", "remove", "R")
    filled("target", "remove", "X")
    assert filled("target", "list", "--json").json == []


@pytest.mark.parametrize("preset", [p for p in load_presets() if p.is_target], ids=lambda preset: preset.id)
def test_every_preset_makes_a_target_that_reads_back_the_same(run: Run, preset: Any) -> None:
    asked = {"ADCASH_HOST": "x.example", "TUNE_NETWORK": "net", "DOMAIN": "x.example"}
    asked |= {"GOAL_ID": "1", "SOURCE_AD_ID": "{sub1}"}
    platforms = {"meta": ("pixel_id", "ACCESS_TOKEN"), "tiktok": ("pixel_code", "ACCESS_TOKEN")}
    options: list[str] = []
    for name in (name for name in asked if f"<{name}>" in (preset.target_url or "")):
        options += ["--fill", f"{name}={asked[name]}"]
    for name in ("AID", "TID", "UUID", "KEY", "HASH", "ID", "EVENT_ID", "NAME"):
        options += ["--account", f"{name}=1"] if f"<ACCOUNT_{name}>" in (preset.target_url or "") else []
    if preset.target.kind in platforms:
        option, account = platforms[preset.target.kind]
        options += ["--option", f"{option}=1", "--account", f"{account}=1"]
    shown = run("target", "add", "X", "--preset", preset.id, *options, "--json").json
    assert "<" not in shown.get("url", "")
    row = TargetRow(**{**shown, "account": list(shown["account"])})
    stored = read_target(row, 1, {})
    assert write_target(stored) == {n: v for n, v in shown.items() if v is not None} | {"account": []}
