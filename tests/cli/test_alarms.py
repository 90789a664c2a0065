"""``postbackd alarm``, as a user meets it."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from msgspec.structs import replace

from postbackd.core.alarm_notices import make_notices
from postbackd.core.alarm_words import Word
from postbackd.core.alarms import Change, Kind, Said
from postbackd.core.webhooks import write_secret
from postbackd.settings import Settings
from postbackd.store.base_upkeep import AlarmStep
from postbackd.store.sqlite import SqliteStore
from tests.cli.conftest import Run
from tests.core.test_alarms import NOW, an_alarm

SECRET = write_secret(b"x" * 32)


def raise_alarm(data: Path) -> int:
    async def work() -> int:
        store = await SqliteStore.open(data, create=True)
        await store.hold_alarms("t", NOW, NOW)
        notices = make_notices(["webhook"], 0, Said.RAISED, '{"data":{}}', NOW)
        changes = [Change(replace(an_alarm("nothing came for 4 hours"), id=0))]
        step = AlarmStep(holder="t", now_ms=NOW, counted_ms=NOW, changes=changes, notices={0: notices})
        ids = await store.write_alarms(step)
        await store.close()
        assert ids is not None
        return ids[0]

    return asyncio.run(work())


def test_alarms_are_listed_shown_and_quieted(run: Run, data: Path) -> None:
    run("network", "add", "TUNE")
    assert "no alarm lasts" in run("alarm", "list").err
    id_ = str(raise_alarm(data))
    assert "nothing came for 4 hours" in run("alarm", "list").out
    assert run("alarm", "list", "--json").json[0]["quiet"] is None
    shown = run("alarm", "show", id_).out
    for words in ("no postbacks arrive (silence)", "to do:   t", "raised to webhook waiting"):
        assert words in shown
    assert "quiet until it is over" in run("alarm", "quiet", id_, "--why", "holiday").out
    assert run("alarm", "show", id_, "--json").json["quiet"]["why"] == "holiday"
    assert "quiet until 20" in run("alarm", "quiet", id_, "--for", "8h").out
    assert "raised, quiet" in run("alarm", "list").out
    assert "not quiet any more" in run("alarm", "unquiet", id_).out
    assert "was not quiet" in run("alarm", "unquiet", id_).out


def test_a_wrong_call_says_what_to_do(run: Run, data: Path) -> None:
    run("network", "add", "TUNE")
    assert "'postbackd alarm list --all' shows them" in run("alarm", "show", "77", code=1).err
    assert "such as 30d" in run("alarm", "quiet", "1", "--for", "long", code=2).err
    assert "--for 0" in run("alarm", "quiet", "1", "--for", "0h", code=2).err
    assert "no place is configured" in run("alarm", "test", code=1).err


def test_a_test_says_what_became_of_each_place(run: Run) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        ran = run(
            "alarm", "test", "--alarm-webhook", f"http://127.0.0.1:{port}/", "--alarm-webhook-secret", SECRET,
            "--alarm-email-to", "ops@example.com", "--smtp-host", "127.0.0.1", "--smtp-port", str(port),
            "--smtp-from", "a@example.com", "--smtp-tls", "off", code=1,
        )  # fmt: skip
    assert "webhook: FAILED, port" in ran.out
    assert "--deliver-ports" in ran.out
    assert "email: FAILED, 127.0.0.1" in ran.out
    assert "webhook and email did not take the test" in ran.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--alarm-webhook", "https://x.example/"), "needs alarm_webhook_secret"),
        (("--alarm-webhook-secret", "hunter2"), "whsec_"),
        (("--alarm-webhook", "ftp://x"), "write it like https://"),
        (("--alarm-email-to", "ops@example.com"), "needs smtp_host"),
        (("--alarm-email-to", "ops@example.com", "--smtp-host", "h"), "needs smtp_from"),
        (("--alarm-email-to", "a@b,c\nBcc: d@e"), "is no address"),
        (("--smtp-password", "p"), "needs smtp_user"),
        (("--smtp-port", "0"), "whole number, 1 to 65535"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(run: Run, options: tuple[str, ...], words: str) -> None:
    ran = run("alarm", "test", *options, code=2)
    assert words in ran.err
    assert "hunter2" not in ran.err


def test_a_truncated_sender_is_no_find_of_the_privacy_check_and_a_whole_address_is(
    run: Run, data: Path
) -> None:
    run("network", "add", "TUNE")

    async def keep(*words: str) -> None:
        store = await SqliteStore.open(data, create=True)
        await store.hold_alarms("t", NOW, NOW)
        made = [Word(kind=Kind.SENDER, network=1, word=w, first_ms=NOW, last_ms=NOW, count=1) for w in words]
        await store.write_alarms(AlarmStep(holder="t", now_ms=NOW, counted_ms=NOW, words=made))
        await store.close()

    asyncio.run(keep("203.0.113.0/24", "2001:db8:1::/48", "7", "click id {clickid}"))
    run("privacy", "check")
    asyncio.run(keep("203.0.113.7/24"))
    assert "alarm_words.word: IP address" in run("privacy", "check", code=1).out


def test_recipients_are_each_named_once() -> None:
    settings = Settings(alarm_email_to="a@x, b@x,,a@x", smtp_user="u@x")
    assert settings.alarm_recipients == ("a@x", "b@x")
    assert settings.smtp_sender == "u@x"
