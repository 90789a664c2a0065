"""What one turn of a deliverer claims at once, and what of it the database refuses; the same on every store."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from postbackd.core.deliveries import Delivery, DeliveryState, Facts, Message, Owed
from postbackd.core.model import Click, Rule
from postbackd.store.base import TurnRefused
from postbackd.store.sqlite import SqliteStore
from tests.store.contract import NOW_MS, World
from tests.store.test_contract_outbox import LEASE_MS, ME, OTHER, Desk

NO_COLUMN_HOLDS = 1 << 63


@pytest.fixture
def desk(world: World) -> Desk:
    return Desk(world)


def sell(desk: Desk, *transaction_ids: str) -> list[Click]:
    clicks = [desk.world.click(source_click_id=f"S{id_}") for id_ in transaction_ids]
    for click, id_ in zip(clicks, transaction_ids, strict=True):
        desk.world.send(click, f"txid={id_}&value=5")
    return clicks


def take(desk: Desk, owed: Sequence[Owed], room: int = 100, holder: str = ME) -> Sequence[Delivery]:
    rooms = dict.fromkeys((one.target for one in owed), room)
    return desk.turn(holder, planned=desk.look().events, owed=owed, rooms=rooms, due=())


def test_what_is_new_is_ours_from_the_moment_at_which_it_is_owed(desk: Desk) -> None:
    (click,) = sell(desk, "T")
    (delivery,) = take(desk, [desk.owe(event) for event in desk.look().events])
    assert desk.claim(OTHER) == []
    assert desk.look().due == set()
    (row,) = desk.rows(click)
    assert (row["holder"], row["due_ms"]) == (ME, NOW_MS + LEASE_MS)
    desk.settle(delivery, DeliveryState.DELIVERED)
    assert desk.states(click) == ["delivered"]


def test_what_was_new_and_whose_holder_never_came_back_may_have_been_sent(desk: Desk) -> None:
    sell(desk, "T")
    (delivery,) = take(desk, [desk.owe(event) for event in desk.look().events])
    (again,) = desk.claim(OTHER, NOW_MS + LEASE_MS)
    assert (again.id, again.unsure) == (delivery.id, True)


def test_of_what_is_new_no_more_is_claimed_than_there_is_room_for(desk: Desk) -> None:
    sell(desk, "A", "B", "C")
    owed = [desk.owe(event) for event in desk.look().events]
    assert [one.owed.transaction_id for one in take(desk, owed, room=2)] == ["A", "B"]
    assert [one.owed.transaction_id for one in desk.claim(OTHER)] == ["C"]


def test_what_is_to_wait_is_not_claimed_though_it_is_new(desk: Desk) -> None:
    sell(desk, "T")
    (event,) = desk.look().events
    assert take(desk, [desk.owe(event, due_ms=NOW_MS + 1)]) == []
    assert len(desk.claim(now_ms=NOW_MS + 1)) == 1


def test_a_conversion_of_which_two_targets_hear_is_claimed_for_both(desk: Desk) -> None:
    other = desk.world.save(replace(desk.target, id=0, name="other"))
    rule = desk.world.save(Rule(id=0, name="too", source=desk.world.source.id, target=other.id))
    (click,) = sell(desk, "T")
    (event,) = desk.look().events
    claimed = take(desk, [desk.owe(event), desk.owe(event, rule=rule.id, target=other.id)])
    assert [one.owed.target for one in claimed] == [desk.target.id, other.id]
    assert {row["number"] for row in desk.rows(click)} == {one.number for one in claimed}


def test_of_two_messages_about_a_conversion_in_one_turn_only_the_first_is_claimed(desk: Desk) -> None:
    (click,) = sell(desk, "T")
    desk.world.send(click, "txid=T&status=reversed")
    counted, reversed_ = desk.look().events
    claimed = take(desk, [desk.owe(counted), desk.owe(reversed_, Message.RETRACTION)])
    assert claimed == []
    assert [one.owed.message for one in desk.claim()] == [Message.CONVERSION]


def test_a_change_beside_what_is_new_waits_for_what_is_on_its_way(desk: Desk) -> None:
    (click,) = sell(desk, "T")
    (first,) = take(desk, [desk.owe(event) for event in desk.look().events])
    sell(desk, "U")
    desk.world.send(click, "txid=T&status=reversed")
    owed = [
        desk.owe(event, Message.RETRACTION if event.status_from else Message.CONVERSION)
        for event in desk.look().events
    ]
    assert [one.owed.transaction_id for one in take(desk, owed)] == ["U"]
    assert desk.claim() == []
    desk.settle(first, DeliveryState.DELIVERED)
    assert [(one.owed.transaction_id, one.told) for one in desk.claim()] == [("T", True)]


# --- what the database refuses -----------------------------------------------------------------------------------


def test_a_turn_with_a_row_that_cannot_be_stored_says_so_and_changes_nothing(desk: Desk) -> None:
    first, second = sell(desk, "A", "B")
    desk.plan()
    (held,) = desk.claim(room=1)
    sell(desk, "C")
    settled = [desk.settled(held, DeliveryState.DELIVERED)]
    events = desk.look().events
    poisoned = [desk.owe(event, due_ms=NO_COLUMN_HOLDS) for event in events]
    for _ in range(2):
        with pytest.raises(TurnRefused):
            desk.turn(settled=settled, planned=events, owed=poisoned, rooms={desk.target.id: 9})
    assert desk.look().events == events
    assert desk.states(first) + desk.states(second) == ["waiting", "waiting"]
    desk.turn(settled=settled, planned=events, owed=[desk.owe(event) for event in events])
    assert desk.states(first) == ["delivered"]


def test_what_is_dead_from_the_start_keeps_its_reason_and_nobody_waiting(desk: Desk) -> None:
    (click,) = sell(desk, "T")
    (event,) = desk.look().events
    assert take(desk, [desk.owe(event, dead="no column holds it")]) == []
    (row,) = desk.rows(click)
    assert (row["state"], row["reason"], row["settled_ms"]) == (3, "no column holds it", NOW_MS)
    desk.world.send(click, "txid=T&status=reversed")
    desk.plan(Message.RETRACTION)
    assert [one.owed.message for one in desk.claim()] == [Message.RETRACTION]


DAMAGE = {
    "facts that are no JSON": "facts = 'x'",
    "facts that are no text": "facts = CAST(x'7b22ff7d' AS TEXT)",  # PostgreSQL keeps none
    "a kind of message that there is not": "message = 9",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_delivery_that_cannot_be_read_is_given_up_and_the_others_go(desk: Desk, damage: str) -> None:
    if "CAST" in DAMAGE[damage] and not isinstance(desk.world.store, SqliteStore):
        return
    bad, good = sell(desk, "BAD", "GOOD")
    desk.plan()
    world, number = desk.world, desk.rows(bad)[0]["number"]
    world.run(
        world.kind.execute(world.store, f"UPDATE deliveries SET {DAMAGE[damage]} WHERE number = {number}")
    )
    world.send(bad, "txid=BAD&status=reversed")
    (told,) = desk.look().told
    assert told.facts == (Facts() if "facts" in damage else Facts(source_click_id="SBAD"))
    desk.plan(Message.RETRACTION)
    assert [one.owed.transaction_id for one in desk.claim()] == ["GOOD"]
    world.run(
        world.kind.execute(world.store, f"UPDATE deliveries SET facts = '{{}}' WHERE number = {number}")
    )
    assert desk.states(bad) == ["dead", "waiting"]
    assert desk.rows(bad)[0]["reason"].startswith("what is stored of it cannot be read: ")
    assert [one.owed.message for one in desk.claim()] == [Message.RETRACTION]
    assert desk.states(good) == ["waiting"]
