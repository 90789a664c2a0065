"""The local receiver: what it prints, what it verifies, and how it goes wrong when it is told to."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from postbackd.cli.receiver import Faults
from postbackd.core.webhooks import read_secret, sign

DEADLINE_S = 30
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
_COMMAND = "from postbackd.cli.receiver import receiver; receiver(prog_name='receiver')"


class Receiver:
    """``postbackd receiver`` in a process of its own."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-c", _COMMAND, "--listen", "127.0.0.1:0", *options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        first = self._process.stderr if "--json" in options else self._process.stdout
        assert first is not None
        said = first.readline()
        found = re.search(r"listens on http://127\.0\.0\.1:(\d+)", said)
        assert found, said
        self.port = int(found[1])

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("GET" if body is None else "POST", path, body, named)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def end(self) -> tuple[int, str, str]:
        """Exit code and the rest of what it printed."""
        out, err = self._process.communicate(timeout=DEADLINE_S)
        return self._process.returncode, out, err

    def interrupt(self) -> tuple[int, str, str]:
        """What Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)
        return self.end()

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=DEADLINE_S)


@contextmanager
def receiving(*options: str) -> Iterator[Receiver]:
    running = Receiver(*options)
    try:
        yield running
    finally:
        running.stop()


def test_a_request_is_printed_with_its_delivery_and_a_repeat_is_called_one() -> None:
    with receiving() as receiver:
        assert receiver.ask("/pb?clickid=a%20b&delivery_id=D-1") == (200, b'{"status":"ok"}')
        receiver.ask("/pb?clickid=a%20b&delivery_id=D-1")
        assert re.fullmatch(
            r"\d\d:\d\d:\d\d\.\d{3}  #1  GET  /pb  clickid=a b  delivery_id=D-1  \[delivery D-1\]\n",
            receiver.line(),
        )
        assert receiver.line().endswith("[delivery D-1, repeat]\n")
        assert receiver.interrupt() == (0, "requests: 2, deliveries: 1, repeats: 1, made to fail: 0\n", "")


def test_what_somebody_sends_cannot_draw_on_the_terminal() -> None:
    with receiving("--count", "1") as receiver:
        receiver.ask("/pb?x=%1b%5b2J%0a")
        assert "x=\\x1b[2J\\n\n" in receiver.line()


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"delivery_id=D-7&x=1", "application/x-www-form-urlencoded"),
        (b'{"delivery_id":"D-7"}', "application/json"),
    ],
)
def test_the_delivery_id_is_found_in_a_body(body: bytes, content_type: str) -> None:
    with receiving("--json", "--count", "1") as receiver:
        receiver.ask("/pb", body, Content_Type=content_type)
        record = json.loads(receiver.line())
        assert (record["method"], record["delivery_id"], record["body"]) == ("POST", "D-7", body.decode())
        assert receiver.end() == (0, "", "requests: 1, deliveries: 1, repeats: 0, made to fail: 0\n")


@pytest.mark.parametrize(
    ("late_s", "body", "said"),
    [(0, b"{}", "ok"), (400, b"{}", "too old"), (0, b"{ }", "no signature fits")],
)
def test_a_signature_is_verified(late_s: int, body: bytes, said: str) -> None:
    with receiving("--json", "--secret", SECRET, "--count", "2") as receiver:
        signed_s = int(time.time()) - late_s
        signature = sign([read_secret(SECRET)], "D-9", signed_s, b"{}")
        receiver.ask(
            "/", body, webhook_id="D-9", webhook_timestamp=str(signed_s), webhook_signature=signature
        )
        record = json.loads(receiver.line())
        assert record["delivery_id"] == "D-9"
        assert said in record["signature"]
        receiver.ask("/", body)
        assert "missing" in json.loads(receiver.line())["signature"]
        wrong = 1 if said == "ok" else 2
        assert f"badly signed: {wrong}" in receiver.end()[2]


def statuses(receiver: Receiver, count: int) -> list[int]:
    return [receiver.ask("/")[0] for _ in range(count)]


def test_it_fails_the_first_ones_every_so_many_or_all() -> None:
    for option, expected in {
        "2": [500, 500, 204, 204],
        "every:2": [204, 500, 204, 500],
        "all": [500] * 4,
    }.items():
        with receiving("--status", "204", "--fail", option, "--count", "4") as receiver:
            assert statuses(receiver, 4) == expected
            assert f"made to fail: {expected.count(500)}" in receiver.end()[1]


def test_it_lies_resets_and_stalls() -> None:
    with receiving("--lie") as receiver:
        assert receiver.ask("/") == (200, b'{"status":"error"}')
    with receiving("--reset", "--fail", "1") as receiver:
        with pytest.raises(ConnectionResetError):
            receiver.ask("/")
        assert receiver.ask("/")[0] == 200
    with receiving("--stall", "0.2") as receiver:
        began = time.monotonic()
        assert receiver.ask("/")[0] == 200
        assert time.monotonic() - began >= 0.19


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--fail", "some"), "'some' is not usable; write a number, all or every:K"),
        (("--fail", "every:0"), "write a number, all or every:K"),
        (("--lie", "--reset"), "exclude each other"),
        (("--listen", "nowhere"), "write it as HOST:PORT"),
        (("--secret", "hunter2"), "a webhook secret is whsec_"),
        (("--listen", "192.0.2.1:1"), "choose another --listen"),
    ],
)
def test_a_wrong_call_says_how_it_is_called(options: tuple[str, ...], sentence: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _COMMAND, *options], capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert ran.returncode in (1, 2)
    assert sentence in " ".join(ran.stderr.split())
    assert "hunter2" not in ran.stderr


def test_which_requests_fail() -> None:
    def hits(wanted: Any) -> list[int]:
        return [number for number in range(1, 7) if Faults(wanted).hit(number)]

    assert [hits(word) for word in ("none", "0", "2", "every:3", "all")] == [
        [],
        [],
        [1, 2],
        [3, 6],
        [1, 2, 3, 4, 5, 6],
    ]
