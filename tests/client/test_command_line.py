"""``postbackd-client``, as it is called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from postbackd_client import Client, dead
from postbackd_client.command_line import COMMANDS, main
from tests.client.tracker import Reply, Tracker


def leave(spool: Path, count: int) -> None:
    """As a shop that is gone has left it."""
    gone = Client("http://127.0.0.1:9/p/KEY", spool=spool)
    for number in range(count):
        gone.conversion("abc", transaction_id=f"L-{number}")
    gone.close(0)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSTBACKD_CLIENT_URL", raising=False)


def test_every_command_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    told = capsys.readouterr().out
    for command in COMMANDS:
        assert command.does in told
        with pytest.raises(SystemExit, match="0"):
            main([command.name, "--help"])


def test_status_tells_what_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(tmp_path, 3)
    dead.bury(tmp_path, 1, "the tracker answered 404", 404, '{"click_id":"abc"}')
    assert main(["status", "--spool", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["waiting"], found["left_by_ended_processes"], found["dead"]) == (3, 3, 1)
    assert main(["status", "--spool", str(tmp_path)]) == 0
    assert "postbackd-client drain" in capsys.readouterr().out
    assert main(["status", "--spool", str(tmp_path / "nowhere")]) == 2


def test_drain_sends_what_was_left(
    tracker: Tracker, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(tmp_path, 3)
    monkeypatch.setenv("POSTBACKD_CLIENT_URL", tracker.url())
    assert main(["drain", "--spool", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert (told.out, "--any-url sends it" in told.err) == ("nothing to send\n", True)
    assert main(["drain", "--spool", str(tmp_path), "--any-url"]) == 0
    assert capsys.readouterr().out == "3 accepted\n"
    assert main(["drain", "--spool", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "nothing to send\n"


def test_drain_says_why_it_cannot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(tmp_path, 2)
    words = [
        "drain",
        "--spool",
        str(tmp_path),
        "--url",
        "http://127.0.0.1:9/p/KEY",
        "--timeout",
        "0.2",
        "--any-url",
    ]
    assert main(words) == 1
    told = capsys.readouterr()
    assert told.out == "nothing to send; 2 still wait\n"
    assert "connection refused" in told.err


def test_send_prints_what_became_of_it(tracker: Tracker, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["send", "--url", tracker.url(), "abc", "--value", "1.50", "--extra", "sub1=x"]
    assert main(words) == 0
    assert capsys.readouterr().out == "accepted\n"
    tracker.script.append(Reply(200, b'{"verdict":"unmatched","reason":"macro_literal","request":"0sa"}'))
    assert main(words) == 1
    assert capsys.readouterr().out == "unmatched: macro_literal: request 0sa\n"
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "accepted"
    assert b"sub1=x" in tracker.asked[0].body


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["send", "abc"], "--url URL, or POSTBACKD_CLIENT_URL"),
        (["send", "--url", "http://tracker.example/p", "abc"], "use https"),
        (["send", "--url", "https://t.example/p", ""], "click id"),
        (["send", "--url", "https://t.example/p", "abc", "--extra", "x"], "NAME=TEXT"),
    ],
)
def test_wrong_use_says_what_to_write(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert says in capsys.readouterr().err


def test_the_dead_are_shown_and_sent_again_when_the_cause_is_mended(
    tracker: Tracker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        payload = json.dumps({"click_id": "abc", "transaction_id": f"D-{number}"})
        dead.bury(tmp_path, 1, "the tracker answered 404", 404, payload)
    spool = ["--spool", str(tmp_path)]
    assert main(["dead", *spool]) == 0
    assert "3  the tracker answered 404" in capsys.readouterr().out
    tracker.script += [Reply(404)]
    assert main(["dead", *spool, "--again", "--url", tracker.url()]) == 1
    assert "1 refused" in capsys.readouterr().out
    assert [one["conversion"]["transaction_id"] for one in dead.entries(tmp_path)] == ["D-0"]
    assert main(["dead", *spool, "--again", "--url", tracker.url()]) == 0
    assert dead.count(tmp_path) == 0
    sent = [one.body.decode().partition("txid=")[2].partition("&")[0] for one in tracker.asked]
    assert sorted(sent) == ["D-0", "D-0", "D-1", "D-2"]


def test_the_dead_stay_when_they_cannot_be_sent_again(tmp_path: Path) -> None:
    dead.bury(tmp_path, 1, "the tracker answered 404", 404, '{"click_id":"abc","transaction_id":"D-0"}')
    with pytest.raises(RuntimeError), dead.exhumed(tmp_path):
        raise RuntimeError("something fails meanwhile")
    dead.bury(tmp_path, 2, "the tracker answered 404", 404, '{"click_id":"abc","transaction_id":"D-1"}')
    with dead.exhumed(tmp_path) as payloads:
        assert [json.loads(text)["transaction_id"] for text in payloads] == ["D-0", "D-1"]
    assert dead.count(tmp_path) == 0
