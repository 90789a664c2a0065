"""``delivery``, ``log --deliveries``, and what ``report``, ``why`` and ``doctor`` say of deliveries."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from postbackd.cli.log_deliveries import DeliveryReader
from postbackd.cli.options import now_ms
from postbackd.cli.session import Session
from postbackd.core.deliveries import Attempt, Delivery, DeliveryState, Settled, TargetState
from postbackd.core.model import Rule
from postbackd.operations.deliveries import Wanted
from postbackd.reports.deliveries import format_logged
from postbackd.settings import Settings
from postbackd.store.base import Turn
from tests.cli.conftest import Run
from tests.store.contract import KINDS, World
from tests.store.test_contract_outbox import ME, Desk

DELIVERED, DEAD, WAITING = DeliveryState.DELIVERED, DeliveryState.DEAD, DeliveryState.WAITING
FAR_MS = 4_000_000_000_000
"""A time that does not come while the tests run."""


@pytest.fixture
def desk(data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A deliverer at work on the data directory that the commands use; what it holds is old, and is kept."""
    for name in ("attempts", "clicks", "conversions", "postbacks", "counts"):
        monkeypatch.setenv(f"POSTBACKD_KEEP_{name.upper()}_DAYS", "0")
    world = World(KINDS[0], data)
    made = Desk(world)
    made.target = world.save(replace(made.target, secrets={}))  # there is no key that would open one
    yield made
    world.close()


def owe(desk: Desk, count: int = 1, **more: Any) -> list[Delivery]:
    """So many deliveries, each about a conversion of its own, claimed."""
    for _ in range(count):
        desk.world.send(desk.world.click(source_click_id="S1"), "txid=T&type=sale&value=2.50")
    desk.plan(**more)
    return list(desk.claim(room=count))


def settle(
    desk: Desk, delivery: Delivery, state: DeliveryState, error: str = "", due_ms: int = FAR_MS
) -> None:
    at_ms = now_ms()
    attempt = Attempt(delivery.attempts + 1, at_ms, 12, 404 if error else 200, "<h1>hello</h1>", error)
    reason = error if state is DEAD else ""
    desk.turn(now_ms=at_ms, settled=[Settled(delivery, state, due_ms, reason, attempt)])


def kill(desk: Desk, count: int = 1) -> list[Delivery]:
    deliveries = owe(desk, count)
    for delivery in deliveries:
        settle(desk, delivery, DEAD, "HTTP 404")
    return deliveries


# --- looking -----------------------------------------------------------------------------------------------------


def test_the_list_shows_one_line_each_newest_first(desk: Desk, run: Run) -> None:
    first, second = owe(desk, 2)
    settle(desk, first, DELIVERED)
    settle(desk, second, WAITING, "HTTP 503")
    header, newest, oldest = run("delivery", "list").out.splitlines()
    assert header.split()[:2] == ["delivery", "time"]
    assert newest.startswith(second.id)
    assert "next attempt 2096-10-02T07:06:40.000Z" in newest
    for part in (first.id, "ads", "conversion", "sale", "2.50 USD", "delivered"):
        assert part in oldest


def test_the_list_is_filtered(desk: Desk, run: Run) -> None:
    (alive,) = owe(desk)
    (dead,) = kill(desk)
    for options, wanted in (
        (("--state", "dead"), [dead.id]),
        (("--target", "ads", "--limit", "1"), [dead.id]),
        (("--rule", "sales", "--state", "waiting"), [alive.id]),
        (("--since", "1h"), []),
        (("--until", "1h"), [dead.id, alive.id]),
    ):
        rows = run("delivery", "list", *options, "--json").json
        assert [row["delivery"] for row in rows] == wanted, options
    assert "no deliveries yet that fit" in run("delivery", "list", "--state", "cancelled").err
    assert "there is no target 'x' (there are: 'ads')" in run("delivery", "list", "--target", "x", code=1).err


def test_a_delivery_is_shown_with_each_attempt_by_its_id_or_its_number(desk: Desk, run: Run) -> None:
    (delivery,) = kill(desk)
    for text in (delivery.id, delivery.id.upper(), str(delivery.number)):
        document = run("delivery", "show", text, "--json").json
        assert (document["delivery"], document["state"], document["reason"]) == (
            delivery.id,
            "dead",
            "HTTP 404",
        )
        assert document["facts"] == {"source_click_id": "S1"}
        (attempt,) = document["attempt_log"]
        assert (attempt["http_status"], attempt["ms"], attempt["answer"]) == (404, 12, "<h1>hello</h1>")
    out = run("delivery", "show", delivery.id).out
    assert out.startswith(f"delivery {delivery.id}: conversion of 2.50 USD to ads, dead ")
    assert "HTTP 404  12 ms  answer: <h1>hello</h1>" in out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "'nonsense' is no delivery id; write one such as 0000000000000-17"),
        ("12345", "there is no delivery '12345'; 'postbackd delivery list' shows the newest"),
        ("0000000000000-1", "the one with this number is"),
    ],
)
def test_a_wrong_id_gets_a_clear_error(desk: Desk, run: Run, text: str, says: str) -> None:
    owe(desk)
    for command in ("show", "retry", "cancel"):
        assert says in run("delivery", command, text, code=1).err


# --- sending again -----------------------------------------------------------------------------------------------


def test_a_dead_delivery_is_sent_again_under_a_new_id_that_is_named(desk: Desk, run: Run) -> None:
    (delivery,) = kill(desk)
    out = run("delivery", "retry", delivery.id).out
    (again,) = desk.claim(now_ms=now_ms())
    assert again.number != delivery.number
    assert out == f"{delivery.id}: it was dead; sent again under the new id {again.id}\n"


def test_a_waiting_delivery_is_sent_at_once_under_its_id(desk: Desk, run: Run) -> None:
    (delivery,) = owe(desk)
    settle(desk, delivery, WAITING, "HTTP 503")
    (sent,) = run("delivery", "retry", str(delivery.number), "--json").json
    assert (sent["sent_as"], sent["note"]) == (delivery.id, None)
    (again,) = desk.claim(now_ms=now_ms())
    assert again.id == delivery.id


def test_what_is_being_sent_or_waits_behind_another_message_is_left_as_it_is(desk: Desk, run: Run) -> None:
    click = desk.world.click()
    desk.world.send(click, "txid=T&value=5")
    desk.world.send(click, "txid=T&status=reversed")
    desk.plan(due_ms=FAR_MS)
    first, second = (str(row["number"]) for row in desk.rows(click))
    desk.claim(now_ms=FAR_MS)
    out = run("delivery", "retry", first, second).out
    assert "left as it is: it is being sent at this moment" in out
    assert "left as it is: it waits for an earlier message" in out


def test_what_goes_out_just_now_is_not_sent_twice(desk: Desk, run: Run) -> None:
    desk.world.send(desk.world.click(), "txid=T")
    desk.plan()
    (row,) = desk.world.query("deliveries")
    assert "its time has come already" in run("delivery", "retry", str(row["number"])).out
    assert len(desk.world.query("deliveries")) == 1


def test_a_filter_says_how_many_and_sends_them_with_yes(desk: Desk, run: Run) -> None:
    kill(desk, 3)
    asked = ("delivery", "retry", "--target", "ads", "--state", "dead")
    assert (
        "would send 3 dead deliveries again, each under a new id; run it again with --yes" in run(*asked).out
    )
    assert desk.claim(now_ms=now_ms()) == []
    assert run(*asked, "--yes").out == "sent 3 dead deliveries again, each under a new id\n"
    assert len(desk.claim(now_ms=now_ms())) == 3
    assert run(*asked, "--yes", "--json").json == {
        "state": "dead", "found": 0, "left_out": 3, "sent": 0, "done": True,
    }  # fmt: skip


def test_all_that_is_dead_is_sent_in_chunks(desk: Desk, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postbackd.operations.deliveries.CHUNK", 2)
    kill(desk, 5)
    assert run("delivery", "retry", "--all-dead", "--yes", "--json").json["sent"] == 5
    assert len(desk.claim(now_ms=now_ms())) == 5


def test_all_that_waits_for_a_target_is_sent_at_once(desk: Desk, run: Run) -> None:
    for delivery in owe(desk, 2):
        settle(desk, delivery, WAITING, "HTTP 503")
    out = run("delivery", "retry", "--state", "waiting", "--target", "ads", "--yes").out
    assert out == "sent 2 waiting deliveries at once, each under its id\n"
    assert len(desk.claim(now_ms=now_ms())) == 2


def test_what_was_delivered_is_sent_again_when_it_is_asked_for(desk: Desk, run: Run) -> None:
    (delivery,) = owe(desk)
    settle(desk, delivery, DELIVERED)
    assert run("delivery", "retry", "--state", "delivered", "--yes", "--json").json["sent"] == 1
    assert [one.number > delivery.number for one in desk.claim(now_ms=now_ms())] == [True]


@pytest.mark.parametrize(
    "arguments", [(), ("1", "--state", "dead"), ("1", "--all-dead"), ("--all-dead", "--target", "ads")]
)
def test_retry_wants_ids_or_a_filter_or_everything(desk: Desk, run: Run, arguments: tuple[str, ...]) -> None:
    assert "name either IDs, or a filter" in run("delivery", "retry", *arguments, code=2).err


def test_nothing_is_sent_to_a_removed_target(desk: Desk, run: Run) -> None:
    (delivery,) = kill(desk)
    desk.world.remove(desk.rule)
    desk.world.remove(desk.target)
    assert "target 'ads'" in run("delivery", "retry", delivery.id, code=1).err
    assert run("delivery", "retry", "--target", "ads", "--yes", "--json").json["left_out"] == 1


# --- cancelling --------------------------------------------------------------------------------------------------


def test_a_waiting_delivery_is_cancelled_with_its_reason(desk: Desk, run: Run) -> None:
    (delivery,) = owe(desk)
    settle(desk, delivery, WAITING, "HTTP 503")
    assert run("delivery", "cancel", delivery.id, "--reason", "a test").out == f"{delivery.id}: cancelled\n"
    document = run("delivery", "show", delivery.id, "--json").json
    assert (document["state"], document["reason"]) == ("cancelled", "a test")


def test_what_has_ended_or_is_being_sent_cannot_be_cancelled(desk: Desk, run: Run) -> None:
    first, second = owe(desk, 2)
    settle(desk, first, DELIVERED)
    # The lease of the other one has ended for the command's clock; one that has not is somebody's.
    desk.claim(now_ms=now_ms())
    ran = run("delivery", "cancel", first.id, second.id, code=1)
    assert f"{first.id}: left as it is: it is delivered" in ran.out
    assert f"{second.id}: left as it is: it is being sent at this moment" in ran.out
    assert "2 of 2 deliveries could not be cancelled" in ran.err


def test_all_that_waits_is_cancelled_with_yes(desk: Desk, run: Run) -> None:
    for delivery in owe(desk, 3):
        settle(desk, delivery, WAITING, "HTTP 503")
    assert "would cancel 3 waiting deliveries" in run("delivery", "cancel", "--all-waiting").out
    assert run("delivery", "cancel", "--target", "ads", "--yes", "--json").json == {
        "found": 3, "cancelled": 3, "done": True,
    }  # fmt: skip
    assert desk.claim(now_ms=FAR_MS) == []


# --- the log -----------------------------------------------------------------------------------------------------


def test_the_log_of_deliveries_shows_the_last_attempt_of_each(desk: Desk, run: Run) -> None:
    first, second = owe(desk, 2)
    settle(desk, first, WAITING, "HTTP 503", due_ms=0)
    settle(desk, second, DEAD, "HTTP 404")
    settle(desk, desk.claim(now_ms=now_ms())[0], DELIVERED)
    newest, oldest = run("log", "--deliveries").out.splitlines()
    assert f"{second.id}  ads  conversion of 2.50 USD (sale)  dead  HTTP 404  12 ms" in newest
    assert (
        f"{first.id}  ads  conversion of 2.50 USD (sale)  delivered at attempt 2  HTTP 200  12 ms" in oldest
    )
    rows = run("log", "--deliveries", "--json").json
    assert [(row["outcome"], row["last"]["attempt"]) for row in rows] == [("dead", 1), ("delivered", 2)]
    assert [row["delivery"] for row in run("log", "--deliveries", "--state", "dead", "--json").json] == [
        second.id
    ]


def test_the_log_of_deliveries_is_that_of_one_click(desk: Desk, run: Run) -> None:
    first, _ = owe(desk, 2)
    click_id = run("delivery", "show", first.id, "--json").json["click_id"]
    (row,) = run("log", "--deliveries", "--click", click_id, "--json").json
    assert (row["delivery"], row["outcome"], row["last"]) == (first.id, "waiting", None)
    assert "no click has the id" in run("log", "--deliveries", "--click", "x", code=1).err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--deliveries", "--verdict", "accepted"), "are for postbacks"),
        (("--target", "ads"), "add --deliveries"),
    ],
)
def test_filters_of_the_other_log_are_refused(run: Run, arguments: tuple[str, ...], says: str) -> None:
    assert says in run("log", *arguments, code=2).err


def test_following_shows_every_attempt_once_and_every_end_without_one(desk: Desk) -> None:
    session = Session(desk.world.store, Settings())
    reader = desk.world.run(DeliveryReader.open(session, Wanted(), None))

    def look() -> list[tuple[str, int | None]]:
        entries = desk.world.run(reader.look(now_ms() - 15_000))
        assert all(format_logged(entry) for entry in entries)
        return [(entry["outcome"], entry["last"] and entry["last"]["attempt"]) for entry in entries]

    first, second, third = owe(desk, 3)
    assert look() == []
    settle(desk, first, WAITING, "HTTP 503", due_ms=0)
    assert look() == [("failed", 1)]
    settle(desk, desk.claim(now_ms=now_ms())[0], DELIVERED)
    settle(desk, second, DEAD, "HTTP 404")
    assert sorted(look(), key=str) == [("dead", 1), ("delivered", 2)]
    desk.turn(ME, now_ms(), settled=[Settled(third, DEAD, 0, "it is too old for this target")])
    assert look() == [("dead", None)]
    assert look() == []


def test_following_begins_with_the_newest_and_goes_on_with_what_comes(desk: Desk) -> None:
    session = Session(desk.world.store, Settings())
    reader = desk.world.run(DeliveryReader.open(session, Wanted(target="ads"), None))
    (first, second) = owe(desk, 2)
    settle(desk, first, DELIVERED)
    shown: list[tuple[str, str]] = []
    enough, all_shown = asyncio.Event(), asyncio.Event()

    def show(entry: dict[str, Any]) -> None:
        shown.append((entry["delivery"], entry["outcome"]))
        if len(shown) == 2:
            enough.set()
        if len(shown) == 3:
            all_shown.set()

    async def follow() -> None:
        following = asyncio.ensure_future(reader.follow(10, show))
        await enough.wait()
        attempt = Attempt(1, now_ms(), 5, 500, "", "HTTP 500")
        settled = Settled(second, WAITING, FAR_MS, "", attempt)
        await desk.world.store.take_turn(Turn(holder=ME, now_ms=now_ms(), settled=[settled]))
        await all_shown.wait()
        following.cancel()

    desk.world.run(asyncio.wait_for(follow(), 20))
    assert shown == [(first.id, "delivered"), (second.id, "waiting"), (second.id, "failed")]


# --- report, why, doctor -----------------------------------------------------------------------------------------


def test_the_report_and_why_speak_of_deliveries(desk: Desk, run: Run) -> None:
    (delivery,) = owe(desk)
    settle(desk, delivery, DELIVERED)
    assert run("report", "--json").json["deliveries"]["success_rate"] == 1.0
    assert "target ads" in run("report").out
    assert "told ads by rule sales: conversion of 2.50 USD, delivered" in run("why", delivery.id).out


def findings_of(run: Run, code: int) -> dict[str, dict[str, Any]]:
    return {finding["check"]: finding for finding in run("doctor", "--json", code=code).json}


def test_the_doctor_is_content_with_deliveries_that_come_through(desk: Desk, run: Run) -> None:
    (delivery,) = owe(desk)
    settle(desk, delivery, DELIVERED)
    findings = findings_of(run, 0)
    assert findings["rules"]["detail"] == "1, and all can be followed"
    assert findings["backlog"]["ok"]


def test_the_doctor_names_the_main_reason_of_dead_deliveries_and_what_to_do(desk: Desk, run: Run) -> None:
    kill(desk, 2)
    (other,) = owe(desk)
    settle(desk, other, DEAD, "HTTP 400")
    finding = findings_of(run, 1)["deliveries to ads"]
    assert finding["detail"] == "3 died in the last day, 2 of them: HTTP 404"
    assert "postbackd delivery retry --state dead --target ads --yes" in finding["fix"]
    run("delivery", "retry", "--all-dead", "--yes")
    assert "deliveries to ads" not in {finding["check"] for finding in run("doctor", "--json").json}


@pytest.mark.parametrize(
    ("state", "age_s", "fix", "code"),
    [
        ("paused", 0, "target resume ads", 1),
        ("broken", 3600, "target show ads", 1),
        ("broken", 60, "target show ads", 0),
    ],
)
def test_the_doctor_finds_a_target_that_is_not_served(
    desk: Desk, run: Run, state: str, age_s: int, fix: str, code: int
) -> None:
    owe(desk)
    since_ms = now_ms() - age_s * 1000
    desk.turn(states=[TargetState(desk.target.id, state, since_ms, 0, "HTTP 410")])
    findings = findings_of(run, code)
    assert "HTTP 410" in findings["target ads"]["detail"]
    assert fix in findings["target ads"]["fix"]
    assert findings["backlog"]["ok"]


def test_a_target_that_comes_back_by_itself_is_not_called_resumed(desk: Desk, run: Run) -> None:
    soon, state = now_ms() + 60_000, TargetState(desk.target.id, "broken", now_ms(), 0, "connection refused")
    desk.turn(states=[replace(state, until_ms=soon)])
    said = run("target", "resume", "ads").out
    assert "is not paused: it is broken (connection refused) and is tried again by itself at 20" in said
    assert run("target", "show", "ads", "--json").json["state"] == "broken"
    desk.turn(states=[replace(state, until_ms=now_ms() - 1)])  # of a run that ended
    assert "resumed" in run("target", "resume", "ads").out
    assert run("target", "show", "ads", "--json").json["state"] == "active"


def test_the_doctor_finds_that_nobody_delivers(desk: Desk, run: Run) -> None:
    desk.world.send(desk.world.click(), "txid=1")
    finding = findings_of(run, 1)["backlog"]
    assert "rules were not asked about 1 conversion, for more than a minute" in finding["detail"]
    assert "postbackd deliver" in finding["fix"]
    desk.plan()
    assert "1 delivery not sent, for more than a minute" in findings_of(run, 1)["backlog"]["detail"]


def test_the_doctor_finds_a_rule_for_an_offer_that_does_not_exist(desk: Desk, run: Run) -> None:
    desk.world.save(
        Rule(
            id=0,
            name="typo",
            source=desk.world.source.id,
            target=desk.target.id,
            condition="offer = nowhere",
        )
    )
    desk.world.save(
        Rule(id=0, name="old", source=desk.world.source.id, target=desk.target.id, condition="??")
    )
    finding = findings_of(run, 1)["rules"]
    assert "rule 'typo': there is no offer 'nowhere'" in finding["detail"]
    assert "rule 'old' cannot be followed" in finding["detail"]
