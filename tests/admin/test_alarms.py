"""Alarms over the API."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.admin.site import Site
from tests.cli.test_alarms import raise_alarm


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    data = tmp_path_factory.mktemp("admin") / "data"
    raise_alarm(data)
    with Site(data) as running:
        yield running


def test_alarms_are_listed_shown_quieted_and_unquieted(site: Site) -> None:
    (item,) = site.get("/api/v1/alarms").json["items"]
    assert (item["kind"], item["state"], item["quiet"]) == ("silence", "raised", None)
    assert item["subject"] == {"type": "network", "id": 3, "name": None}
    path = f"/api/v1/alarms/{item['id']}"
    assert [notice["state"] for notice in site.get(path).json["notices"]] == ["waiting"]
    quiet = site.ask("POST", f"{path}/quiet", {"for": "8h", "why": "holiday"})
    assert (quiet.status, quiet.json["who"], quiet.json["why"]) == (200, "the test", "holiday")
    assert site.get(path).json["quiet"]["until"].startswith("20")
    assert site.ask("POST", f"{path}/unquiet").status == 204
    assert site.get(path).json["quiet"] is None
    assert site.get("/api/v1/alarms?state=all&limit=1").json["next"] is None


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("GET", "/alarms/99999", None, 404, "there is no alarm 99999"),
        ("GET", "/alarms/abc", None, 404, "an alarm's id is a number"),
        ("GET", "/alarms?state=odd", None, 400, "write raised or all"),
        ("GET", "/alarms?cursor=zzz", None, 400, "cursor"),
        ("POST", "/alarms/99999/quiet", {}, 404, "there is no alarm"),
        ("POST", "/alarms/1/quiet", {"for": "long"}, 400, "such as 30d"),
        ("POST", "/alarms/1/quiet", {"for": "0h"}, 400, "0 is no time"),
        ("POST", "/alarms/1/quiet", {"why": "x" * 301}, 400, "why"),
        ("POST", "/alarms/test", None, 409, "no place is configured"),
    ],
)
def test_what_cannot_be_done_is_said(
    site: Site, method: str, path: str, body: object, status: int, words: str
) -> None:
    answer = site.ask(method, f"/api/v1{path}", body)
    assert answer.status == status
    assert words in answer.json["detail"]


def test_quieting_needs_the_right_to_operate(site: Site) -> None:
    assert site.ask("POST", "/api/v1/alarms/1/quiet", {}, {"Scopes": "read"}).status == 403
