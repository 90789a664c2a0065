"""What an operator does over the API, on every store: deliveries, replays, erasures, and long work in processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from postbackd.core.model import How, RequestForm, Rule, Target
from postbackd.core.planning import Planner
from postbackd.ingest.batcher import now_ms
from postbackd.settings import Settings
from postbackd.store.base import Turn
from tests.admin.site import Answer, Site
from tests.postgres_server import VERSIONS, emptied_database
from tests.store.contract import KINDS, World, postgres_kind

_WAITS = 5


class Place(NamedTuple):
    site: Site
    click_id: str
    other_click_id: str
    embedded: bool


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("operations")
    address = None if request.param == "sqlite" else emptied_database(VERSIONS[0])
    kind = KINDS[0] if address is None else postgres_kind(VERSIONS[0], address)
    (directory / "data").mkdir()
    (directory / "backups").mkdir()
    world = World(kind, directory / "data")
    world.now_ms = now_ms()
    ids = fill(world)
    world.close()
    settings = Settings(backup_dir=str(directory / "backups"))
    with Site(directory / "data", kind.open, address=address, settings=settings) as site:
        yield Place(site, *ids, embedded=address is None)


def fill(world: World) -> tuple[str, str]:
    """Two counted conversions with a delivery each, and a postback that finds no click."""
    form = RequestForm(url="https://source.example/?cid={source_click_id}")
    target = world.save(Target(id=0, name="Told", how=How(requests={"conversion": form})))
    world.save(Rule(id=0, name="All", source=world.source.id, target=target.id))
    world.reload()
    clicks = [world.click(source_click_id=f"theirs-{number}") for number in range(2)]
    for number, click in enumerate(clicks):
        world.send(click, f"txid=T{number}&payout=2.50")
    world.send("{clickid}", "txid=T9&payout=1")
    planner = Planner(world.rulebook.catalog)
    look = world.run(world.store.look([target.id], world.now_ms, 100))
    owed = planner.plan(look.events, look.told, world.now_ms)
    world.run(world.store.take_turn(Turn(holder="t", now_ms=world.now_ms, planned=look.events, owed=owed)))
    first, second = (world.id_of(click) for click in clicks)
    return first, second


def ask(place: Place, path: str, body: Any = None, method: str = "POST", **headers: str) -> Answer:
    return place.site.ask(method, f"/api/v1/{path}", body, headers)


def get(place: Place, path: str) -> Any:
    answer = place.site.get(f"/api/v1/{path}")
    assert answer.status == 200, answer.body
    return answer.json


def finish(place: Place, started: Answer) -> Any:
    """The job when it has ended."""
    assert started.status == 202, started.body
    path = started.headers["location"].removeprefix("/api/v1/")
    assert get(place, "about")["data"] == "real"  # the site goes on answering meanwhile
    for _ in range(_WAITS):
        if (job := get(place, f"{path}?wait=20"))["state"] != "running":
            return job
    raise AssertionError(job)


def test_deliveries_are_listed_in_pages_and_told_one_by_one(place: Place) -> None:
    first = get(place, "deliveries?limit=1&target=Told&state=waiting")
    second = get(place, f"deliveries?limit=1&target=Told&state=waiting&cursor={first['next']}")
    ids = [page["items"][0]["delivery"] for page in (first, second)]
    assert len(set(ids)) == 2
    assert second["next"] is None
    told = get(place, f"deliveries/{ids[0]}")
    assert told["facts"]["source_click_id"].startswith("theirs-")
    assert told["attempt_log"] == []
    assert ask(place, "deliveries/1-9", method="GET").status == 404


def test_a_selection_of_deliveries_is_named_in_one_way(place: Place) -> None:
    for body in ({}, {"everything": True, "target": "Told"}, {"ids": ["1"], "everything": True}):
        assert ask(place, "deliveries/retry", body).status == 422
    assert ask(place, "deliveries/cancel", {"target": "Nobody"}).status == 404


def test_waiting_deliveries_are_cancelled_and_sent_again(place: Place) -> None:
    planned = ask(place, "deliveries/cancel", {"target": "Told", "dry_run": True}).json
    assert planned["done"] is False
    assert planned["found"] == 2
    done = ask(place, "deliveries/cancel", {"target": "Told", "reason": "a try"}).json
    assert done == {"found": 2, "cancelled": 2, "done": True, "deliveries": []}
    (one, _) = get(place, "deliveries?state=cancelled")["items"]
    assert one["reason"] == "a try"
    again = ask(place, "deliveries/retry", {"ids": [one["delivery"]]}).json
    (sent,) = again["deliveries"]
    assert sent["sent_as"] not in (None, one["delivery"])
    assert len(get(place, "deliveries?state=waiting")["items"]) == 1


def test_a_replay_says_what_would_change_part_by_part(place: Place) -> None:
    answer = ask(place, "replay", {"dry_run": True, "limit": 1}).json
    assert answer["tried"] == 1
    assert answer["changed"] == []
    rest = ask(place, "replay", {"dry_run": True, "cursor": answer["next"]}).json
    assert rest == {"tried": 0, "changed": [], "dry_run": True, "next": None}
    assert ask(place, "replay", {"network": "Nobody"}).status == 404


def test_every_money_row_is_verified_in_a_process_of_its_own(place: Place) -> None:
    job = finish(place, ask(place, "verify", {}))
    assert (job["kind"], job["state"], job["problem"]) == ("verify", "done", None)
    assert job["result"]["findings"] == []
    assert job["result"]["rows"] == job["done"] >= 2
    assert get(place, "jobs")[0]["id"] == job["id"]


def test_one_piece_of_long_work_of_a_kind_runs_at_a_time(place: Place) -> None:
    first, second = ask(place, "verify", {}), ask(place, "verify", {})
    assert (first.status, second.status) == (202, 409)
    assert "/jobs" in second.json["detail"]
    finish(place, first)


def test_a_purge_says_first_what_would_go(place: Place) -> None:
    job = finish(place, ask(place, "purge", {}))
    assert job["result"]["deleted"] is False
    assert ask(place, "purge", {"before": "2999-01-01"}).status == 422


def test_a_backup_is_made_listed_and_proved(place: Place) -> None:
    made = finish(place, ask(place, "backups", None))
    assert made["state"] == "done", made
    (backup,) = get(place, "backups")["items"]
    assert backup["bytes"] == made["result"]["bytes"]
    proved = finish(place, ask(place, f"backups/{backup['name']}/verify", None))
    assert proved["result"]["tables"]["clicks"] == 2
    assert ask(place, "backups/..%2fpasswd/verify", None).status in (404, 405)


def test_the_doctor_looks_and_keeps_what_it_found_for_a_while(place: Place) -> None:
    found = get(place, "doctor")
    assert {"catalog", "server"} <= {one["check"] for one in found["findings"]}
    assert get(place, "doctor")["at"] == found["at"]


def test_a_click_is_exported_and_erased_once_that_is_confirmed(place: Place) -> None:
    assert "theirs-0" in str(get(place, f"privacy/export?click_id={place.click_id}"))
    seen = ask(place, "erase/preview", {"click_id": place.click_id}).json
    assert len(seen["clicks"]) == 1
    unsure = ask(place, "erase", {"click_id": place.click_id, "confirm": "yes"})
    assert (unsure.status, unsure.json["field"]) == (409, "confirm")
    job = finish(place, ask(place, "erase", {"click_id": place.click_id, "confirm": seen["reference"]}))
    assert (job["state"], job["result"]["done"]) == ("done", True), job
    other_machines = "run the same command once on each of them" in job["result"].get("next", "")
    assert other_machines is not place.embedded
    assert get(place, "erasures")[0]["reference"] == seen["reference"]
    assert "theirs-0" not in str(get(place, f"privacy/export?click_id={place.click_id}"))
    assert "theirs-1" in str(get(place, f"privacy/export?click_id={place.other_click_id}"))


def test_an_id_that_begins_like_an_option_erases_nothing(place: Place) -> None:
    assert ask(place, "erase/preview", {"transaction_id": "--yes"}).status == 404
    assert ask(place, "erase/preview", {"transaction_id": "T0", "network": "Nobody"}).status == 404


def test_secrets_of_the_settings_are_not_shown(tmp_path: Path) -> None:
    secret = replace(Settings(), secret_key="A" * 43 + "=")
    with Site(tmp_path / "data", settings=secret) as site:
        shown = {one["name"]: one for one in site.get("/api/v1/settings").json}
    assert shown["secret_key"]["value"] is None
    assert shown["data"]["value"] == str(tmp_path / "data")


def test_keys_that_sign_click_ids_rotate_without_showing_themselves(place: Place) -> None:
    before = get(place, "keys")
    after = ask(place, "keys/rotate", {"keep": 5}).json
    assert len(after) == len(before) + 1
    assert set(after[-1]) == {"id", "signs_from", "state"}
    assert after[-1]["state"] == "signs next"
