"""What a database refuses: put aside with its reason, while everything else goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from postbackd.core.model import Click
from postbackd.core.moments import write_moment
from postbackd.delivery.ledger import divide
from postbackd.delivery.settling import PUT_ASIDE
from postbackd.reports.told import Teller, format_told
from postbackd.store.base import Turn
from tests.delivery.targets import OK, Target
from tests.delivery.test_deliverer import STORES, Shop, Until, answer, in_turn, lines
from tests.store.contract import World

TOO_LONG_S = 10**16
"""A delay whose end, in milliseconds, fits no column."""


@pytest.fixture(params=STORES, ids=lambda kind: kind.name)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    world = World(request.param, tmp_path / "data")
    made = Shop(world)
    yield made
    world.run(made.stack.aclose())
    world.close()


def refuse(shop: Shop, table: str, condition: str) -> None:
    """From now on the database takes no row of a table for which a condition on ``NEW`` holds."""
    world = shop.world
    if world.kind.name == "sqlite":
        made = f"CREATE TRIGGER no BEFORE INSERT ON {table} WHEN {condition} BEGIN SELECT RAISE(ABORT, 'no'); END"
    else:
        made = (
            f"CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN IF {condition} THEN RAISE EXCEPTION 'no'; END IF; RETURN NEW; END $$; "
            f"CREATE TRIGGER no BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION no()"
        )
        # The database is emptied for the next test, but not made anew.
        shop.stack.push_async_callback(world.kind.execute, world.store, "DROP FUNCTION no CASCADE")
    world.run(world.kind.execute(world.store, made))


def sales(shop: Shop, count: int) -> list[Click]:
    """All in the outbox before anything is delivered: they are planned in one turn."""
    return [shop.sale(f"txid=T{number}&type=sale&value={number}", f"S{number}") for number in range(count)]


def all_of(*settled: Until) -> Until:
    async def look() -> bool:
        return all([await one() for one in settled])

    return look


def heard(target: Target) -> list[str]:
    return sorted(line.split("id=")[1].split("&")[0] for line in lines(target))


async def tell(shop: Shop, click: Click) -> str:
    """The lines of ``why`` about the deliveries of a click."""
    store, catalog = shop.world.store, await shop.world.store.load_catalog()
    rows = await store.query("deliveries_of_click", click_id=click.stamp)
    teller = await Teller.load(store, catalog, shop.world.rulebook.keys, shop.world.now_ms)
    told = await teller.deliveries(rows)
    conversion = {"conversion": told[0]["conversion"], "unasked": False, "rules": []}
    return "\n".join(format_told({"deliveries": told}, conversion))


def test_a_delivery_that_cannot_be_stored_is_dead_with_its_reason_and_the_others_go(shop: Shop) -> None:
    ads, other = shop.open(in_turn()), shop.open(in_turn())
    shop.rule(shop.target(ads))
    bad = shop.rule(shop.target(other, "other"), condition="value = 1", delay_s=TOO_LONG_S)
    clicks = sales(shop, 5)
    told = [shop.settled(click, "delivered") for click in (clicks[0], *clicks[2:])]
    shop.deliver(all_of(shop.settled(clicks[1], "delivered", "dead"), *told), ads, other)
    assert heard(ads) == ["S0", "S1", "S2", "S3", "S4"]
    assert heard(other) == []
    _, dead = shop.rows(clicks[1])
    why = shop.world.run(tell(shop, clicks[1]))
    assert f"told other by rule other: conversion, dead {write_moment(dead['settled_ms'])}" in why
    assert "retry" not in why
    assert (dead["rule"], dead["value_micros"], dead["attempts"]) == (bad.id, 0, 0)
    assert dead["reason"].startswith("it could not be stored: ")
    (counted,) = shop.world.query("dead_by_reason", from_ms=0)  # what the doctor tells
    assert (counted["target_name"], counted["count"], counted["reason"]) == ("other", 1, dead["reason"])


def test_what_was_put_aside_is_never_sent_with_something_in_its_place(shop: Shop) -> None:
    ads = shop.open(in_turn())
    shop.rule(shop.target(ads), delay_s=TOO_LONG_S)
    (click,) = sales(shop, 1)
    shop.deliver(shop.settled(click, "dead"), ads)
    (row,) = shop.rows(click)
    assert shop.world.run(shop.world.store.resend([row["number"]], shop.world.now_ms)) == 1
    shop.deliver(shop.settled(click, "dead", "dead"), ads)
    assert shop.rows(click)[1]["reason"] == PUT_ASIDE
    assert ads.requests == []


def test_a_change_makes_up_for_what_was_put_aside(shop: Shop) -> None:
    ads = shop.open(in_turn())
    rule = shop.rule(shop.target(ads), delay_s=TOO_LONG_S)
    (click,) = sales(shop, 1)
    shop.deliver(shop.settled(click, "dead"), ads)
    shop.world.save(replace(rule, delay_s=0))
    shop.world.reload()
    shop.world.send(click, "txid=T0&type=sale&value=7", "update")
    shop.deliver(shop.settled(click, "dead", "delivered"), ads)
    assert lines(ads) == ["GET /pb?id=S0&v=7.00&t=sale HTTP/1.1"]
    assert shop.world.query("dead_by_reason", from_ms=0) == []


def test_an_answer_that_cannot_be_stored_is_left_out_and_its_delivery_settled(shop: Shop) -> None:
    ads = shop.open(in_turn(OK, answer("200 OK", b"poison")))
    shop.rule(shop.target(ads, concurrency=1))
    refuse(shop, "attempts", "NEW.excerpt = 'poison'")
    clicks = sales(shop, 4)
    shop.deliver(all_of(*(shop.settled(click, "delivered") for click in clicks)), ads)
    assert heard(ads) == ["S0", "S1", "S2", "S3"]
    (attempt,) = shop.attempts(clicks[1])
    assert (attempt["http_status"], attempt["excerpt"]) == (200, "")
    assert attempt["error"].startswith("it could not be stored: ")
    assert [shop.attempts(click)[0]["error"] for click in (clicks[0], *clicks[2:])] == ["", "", ""]


def test_an_attempt_that_cannot_be_stored_at_all_ends_its_delivery_with_the_reason(shop: Shop) -> None:
    ads = shop.open(in_turn())
    shop.rule(shop.target(ads))
    refuse(shop, "attempts", "NEW.attempt > 0")
    (click,) = sales(shop, 1)
    shop.deliver(shop.settled(click, "dead"), ads)
    assert shop.rows(click)[0]["reason"].startswith("it could not be stored: ")


def test_an_event_that_cannot_even_be_put_aside_stays_in_the_outbox_and_the_others_go(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    ads = shop.open(in_turn())
    shop.rule(shop.target(ads))
    clicks = sales(shop, 5)
    refuse(shop, "deliveries", f"NEW.click_id = {clicks[2].stamp}")
    others = [click for click in clicks if click is not clicks[2]]
    shop.deliver(all_of(*(shop.settled(click, "delivered") for click in others)), ads)
    assert shop.rows(clicks[2]) == []
    assert shop.world.query("outbox_count")[0]["count"] == 1  # the doctor counts how long
    said = [record.getMessage() for record in caplog.records if "refuses it" in record.getMessage()]
    assert len(said) == 1
    assert f"of conversion {shop.world.conversions(clicks[2])[0]['conversion_id']}" in said[0]
    late = shop.sale("txid=late&type=sale", "S9")
    shop.deliver(shop.settled(late, "delivered"), ads)


def test_a_state_that_cannot_be_stored_keeps_nothing_waiting(shop: Shop) -> None:
    ads = shop.open(in_turn(answer("410 Gone")))
    shop.rule(shop.target(ads))
    refuse(shop, "target_states", "NEW.state = 'paused'")
    (click,) = sales(shop, 1)
    shop.deliver(shop.tried(click, 1), ads)
    assert shop.attempts(click)[0]["http_status"] == 410
    assert shop.world.query("target_states") == []


def test_a_turn_is_divided_until_one_thing_stands_alone() -> None:
    turn = Turn(holder="me", now_ms=0, rooms={1: 5, 2: 5, 3: 5})
    assert [part.rooms for part in divide(turn)] == [{1: 5}, {2: 5, 3: 5}]
    assert divide(replace(turn, rooms={1: 5})) == ()
    assert divide(replace(turn, rooms={})) == ()
