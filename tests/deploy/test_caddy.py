"""What the shipped Caddyfile passes on, refuses and writes down."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.deploy.conftest import Scene
from tests.deploy.fronts import ALL_MAKERS, CLICK, POSTBACK, lay_caddy
from tests.deploy.recorder import recorder
from tests.deploy.test_front_ends import KEY, NOWHERE, WORD, ask_with_secrets
from tests.deploy.tools import DEPLOY, need, run
from tests.trust.server import free_port, wait_until


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with ExitStack() as stack:
        servers = (stack.enter_context(recorder()), stack.enter_context(recorder()))
        directory = tmp_path_factory.mktemp("caddy")
        front = stack.enter_context(ALL_MAKERS["caddy"](directory, [server.address for server in servers]))
        wait_until(lambda: front.ask(CLICK, "/c/spring").status == 200, 20, "the way through")
        yield Scene(front, servers)


def test_the_program_accepts_the_shipped_configuration_without_a_warning(tmp_path: Path) -> None:
    path = lay_caddy(tmp_path, [NOWHERE, NOWHERE], (free_port(), free_port()))
    done = run(need("caddy"), "validate", "--adapter", "caddyfile", "--config", str(path))
    assert done.returncode == 0, done.stdout
    formatted = run(need("caddy"), "fmt", str(DEPLOY / "caddy" / "Caddyfile"))
    assert formatted.stdout.strip() == (DEPLOY / "caddy" / "Caddyfile").read_text().strip()


def test_what_a_client_claims_of_itself_does_not_reach_the_server(scene: Scene) -> None:
    claims = {
        "X_Forwarded_For": "203.0.113.9",
        "X_Real_IP": "203.0.113.9",
        "Forwarded": "for=203.0.113.9",
        "X_Forwarded_Host": "203.0.113.9",
        "X_Forwarded_Port": "203",
    }
    _, seen = scene.pass_on(CLICK, "/c/spring", **claims)
    assert seen.all("X-Forwarded-For") == ["127.0.0.1"]
    assert [value for _, value in seen.headers if "203" in value] == []


def test_the_server_hears_what_was_asked(scene: Scene) -> None:
    _, seen = scene.pass_on(POSTBACK, f"/p/{KEY}?a=%7Bb%7D&c=%2F..%2F+x")
    assert seen.all("Host") == [POSTBACK]
    assert seen.target == f"/p/{KEY}?a=%7Bb%7D&c=%2F..%2F+x"


@pytest.mark.parametrize(
    ("host", "target"),
    [
        (CLICK, f"/p/{KEY}?click_id=x"),
        (CLICK, f"//p/{KEY}"),
        (CLICK, f"/%70/{KEY}"),
        (POSTBACK, "/c/spring"),
        (POSTBACK, "/"),
        (CLICK, "/healthz"),
        (POSTBACK, "/readyz"),
    ],
)
def test_a_name_refuses_what_is_not_its_own(scene: Scene, host: str, target: str) -> None:
    scene.seen()
    assert scene.front.ask(host, target).status == 404
    assert scene.seen() == []


def test_a_name_that_is_not_ours_gets_no_connection(scene: Scene) -> None:
    scene.seen()
    with pytest.raises(ssl.SSLError):
        scene.front.ask("other.example.com", "/c/spring")
    assert scene.seen() == []


def test_without_tls_a_visitor_is_sent_on_and_a_network_is_refused(scene: Scene) -> None:
    scene.seen()
    moved = scene.front.ask_plainly(CLICK, "/c/spring?source_click_id=1")
    assert (moved.status, moved.headers["location"]) == (307, f"https://{CLICK}/c/spring?source_click_id=1")
    refused = scene.front.ask_plainly(POSTBACK, f"/p/{KEY}?click_id=x")
    assert (refused.status, refused.body) == (403, b'{"error":"use https"}')
    assert scene.seen() == []


def test_the_log_holds_neither_query_nor_key_nor_a_full_address(scene: Scene) -> None:
    before = len(scene.front.access_log())
    asked = ask_with_secrets(scene)
    wait_until(lambda: len(scene.front.access_log()) >= before + asked, 20, "the lines of the log")
    text = scene.front.everything_written()
    assert (KEY in text, WORD in text) == (False, False)
    assert '"remote_ip":"127.0.0.0"' in text


def test_a_usual_log_would_have_held_them(tmp_path: Path) -> None:
    """The control: the same requests without the filter."""

    def log_as_usual(text: str) -> str:
        return text.replace("request>uri delete", "request>host delete")

    with recorder() as server, ALL_MAKERS["caddy"](tmp_path, [server.address], "", log_as_usual) as front:
        scene = Scene(front, (server, server))
        ask_with_secrets(scene)
        wait_until(lambda: KEY in front.everything_written(), 20, "the key in the log")


def test_a_server_that_cannot_be_reached_costs_no_key_and_the_sender_is_told_to_come_again(
    tmp_path: Path,
) -> None:
    nowhere = [("127.0.0.1", free_port()), ("127.0.0.1", free_port())]

    def soon(text: str) -> str:
        return text.replace("lb_try_duration 10s", "lb_try_duration 1s")

    with ALL_MAKERS["caddy"](tmp_path, nowhere, "", soon) as front:
        answer = front.ask(POSTBACK, f"/p/{KEY}?click_id={WORD}")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert answer.body.startswith(b'{"error":')
        wait_until(front.access_log, 20, "a line of the log")
        assert KEY not in front.everything_written()
        assert WORD not in front.everything_written()


def test_a_server_that_is_away_is_left_out(tmp_path: Path) -> None:
    with recorder() as server:
        servers = [("127.0.0.1", free_port()), server.address]
        with ALL_MAKERS["caddy"](tmp_path, servers) as front:
            assert {front.ask(POSTBACK, f"/p/{KEY}?n={n}").status for n in range(10)} == {200}
            body = b"click_id=x&value=1"
            assert {front.ask(POSTBACK, f"/p/{KEY}", "POST", body).status for _ in range(10)} == {200}
            assert len(server.take()) == 20
