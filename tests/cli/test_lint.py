"""``postbackd lint``, as a user runs it."""

from __future__ import annotations

import io
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "lint-a-url.md"

GOOD = "https://track.example.com/p/KEY?click_id={aff_sub}&value={payout}"
BAD = "https://track.example.com/p/KEY?click_id=[aff_sub]&value={payout}"


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    """What stands on standard input."""
    stream = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stream, "utf-8"))
    return stream


def test_without_a_data_directory_presets_are_enough_and_an_error_ends_with_1(run: Run, data: Path) -> None:
    ran = run("lint", "--for-network", "tune", BAD, code=1)
    assert "a postback URL for TUNE (HasOffers): its path begins with /p/" in ran.out
    assert "error macro_delimiter, position 42" in ran.out
    lines = ran.out.splitlines()
    (at,) = [number for number, line in enumerate(lines) if "^" in line]
    start = lines[at].index("^")
    assert lines[at - 1][start : start + lines[at].count("^")] == "[aff_sub]"
    assert lines[-1] == GOOD
    assert not data.exists()


def test_warnings_alone_end_with_0_and_a_clean_url_says_so(run: Run) -> None:
    ran = run("lint", "http://shop.example.com/?s={click_id}", "https://shop.example.com/?s={click_id}")
    assert "warning not_https" in ran.out
    assert "1 warning; nothing of it can be mended without knowing more" in ran.out
    assert ran.out.endswith("  nothing is wrong with it\n")


def test_json_has_one_document_a_url_and_no_colour_or_control_reaches_a_terminal(run: Run) -> None:
    documents = run("lint", "--json", "--preset", "tune", BAD, GOOD, code=1).json
    assert [one["ok"] for one in documents] == [False, True]
    assert documents[0]["mended"] == GOOD
    assert "\x1b" not in run("lint", "https://x.example.com/?s={click_id}&q=\x1b[31m").out


def test_urls_come_from_standard_input_or_a_file_one_a_line(
    run: Run, typed: io.BytesIO, tmp_path: Path
) -> None:
    typed.write(f"{GOOD}\r\n\n{BAD}\n\xff\n".encode("latin-1"))
    typed.seek(0)
    assert len(run("lint", "--for-network", "TUNE", "--json", code=1).json) == 3
    listed = tmp_path / "urls.txt"
    listed.write_text(f"\ufeff{GOOD}\n", "utf-8")
    assert run("lint", "--file", str(listed), "--for-network", "tune", "--json").json[0]["url"] == GOOD


def test_what_cannot_be_asked_is_refused_with_the_next_step(
    run: Run, typed: io.BytesIO, tmp_path: Path
) -> None:
    typed.seek(0)
    assert "there is no URL in what was read" in run("lint", code=2).err
    assert "give URLs or --file, not both" in run("lint", "--file", "x", GOOD, code=2).err
    assert "cannot read" in run("lint", "--file", str(tmp_path / "none"), code=1).err
    assert (
        "there is no preset 'x'; see 'postbackd presets list'"
        in run("lint", "--preset", "x", GOOD, code=2).err
    )
    assert "no network here and no preset of one 'x'" in run("lint", "--for-network", "x", GOOD, code=2).err
    both = run("lint", "--for-network", "tune", "--for-source", "mgid", GOOD, code=2)
    assert "name one: a network, a source or a preset" in both.err


def test_with_a_data_directory_keys_campaigns_and_the_public_address_are_known(run: Run) -> None:
    key = run("network", "add", "Adnet", "--preset", "tune", "--json").json["key"]
    url = f"https://track.example.com/p/{key}?click_id={{aff_sub}}"
    assert run("lint", url).out.startswith(f"{url}\n  a postback URL for TUNE (HasOffers)")
    other = run("lint", "--public-url", "https://t.example.com", url.replace(key, "x" * 26), code=1).out
    assert "No network has this key." in other
    assert "it is reached as t.example.com" in other


def test_the_guide_shows_what_the_command_prints(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "96")
    guide = GUIDE.read_text("utf-8")
    commands = [
        shlex.split(line)[1:] for line in re.findall(r"^    (postbackd lint .*)$", guide, re.MULTILINE)
    ]
    shown = re.findall(r"```(?:text|json)\n(.*?)```", guide, re.DOTALL)
    printed = [run(*command, code=1).out for command in commands if "--file" not in command]
    assert printed == shown


def test_an_offer_that_loses_the_click_id_is_saved_with_a_note(run: Run) -> None:
    run("network", "add", "Adnet", "--preset", "tune")
    ran = run("offer", "add", "O", "--network", "Adnet", "--url", "https://shop.example.com/?s={sub1}")
    assert "note: The offer URL does not hand {click_id} on" in ran.err
