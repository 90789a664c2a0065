"""The catalog over the API, on every store: what is set up, what is refused, and what is never lost or shown."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.admin.site import Answer, Site
from tests.store.contract import KINDS

NETWORK = {"name": "Adnet", "preset": "everflow"}
SOURCE = {"name": "PropellerAds", "preset": "propellerads"}
OFFER = {"name": "Shoes", "network": "Adnet", "url": "https://shop.example/?cid={click_id}"}
CAMPAIGN = {"name": "Summer", "source": "PropellerAds", "offers": [{"offer": "Shoes", "weight": 2}]}
TARGET = {"name": "Hook", "kind": "webhook", "url": "https://hook.example/in"}
RULE = {"name": "Sales", "source": "PropellerAds", "target": "Hook", "when": "type = sale"}


@pytest.fixture(scope="module", params=KINDS[:2], ids=lambda kind: kind.name)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("catalog") / "data", request.param.open) as running:
        for path, body in (
            ("networks", NETWORK),
            ("sources", SOURCE),
            ("offers", OFFER),
            ("campaigns", CAMPAIGN),
            ("targets", TARGET),
            ("rules", RULE),
        ):
            answer = running.ask("POST", f"/api/v1/{path}", body)
            assert answer.status == 201, answer.body
        yield running


def get(site: Site, path: str, **headers: str) -> Any:
    answer = site.get(f"/api/v1/{path}", headers)
    assert answer.status == 200, answer.body
    return answer.json


def change(site: Site, path: str, body: Any, method: str = "PATCH", **headers: str) -> Answer:
    return site.ask(
        method, f"/api/v1/{path}", body, {name.replace("_", "-"): v for name, v in headers.items()}
    )


def test_ready_links_hold_the_macros_of_the_other_side(site: Site) -> None:
    click_url = get(site, "campaigns/summer")["click_url"]
    assert click_url.startswith("http://127.0.0.1:8080/c/summer?source_click_id=${SUBID}")
    network = get(site, "networks/Adnet")
    assert f"/p/{network['key']}?click_id={{sub1}}&value={{payout_amount}}" in network["postback_url"]


def test_the_key_of_a_network_is_shown_to_whoever_may_change_it(site: Site) -> None:
    seen = get(site, "networks/Adnet", Scopes="read")
    key = get(site, "networks/Adnet")["key"]
    assert seen["key"] is None
    assert key not in str(seen)
    assert key not in site.get("/api/v1/export", {"Scopes": "read"}).body.decode()
    assert site.get("/api/v1/export?keys=true", {"Scopes": "read"}).status == 403
    assert key in site.get("/api/v1/export?keys=true").body.decode()


def test_what_is_left_out_of_a_change_stays(site: Site) -> None:
    before = get(site, "offers/Shoes")
    after = change(site, "offers/Shoes", {"window_max": "7d"}).json
    assert after == {**before, "window_max": "7d"}


def test_a_change_of_what_somebody_else_has_changed_is_refused(site: Site) -> None:
    seen = site.get("/api/v1/networks/Adnet").headers["etag"]
    assert change(site, "networks/Adnet", {"currency": "EUR"}, If_Match=seen).status == 200
    late = change(site, "networks/Adnet", {"currency": "GBP"}, If_Match=seen)
    assert late.status == 412
    assert "look at it again" in late.json["detail"]
    assert get(site, "networks/Adnet")["currency"] == "EUR"


def test_of_many_changes_at_once_with_the_same_tag_one_wins(site: Site) -> None:
    seen = site.get("/api/v1/sources/PropellerAds").headers["etag"]
    statuses: list[int] = []

    def try_it(number: int) -> None:
        body = {"name": f"Parallel {number}", "network": "Adnet", "url": OFFER["url"]}
        statuses.append(change(site, "offers", body, "POST", If_Match=seen).status)

    threads = [threading.Thread(target=try_it, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201, *[412] * 7]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field", "words"),
    [
        ("POST", "networks", NETWORK, 409, None, "exists already; choose another name"),
        ("POST", "networks", {"name": "X", "currency": "XXY"}, 422, "currency", "ISO 4217"),
        ("POST", "networks", {"name": "X", "preset": "no such"}, 422, "preset", "presets"),
        ("POST", "networks", {"name": "X", "dedup": "guess"}, 400, "dedup", "guess"),
        ("POST", "networks", {"name": ""}, 400, "name", "name is empty"),
        ("POST", "networks", {"nam": "X"}, 400, None, "nam"),
        ("POST", "offers", {**OFFER, "name": "X", "network": "Y"}, 422, "network", "there are: 'Adnet'"),
        (
            "POST",
            "offers",
            {**OFFER, "name": "X", "url": "https://x.example/{nonsense}"},
            422,
            "url",
            "nonsense",
        ),
        ("POST", "campaigns", {**CAMPAIGN, "name": "X", "offers": []}, 400, "offers", "length"),
        ("POST", "rules", {**RULE, "name": "X", "when": "type = "}, 422, "when", "position"),
        ("POST", "rules", {"name": "X", "target": "Hook"}, 422, "source", "a campaign"),
        ("POST", "targets", {**TARGET, "name": "X", "url": "ftp://x.example/"}, 422, "request", ""),
        ("PATCH", "networks/Nobody", {"currency": "EUR"}, 404, None, "there is no network 'Nobody'"),
        ("DELETE", "networks/Adnet", None, 409, None, "is still used by offer"),
    ],
)
def test_a_refusal_names_the_field_and_the_next_step(
    site: Site, method: str, path: str, body: Any, status: int, field: str | None, words: str
) -> None:
    answer = change(site, path, body, method)
    assert answer.status == status, answer.body
    assert answer.json.get("field") == field
    assert words in answer.json["detail"]


def test_secrets_of_targets_are_written_and_never_shown(site: Site) -> None:
    body = {**TARGET, "name": "Keyed", "accounts": {"SECRET": "whsec_" + "A" * 43 + "="}}
    made = change(site, "targets", body, "POST")
    assert made.status == 201, made.body
    assert "AAAA" not in made.body.decode()
    shown = get(site, "targets/Keyed")
    assert shown["accounts"] == ["SECRET"]
    assert "AAAA" not in str(shown)
    other = change(site, "targets/Keyed", {"new_secret": True}).json
    assert other["signing_secret"].startswith("whsec_")
    assert other["accounts"] == ["OLD_SECRET", "SECRET"]
    assert change(site, "targets/Keyed", {"accounts": {"OLD_SECRET": None}}).json["accounts"] == ["SECRET"]


def test_the_steps_of_a_sender_are_made_rotated_and_ended(site: Site) -> None:
    body = {"name": "Steps", "senders": {"token": True, "signature": "hmac", "allow_ip": ["203.0.113.0/24"]}}
    made = change(site, "networks", body, "POST").json
    assert made["token"].startswith("pbt_")
    assert made["signing_secret"].startswith("pbs_")
    assert made["senders"]["ip"] == "observe"
    assert "token" not in get(site, "networks/Steps")
    firm = change(site, "networks/Steps", {"senders": {"modes": {"all": "enforce"}}}).json["senders"]
    assert (firm["token"], firm["ip"], firm["signature"]) == ("enforce",) * 3
    rotated = change(site, "networks/Steps/rotate", {"what": "key", "overlap": "1d"}, "POST").json
    assert rotated["key"] != made["key"]
    third = change(site, "networks/Steps/rotate", {"what": "key"}, "POST")
    assert third.status == 409
    assert "two at a time are enough" in third.json["detail"]
    ended = change(site, "networks/Steps/rotate", {"what": "key", "end_former": True}, "POST").json
    assert ended["former_until"] is None


def test_a_target_is_paused_and_resumed(site: Site) -> None:
    paused = change(site, "targets/Hook/pause", {"reason": "their server is down"}, "POST").json
    assert (paused["state"], paused["reason"]) == ("paused", "their server is down")
    assert change(site, "targets/Hook/resume", None, "POST").json["state"] == "active"


def test_a_rule_is_tested_on_a_made_up_conversion(site: Site) -> None:
    sample = {"type": "sale", "value": "12.50", "currency": "USD", "campaign": "Summer"}
    (tested,) = change(site, "rules/test", {"sample": sample}, "POST").json
    (rule,) = [rule for rule in tested["rules"] if rule["rule"] == "Sales"]
    assert rule["fires"]
    assert rule["request"]["url"] == TARGET["url"]
    assert change(site, "rules/test", {"id": "nothing"}, "POST").status == 404


def test_pages_hold_every_entry_once(site: Site) -> None:
    for number in range(5):
        assert change(site, "sources", {"name": f"Page {number}"}, "POST").status == 201
    names: list[str] = []
    cursor = ""
    while True:
        page = get(site, f"sources?limit=2{cursor}")
        names += [item["name"] for item in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert len(names) == len(set(names)) >= 6
    assert [item["name"] for item in get(site, "sources?search=page%203")["items"]] == ["Page 3"]


def test_applying_an_export_changes_nothing_and_a_plan_is_only_a_plan(site: Site) -> None:
    exported = get(site, "export?keys=true")
    for body in ({"toml": exported["toml"]}, {"catalog": exported["catalog"]}):
        assert change(site, "apply", {**body, "dry_run": False}, "POST").json["changes"] == []
    more = exported["toml"] + '\n[[source]]\nname = "From a file"\n'
    planned = change(site, "apply", {"toml": more}, "POST").json
    assert planned["changes"] == [{"action": "create", "kind": "source", "name": "From a file", "fields": {}}]
    assert site.get("/api/v1/sources/From%20a%20file").status == 404
    assert change(site, "apply", {"toml": more, "dry_run": False}, "POST").json["applied"]
    assert site.get("/api/v1/sources/From%20a%20file").status == 200
    wrong = change(site, "apply", {"toml": "[[source]]\nnam = 1\n"}, "POST")
    assert (wrong.status, wrong.json["field"]) == (422, "toml")


def test_whoever_may_only_read_changes_nothing(site: Site) -> None:
    assert change(site, "sources", {"name": "X"}, "POST", Scopes="read operate").status == 403
    assert change(site, "targets/Hook/pause", {}, "POST", Scopes="read catalog").status == 403
