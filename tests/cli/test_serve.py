"""A real server, asked over HTTP, and what the commands then say about it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands import run_here
from tests.postgres_server import VERSIONS, new_database

DEADLINE_S = 30


class Server:
    """``postbackd serve --example`` in a process of its own."""

    def __init__(self, data: Path, store: str | None = None) -> None:
        """``store``: the address of a PostgreSQL database to use instead of the embedded one."""
        self.data = data
        own = {"POSTBACKD_DATA": str(data), "POSTBACKD_ADMIN_LISTEN": "off", "PYTHONUNBUFFERED": "1"}
        self.environ = {**os.environ, **own}
        if store is not None:
            self.environ["POSTBACKD_STORE"] = store
        command = [sys.executable, "-m", "postbackd", "serve", "--example", "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            command, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.words = self._read_until("A conversion is accepted") + self._read_until("curl -s")
        found = re.search(r"listens on http://127\.0\.0\.1:(\d+)", self.words)
        assert found, self.words
        self.port = int(found[1])

    def _read_until(self, word: str) -> str:
        """What was printed up to a line with the word; the watchdog ends a server that never says it."""
        assert self.process.stdout is not None
        watchdog = threading.Timer(DEADLINE_S, self.process.kill)
        watchdog.start()
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if word in line:
                break
        watchdog.cancel()
        return "".join(lines)

    def get(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def postback(self, query: str) -> dict[str, Any]:
        """The answer to a postback of the example network."""
        found = re.search(r"/p/(\w+)\?", self.words)
        assert found
        status, _, body = self.get(f"/p/{found[1]}?{query}")
        assert status == 200
        answer: dict[str, Any] = json.loads(body)
        return answer

    def click(self) -> str:
        """The id of a new click of the example campaign."""
        status, headers, _ = self.get("/c/example?source_click_id=demo")
        assert status == 302
        return headers["Location"].rpartition("=")[2]

    def command(self, *arguments: str, code: int = 0) -> str:
        """Standard output of a command beside the server."""
        ran = run_here(self.data, *arguments, env=self.environ)
        assert ran.returncode == code, ran.stderr
        return ran.stdout

    def stop(self) -> int:
        """What Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(DEADLINE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


STORES = [pytest.param(None, id="sqlite"), *(pytest.param(v, id=f"postgres{v}") for v in VERSIONS[:1])]


@pytest.fixture(scope="module", params=STORES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    version: int | None = request.param
    store = None if version is None else new_database(version)
    running = Server(tmp_path_factory.mktemp("serve") / "data", store)
    yield running
    if running.process.poll() is None:
        running.stop()


def test_the_first_start_shows_how_to_try_it_and_it_works(server: Server) -> None:
    assert "click URL" in server.words
    click_id = server.click()
    assert "click_id={click_id}" in server.words
    first = server.postback(f"click_id={click_id}&value=12.50&txid=A-1001")
    again = server.postback(f"click_id={click_id}&value=12.50&txid=A-1001")
    assert (first["verdict"], again["verdict"]) == ("accepted", "duplicate")
    assert again["conversion"] == first["conversion"]


def test_printed_urls_lead_to_the_running_server(server: Server) -> None:
    (network,) = json.loads(server.command("network", "list", "--json"))
    assert network["postback_url"].startswith(f"http://127.0.0.1:{server.port}/p/")


def test_every_kind_of_id_leads_to_the_whole_story(server: Server) -> None:
    click_id = server.click()
    first = server.postback(f"click_id={click_id}&value=3&txid=B-1&status=pending")
    moved = server.postback(f"click_id={click_id}&value=3&txid=B-1&status=approved")
    assert moved["verdict"] == "updated"
    stories = [json.loads(server.command("why", id_, "--json")) for id_ in (
        click_id, click_id.upper(), first["conversion"], moved["request"], "B-1",
    )]  # fmt: skip
    assert [story["kind"] for story in stories] == [
        "click id", "click id", "request id", "request id", "transaction id",
    ]  # fmt: skip
    for story in stories:
        assert story["found"] is True
        assert [event["event"] for event in story["events"]] == ["click", "postback", "postback", "change"]
        assert [(row["status"], row["value"]) for row in story["conversions"]] == [("approved", "3.00")]
    assert "approved, 3.00 USD" in server.command("why", click_id)


def test_a_bad_id_gets_its_cause_and_its_fix(server: Server) -> None:
    click_id = server.click()
    for text, reason in [
        (click_id[:20], "click_id_truncated"),
        ("{clickid}", "macro_literal"),
        ("0ccpx0000000000001jrwqph1v", "click_id_altered"),
    ]:
        story = json.loads(server.command("why", text, "--json", code=1))
        assert (story["found"], story["reason"]) == (False, reason)
        assert story["cause"].endswith(".")
        assert story["fix"].endswith(".")
        assert story["fix"] in server.command("why", text, code=1)


def test_an_id_that_nothing_has_is_not_explained_as_a_foreign_click_id(server: Server) -> None:
    for text in ("0sb7gj9f80000", "T-999", "550e8400-e29b-41d4-a716-446655440000"):
        words = server.command("why", text, code=1)
        assert words == f"{text}: no click, request, conversion, delivery or transaction has this id\n"
        assert "reason" not in json.loads(server.command("why", text, "--json", code=1))


def test_a_bad_id_that_a_postback_brought_is_not_called_unknown_above_its_timeline(server: Server) -> None:
    for text, reason in ((server.click()[:20], "click_id_truncated"), ("other-1", "click_id_foreign")):
        assert server.postback(f"click_id={text}")["reason"] == reason
        words = server.command("why", text)
        assert words.startswith(f"{text}: not the id of a click, but this is stored about it\n")
        assert f"reason  {reason}" in words


def test_a_click_id_in_another_parameter_is_shown_with_the_command_that_maps_it(server: Server) -> None:
    click_id = server.click()
    assert server.postback(f"aff_sub2={click_id}&txid=O-1")["verdict"] == "accepted"
    command = "postbackd network set example --field click_id=aff_sub2"
    assert f"found in aff_sub2; run: {command}" in server.command("why", click_id)
    line = server.command("log", "--click", click_id)
    assert "accepted (click_id_in_other_field; found in aff_sub2)" in line
    assert f"Run: {command}" in server.command("doctor")
    server.command("network", "set", "example", "--field", "click_id=click_id,aff_sub2")
    try:
        assert command not in server.command("doctor")
    finally:
        server.command("network", "set", "example", "--field", "click_id=")


def test_the_log_of_a_removed_network_can_be_read_but_not_replayed(server: Server) -> None:
    server.command("network", "add", "Gone")
    server.command("network", "remove", "Gone")
    assert json.loads(server.command("log", "--network", "Gone", "--json")) == []
    ran = run_here(server.data, "replay", "--network", "Gone", env=server.environ)
    assert ran.returncode == 1
    assert "network 'Gone' was removed" in ran.stderr


def test_the_log_is_newest_first_and_filtered(server: Server) -> None:
    click_id = server.click()
    sent = [server.postback(query)["request"] for query in (
        f"click_id={click_id}&txid=L-1", f"click_id={click_id}&txid=L-1", f"click_id={click_id}&value=abc&txid=L-2",
    )]  # fmt: skip
    rows = json.loads(server.command("log", "--click", click_id, "--json"))
    assert [row["request"] for row in rows] == sent[::-1]
    assert [row["verdict"] for row in rows] == ["rejected", "duplicate", "accepted"]
    only = json.loads(server.command("log", "--reason", "value_invalid", "--network", "example", "--json"))
    assert only[0]["request"] == sent[2]
    assert only[0]["sent"] == {"value": "abc", "transaction_id": "L-2"}
    assert json.loads(server.command("log", "--until", "2020-01-02", "--json")) == []
    line = server.command("log", "--limit", "1")
    assert line.count("\n") == 1
    assert "rejected (value_invalid)" in line


def test_the_log_is_followed(server: Server) -> None:
    command = [
        sys.executable,
        "-m",
        "postbackd",
        "log",
        "--follow",
        "--json",
        "--limit",
        "1",
        "--verdict",
        "accepted",
    ]
    server.postback(f"click_id={server.click()}&txid=F-0")
    following = subprocess.Popen(command, env=server.environ, stdout=subprocess.PIPE, text=True)
    watchdog = threading.Timer(DEADLINE_S, following.kill)
    watchdog.start()
    assert following.stdout is not None
    assert json.loads(following.stdout.readline())["sent"]["transaction_id"] == "F-0"
    server.postback("value=1")
    wanted = server.postback(f"click_id={server.click()}&txid=F-1")["request"]
    assert json.loads(following.stdout.readline())["request"] == wanted
    watchdog.cancel()
    following.send_signal(signal.SIGINT)
    assert following.wait(DEADLINE_S) == 130
    following.stdout.close()


def test_a_replay_counts_what_a_changed_setting_lets_through_and_keeps_what_it_was(server: Server) -> None:
    click_id = server.click()
    server.command("network", "set", "example", "--type", "sale")
    try:
        refused = wait_for_reason(server, f"click_id={click_id}&type=lead&txid=R-1", "type_not_allowed")
    finally:
        server.command("network", "set", "example", "--any-type")
        wait_for_reason(server, "click_id=nothing&type=lead&txid=R-", "click_id_foreign")
    shown = json.loads(server.command("replay", "--dry-run", "--network", "example", "--json"))
    row = {
        "request": refused,
        "network": "example",
        "before": "rejected (type_not_allowed)",
        "after": "accepted",
    }
    assert row in shown["changed"]
    counted = json.loads(server.command("why", refused, "--json"))["conversions"]
    assert refused not in [conversion["conversion"] for conversion in counted]
    assert row in json.loads(server.command("replay", "--json"))["changed"]
    assert json.loads(server.command("replay", "--json"))["changed"] == []
    story = json.loads(server.command("why", refused, "--json"))
    (logged,) = [event for event in story["events"] if event.get("request") == refused]
    assert (logged["verdict"], logged["first_verdict"]) == ("accepted", "rejected")
    was = "accepted (was rejected: type_not_allowed)"
    assert was in server.command("why", refused)
    assert was in server.command("log", "--click", click_id)


def wait_for_reason(server: Server, query: str, reason: str) -> str:
    """The request id of the first postback that is answered with the reason; the server has a second to learn."""
    ends, number = time.monotonic() + DEADLINE_S, 0
    while time.monotonic() < ends:
        answer = server.postback(f"{query}{number}")
        if answer.get("reason") == reason:
            return str(answer["request"])
        threading.Event().wait(0.02)
        number += 1
    raise AssertionError(f"never answered {reason}")


def test_the_report_holds_what_was_sent(server: Server) -> None:
    server.postback(f"click_id={server.click()}&value=2.25&currency=EUR&txid=E-1")
    report = json.loads(server.command("report", "--by", "campaign", "--json"))
    assert report["conversions"]["value"]["EUR"] == {"approved": "2.25"}
    assert report["clicks"] > 0
    assert sum(report["postbacks"]["by_verdict"].values()) == report["postbacks"]["total"]
    (group,) = [group for group in report["groups"] if group["campaign"] == "example"]
    assert group["clicks"] == report["clicks"]
    assert "match rate" in server.command("report")
    assert json.loads(server.command("report", "--until", "2020-01-02", "--json"))["clicks"] == 0


@pytest.mark.parametrize("version", STORES)
def test_the_doctor_is_content_with_a_fresh_installation(version: int | None, tmp_path: Path) -> None:
    server = Server(tmp_path / "data", None if version is None else new_database(version))
    findings = json.loads(server.command("doctor", "--json"))
    server.stop()
    assert [finding for finding in findings if not finding["ok"]] == []
    assert "a server runs on this directory" in {finding["detail"] for finding in findings}


def test_a_taken_port_and_a_taken_directory_are_one_line_each(server: Server, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for arguments in (
            ("--data", str(tmp_path / "other"), "--listen", f"127.0.0.1:{port}"),
            ("--data", str(server.data), "--listen", "127.0.0.1:0"),
        ):
            command = [sys.executable, "-m", "postbackd", "serve", *arguments]
            ran = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
            assert ran.returncode == 1
            assert ran.stderr.count("\n") == 1
            assert "choose another" in ran.stderr


def test_ctrl_c_stops_cleanly_and_the_next_start_goes_on_with_the_same_data(tmp_path: Path) -> None:
    first = Server(tmp_path / "data")
    click_id = first.click()
    assert first.postback(f"click_id={click_id}&txid=S-1")["verdict"] == "accepted"
    assert first.stop() == 0
    second = Server(tmp_path / "data")
    assert second.postback(f"click_id={click_id}&txid=S-1")["verdict"] == "duplicate"
    assert second.stop() == 0
