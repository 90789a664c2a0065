"""What the shipped front ends pass on, refuse and write down, seen from both sides."""

from __future__ import annotations

import http.client
import re
import ssl
from pathlib import Path

import pytest

from tests.deploy.conftest import Scene, Scenes
from tests.deploy.fronts import CLICK, MAKERS, POSTBACK, check, lay_haproxy, lay_nginx
from tests.deploy.recorder import recorder
from tests.deploy.tools import need
from tests.trust.server import free_port, wait_until

KEY = "8tn9e60v24v6xt2vz156tjrycy"
WORD = "hidden-word"
"""Stands wherever a request can hold something that must not be logged."""

NOWHERE = ("127.0.0.1", 1)


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_the_program_accepts_the_shipped_configuration_without_a_warning(name: str, tmp_path: Path) -> None:
    need(name)
    lay = {"nginx": lay_nginx, "haproxy": lay_haproxy}[name]
    check(name, lay(tmp_path, [NOWHERE, NOWHERE], (free_port(), free_port())))


# --- who is the client --------------------------------------------------------------------------------------


def test_what_a_client_claims_of_itself_does_not_reach_the_server(scene: Scene) -> None:
    claims = {
        "X_Forwarded_For": "203.0.113.9",
        "X_Real_IP": "203.0.113.9",
        "Forwarded": "for=203.0.113.9",
        "X_Forwarded_Proto": "http",
        "X_Forwarded_Host": "203.0.113.9",
        "X_Forwarded_Port": "203",
    }
    _, seen = scene.pass_on(CLICK, "/c/spring", **claims)
    assert seen.all("X-Forwarded-For") == ["127.0.0.1"]
    assert seen.all("X-Forwarded-Proto") == ["https"]
    assert [value for _, value in seen.headers if "203" in value] == []


def test_a_trusted_proxy_is_believed_about_the_last_hop_only(scenes: Scenes) -> None:
    scene = scenes.make(trusted="127.0.0.0/8")
    _, seen = scene.pass_on(CLICK, "/c/spring", X_Forwarded_For="198.51.100.1, 203.0.113.9")
    assert seen.all("X-Forwarded-For") == ["203.0.113.9"]
    _, seen = scene.pass_on(CLICK, "/c/spring")
    assert seen.all("X-Forwarded-For") == ["127.0.0.1"]


def test_the_server_hears_the_name_that_was_asked(scene: Scene) -> None:
    _, seen = scene.pass_on(POSTBACK, f"/p/{KEY}?a=%7Bb%7D&c=%2F..%2F")
    assert seen.all("Host") == [POSTBACK]
    assert seen.target == f"/p/{KEY}?a=%7Bb%7D&c=%2F..%2F"


# --- which name may ask for what ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "target"),
    [
        (CLICK, f"/p/{KEY}?click_id=x"),
        (CLICK, f"/p/{KEY}/pixel.gif"),
        (CLICK, f"//p/{KEY}"),
        (CLICK, f"/%70/{KEY}"),
        (POSTBACK, "/c/spring"),
        (POSTBACK, "/"),
        (CLICK, "/healthz"),
        (CLICK, "/readyz"),
        (POSTBACK, "/healthz"),
        (POSTBACK, "/readyz"),
    ],
)
def test_a_name_refuses_what_is_not_its_own(scene: Scene, host: str, target: str) -> None:
    assert scene.front.ask(host, target).status == 404
    assert scene.seen() == []


def test_a_name_that_is_not_ours_gets_no_connection(scene: Scene) -> None:
    with pytest.raises(ssl.SSLError):
        scene.front.ask("other.example.com", "/c/spring")
    assert scene.seen() == []


def test_without_tls_a_visitor_is_sent_on_and_a_network_is_refused(scene: Scene) -> None:
    moved = scene.front.ask_plainly(CLICK, "/c/spring?source_click_id=1")
    assert (moved.status, moved.headers["location"]) == (307, f"https://{CLICK}/c/spring?source_click_id=1")
    refused = scene.front.ask_plainly(POSTBACK, f"/p/{KEY}?click_id=x")
    assert (refused.status, refused.body) == (403, b'{"error":"use https"}')
    assert scene.front.ask_plainly(CLICK, f"/p/{KEY}").status in (403, 404)
    assert scene.seen() == []


# --- what is written down -----------------------------------------------------------------------------------


def test_the_logs_hold_neither_query_nor_key_nor_a_full_address(scene: Scene) -> None:
    before = len(scene.front.access_log())
    asked = ask_with_secrets(scene)
    wait_until(lambda: len(scene.front.access_log()) >= before + asked, 20, "the lines of the log")
    lines = scene.front.access_log()[before:]
    assert [line for line in lines if KEY in line or WORD in line] == []
    assert KEY not in scene.front.everything_written()
    assert {line.split()[1] for line in lines} == {
        "127.0.0.0/24" if scene.front.name == "nginx" else "127.0.0.0"
    }
    text = "\n".join(lines)
    for shown in (" /c/spring 200 ", " /p/*** 200 ", " /p/***/pixel.gif 200 ", " - 404 "):
        assert shown in text
    assert "verdict=accepted request=0saqm9y780000" in text


def test_of_an_address_only_its_network_is_logged(scenes: Scenes) -> None:
    scene = scenes.make(trusted="127.0.0.0/8")
    addresses = ("203.0.113.9", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::5", "2001:db8::5", "2001:db8:1::")
    for address in addresses:
        scene.front.ask(CLICK, "/c/spring", "GET", None, X_Forwarded_For=address)
    lines = scene.front.access_log
    wait_until(
        lambda: sum("/c/spring" in line for line in lines()) >= len(addresses), 20, "the lines of the log"
    )
    networks = [line.split()[1] for line in lines() if "/c/spring" in line]
    assert [network.partition("/")[0] for network in networks] == [
        "203.0.113.0", "2001:db8:1::", "2001:db8:1::", "2001:db8::", "2001:db8:1::",
    ]  # fmt: skip


def test_a_usual_log_format_would_have_held_them(scenes: Scenes) -> None:
    """The control: the same requests, logged as most copies of such files do it."""

    def log_as_usual(text: str) -> str:
        if scenes.kind == "haproxy":
            return re.sub(r'^ *log-format "%\[date.*$', "    option httplog", text, flags=re.MULTILINE)
        return text.replace("access.log postbackd;", "access.log combined;")

    scene = scenes.make(change=log_as_usual)
    ask_with_secrets(scene)
    wait_until(lambda: KEY in scene.front.everything_written(), 20, "the key in the log")
    assert WORD in scene.front.everything_written()


def ask_with_secrets(scene: Scene) -> int:
    """Requests that hold the key and a word in every place where one can stand; returns how many."""
    targets = [
        (CLICK, f"/c/spring?source_click_id={WORD}"),
        (CLICK, f"/c/spring/{KEY}"),
        (CLICK, f"/c/../p/{KEY}?x={WORD}"),
        (CLICK, f"/p/{KEY}?x={WORD}"),
        (CLICK, f"/%63/{KEY}"),
        (POSTBACK, f"/p/{KEY}?click_id={WORD}"),
        (POSTBACK, f"/p/{KEY}/pixel.gif?click_id={WORD}"),
        (POSTBACK, f"/p/{KEY}/{WORD}"),
        (POSTBACK, f"/P/{KEY}"),
        (POSTBACK, f"//p/{KEY}"),
        (POSTBACK, f"/{KEY}?x={WORD}"),
        (POSTBACK, f"https://{POSTBACK}/p/{KEY}?x={WORD}"),
    ]
    for host, target in targets:
        scene.front.ask(
            host, target, Referer=f"https://{WORD}/{KEY}", Cookie=WORD, User_Agent=WORD, Authorization=WORD
        )
    return len(targets)


def test_a_failing_server_writes_no_key_into_a_log_and_the_sender_is_told_to_come_again(
    scenes: Scenes, tmp_path: Path
) -> None:
    with MAKERS[scenes.kind](tmp_path, [("127.0.0.1", free_port()), ("127.0.0.1", free_port())]) as front:
        for _ in range(8):
            answer = front.ask(POSTBACK, f"/p/{KEY}?click_id={WORD}")
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert answer.body.startswith(b'{"error":')
        wait_until(lambda: len(front.access_log()) >= 8, 20, "the lines of the log")
        assert KEY not in front.everything_written()
        assert WORD not in front.everything_written()


def test_nginx_would_have_written_them_at_its_usual_level_of_errors(tmp_path: Path) -> None:
    """The control of the test above."""
    nowhere = [("127.0.0.1", free_port()), ("127.0.0.1", free_port())]

    def usual(text: str) -> str:
        return text.replace("error.log emerg;", "error.log error;")

    with MAKERS["nginx"](tmp_path, nowhere, "", usual) as front:
        front.ask(POSTBACK, f"/p/{KEY}?click_id={WORD}")
        wait_until(lambda: KEY in front.everything_written(), 20, "the key in the log of errors")


# --- connections to the servers, and servers that fail ------------------------------------------------------

CLIENTS = 40


def test_many_clients_share_a_few_connections_to_the_servers(scene: Scene) -> None:
    assert connections_of_many_clients(scene) <= 4


def test_without_its_directive_each_client_would_have_a_connection_of_its_own(scenes: Scenes) -> None:
    """The control: what counts the connections can count them."""

    def forget(text: str) -> str:
        return text.replace("http-reuse always", "http-reuse safe").replace("    keepalive 64;", "")

    assert connections_of_many_clients(scenes.make(change=forget)) == CLIENTS


def connections_of_many_clients(scene: Scene) -> int:
    for number in range(CLIENTS):
        assert scene.front.ask(POSTBACK, f"/p/{KEY}?click_id={number}").status == 200
    seen = scene.seen()
    assert len(seen) == CLIENTS
    return len({one.connection for one in seen})


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_503_of_one_server_is_sent_to_the_other(scenes: Scenes, method: str) -> None:
    scene = scenes.make()
    scene.servers[0].status = 503
    body = b"click_id=x&value=1" if method == "POST" else None
    for _ in range(10):
        assert scene.front.ask(POSTBACK, f"/p/{KEY}", method, body).status == 200
    refused, answered = (server.take() for server in scene.servers)
    assert refused
    assert len(answered) == 10
    assert {seen.body_bytes for seen in (*refused, *answered)} == {len(body or b"")}


def test_a_503_of_both_servers_reaches_the_sender_with_its_retry_after(scenes: Scenes) -> None:
    scene = scenes.make()
    for server in scene.servers:
        server.status = 503
    for _ in range(10):
        answer = scene.front.ask(POSTBACK, f"/p/{KEY}?click_id=x")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")


def test_haproxy_sends_nothing_to_a_server_that_says_it_cannot_store(tmp_path: Path) -> None:
    with recorder() as one, recorder() as other:
        other.ready = False
        with MAKERS["haproxy"](tmp_path, [one.address, other.address]) as front:

            def sent_to_one_only() -> bool:
                one.take(), other.take()
                for _ in range(6):
                    assert front.ask(POSTBACK, f"/p/{KEY}").status == 200
                return len(one.take()) == 6

            wait_until(sent_to_one_only, 20, "the server that is not ready being left out")
            other.ready = True
            wait_until(
                lambda: front.ask(POSTBACK, f"/p/{KEY}").status == 200 and other.take(), 20, "its return"
            )


# --- limits -------------------------------------------------------------------------------------------------


def test_what_postbackd_would_accept_is_passed_on(scene: Scene) -> None:
    _, seen = scene.pass_on(POSTBACK, f"/p/{KEY}?click_id={'x' * 8000}")
    assert len(seen.target) > 8000
    headers = {f"X_Filler_{number}": "y" * 7000 for number in range(2)}
    _, seen = scene.pass_on(POSTBACK, f"/p/{KEY}?click_id={'x' * 8000}", **headers)
    assert len(seen.all("X-Filler-1")[0]) == 7000
    scene.seen()
    batch = b"[" + b" " * (1024 * 1024 - 2) + b"]"
    assert scene.front.ask(POSTBACK, f"/p/{KEY}", "POST", batch).status == 200
    (seen,) = scene.seen()
    assert seen.body_bytes == len(batch)


def test_nginx_refuses_a_body_that_postbackd_would_refuse(tmp_path: Path) -> None:
    with MAKERS["nginx"](tmp_path, [NOWHERE, NOWHERE]) as front:
        for host, target, size in (
            (POSTBACK, f"/p/{KEY}", 1024 * 1024 + 1),
            (CLICK, "/c/spring", 64 * 1024 + 1),
        ):
            try:
                status = front.ask(host, target, "POST", b"x" * size).status
            except (OSError, http.client.HTTPException):
                status = 0  # closed while we were still sending
            assert status in (413, 0)
