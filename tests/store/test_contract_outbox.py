"""What follows from conversions: events in the outbox, deliveries, leases, attempts; the same on every store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from postbackd.core.deliveries import (
    Attempt,
    Delivery,
    DeliveryState,
    Facts,
    Happened,
    Message,
    Owed,
    Settled,
    TargetState,
)
from postbackd.core.model import CatalogEntry, Click, How, RequestForm, Rule, Target
from postbackd.core.planning import Planner
from postbackd.core.statuses import Status
from postbackd.store.base import CatalogConflict, Look, Turn
from tests.store.contract import NOW_MS, PIXEL, World

ME, OTHER = "me", "other"
LEASE_MS = 30_000


class Desk:
    """A deliverer that does what it is told, at a time that is an argument."""

    def __init__(self, world: World) -> None:
        self.world = world
        how = How(requests={"conversion": RequestForm(url="https://ads.example/?id={source_click_id}")})
        self.target = world.save(Target(id=0, name="ads", how=how, secrets={"KEY": "sealed"}))
        self.rule = world.save(Rule(id=0, name="sales", source=world.source.id, target=self.target.id))
        world.reload()

    def look(self, now_ms: int = NOW_MS, events: int = 100) -> Look:
        return self.world.run(self.world.store.look([self.target.id], now_ms, events))

    def turn(self, holder: str = ME, now_ms: int = NOW_MS, **more: Any) -> Sequence[Delivery]:
        turn = Turn(holder=holder, now_ms=now_ms, lease_ms=LEASE_MS, **more)
        return self.world.run(self.world.store.take_turn(turn))

    def owe(self, happened: Happened, message: Message = Message.CONVERSION, **more: Any) -> Owed:
        """What a simple rule makes of an event."""
        owed = Owed(
            happened.event, happened.request_id, happened.click_id, happened.type, happened.transaction_id,
            happened.conversion_id, happened.campaign, happened.offer, self.rule.id, self.target.id, message,
            happened.status, happened.value_micros, happened.currency, happened.facts or Facts(), NOW_MS, NOW_MS, 0,
        )  # fmt: skip
        return replace(owed, **more)

    def plan(self, message: Message = Message.CONVERSION, **more: Any) -> Sequence[Happened]:
        """Turn every event into a delivery."""
        events = self.look().events
        self.turn(planned=events, owed=[self.owe(event, message, **more) for event in events])
        return events

    def claim(self, holder: str = ME, now_ms: int = NOW_MS, room: int = 100) -> Sequence[Delivery]:
        return self.turn(holder, now_ms, rooms={self.target.id: room})

    def settled(self, delivery: Delivery, state: DeliveryState, **more: Any) -> Settled:
        attempt = Attempt(delivery.attempts + 1, NOW_MS, 12, 200, "fine", "")
        return Settled(delivery, state, more.pop("due_ms", NOW_MS), more.pop("reason", ""), attempt)

    def settle(self, delivery: Delivery, state: DeliveryState, holder: str = ME, **more: Any) -> None:
        now_ms = more.pop("now_ms", NOW_MS)
        self.turn(holder, now_ms, settled=[self.settled(delivery, state, **more)])

    def rows(self, click: Click) -> Sequence[dict[str, Any]]:
        return self.world.query("deliveries_of_click", click_id=click.stamp)

    def states(self, click: Click) -> list[str]:
        return [DeliveryState(row["state"]).word for row in self.rows(click)]


@pytest.fixture
def desk(world: World) -> Desk:
    return Desk(world)


def test_targets_and_rules_are_kept_as_they_are(desk: Desk) -> None:
    catalog = desk.world.run(desk.world.store.load_catalog())
    assert catalog.targets == (desk.target,)
    assert catalog.rules == (desk.rule,)


def test_nothing_that_a_rule_needs_is_removed(desk: Desk) -> None:
    campaign_rule = desk.world.save(
        Rule(id=0, name="own", campaign=desk.world.campaign.id, target=desk.target.id)
    )
    needed: tuple[CatalogEntry, ...] = (desk.target, desk.world.campaign)
    for entry in needed:
        with pytest.raises(CatalogConflict, match="rule"):
            desk.world.remove(entry)
    for entry in (desk.rule, campaign_rule, *needed):
        desk.world.remove(entry)
    assert desk.world.run(desk.world.store.load_catalog()).removed_campaigns == (desk.world.campaign,)


def test_a_target_stays_while_something_waits_for_it(desk: Desk) -> None:
    desk.world.send(desk.world.click(), "txid=T")
    desk.plan()
    desk.world.remove(desk.rule)
    with pytest.raises(CatalogConflict, match="deliveries that wait"):
        desk.world.remove(desk.target)
    (delivery,) = desk.claim()
    desk.settle(delivery, DeliveryState.DEAD)
    desk.world.remove(desk.target)


def test_a_rule_is_of_a_source_or_a_campaign(desk: Desk) -> None:
    both = Rule(
        id=0, name="both", source=desk.world.source.id, campaign=desk.world.campaign.id, target=desk.target.id
    )
    with pytest.raises(CatalogConflict, match="not of both"):
        desk.world.save(both)


def test_a_conversion_leaves_an_event_with_what_is_known_of_its_click(desk: Desk) -> None:
    click = desk.world.click(source_click_id="S1", country="DE", subs=("zone", None, "x"))
    first = desk.world.send(click, "txid=T&type=sale&value=2.50")
    (event,) = desk.look().events
    assert (event.type, event.transaction_id, event.conversion_id) == ("sale", "T", first.conversion)
    assert (event.status_from, event.status, event.value_micros) == (0, Status.APPROVED, 2_500_000)
    assert (event.campaign, event.offer, event.first) == (
        desk.world.campaign.id,
        desk.world.offer.id,
        True,
    )
    assert event.facts == Facts("S1", None, "DE", ("zone", None, "x"))


def test_a_repeat_and_an_unmatched_postback_leave_no_event(desk: Desk) -> None:
    click = desk.world.click()
    desk.world.send(click, "txid=T")
    desk.plan()
    desk.world.send(click, "txid=T")
    desk.world.send(desk.world.make_click(), "txid=T")
    assert desk.look().events == ()


def test_a_change_leaves_an_event_that_says_what_it_was(desk: Desk) -> None:
    click = desk.world.click()
    desk.world.send(click, "txid=T&value=5&status=pending")
    desk.world.send(click, "txid=T&status=approved")
    desk.world.send(click, "txid=T&status=reversed")
    events = desk.look().events
    assert [(event.status_from, event.status) for event in events] == [
        (0, Status.PENDING),
        (Status.PENDING, Status.APPROVED),
        (Status.APPROVED, Status.REVERSED),
    ]
    assert [event.event for event in events] == sorted(event.event for event in events)


def test_only_the_first_conversion_of_a_type_is_the_first(desk: Desk) -> None:
    click = desk.world.click()
    for query in ("txid=1&type=sale", "txid=2&type=sale", "txid=3&type=lead"):
        desk.world.send(click, query)
    assert [event.first for event in desk.look().events] == [True, False, True]


def test_a_late_match_leaves_an_event(desk: Desk) -> None:
    click = desk.world.make_click()
    desk.world.send(click, "txid=T")
    assert desk.look().events == ()
    desk.world.write([click])
    assert len(desk.look().events) == 1


def test_what_s2s_makes_of_a_conversion_of_the_pixel_is_a_change(desk: Desk) -> None:
    click = desk.world.click()
    desk.world.send(click, "value=1", channel=PIXEL)
    desk.world.send(click, "txid=T&value=9")
    events = desk.look().events
    assert [event.value_micros for event in events] == [1_000_000, 9_000_000]
    assert {event.transaction_id for event in events} == {"T"}


def test_without_a_rule_for_its_campaign_a_conversion_leaves_no_event(world: World) -> None:
    world.send(world.click(), "txid=T")
    assert world.run(world.store.look([], NOW_MS, 10)).events == ()


def test_an_event_of_a_purged_click_says_that_the_click_is_gone(desk: Desk) -> None:
    click = desk.world.click(age_s=20 * 86_400)
    desk.world.send(click, "txid=T&status=pending")
    desk.plan()
    while desk.world.run(desk.world.store.purge(NOW_MS - 10 * 86_400_000, 100)):
        pass
    desk.world.send(click, "txid=T&status=approved")
    (event,) = desk.look().events
    assert event.facts is None
    assert event.campaign == desk.world.campaign.id


def test_what_a_source_was_told_comes_with_a_change(desk: Desk) -> None:
    click = desk.world.click(source_click_id="S1")
    first = desk.world.send(click, "txid=T&value=5")
    desk.plan()
    desk.world.send(click, "txid=T&status=reversed")
    (told,) = desk.look().told
    assert (told.conversion_id, told.rule, told.message) == (first.conversion, desk.rule.id, 1)
    assert (told.state, told.value_micros, told.facts.source_click_id) == (1, 5_000_000, "S1")


def test_what_is_owed_is_claimed_in_the_turn_in_which_it_is_planned(desk: Desk) -> None:
    click = desk.world.click(source_click_id="S1", subs=("a",))
    desk.world.send(click, "txid=T&type=sale&value=2")
    (event,) = desk.look().events
    owed = desk.owe(event)
    (delivery,) = desk.turn(planned=[event], owed=[owed], rooms={desk.target.id: 5})
    assert replace(delivery.owed, event=owed.event) == owed
    assert (delivery.attempts, delivery.told, delivery.outdated) == (0, False, False)
    assert desk.look().events == ()


def test_nobody_else_gets_what_is_claimed_before_the_lease_ends(desk: Desk) -> None:
    desk.world.send(desk.world.click(), "txid=T")
    desk.plan()
    (delivery,) = desk.claim()
    assert desk.claim(OTHER) == []
    assert desk.look().due == set()
    late = NOW_MS + LEASE_MS
    assert desk.look(late).due == {desk.target.id}
    (again,) = desk.claim(OTHER, late)
    assert again.id == delivery.id


def test_what_somebody_else_has_by_now_is_not_settled(desk: Desk) -> None:
    click = desk.world.click()
    desk.world.send(click, "txid=T")
    desk.plan()
    (delivery,) = desk.claim()
    desk.claim(OTHER, NOW_MS + LEASE_MS)
    desk.settle(delivery, DeliveryState.DEAD)
    assert desk.states(click) == ["waiting"]
    desk.settle(delivery, DeliveryState.DELIVERED, OTHER)
    assert desk.states(click) == ["delivered"]


def test_a_failed_delivery_is_due_again_at_its_time_under_the_same_id(desk: Desk) -> None:
    click = desk.world.click()
    desk.world.send(click, "txid=T")
    desk.plan()
    (delivery,) = desk.claim()
    desk.settle(delivery, DeliveryState.WAITING, due_ms=NOW_MS + 5000)
    assert desk.claim(now_ms=NOW_MS + 4999) == []
    (again,) = desk.claim(now_ms=NOW_MS + 5000)
    assert (again.id, again.attempts) == (delivery.id, 1)


def test_each_attempt_is_kept(desk: Desk) -> None:
    click = desk.world.click()
    desk.world.send(click, "txid=T")
    desk.plan()
    (delivery,) = desk.claim()
    desk.settle(delivery, DeliveryState.WAITING)
    (delivery,) = desk.claim()
    desk.settle(delivery, DeliveryState.DELIVERED)
    attempts = desk.world.query("attempts_of_delivery", number=delivery.number)
    assert [(row["attempt"], row["http_status"], row["excerpt"]) for row in attempts] == [
        (1, 200, "fine"),
        (2, 200, "fine"),
    ]
    (row,) = desk.rows(click)
    assert (row["attempts"], row["settled_ms"]) == (2, NOW_MS)


def test_what_is_given_back_untouched_costs_no_attempt(desk: Desk) -> None:
    desk.world.send(desk.world.click(), "txid=T")
    desk.plan()
    (delivery,) = desk.claim()
    desk.turn(settled=[Settled(delivery, DeliveryState.WAITING, NOW_MS)])
    (again,) = desk.claim(OTHER)
    assert again.attempts == 0


def test_the_room_of_a_target_is_kept_and_the_oldest_go_first(desk: Desk) -> None:
    for number in range(5):
        desk.world.send(desk.world.click(), f"txid={number}")
    desk.plan()
    first = desk.claim(room=2)
    rest = desk.claim()
    assert [len(first), len(rest)] == [2, 3]
    numbers = [delivery.number for delivery in (*first, *rest)]
    assert numbers == sorted(set(numbers))


def test_a_later_message_about_a_conversion_waits_for_the_earlier_one(desk: Desk) -> None:
    click = desk.world.click()
    desk.world.send(click, "txid=T&value=5")
    desk.plan()
    desk.world.send(click, "txid=T&status=reversed")
    desk.plan(Message.RETRACTION)
    (first,) = desk.claim()
    assert (first.owed.message, first.outdated) == (Message.CONVERSION, True)
    assert desk.claim(OTHER) == []
    desk.settle(first, DeliveryState.DELIVERED)
    (second,) = desk.claim(OTHER)
    assert (second.owed.message, second.told) == (Message.RETRACTION, True)


@pytest.mark.parametrize("state", [DeliveryState.DEAD, DeliveryState.CANCELLED])
def test_a_later_message_hears_that_the_source_was_never_told(desk: Desk, state: DeliveryState) -> None:
    click = desk.world.click()
    desk.world.send(click, "txid=T&value=5")
    desk.world.send(click, "txid=T&status=reversed")
    desk.plan()
    (first,) = desk.claim()
    desk.turn(settled=[Settled(first, state, NOW_MS, "too old")])
    (second,) = desk.claim()
    assert (second.number > first.number, second.told) == (True, False)


def test_an_attempt_that_failed_may_have_been_heard(desk: Desk) -> None:
    click = desk.world.click()
    desk.world.send(click, "txid=T&value=5")
    desk.plan()
    desk.world.send(click, "txid=T&status=reversed")
    desk.plan(Message.RETRACTION)
    (first,) = desk.claim()
    desk.settle(first, DeliveryState.DEAD, reason="no answer")
    (second,) = desk.claim()
    assert second.told


def test_only_a_retraction_makes_what_waits_before_it_outdated(desk: Desk) -> None:
    click = desk.world.click()
    desk.world.send(click, "txid=T&value=5", "update")
    desk.plan()
    desk.world.send(click, "txid=T&value=6", "update")
    desk.plan(Message.ADJUSTMENT)
    (first,) = desk.claim(room=1)
    assert not first.outdated
    desk.turn(settled=[Settled(first, DeliveryState.WAITING, NOW_MS)])
    desk.world.send(click, "txid=T&status=reversed", "update")
    desk.plan(Message.RETRACTION)
    (first,) = desk.claim(room=1)
    assert first.outdated


def test_a_later_message_stays_behind_while_the_earlier_one_is_tried_again(desk: Desk) -> None:
    click = desk.world.click()
    desk.world.send(click, "txid=T&value=5")
    desk.world.send(click, "txid=T&status=reversed")
    desk.plan()
    (first,) = desk.claim()
    desk.settle(first, DeliveryState.WAITING, due_ms=NOW_MS + 60_000)
    assert desk.claim(now_ms=NOW_MS + 59_000) == []
    assert [one.id for one in desk.claim(now_ms=NOW_MS + 60_000)] == [first.id]


def test_an_event_becomes_deliveries_once_though_two_planned_it(desk: Desk) -> None:
    click = desk.world.click()
    desk.world.send(click, "txid=T")
    events = desk.look().events
    for holder in (ME, OTHER):
        desk.turn(holder, planned=events, owed=[desk.owe(event) for event in events])
    assert desk.states(click) == ["waiting"]


def test_an_event_for_which_nothing_is_owed_is_gone(desk: Desk) -> None:
    click = desk.world.click()
    desk.world.send(click, "txid=T")
    desk.turn(planned=desk.look().events)
    assert desk.look().events == ()
    assert desk.rows(click) == []


def test_what_a_holder_had_is_released_at_once(desk: Desk) -> None:
    for number in range(3):
        desk.world.send(desk.world.click(), f"txid={number}")
    desk.plan()
    desk.claim(room=1)
    desk.claim(OTHER, room=1)
    assert desk.world.run(desk.world.store.release(ME)) == 1
    assert len(desk.claim("third")) == 2
    assert desk.world.run(desk.world.store.release(None)) == 3
    assert len(desk.claim("fourth")) == 3


def test_a_delivery_is_sent_again_under_another_id(desk: Desk) -> None:
    click = desk.world.click()
    desk.world.send(click, "txid=T")
    desk.plan(expires_ms=NOW_MS + 1)
    (delivery,) = desk.claim()
    desk.settle(delivery, DeliveryState.DEAD, reason="too old")
    assert desk.world.run(desk.world.store.resend([delivery.number], NOW_MS + 9)) == 1
    (again,) = desk.claim(now_ms=NOW_MS + 9)
    assert again.id != delivery.id
    assert (again.owed.conversion_id, again.owed.expires_ms, again.attempts) == (
        delivery.owed.conversion_id,
        0,
        0,
    )
    assert desk.states(click) == ["dead", "waiting"]


def test_a_waiting_delivery_is_sent_at_once_under_its_id(desk: Desk) -> None:
    desk.world.send(desk.world.click(), "txid=T")
    desk.plan(due_ms=NOW_MS + 99_000)
    assert desk.look().due == set()
    number = desk.world.query("deliveries")[0]["number"]
    assert desk.world.run(desk.world.store.resend([number], NOW_MS)) == 1
    assert [one.number for one in desk.claim()] == [number]


def test_what_waits_is_cancelled_and_what_is_being_sent_is_not(desk: Desk) -> None:
    first, second = desk.world.click(), desk.world.click()
    for click in (first, second):
        desk.world.send(click, "txid=T")
    desk.plan()
    numbers = [row["number"] for click in (first, second) for row in desk.rows(click)]
    (held,) = desk.claim(room=1)
    assert desk.world.run(desk.world.store.cancel(numbers, NOW_MS, "not wanted")) == 1
    assert sorted(desk.states(first) + desk.states(second)) == ["cancelled", "waiting"]
    desk.settle(held, DeliveryState.DELIVERED)
    assert desk.claim() == []


def test_a_cancelled_message_lets_the_next_one_go(desk: Desk) -> None:
    click = desk.world.click()
    desk.world.send(click, "txid=T&value=5")
    desk.world.send(click, "txid=T&status=reversed")
    desk.plan()
    first = min(row["number"] for row in desk.rows(click))
    assert desk.claim(room=0) == []
    desk.world.run(desk.world.store.cancel([first], NOW_MS, "not wanted"))
    assert len(desk.claim()) == 1


def test_how_a_target_is_served_is_kept_until_it_is_well_again(desk: Desk) -> None:
    state = TargetState(desk.target.id, "paused", NOW_MS, 0, "the target answered 410")
    for reason in ("busy", state.reason):
        desk.turn(states=[replace(state, reason=reason)])
    (row,) = desk.world.query("target_states")
    assert (row["state"], row["reason"], row["target_name"]) == ("paused", state.reason, "ads")
    desk.turn(states=[replace(state, state="")])
    assert desk.world.query("target_states") == []


def test_texts_that_a_database_refuses_are_no_reason_to_lose_an_attempt(desk: Desk) -> None:
    desk.world.send(desk.world.click(), "txid=T")
    desk.plan()
    (delivery,) = desk.claim()
    attempt = Attempt(1, NOW_MS, 1, 200, 'tab\t "quoted" é 😀', "")
    desk.turn(settled=[Settled(delivery, DeliveryState.DELIVERED, NOW_MS, "", attempt)])
    (row,) = desk.world.query("attempts_of_delivery", number=delivery.number)
    assert row["excerpt"] == 'tab\t "quoted" é 😀'


def test_deliveries_outlive_a_restart(desk: Desk) -> None:
    click = desk.world.click()
    desk.world.send(click, "txid=T")
    desk.world.send(click, "txid=U")
    desk.plan()
    desk.claim(room=1)
    desk.world.send(click, "txid=V")
    desk.world.reopen()
    assert len(desk.look().events) == 1
    assert len(desk.claim()) == 1
    assert len(desk.claim(now_ms=NOW_MS + LEASE_MS)) == 2


def test_the_trace_of_a_postback_goes_to_what_follows_from_it_and_to_nothing_else(desk: Desk) -> None:
    world, trace = desk.world, "0af7651916cd43dd8448eb211c80319c-01"
    click = world.click(source_click_id="S1")
    world.settle(replace(world.make(click, "txid=A&value=5&status=pending"), trace=trace))
    world.send(click, "txid=B&value=5")
    world.settle(replace(world.make(click, "txid=A&status=approved"), trace=trace.replace("0af", "1af")))
    planner = Planner(world.run(world.store.load_catalog()))
    look = desk.look()
    assert [event.trace for event in look.events] == [trace, None, trace.replace("0af", "1af")]
    desk.turn(planned=look.events, owed=planner.plan(look.events, look.told, NOW_MS))
    traces = {one.owed.transaction_id: one.owed.facts.trace for one in desk.claim()}
    assert traces == {"A": trace.replace("0af", "1af"), "B": None}
