"""The real admin role: signing in, and what whoever is not signed in tries."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from postbackd.admin.passwords import NOBODYS, hash_password, matches
from postbackd.core.totp import code_at
from tests.admin.site import Answer
from tests.trust.server import Server, free_port, run_cli, wait_until
from tests.trust.t29_timing import LIMIT, welch

PASSWORD = "correct horse battery"


class Installation(Server):
    """``postbackd serve`` with its dashboard."""

    def __init__(self, data: Path, **more: str) -> None:
        self.admin_port = free_port()
        env = {
            "POSTBACKD_ADMIN_LISTEN": f"127.0.0.1:{self.admin_port}",
            "POSTBACKD_TRUSTED_PROXIES": "127.0.0.1",
        }
        super().__init__(data, env={**env, **more})

    def start(self, deadline_s: float = 20) -> float:
        took_s = super().start(deadline_s)
        return took_s + wait_until(self.is_up, deadline_s, "an answer of the admin role")

    def is_up(self) -> bool:
        try:
            return self.ask("GET", "/session").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, at: str = ""
    ) -> Answer:
        """``at``: the address that the proxy names."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=30)
        sent = {"X-Forwarded-For": at} if at else {}
        try:
            content = None if body is None else json.dumps(body)
            sent |= {} if body is None else {"Content-Type": "application/json"}
            connection.request(method, f"/api/v1{path}", content, {**sent, **(headers or {})})
            answer = connection.getresponse()
            return Answer(answer.status, {n.lower(): v for n, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def cli(self, *arguments: str) -> Any:
        done = run_cli(self.data_dir, *arguments, "--json", env=self.env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def sign_in(self, name: str = "anna", password: str = PASSWORD, code: str = "", at: str = "") -> Answer:
        return self.ask("POST", "/session", {"name": name, "password": password, "code": code}, at=at)


def browser(answer: Answer) -> dict[str, str]:
    """What a browser sends after this answer, and a page of ours adds."""
    assert answer.status == 200, answer.body
    cookie = answer.headers["set-cookie"].partition(";")[0]
    return {"Cookie": cookie, "Postbackd-CSRF": answer.json["csrf"]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("people") / "data") as running:
        code = running.cli("user", "invite")["link"].partition("code=")[2]
        welcome = {"code": code, "name": "anna", "password": PASSWORD}
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda _: running.ask("POST", "/welcome", welcome), range(4)))
        assert sorted(answer.status for answer in answers) == [200, 410, 410, 410]
        yield running


def guest(server: Installation, name: str, role: str) -> dict[str, str]:
    """Another user's browser."""
    link = server.cli("user", "invite", name, "--role", role)["link"]
    return browser(server.ask("POST", "/welcome", {"code": link.partition("code=")[2], "password": PASSWORD}))


def test_the_code_of_a_link_is_in_no_address(server: Installation) -> None:
    code = server.cli("user", "invite", "zoe", "--role", "viewer")["link"].partition("#/welcome?code=")[2]
    assert server.ask("GET", f"/welcome?code={code}").status == 400
    shown = server.ask("GET", "/welcome", headers={"Postbackd-Code": code})
    assert (shown.status, shown.json["name"], shown.json["role"]) == (200, "zoe", "viewer")
    assert server.ask("GET", "/welcome").status == 410


def test_the_cookie_is_of_this_host_alone_and_hidden_from_scripts(server: Installation) -> None:
    cookie = server.sign_in(at="198.51.100.1").headers["set-cookie"]
    assert cookie.startswith("__Host-postbackd=")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
    assert "Domain" not in cookie


def test_a_request_that_another_site_starts_changes_nothing(server: Installation) -> None:
    us = browser(server.sign_in(at="198.51.100.1"))
    body = {"role": "viewer"}
    forged: list[dict[str, str]] = [
        {"Cookie": us["Cookie"]},
        {"Cookie": us["Cookie"], "Postbackd-CSRF": "0" * 64},
        {**us, "Origin": "https://evil.example"},
        {**us, "Origin": "null"},
        {**us, "Origin": f"https://127.0.0.1:{server.admin_port + 1}"},
        {**us, "Sec-Fetch-Site": "cross-site"},
        {**us, "Sec-Fetch-Site": "same-site"},
    ]
    for headers in forged:
        assert server.ask("POST", "/users/invite", body, headers).status == 403, headers
    assert server.ask("POST", "/session", {"name": "anna", "password": PASSWORD, "code": ""},
                      {"Origin": "https://evil.example"}).status == 403  # fmt: skip
    ours = {**us, "Origin": f"http://127.0.0.1:{server.admin_port}", "Sec-Fetch-Site": "same-origin"}
    assert server.ask("POST", "/users/invite", body, ours).status == 201  # control: a page of ours may


def test_a_session_that_somebody_planted_is_never_taken_over(server: Installation) -> None:
    planted = {"Cookie": "__Host-postbackd=planted"}
    answer = server.ask("POST", "/session", {"name": "anna", "password": PASSWORD}, planted)
    assert "planted" not in answer.headers["set-cookie"]
    assert server.ask("GET", "/session", headers=planted).json is None
    first = browser(answer)
    second = browser(server.ask("POST", "/session", {"name": "anna", "password": PASSWORD}, first))
    assert server.ask("GET", "/session", headers=first).json is None
    assert server.ask("GET", "/session", headers=second).json is not None  # control: the new one is one
    assert server.ask("DELETE", "/session", headers=second).status == 204
    assert server.ask("GET", "/session", headers=second).json is None


def test_another_host_is_not_answered(server: Installation) -> None:
    for host in (
        "evil.example",
        "evil.example:8081",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "[",
        "",
    ):
        assert server.ask("GET", "/session", headers={"Host": host}).status == 421, host
    for host in ("localhost", f"127.0.0.1:{server.admin_port}", "[::1]:8081"):
        assert server.ask("GET", "/session", headers={"Host": host}).json is None  # control


def test_roles_bound_what_a_user_may_do(server: Installation) -> None:
    viewer = guest(server, "vera", "viewer")
    assert server.ask("GET", "/about", headers=viewer).status == 200
    for method, path, body in (
        ("GET", "/users", None), ("GET", "/audit", None), ("POST", "/users/invite", {"role": "owner"}),
        ("POST", "/tokens", {"name": "t", "scopes": ["operate"]}),
    ):  # fmt: skip
        assert server.ask(method, path, body, viewer).status == 403, path
    us = browser(server.sign_in(at="198.51.100.1"))
    (vera,) = (one for one in server.ask("GET", "/users", headers=us).json if one["name"] == "vera")
    assert server.ask("PATCH", f"/users/{vera['id']}", {"role": "operator"}, us).json["role"] == "operator"
    assert server.ask("GET", "/session", headers=viewer).json is None  # a new role, a new session
    assert server.ask("DELETE", f"/users/{vera['id']}", headers=us).status == 204
    (anna,) = (one for one in server.ask("GET", "/users", headers=us).json if one["is_you"])
    assert server.ask("DELETE", f"/users/{anna['id']}", headers=us).status == 409


def test_a_code_of_the_authenticator_opens_once_and_so_does_a_recovery_code(server: Installation) -> None:
    tom = guest(server, "tom", "viewer")
    seed = server.ask("POST", "/me/totp", {"password": PASSWORD}, tom).json
    step = time.time_ns() // 30_000_000_000
    assert server.ask("PUT", "/me/totp", {"code": "000000"}, tom).status == 400
    code = code_at(seed["seed"], step)
    assert server.ask("PUT", "/me/totp", {"code": code}, tom).status == 204
    assert server.sign_in("tom").json["field"] == "code"
    assert server.sign_in("tom", code=code).status == 401  # replayed
    fresh = code_at(seed["seed"], step + 1)
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda _: server.sign_in("tom", code=fresh).status, range(2)))
    assert sorted(answers) == [200, 401]
    recovery = seed["recovery"][0]
    assert server.sign_in("tom", code=recovery).json["recovery_left"] == 8
    assert server.sign_in("tom", code=recovery).status == 401
    assert seed["seed"].encode() not in server.data_dir.joinpath("postbackd.db").read_bytes()
    link = server.cli("user", "reset", "tom")["link"].partition("code=")[2]
    assert (
        server.ask("GET", "/session", headers=tom).json is not None
    )  # nothing changes before it is followed
    again = browser(server.ask("POST", "/welcome", {"code": link, "password": PASSWORD + "!"}))
    assert server.ask("GET", "/session", headers=tom).json is None
    assert server.ask("GET", "/session", headers=again).json["totp"] is False


def test_another_password_ends_the_other_sessions(server: Installation) -> None:
    here = guest(server, "pia", "viewer")
    there = browser(server.sign_in("pia"))
    wrong = {"old": "not this one at all", "new": "another long password"}
    assert server.ask("POST", "/me/password", wrong, here).json["field"] == "password"
    changed = server.ask("POST", "/me/password", {"old": PASSWORD, "new": "another long password"}, here)
    for session in (here, there):
        assert server.ask("GET", "/session", headers=session).json is None
    now = browser(changed)
    browser(server.sign_in("pia", "another long password"))
    assert server.ask("DELETE", "/me/sessions", headers=now).json == {"ended": 1}
    assert server.ask("GET", "/session", headers=now).json is not None


def test_tokens_need_no_proof_and_open_only_what_they_are_for(server: Installation) -> None:
    us = browser(server.sign_in(at="198.51.100.1"))
    made = server.ask("POST", "/tokens", {"name": "reader", "scopes": ["read"]}, us).json
    bearer = {"Authorization": f"Bearer {made['token']}"}
    assert server.ask("GET", "/about", headers=bearer).status == 200
    assert server.ask("GET", "/users", headers=bearer).status == 403
    assert server.ask("GET", "/about", headers={"Authorization": "Bearer pba_wrong"}).status == 401
    assert server.ask("POST", "/tokens", {"name": "o", "scopes": ["own"]}, us).json["field"] == "scopes"
    assert server.ask("DELETE", f"/tokens/{made['id']}", headers=us).status == 204
    assert server.ask("GET", "/about", headers=bearer).status == 401


def test_the_audit_log_says_who_and_which_fields_and_no_secret(server: Installation) -> None:
    typed = "a-password-in-the-wrong-field"
    assert server.sign_in(typed, "also wrong", at="203.0.113.9").status == 401
    us = browser(server.sign_in(at="198.51.100.1"))
    page = server.ask("GET", "/audit?limit=1000", headers=us)
    (failed,) = (one for one in page.json["items"] if one["prefix"] == "203.0.113")
    assert (failed["status"], failed["who"], failed["fields"]) == (
        401,
        "nobody",
        ["name", "password", "code"],
    )
    for secret in (typed, PASSWORD, us["Cookie"].partition("=")[2]):
        assert secret.encode() not in page.body
    first = server.ask("GET", "/audit?limit=1", headers=us).json
    second = server.ask("GET", f"/audit?limit=1&cursor={first['next']}", headers=us).json
    assert second["items"][0]["id"] < first["items"][0]["id"]


def test_whoever_is_nobody_cannot_fill_the_audit_log(server: Installation) -> None:
    us = browser(server.sign_in(at="198.51.100.1"))
    for method, path in (
        ("POST", "/purge"),
        ("POST", "/networks"),
        ("DELETE", "/users/1"),
        ("POST", "/me/password"),
    ):
        assert server.ask(method, path, {}, at="203.0.114.1").status == 401
    page = server.ask("GET", "/audit?limit=1000", headers=us).json
    assert not [one for one in page["items"] if one["prefix"] == "203.0.114"]


def test_guesses_are_slowed_alike_for_every_name_and_the_owner_comes_in(server: Installation) -> None:
    assert server.sign_in(at="198.51.100.1").status == 200  # a network that is known from here on
    for name in ("anna", "nobody-of-this-name"):
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda n: server.sign_in(name, "wrong", at=f"10.{n}.0.1"), range(14)))  # noqa: B023
        assert {answer.status for answer in answers} == {401, 429}, name
        refused = [answer for answer in answers if answer.status == 429]
        assert len(refused) >= 3
        assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    assert server.sign_in(at="10.99.0.1").status == 429
    assert server.sign_in(at="198.51.100.7").status == 200


def test_the_time_tells_no_user_from_nobody() -> None:
    """By hashes that are cheaper than the real ones, to see many.  Control: no hash where there is no user."""
    stored = hash_password(PASSWORD)
    assert stored.split("$")[:4] == NOBODYS.split("$")[:4]
    cheap = [f"scrypt$9${text.split('$', 2)[2]}" for text in (stored, NOBODYS)]
    rng, times = random.Random(7), ([], [])  # type: random.Random, tuple[list[int], list[int]]
    for _ in range(300):
        for kind in rng.sample((0, 1), 2):
            began = time.thread_time_ns()
            assert not matches("a wrong password", cheap[kind])
            times[kind].append(time.thread_time_ns() - began)
    kept = [sorted(one)[:270] for one in times]
    assert abs(welch(*kept)) < LIMIT
    assert abs(welch(kept[0], [one // 1000 for one in kept[1]])) > LIMIT


def test_a_killed_role_is_started_again_and_sessions_survive(server: Installation) -> None:
    us = browser(server.sign_in(at="198.51.100.1"))
    (pid,) = server.role_pids("admin")
    os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: server.role_pids("admin") not in ([], [pid]) and server.is_up(), 20, "another admin role"
    )
    assert server.ask("GET", "/session", headers=us).json is not None
    assert server.status("/readyz") == 200


def test_without_tls_nobody_beyond_this_machine_is_served(tmp_path: Path) -> None:
    for option, code in (
        (["--admin-listen", "0.0.0.0:0"], 2),
        (["--admin-listen", "0.0.0.0:0", "--admin-url", "http://stats.example"], 2),
        (["--admin-listen", "off"], 2),
    ):
        done = run_cli(tmp_path / "data", "admin", *option)
        assert done.returncode == code
        assert "admin" in done.stderr
