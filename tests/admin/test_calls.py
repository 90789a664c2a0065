"""Requests of the API: what is decoded, refused and described, whatever the endpoint."""

from __future__ import annotations

import gzip
import json
import re
import socket
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from postbackd.admin import connections
from postbackd.admin.endpoints import Endpoint, Scope
from tests.admin.site import Site


def test_a_report_is_answered(site: Site) -> None:
    answer = site.get("/api/v1/report?since=7d&by=campaign")
    assert answer.status == 200
    assert answer.json["clicks"] == 0
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("path", "field", "words"),
    [
        ("/api/v1/report?sinse=7d", "sinse", "did you mean 'since'?"),
        ("/api/v1/report?since=yesterday", "since", "write 2026-11-23"),
        ("/api/v1/report?since=1d&since=2d", "since", "give it once"),
        ("/api/v1/report?by=moon", "by", "write one of campaign"),
        ("/api/v1/report?data=other", "data", "write real or demo"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_to_write(site: Site, path: str, field: str, words: str) -> None:
    answer = site.get(path)
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["field"] == field
    assert words in answer.json["detail"]


def test_whoever_names_nobody_is_told_how_to_sign_in(site: Site) -> None:
    answer = site.get("/api/v1/report", {"Scopes": "nobody"})
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "postbackd token add" in answer.json["detail"]


def test_a_scope_that_is_missing_is_named(site: Site) -> None:
    answer = site.get("/api/v1/report", {"Scopes": "catalog"})
    assert answer.status == 403
    assert "'read'" in answer.json["detail"]


def test_simulated_data_that_are_not_there_are_no_error_of_the_server(site: Site) -> None:
    answer = site.get("/api/v1/report?data=demo")
    assert answer.status == 404
    assert "postbackd demo" in answer.json["detail"]


def test_what_is_nowhere_is_a_problem_too(site: Site) -> None:
    assert site.get("/api/v1/nothing").json["status"] == 404
    wrong = site.ask("DELETE", "/api/v1/report")
    assert (wrong.status, set(wrong.headers["allow"].split(", "))) == (405, {"GET", "HEAD"})


def test_every_answer_forbids_scripts_that_are_not_ours(site: Site) -> None:
    for path in ("/api/v1/report", "/api/v1/nothing", "/api/openapi.json"):
        policy = site.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_a_surprise_has_the_same_headers_and_is_noted_when_it_may_have_changed_something(
    tmp_path: Path,
) -> None:
    async def fail(_: object) -> None:
        raise RuntimeError("a surprise")

    failing = Endpoint("POST", "/fail", Scope.OPERATE, "Test", "Fail.", fail)
    with Site(tmp_path / "data", endpoints=(failing,)) as site:
        answer = site.ask("POST", "/api/v1/fail")
        assert (answer.status, answer.headers["cache-control"]) == (500, "no-store")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert site.doorkeeper.noted == [("the test", "POST /fail", 500)]


def test_what_is_over_a_kilobyte_is_compressed_for_whoever_takes_it(site: Site) -> None:
    plain = site.get("/api/openapi.json")
    small = site.get("/api/openapi.json", {"Accept-Encoding": "gzip"})
    assert gzip.decompress(small.body) == plain.body
    assert len(small.body) < len(plain.body) / 2


def test_the_description_names_every_endpoint_with_its_problems(site: Site) -> None:
    document = site.get("/api/openapi.json").json
    assert document["openapi"] == "3.1.0"
    report = document["paths"]["/api/v1/report"]["get"]
    assert {parameter["name"] for parameter in report["parameters"]} == {"since", "until", "by", "data"}
    assert {"200", "400", "401", "403", "503"} <= set(report["responses"])


def test_two_sites_have_stores_of_their_own(site: Site, tmp_path: Path) -> None:
    with Site(tmp_path / "data") as other:
        assert other.port != site.port
        assert other.get("/api/v1/about").json["data"] == "real"


def test_the_page_of_the_api_needs_no_script_and_names_every_endpoint(site: Site) -> None:
    page = site.get("/api/docs")
    text = page.body.decode()
    assert page.headers["content-type"].startswith("text/html")
    assert "<script" not in text
    assert " style=" not in text
    assert not re.search(r'(?:src|href)="(?:https?:)?//', text)
    for path, operations in site.get("/api/openapi.json").json["paths"].items():
        for method in operations:
            assert f"<b>{method.upper()}</b> {path}<" in text
    anchors = set(re.findall(r'href="#([^"]+)"', text))
    assert anchors <= set(re.findall(r'id="([^"]+)"', text))
    assert site.get("/api/docs.css").headers["content-type"].startswith("text/css")


def test_a_wrong_method_is_told_which_there_are(site: Site) -> None:
    assert site.ask("PUT", "/api/v1/networks/x").headers["allow"] == "GET, PATCH, DELETE, HEAD"


def test_a_body_that_is_nested_too_deeply_is_refused_before_anybody_has_signed_in(site: Site) -> None:
    answer = site.ask("POST", "/api/v1/session", b"[" * 3900, {"Content-Type": "application/json"})
    assert (answer.status, answer.headers["cache-control"]) == (400, "no-store")
    assert "nested" in answer.json["detail"]


def test_a_cursor_that_no_row_has_is_refused(site: Site) -> None:
    for number in (1 << 70, -(1 << 70)):
        cursor = urlsafe_b64encode(json.dumps([number]).encode()).decode()
        for path in ("/log", "/deliveries", "/audit", "/alarms", "/networks"):
            answer = site.get(f"/api/v1{path}?cursor={cursor}")
            assert (answer.status, answer.json["field"]) == (400, "cursor"), path


def test_a_nul_is_refused_wherever_it_stands_and_a_backslash_is_none(site: Site) -> None:
    for answer in (
        site.get("/api/v1/log?network=a%00"),
        site.get("/api/v1/why/a%00"),
        site.ask("POST", "/api/v1/session", {"name": "anna\0", "password": "a wrong password"}),
        site.ask("POST", "/api/v1/networks", {"name": "\\\0"}),
    ):
        assert answer.status == 400
        assert "NUL" in answer.json["detail"]
    assert site.ask("POST", "/api/v1/networks", {"name": "a\\u0000"}).status == 201


def test_a_connection_that_asks_nothing_is_closed_and_one_that_waits_for_its_answer_is_not(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_WITHIN_S", 0.2)
    head = b"GET /api/v1/log/live HTTP/1.1\r\nHost: localhost\r\n"
    with (
        socket.create_connection(("127.0.0.1", site.port), 10) as silent,
        socket.create_connection(("127.0.0.1", site.port), 10) as half,
        socket.create_connection(("127.0.0.1", site.port), 10) as listening,
    ):
        listening.sendall(head + b"\r\n")
        half.sendall(head)
        assert (silent.recv(1), half.recv(1)) == (b"", b"")
        assert listening.recv(15) == b"HTTP/1.1 200 OK"
        listening.settimeout(0.4)
        try:
            while listening.recv(1000):
                pass
        except TimeoutError:
            return
        pytest.fail("a live log was cut off")
