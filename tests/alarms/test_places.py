"""Notices on their way: a real mail server, a real webhook receiver, and processes that are killed."""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import time
from typing import Any

import pytest

from postbackd.alarms.places import Mail, MailServer, Webhook
from postbackd.core.addresses import read_allowed
from postbackd.core.alarm_notices import Notice, describe, write_body
from postbackd.core.alarms import Said
from postbackd.core.webhooks import read_secret, verify, write_secret
from postbackd.delivery.client import Client
from tests.alarms.mail_server import MailBox, mail_server, make_contexts
from tests.core.test_alarms import an_alarm
from tests.delivery.targets import OK, Target, answers, target
from tests.postgres_server import VERSIONS, emptied_database

SECRET = write_secret(bytes(range(32)))
NOW = 1_750_000_000_000


def notice(said: Said = Said.RAISED) -> Notice:
    body = write_body(
        describe(an_alarm("Ünïcode ☂"), {("network", 3): "Nétwork"}), said, NOW, "track.example"
    )
    return Notice(id=5, alarm=7, place="webhook", said=said, body=body, made_ms=NOW, due_ms=NOW)


# --- webhook -----------------------------------------------------------------------------------------------------


async def hook(*rounds: bytes, tries: int = 1) -> tuple[list[Any], Target]:
    async with target(answers(*rounds)) as receiver:
        client = Client(read_allowed("127.0.0.1", str(receiver.port)))
        webhook = Webhook(receiver.url("/hook"), SECRET, client.send, lambda: int(time() * 1000))
        said = [await webhook.send(notice()) for _ in range(tries)]
        await client.close()
        return said, receiver


def test_a_webhook_is_signed_and_a_repeat_has_the_same_id() -> None:
    said, receiver = asyncio.run(hook(OK, OK, tries=2))
    assert [one.ok for one in said] == [True, True]
    ids = set()
    for request in receiver.requests:
        head, _, body = request.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        ids.add(verify(headers, body, [read_secret(SECRET)], time()))
        document = json.loads(body)
        assert document["type"] == "alarm.raised"
        assert document["data"]["subject"] == {"type": "network", "id": 3, "name": "Nétwork"}
        assert {"seen", "normal", "todo", "server"} <= document["data"].keys()
    assert len(ids) == 1


@pytest.mark.parametrize(
    ("answer", "final"),
    [(b"500 Oops", False), (b"302 Found\r\nLocation: http://x/", False), (b"410 Gone", True)],
)
def test_a_webhook_that_is_not_taken_is_tried_again_unless_it_is_gone(answer: bytes, final: bool) -> None:
    said, _ = asyncio.run(hook(b"HTTP/1.1 " + answer + b"\r\nContent-Length: 0\r\n\r\n"))
    assert (said[0].ok, said[0].final) == (False, final)
    assert answer.split()[0].decode() in said[0].detail


def test_a_webhook_reaches_nothing_behind_our_own_walls() -> None:
    async def work() -> str:
        client = Client(read_allowed("", "80"))
        webhook = Webhook("http://127.0.0.1/hook", SECRET, client.send, lambda: NOW)
        answer = await webhook.send(notice())
        await client.close()
        assert not answer.ok
        return answer.detail

    assert "loopback" in asyncio.run(work())


# --- e-mail ------------------------------------------------------------------------------------------------------


def mail(box: MailBox, tls: Any, trusted: ssl.SSLContext | None = None, **more: Any) -> Mail:
    server = MailServer(
        host="localhost", port=box.port, tls=tls, sender="alarms@example.com", to=("ops@example.com", "b@example.com"),
        **more,
    )  # fmt: skip
    return Mail(server, trusted)


def with_mail(
    work: Callable[[MailBox], Awaitable[Any]],
    starttls: ssl.SSLContext | None = None,
    tls: ssl.SSLContext | None = None,
) -> tuple[Any, MailBox]:
    async def run() -> tuple[Any, MailBox]:
        async with mail_server(starttls, tls) as box:
            return await work(box), box

    return asyncio.run(run())


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return make_contexts(tmp_path_factory.mktemp("mail"))


@pytest.mark.parametrize("how", ["starttls", "tls"])
def test_a_mail_goes_encrypted_with_a_sign_in(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], how: str
) -> None:
    server, trusted = contexts
    answer, box = with_mail(
        lambda box: mail(box, how, trusted, user="u", password="p").send(notice()),
        server if how == "starttls" else None,
        server if how == "tls" else None,
    )
    assert answer.ok, answer
    assert box.encrypted == [True]
    assert box.logins == ["\0u\0p"]
    message = email.message_from_bytes(box.mails[0], policy=email.policy.default)
    assert message["Subject"] == "[postbackd] ALARM: Nétwork: no postbacks arrive"
    assert message["To"] == "ops@example.com, b@example.com"
    assert message["Message-ID"].endswith("@example.com>")
    assert "What was seen:  Ünïcode ☂" in message.get_body().get_content()  # type: ignore[union-attr]


def test_a_mail_server_nobody_knows_or_without_encryption_gets_neither_password_nor_mail(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    unknown, box = with_mail(
        lambda box: mail(box, "starttls", user="u", password="p").send(notice()), contexts[0]
    )
    assert not unknown.ok
    assert "CERTIFICATE_VERIFY_FAILED" in unknown.detail
    plain, other = with_mail(lambda box: mail(box, "starttls", user="u", password="p").send(notice()))
    assert not plain.ok
    assert (box.logins, box.mails, other.logins, other.mails) == ([], [], [], [])


def test_what_a_mail_server_says_is_kept_and_a_wrong_password_is_not_tried_for_a_day() -> None:
    async def work(box: MailBox) -> list[Any]:
        box.answers = {
            "MAIL": [b"451 try later"],
            "AUTH": [b"535 5.7.8 bad credentials"],
            "RCPT": [b"550 no such user", b"550 no such user"],
        }
        plain, named = mail(box, "off"), mail(box, "off", user="u", password="p")
        return [await plain.send(notice()), await named.send(notice()), await plain.send(notice())]

    (later, refused, nobody), box = with_mail(work)
    assert (later.ok, later.final, "451" in later.detail) == (False, False, True)
    assert (refused.ok, refused.final, "bad credentials" in refused.detail) == (False, True, True)
    assert (nobody.ok, "ops@example.com" in nobody.detail) == (False, True)
    assert box.mails == []


def test_a_mail_server_that_is_not_there_is_no_exception() -> None:
    server = MailServer(host="127.0.0.1", port=1, tls="off", sender="a@example.com", to=("b@example.com",))
    answer = asyncio.run(Mail(server).send(notice()))
    assert (answer.ok, answer.final) == (False, False)
    assert "127.0.0.1:1" in answer.detail


# --- killed in between -------------------------------------------------------------------------------------------

_KEEP = """
import asyncio, sys
from postbackd.alarming import make_client, make_keeper
from postbackd.core.alarm_troubles import Backups, MachineFacts
from postbackd.runtime import open_store
from postbackd.settings_sources import load_settings

settings = load_settings({}, dict(__import__("os").environ))
clock = [int(sys.argv[1])]

async def keep():
    store, client = await open_store(settings, create=True), make_client(settings)
    keeper = make_keeper(settings, store, client, lambda: clock[0])
    keeper._machine = lambda: MachineFacts(backups=Backups(24, None, "disk full"))
    for _ in range(int(sys.argv[2])):
        assert await keeper.look()
        clock[0] += 360_000
    print("sent", await keeper.send_due())
    await keeper._give_back()
    await client.close()
    await store.close()

asyncio.run(keep())
"""


def keep(
    environment: dict[str, str], now_ms: int, looks: int, failpoint: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _KEEP, str(now_ms), str(looks)],
        env={**os.environ, **environment, "POSTBACKD_FAILPOINT": failpoint},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_a_process_that_is_killed_between_raising_and_sending_loses_no_notice(
    tmp_path: Path, store: str
) -> None:
    async def work() -> tuple[list[int], list[bytes]]:
        async with target(answers(OK, OK, OK)) as receiver:
            environment = {
                "POSTBACKD_DATA": str(tmp_path / "data"),
                "POSTBACKD_ALARM_WEBHOOK": receiver.url("/hook"),
                "POSTBACKD_ALARM_WEBHOOK_SECRET": SECRET,
                "POSTBACKD_DELIVER_RANGES": "127.0.0.1",
                "POSTBACKD_DELIVER_PORTS": str(receiver.port),
            }
            if store == "postgres":
                environment["POSTBACKD_STORE"] = await asyncio.to_thread(emptied_database, VERSIONS[0])
            runs = []
            # Killed before the alarm is committed, then before its notice is sent, then not at all.
            # Whoever is killed keeps its lease for three minutes.
            killed = (("before_commit:4", 2), ("before_notice", 2), ("", 1), ("", 1))
            for hour, (failpoint, looks) in enumerate(killed):
                ran = await asyncio.to_thread(keep, environment, NOW + hour * 3_600_000, looks, failpoint)
                runs.append(ran.returncode)
                assert ran.returncode in (0, -signal.SIGKILL), ran.stderr
                if not failpoint:
                    runs.append(int(ran.stdout.split()[-1]))
            return runs, list(receiver.requests)

    if store == "postgres" and not VERSIONS:
        pytest.skip("no PostgreSQL 15 or newer was found")
    runs, requests = asyncio.run(work())
    assert runs[1:] == [-signal.SIGKILL, 0, 1, 0, 0]
    raised = [request for request in requests if b"alarm.raised" in request]
    assert len(raised) == 1
