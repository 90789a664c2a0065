"""What reports say of deliveries, on every store: the figures, the stories of ``why``, what can be sent again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from postbackd.core.deliveries import Attempt, Delivery, DeliveryState, Settled, TargetState
from postbackd.core.model import Click, Rule
from postbackd.core.moments import write_moment
from postbackd.core.statuses import Status
from postbackd.reports.delivery_figures import percentile_s, sum_up_deliveries
from postbackd.reports.period import Period
from postbackd.reports.report import build_report
from postbackd.reports.table import format_report
from postbackd.reports.told import NOT_ASKED, TOO_LATE
from postbackd.reports.why import explain, format_story
from postbackd.store.queries import DELIVERY_LADDER_MS
from tests.store.conftest import PARAMETERS
from tests.store.contract import NOW_MS, Kind, World
from tests.store.test_contract_outbox import ME, Desk

DELIVERED, DEAD, WAITING = DeliveryState.DELIVERED, DeliveryState.DEAD, DeliveryState.WAITING


@pytest.fixture(params=PARAMETERS)
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    kind: Kind = request.param
    world = World(kind, tmp_path / "data")
    yield Desk(world)
    world.close()


def sold(desk: Desk, query: str = "txid=T&value=5") -> Click:
    """A click with a conversion that a delivery is owed for."""
    click = desk.world.click(source_click_id="S1")
    desk.world.send(click, query)
    desk.plan()
    return click


def settle(
    desk: Desk, delivery: Delivery, state: DeliveryState, *, status: int = 200, ms: int = 12, **more: Any
) -> None:
    """End an attempt that began 1 s after the conversion."""
    began = NOW_MS + 1000
    error = "" if state is DELIVERED else f"HTTP {status}"
    attempt = Attempt(delivery.attempts + 1, began, ms, status, "the answer", error)
    reason = error if state is DEAD else ""
    desk.turn(
        now_ms=began + ms, settled=[Settled(delivery, state, more.get("due_ms", began), reason, attempt)]
    )


def why(desk: Desk, text: str, now_ms: int = NOW_MS + 5000) -> dict[str, Any]:
    return desk.world.run(explain(desk.world.store, text, now_ms))


def lines(desk: Desk, text: str) -> str:
    return format_story(why(desk, text))


# --- the report --------------------------------------------------------------------------------------------------


def test_the_report_says_how_deliveries_fare_by_source_and_by_target(desk: Desk) -> None:
    for _ in range(4):
        sold(desk)
    one, two, three, _ = desk.claim()
    settle(desk, one, WAITING, status=503)
    (one,) = desk.claim(now_ms=NOW_MS + 1000)
    settle(desk, one, DELIVERED)
    settle(desk, two, DELIVERED)
    settle(desk, three, DEAD, status=404)
    report = desk.world.run(build_report(desk.world.store, Period()))
    text = format_report(report)
    assert "target ads" in text
    assert "66.7%" in text
    figures = report["deliveries"]
    assert figures["by_state"] == {"waiting": 1, "delivered": 2, "dead": 1, "cancelled": 0}
    assert (figures["success_rate"], figures["attempts_each"]) == (0.6667, 1.33)
    assert 1.0 <= figures["seconds"]["p50"] <= 2.0
    (by_source,), (by_target,) = figures.pop("by_source"), figures.pop("by_target")
    assert by_source.pop("source") == desk.world.source.name
    assert by_target.pop("target") == "ads"
    assert by_source == by_target == figures


def test_the_report_counts_a_delivery_in_the_period_of_its_postback(desk: Desk) -> None:
    sold(desk)
    after = desk.world.run(build_report(desk.world.store, Period(NOW_MS + 3_600_000, None)))
    assert after["deliveries"]["total"] == 0
    assert "deliveries" not in format_report(after)
    assert (
        desk.world.run(build_report(desk.world.store, Period(NOW_MS - 1000, None)))["deliveries"]["total"]
        == 1
    )


def test_times_are_counted_on_the_rung_that_they_are_on(desk: Desk) -> None:
    for _ in range(3):
        sold(desk)
    for delivery, ms in zip(desk.claim(), (0, 29_500, 10**9), strict=True):
        settle(desk, delivery, DELIVERED, ms=ms)
    rows = desk.world.query("deliveries_by_outcome")
    assert sorted((row["rung"], row["count"]) for row in rows) == sorted(
        (sum(bound <= took for bound in DELIVERY_LADDER_MS), 1) for took in (1000, 30_500, 10**9 + 1000)
    )


@pytest.mark.parametrize(
    ("rungs", "part", "seconds"),
    [
        ({}, 0.5, None),
        ({0: 10}, 0.5, 0.002),
        ({0: 1, 2: 2}, 0.5, 0.012),
        ({5: 100}, 1.0, 0.05),
        ({len(DELIVERY_LADDER_MS): 1}, 0.95, DELIVERY_LADDER_MS[-1] / 1000),
    ],
)
def test_a_percentile_lies_between_the_rungs(rungs: dict[int, int], part: float, seconds: float) -> None:
    assert percentile_s(rungs, part) == seconds


def test_the_ladder_goes_up() -> None:
    assert list(DELIVERY_LADDER_MS) == sorted(set(DELIVERY_LADDER_MS))


def test_without_deliveries_there_are_no_rates() -> None:
    figures = sum_up_deliveries([], {})
    assert (figures["success_rate"], figures["attempts_each"]) == (None, None)
    assert figures["seconds"] == {"p50": None, "p95": None}


# --- why ---------------------------------------------------------------------------------------------------------


def test_why_tells_what_a_target_was_told_how_often_it_was_tried_and_what_it_answered(desk: Desk) -> None:
    click = sold(desk)
    (delivery,) = desk.claim()
    settle(desk, delivery, WAITING, status=503, due_ms=NOW_MS + 1000)
    (delivery,) = desk.claim(now_ms=NOW_MS + 1000)
    settle(desk, delivery, DELIVERED)
    story = why(desk, desk.world.id_of(click))
    (told,) = story["deliveries"]
    assert (told["target"], told["rule"], told["value"], told["state"]) == (
        "ads",
        "sales",
        "5.00",
        "delivered",
    )
    assert told["facts"] == {"source_click_id": "S1"}
    assert [(one["http_status"], one["error"]) for one in told["attempt_log"]] == [
        (503, "HTTP 503"),
        (200, None),
    ]
    text = format_story(story)
    assert "told ads by rule sales: conversion of 5.00" in text
    assert "2 attempts" in text
    assert "HTTP 503  12 ms" in text
    assert "nothing for" not in text


def test_why_takes_the_id_of_a_delivery(desk: Desk) -> None:
    sold(desk)
    (delivery,) = desk.claim()
    story = why(desk, delivery.id)
    assert (story["kind"], story["found"], len(story["deliveries"])) == ("delivery id", True, 1)
    wrong = why(desk, delivery.id[:13] + "-99")
    assert (wrong["found"], wrong["deliveries"]) == (False, [])
    assert "there is no delivery" in wrong["hint"]


def test_why_says_when_the_next_attempt_is_and_that_a_target_is_paused(desk: Desk) -> None:
    click = sold(desk)
    (delivery,) = desk.claim()
    settle(desk, delivery, WAITING, status=410, due_ms=NOW_MS + 9000)
    assert f"next attempt {write_moment(NOW_MS + 9000)}" in lines(desk, desk.world.id_of(click))
    desk.turn(states=[TargetState(desk.target.id, "paused", NOW_MS, 0, "HTTP 410")])
    text = lines(desk, desk.world.id_of(click))
    assert "target ads is paused" in text
    assert "postbackd target resume ads" in text


def test_why_says_that_a_message_waits_for_an_earlier_one_or_is_being_sent(desk: Desk) -> None:
    click = sold(desk)
    desk.world.send(click, "txid=T&status=reversed")
    desk.plan()
    desk.claim()
    notes = [told["note"] for told in why(desk, desk.world.id_of(click))["deliveries"]]
    assert notes == [
        "it is being sent at this moment",
        "it waits for an earlier message about the same conversion",
    ]


def test_why_says_that_there_is_no_rule(desk: Desk) -> None:
    click = desk.world.click()
    desk.world.remove(desk.rule)
    desk.world.send(click, "txid=T")
    assert f"there is no rule for source {desk.world.source.name!r}" in lines(desk, desk.world.id_of(click))


def test_why_says_which_part_of_a_condition_does_not_hold(desk: Desk) -> None:
    desk.world.save(
        Rule(
            id=desk.rule.id,
            name="sales",
            source=desk.world.source.id,
            target=desk.target.id,
            condition="type = lead",
        )
    )
    click = desk.world.click()
    desk.world.send(click, "txid=T&type=sale")
    desk.turn(planned=desk.look().events)
    story = why(desk, desk.world.id_of(click))
    (rule,) = story["conversions"][0]["rules"]
    assert (rule["rule"], rule["target"], rule["fires"]) == ("sales", "ads", False)
    assert f"nothing for ads by rule sales: {rule['why']}" in format_story(story)
    assert "sale" in rule["why"]


def test_why_tells_a_rule_that_was_not_asked_yet_from_one_that_came_too_late(desk: Desk) -> None:
    click = desk.world.click()
    desk.world.send(click, "txid=T")
    text = lines(desk, desk.world.id_of(click))
    assert NOT_ASKED in text
    assert TOO_LATE not in text
    desk.turn(planned=desk.look().events)
    text = lines(desk, desk.world.id_of(click))
    assert NOT_ASKED not in text
    assert TOO_LATE in text


def test_why_says_how_to_send_a_dead_delivery_again(desk: Desk) -> None:
    click = sold(desk)
    (delivery,) = desk.claim()
    settle(desk, delivery, DEAD, status=404)
    command = f"postbackd delivery retry {delivery.id}"
    assert command in lines(desk, desk.world.id_of(click))
    desk.world.run(desk.world.store.resend([delivery.number], NOW_MS))
    assert command not in lines(desk, desk.world.id_of(click))


# --- what can be sent again --------------------------------------------------------------------------------------


def resendable(desk: Desk) -> Sequence[int]:
    numbers = [row["number"] for row in desk.world.query("resendable")]
    assert desk.world.query("resendable_count") == [{"count": len(numbers)}]
    return numbers


def dead_ones(desk: Desk) -> Sequence[dict[str, Any]]:
    return desk.world.query("dead_by_reason", from_ms=NOW_MS)


def test_what_died_is_sent_again_once_and_only_its_last_copy(desk: Desk) -> None:
    sold(desk)
    (first,) = desk.claim()
    assert resendable(desk) == []
    settle(desk, first, DEAD, status=404)
    assert resendable(desk) == [first.number]
    assert [(row["reason"], row["count"]) for row in dead_ones(desk)] == [("HTTP 404", 1)]
    desk.world.run(desk.world.store.resend([first.number], NOW_MS))
    assert resendable(desk) == []
    assert dead_ones(desk) == []
    (second,) = desk.claim()
    settle(desk, second, DEAD, status=404)
    assert resendable(desk) == [second.number]


def test_what_is_not_true_any_more_is_not_sent_again(desk: Desk) -> None:
    click = sold(desk)
    (delivery,) = desk.claim()
    settle(desk, delivery, DEAD, status=404)
    desk.world.send(click, "txid=T&status=reversed")
    assert desk.world.conversion(click)[0] == Status.REVERSED.word
    assert resendable(desk) == []
    assert dead_ones(desk) == []


def test_nothing_is_sent_again_to_a_target_that_was_removed(desk: Desk) -> None:
    sold(desk)
    (delivery,) = desk.claim()
    settle(desk, delivery, DEAD)
    desk.world.remove(desk.rule)
    desk.world.remove(desk.target)
    assert resendable(desk) == []


def test_what_ends_without_an_attempt_is_among_what_was_given_up(desk: Desk) -> None:
    sold(desk)
    (delivery,) = desk.claim()
    desk.turn(ME, NOW_MS + 7, settled=[Settled(delivery, DEAD, 0, "it is too old for this target")])
    (row,) = desk.world.query("deliveries_given_up", from_ms=NOW_MS + 7)
    assert (row["number"], row["attempts"]) == (delivery.number, 0)
    assert desk.world.query("deliveries_given_up", from_ms=NOW_MS + 8) == []


def test_what_should_have_been_sent_is_overdue_and_what_is_blocked_is_not(desk: Desk) -> None:
    click = sold(desk)
    desk.world.send(click, "txid=T&status=reversed")
    desk.plan()
    (row,) = desk.world.query("overdue", before_ms=NOW_MS + 1)
    assert (row["target_name"], row["count"], row["due_ms"]) == ("ads", 1, NOW_MS)
    assert desk.world.query("overdue", before_ms=NOW_MS) == []
