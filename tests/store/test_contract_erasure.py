"""Erasure: nothing of a person is left in any table, and what was counted stays counted, once."""

from __future__ import annotations

import asyncio
from datetime import UTC
from functools import partial
from typing import Any

import pytest

from postbackd.core.deliveries import Attempt, DeliveryState, Settled
from postbackd.core.model import Click, Rule, Target
from postbackd.core.planning import Planner
from postbackd.store.base import Erased, Erasing, Turn
from postbackd.upkeep import erasing
from postbackd.upkeep.rollups import RollupKeeper
from tests.store.contract import PIXEL, World

MARK = "Marker-of-a-person"
TABLES = (
    "clicks", "own_ids", "conversions", "conversion_history", "postbacks", "waiting", "pixel_conversions", "outbox",
    "deliveries", "attempts", "erasures", "erased_clicks",
)  # fmt: skip


def erase(world: World, *clicks: Click, requests: tuple[int, ...] = (), reference: str = "r") -> Erased:
    wanted = Erasing("click_id", reference, [click.stamp for click in clicks], requests, world.now_ms)
    return world.run(world.store.erase(wanted, world.rulebook.masker))


def rows(world: World, table: str) -> list[Any]:
    async def read() -> list[Any]:
        store: Any = world.store
        if world.kind.name == "sqlite":
            return list(store.connection.execute(f"SELECT * FROM {table}"))
        return [tuple(row) for row in await (await store.connection()).fetch(f"SELECT * FROM {table}")]

    return world.run(read())


def holds(world: World, text: str = MARK) -> list[str]:
    """The tables in which any column holds the text."""
    return [table for table in TABLES if any(text.lower() in str(row).lower() for row in rows(world, table))]


def marked_click(world: World, own_id: str | None = None, age_s: float = 60) -> Click:
    subs = (f"{MARK}-s1", None, f"{MARK}-s3")
    more = {"source_click_id": f"{MARK}-src", "country": "DE", "ip_prefix": "203.0.113.0/24", "subs": subs}
    return world.click(own_id, age_s, cost_micros=5_000, **more)


def deliver(world: World) -> None:
    """A deliverer asks the rules, and sends what follows; the target's answer repeats what it was told."""
    from postbackd.core.planning import Planner

    world.reload()
    catalog = world.rulebook.catalog
    targets = [target.id for target in catalog.targets]
    look = world.run(world.store.look(targets, world.now_ms, 100))
    owed = Planner(catalog).plan(look.events, look.told, world.now_ms)
    turn = Turn(
        holder="d", now_ms=world.now_ms, planned=look.events, owed=owed,
        rooms=dict.fromkeys(targets, 10), lease_ms=60_000,
    )  # fmt: skip
    claimed = world.run(world.store.take_turn(turn))
    settled = [
        Settled(one, DeliveryState.DELIVERED, 0, attempt=Attempt(1, world.now_ms, 3, 200, f"ok {MARK}", ""))
        for one in claimed
    ]
    world.run(world.store.take_turn(Turn(holder="d", now_ms=world.now_ms, settled=settled)))


def with_rule(world: World) -> None:
    target = world.save(Target(id=0, name="t"))
    world.save(Rule(id=0, name="r", source=world.source.id, target=target.id))
    world.reload()


def test_nothing_of_an_erased_click_is_left_in_any_table(world: World) -> None:
    with_rule(world)
    click = marked_click(world, own_id=f"{MARK}-own")
    said = world.send(click, f"txid={MARK}-tx&status=pending&value=5")
    world.send(click, f"txid={MARK}-tx&status=approved")
    world.send(f"{MARK}-own", f"txid={MARK}-tx2&value=7", network="update")
    world.send(click, f"txid={MARK}-bad&value={MARK}")
    deliver(world)
    assert holds(world) == [
        "clicks", "own_ids", "conversions", "postbacks", "deliveries", "attempts",
    ]  # fmt: skip
    erased = erase(world, click)
    assert holds(world) == []
    assert erased.counts["clicks"] == erased.counts["own_ids"] == 1
    assert erased.counts["conversions"] == erased.counts["deliveries"] == 2
    assert erased.counts["attempts"] >= 1
    assert erased.counts["postbacks"] == 4
    again = erase(world, click)
    assert again.changed == 0
    assert again.counts == erased.counts
    kept = [(row["conversion_id"], row["value_micros"]) for row in world.conversions(click)]
    assert kept[0] == (said.conversion, 5_000_000)
    assert len(kept) == 2


def test_other_clicks_are_not_touched(world: World) -> None:
    erased, other = marked_click(world, own_id=f"{MARK}-a"), world.click("mine", source_click_id="source")
    world.send(erased, "txid=T")
    world.send(other, "txid=T")
    before = {table: [row for row in rows(world, table) if other.stamp in row] for table in TABLES}
    erase(world, erased)
    assert before == {table: [row for row in rows(world, table) if other.stamp in row] for table in TABLES}


def test_a_repeat_for_an_erased_click_is_refused_and_kept_without_its_data(world: World) -> None:
    click = marked_click(world, own_id=f"{MARK}-own")
    first = world.send(click, f"txid={MARK}-tx&value=5&status=pending")
    erase(world, click)
    assert world.send(click, f"txid={MARK}-tx&value=5&status=pending") == ("duplicate", "", first.conversion)
    assert world.send(f"{MARK}-own", f"txid={MARK}-tx&status=pending").conversion == first.conversion
    assert world.send(click, f"txid={MARK}-tx&status=approved").conversion == first.conversion
    assert holds(world) == []
    assert world.conversion(click) == ("approved", 5, 1)


def test_another_conversion_of_an_erased_click_counts_once_without_its_data(world: World) -> None:
    click = marked_click(world)
    world.send(click, f"txid={MARK}-1&value=5")
    erase(world, click)
    second = world.send(click, f"txid={MARK}-2&value=6")
    assert second.verdict == "accepted"
    assert world.send(click, f"txid={MARK}-2&value=6") == ("duplicate", "", second.conversion)
    assert [row["value_micros"] for row in world.conversions(click)] == [5_000_000, 6_000_000]
    assert holds(world) == []


def test_a_repeat_is_refused_after_the_tombstone_was_purged_too(world: World) -> None:
    click = marked_click(world, age_s=20 * 86_400)
    first = world.send(click, f"txid={MARK}-tx")
    erase(world, click)
    while world.run(world.store.purge(world.now_ms - 10 * 86_400_000, 1000)):
        pass
    assert world.query("click", click_id=click.stamp) == []
    assert world.send(click, f"txid={MARK}-tx") == ("duplicate", "", first.conversion)
    assert world.send(click, f"txid={MARK}-other")[:2] == ("unmatched", "click_purged")
    assert holds(world) == []


def test_a_click_that_was_purged_already_can_be_erased(world: World) -> None:
    click = marked_click(world, age_s=20 * 86_400)
    first = world.send(click, f"txid={MARK}-tx")
    while world.run(world.store.purge(world.now_ms - 10 * 86_400_000, 1000)):
        pass
    assert "conversions" in holds(world)
    erase(world, click)
    assert holds(world) == []
    assert world.send(click, f"txid={MARK}-tx") == ("duplicate", "", first.conversion)


def test_what_waits_for_an_erased_click_waits_no_longer(world: World) -> None:
    click = world.make_click(own_id=f"{MARK}-own")
    world.send(click, f"txid={MARK}-tx")
    erase(world, click)
    assert holds(world) == []
    assert rows(world, "waiting") == []


def test_a_log_row_that_names_no_click_can_be_erased(world: World) -> None:
    postback = world.make(f"{MARK}-unknown", f"txid={MARK}-tx")
    assert world.settle(postback)[0].verdict == "unmatched"
    erased = erase(world, requests=(postback.request.request_id,))
    assert erased.counts == {"postbacks": 1, "waiting": 1}
    assert holds(world) == []
    assert [row["request_id"] for row in world.query("replayable")] == []


def test_totals_stay_what_they_were(world: World) -> None:
    clicks = [marked_click(world) for _ in range(3)]
    for number, click in enumerate(clicks):
        world.send(click, f"txid={MARK}{number}&value={number + 1}")
        world.send(click, f"txid={MARK}{number}&value={number + 1}")
        world.send(click, "value=nonsense")
    names = ("clicks_by_campaign", "postbacks_by_type", "postbacks_by_offer", "conversions_by_day")
    before = {name: world.query(name) for name in names}
    erase(world, *clicks)
    assert {name: world.query(name) for name in names} == before


def test_messages_that_wait_are_cancelled_and_nobody_is_told_later(world: World) -> None:
    with_rule(world)
    click = marked_click(world)
    world.send(click, f"txid={MARK}-tx&value=5")
    erase(world, click)
    assert rows(world, "outbox") == []
    world.send(click, f"txid={MARK}-tx&status=reversed")
    world.send(click, f"txid={MARK}-tx3&value=5")
    assert rows(world, "outbox") == []
    assert holds(world) == []


def test_an_erased_delivery_is_not_sent_again_whoever_asks(world: World) -> None:
    with_rule(world)
    clicks = [marked_click(world), marked_click(world)]
    for number, click in enumerate(clicks):
        world.send(click, f"txid={MARK}-tx{number}&value=5")
    (target,) = world.rulebook.catalog.targets
    look = world.run(world.store.look([target.id], world.now_ms, 10))
    owed = Planner(world.rulebook.catalog).plan(look.events, look.told, world.now_ms)
    turn = Turn(
        holder="d", now_ms=world.now_ms, planned=look.events, owed=owed, rooms={target.id: 2}, lease_ms=60_000
    )
    claimed = world.run(world.store.take_turn(turn))
    settled = [Settled(delivery, DeliveryState.DELIVERED, 0) for delivery in claimed]
    world.run(world.store.take_turn(Turn(holder="d", now_ms=world.now_ms, settled=settled)))
    erase(world, clicks[0])
    numbers = [delivery.number for delivery in claimed]
    assert world.run(world.store.resend(numbers, world.now_ms)) == 1


def test_what_a_deliverer_says_later_of_an_erased_delivery_goes_with_the_next_pass(world: World) -> None:
    with_rule(world)
    click = marked_click(world)
    world.send(click, f"txid={MARK}-tx&value=5")
    (target,) = world.rulebook.catalog.targets
    look = world.run(world.store.look([target.id], world.now_ms, 10))
    owed = Planner(world.rulebook.catalog).plan(look.events, look.told, world.now_ms)
    turn = Turn(
        holder="d", now_ms=world.now_ms, planned=look.events, owed=owed, rooms={target.id: 1}, lease_ms=60_000
    )
    (claimed,) = world.run(world.store.take_turn(turn))
    assert erase(world, click).in_flight == 1
    attempt = Attempt(1, world.now_ms, 3, 200, f"ok {MARK}", "")
    settled = [Settled(claimed, DeliveryState.DELIVERED, 0, attempt=attempt)]
    world.run(world.store.take_turn(Turn(holder="d", now_ms=world.now_ms, settled=settled)))
    assert holds(world) == ["attempts"]
    assert erase(world, click).changed == 1
    assert holds(world) == []


def test_the_pixel_and_s2s_of_an_erased_click_are_one_conversion_still(world: World) -> None:
    click = marked_click(world)
    first = world.send(click, "value=5", channel=PIXEL)
    erase(world, click)
    assert world.send(click, f"txid={MARK}-tx&value=5").conversion == first.conversion
    assert world.send(click, f"txid={MARK}-tx&value=5") == ("duplicate", "", first.conversion)
    assert len(world.conversions(click)) == 1
    assert holds(world) == []


def test_a_conversion_without_a_transaction_id_stays_without_one(world: World) -> None:
    click = marked_click(world)
    first = world.send(click, "value=5")
    erase(world, click)
    assert world.send(click, "value=5") == ("duplicate", "", first.conversion)
    assert [row["transaction_id"] for row in world.conversions(click)] == [""]


def test_a_certificate_lists_what_was_erased_and_is_resumed_until_it_is_ended(world: World) -> None:
    click = marked_click(world)
    world.send(click, f"txid={MARK}-tx")
    first = erase(world, click, reference="abc")
    second = erase(world, click, reference="abc")
    assert (first.id, first.resumed, second.resumed) == (second.id, False, True)
    world.run(world.store.end_erasure(first.id, world.now_ms + 5))
    (row,) = world.query("erasures")
    assert (row["asked"], row["reference"], row["done_ms"]) == ("click_id", "abc", world.now_ms + 5)
    assert erase(world, click, reference="abc").id != first.id


def test_a_value_is_found_where_a_conversion_keeps_it_when_click_and_log_are_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = 'said "so" \\ and_50%'  # what a pattern or JSON would read as something else
    with_rule(world)
    click = world.click(f"{mark}-own", subs=(None, None, f"{mark}-s3"), source_click_id=f"{mark}-src")
    world.send(world.click(f"x{mark}-own", source_click_id=f"{mark}-src2"), "txid=T2&value=5")
    other = world.click("x" * len(mark) + "-own", subs=(None, None, "x" * len(mark) + "-s3"))
    for number, one in enumerate((click, other)):
        world.send(one, f"txid=T{number}&value=5")
    world.run(RollupKeeper(world.store, UTC, lambda: world.now_ms).catch_up())
    deliver(world)
    world.now_ms += 40 * 86_400_000
    while world.run(world.store.purge(world.now_ms - 10 * 86_400_000, 1000)):
        pass
    assert world.query("click", click_id=click.stamp) == []
    # However many others there are, and whose texts it is a part of.
    monkeypatch.setattr(erasing, "_FACTS_A_QUESTION", 1)
    for value in ("-own", "-s3", "-src"):
        assert world.run(erasing.find_identity(world.store, f"{mark}{value}")) == ({click.stamp}, set()), (
            value
        )
    assert world.run(erasing.find_identity(world.store, "T0")) == ({click.stamp}, set())
    assert world.run(erasing.find_purged(world.store, f"{mark}-own")) == {click.stamp}
    assert world.run(erasing.find_purged(world.store, f"{mark}-s3")) == set()


def test_a_scrub_after_an_erasure_leaves_everything_else(world: World) -> None:
    clicks = [marked_click(world) for _ in range(40)]
    for number, click in enumerate(clicks):
        world.send(click, f"txid={MARK}{number}&value=5")
    before = {table: rows(world, table) for table in TABLES}
    erase(world, clicks[0])
    erasing = Erasing("click_id", "r", [clicks[0].stamp], (), world.now_ms)
    assert world.run(world.store.scrub(erasing, everywhere=False, rewrite=False)) == 0
    assert world.run(world.store.scrub(erasing, everywhere=True, rewrite=True)) == 0
    after = {table: rows(world, table) for table in TABLES}
    assert len(after["conversions"]) == len(before["conversions"])
    others = [row for row in before["conversions"] if clicks[0].stamp not in row]
    assert sorted(others) == sorted(row for row in after["conversions"] if clicks[0].stamp not in row)
    found = world.run(world.store.examine())
    assert found.get("integrity", "ok") == "ok"


@pytest.mark.parametrize("text", ["erased:" + "0" * 32, "#1", "a", "ü" * 64])
def test_any_transaction_id_is_concealed_alike_before_and_after(world: World, text: str) -> None:
    click = world.click()
    first: Any = world.send(click, f"txid={text}")
    erase(world, click)
    assert world.send(click, f"txid={text}") == ("duplicate", "", first.conversion)


def test_one_click_erased_twice_at_once_leaves_no_certificate_open(world: World) -> None:
    click = marked_click(world)
    world.send(click, f"txid={MARK}")
    wanted = Erasing("click_id", "r", [click.stamp], (), world.now_ms)
    erase_whole = partial(
        erasing.erase,
        world.store,
        wanted,
        world.rulebook.masker,
        lambda: world.now_ms,
        rewrite=False,
        pause_s=0,
    )

    async def twice() -> None:
        await asyncio.gather(erase_whole(), erase_whole())

    world.run(twice())
    assert [row["done_ms"] for row in world.query("erasures")] == [world.now_ms]
    assert holds(world) == []
