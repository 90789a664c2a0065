"""Each class goes by its own time, and a conversion only when nothing can change it any more."""

from __future__ import annotations

from datetime import UTC

import pytest

from postbackd.core.deliveries import Attempt, DeliveryState, Settled
from postbackd.core.kept import FOR_EVER, KEPT
from postbackd.core.model import Click
from postbackd.core.retention import DAY_MS, Class, Keep
from postbackd.core.rollups import Kind, slot_of
from postbackd.store.base import Batch, FlowMinute, Turn
from postbackd.upkeep import retention
from postbackd.upkeep.rollups import RollupKeeper
from tests.store.contract import PIXEL, World
from tests.store.test_contract_erasure import deliver, rows, with_rule

DAY_S = 86_400
YEAR_S = 365 * DAY_S


def purge(world: World, class_: Class, age_s: float) -> int:
    """Until nothing is left; returns about how many rows went."""
    purged = 0
    while step := world.run(world.store.purge_class(class_, world.now_ms - int(age_s * 1000), 100)):
        purged += step
    return purged


def test_each_class_goes_alone(world: World) -> None:
    click = world.click(age_s=20 * DAY_S)
    world.send(click, "txid=T")
    world.now_ms += 40 * DAY_S * 1000
    assert purge(world, Class.POSTBACKS, 10 * DAY_S)
    assert world.query("log") == []
    assert world.query("click", click_id=click.stamp) != []
    assert purge(world, Class.CLICKS, 10 * DAY_S)
    assert world.query("click", click_id=click.stamp) == []
    assert len(world.conversions(click)) == 1


def test_a_purge_of_the_log_does_not_call_clicks_purged(world: World) -> None:
    world.now_ms += 40 * DAY_S * 1000
    lost = world.make_click(age_s=30 * DAY_S)
    purge(world, Class.POSTBACKS, 10 * DAY_S)
    assert world.send(lost, "txid=T").reason == "click_not_yet_seen"
    purge(world, Class.CLICKS, 10 * DAY_S)
    assert world.send(lost, "txid=T").reason == "click_purged"


def test_marks_of_quarters_that_are_purged_go_with_them(world: World) -> None:
    """Without an admin role nobody rolls up, and late rows would leave marks for ever."""
    world.now_ms += 40 * DAY_S * 1000
    late = [world.make_click(age_s=age * DAY_S) for age in (1, 30)]
    for click in late:
        world.write([click])
    world.run(world.store.mark_slots({(Kind.POSTBACKS, slot_of(click.stamp)) for click in late}))
    purge(world, Class.CLICKS, 10 * DAY_S)
    old, young = slot_of(late[1].stamp), slot_of(late[0].stamp)
    left = {(kind, slot) for _, kind, slot in rows(world, "rollup_marks")}
    assert left == {(Kind.CLICKS, young), (Kind.POSTBACKS, young), (Kind.POSTBACKS, old)}
    purge(world, Class.POSTBACKS, 10 * DAY_S)
    left = {(kind, slot) for _, kind, slot in rows(world, "rollup_marks")}
    assert left == {(Kind.CLICKS, young), (Kind.POSTBACKS, young)}


def old_conversion(world: World) -> Click:
    """A conversion of more than two years ago, with a delivery, an attempt and a change."""
    with_rule(world)
    click = world.click(age_s=60)
    world.send(click, "txid=T&value=5")
    deliver(world)
    world.send(click, "txid=T&status=rejected")
    deliver(world)
    world.now_ms += 3 * YEAR_S * 1000
    return click


def test_a_conversion_goes_with_its_history_deliveries_and_attempts_after_its_click(world: World) -> None:
    click = old_conversion(world)
    assert purge(world, Class.CONVERSIONS, 2 * YEAR_S) == 0
    assert len(world.conversions(click)) == 1
    purge(world, Class.CLICKS, YEAR_S)
    assert world.run(world.store.count_old(Class.CONVERSIONS, world.now_ms - 2 * YEAR_S * 1000))[0] >= 1
    assert purge(world, Class.CONVERSIONS, 2 * YEAR_S) >= 1
    for table in ("conversions", "conversion_history", "deliveries", "attempts"):
        assert rows(world, table) == [], table


def test_a_postback_for_a_purged_conversion_counts_nothing(world: World) -> None:
    click = old_conversion(world)
    purge(world, Class.CLICKS, YEAR_S)
    purge(world, Class.CONVERSIONS, 2 * YEAR_S)
    assert world.send(click, "txid=T")[:2] == ("unmatched", "click_purged")
    assert world.conversions(click) == []


def test_a_young_conversion_stays(world: World) -> None:
    click = world.click(age_s=60)
    world.send(click, "txid=T")
    world.now_ms += 20 * DAY_S * 1000
    purge(world, Class.CLICKS, DAY_S)
    assert purge(world, Class.CONVERSIONS, 2 * YEAR_S) == 0
    assert len(world.conversions(click)) == 1


def test_a_conversion_about_which_a_message_waits_stays(world: World) -> None:
    from postbackd.core.planning import Planner

    with_rule(world)
    click = world.click(age_s=60)
    world.send(click, "txid=T&value=5")
    (target,) = world.rulebook.catalog.targets
    look = world.run(world.store.look([target.id], world.now_ms, 10))
    owed = Planner(world.rulebook.catalog).plan(look.events, look.told, world.now_ms)
    world.run(world.store.take_turn(Turn(holder="d", now_ms=world.now_ms, planned=look.events, owed=owed)))
    world.now_ms += 3 * YEAR_S * 1000
    purge(world, Class.CLICKS, YEAR_S)
    purge(world, Class.CONVERSIONS, 2 * YEAR_S)
    assert len(world.conversions(click)) == 1
    turn = Turn(holder="d", now_ms=world.now_ms, rooms={target.id: 1}, lease_ms=1000)
    (claimed,) = world.run(world.store.take_turn(turn))
    settled = [Settled(claimed, DeliveryState.DELIVERED, 0, attempt=Attempt(1, world.now_ms, 1, 200, "", ""))]
    world.run(world.store.take_turn(Turn(holder="d", now_ms=world.now_ms, settled=settled)))
    purge(world, Class.CONVERSIONS, 2 * YEAR_S)
    assert world.conversions(click) == []


def test_a_conversion_about_which_the_rules_have_not_been_asked_stays(world: World) -> None:
    with_rule(world)
    click = world.click(age_s=60)
    world.send(click, "txid=T&value=5")
    world.now_ms += 3 * YEAR_S * 1000
    purge(world, Class.CLICKS, YEAR_S)
    assert len(rows(world, "outbox")) == 1
    purge(world, Class.CONVERSIONS, 2 * YEAR_S)
    assert len(world.conversions(click)) == 1
    deliver(world)
    purge(world, Class.CONVERSIONS, 2 * YEAR_S)
    assert world.conversions(click) == []


BY_THEIR_KEEPERS = {
    "click_rollups", "postback_rollups", "sub_rollups", "minute_rollups", "alarm_words", "alarms", "alarm_notices",
}  # fmt: skip
"""Tables that a purge leaves to those who keep them."""


def test_what_goes_with_a_class_is_what_the_table_of_what_is_kept_says(world: World) -> None:
    from tests.store.test_contract_erasure import erase

    old_conversion(world)
    clicks = [world.click(f"own-{number}", age_s=60) for number in range(3)]
    world.send(clicks[0], "txid=T-1")
    deliver(world)
    world.run(RollupKeeper(world.store, UTC, lambda: world.now_ms).catch_up())
    erase(world, clicks[1])
    world.send(clicks[2], "value=1", channel=PIXEL)
    world.send("nobody-yet", "txid=T-2")
    deliver(world)
    counts = FlowMinute(
        world.now_ms // 60_000, {"busy": 1}, {3: (1, 5)}, {(0, "sub1", "e-mail"): 2}, [(7, "z")]
    )
    world.run(world.store.write(Batch(flow=[counts]), world.rulebook))
    world.now_ms += 4 * YEAR_S * 1000
    tables = sorted({kept.table for kept in KEPT} - BY_THEIR_KEEPERS - {"outbox"})
    left = {table: len(rows(world, table)) for table in tables}
    assert all(left.values()), left
    for class_ in retention.ORDER:
        purge(world, class_, YEAR_S)
        now = {table: len(rows(world, table)) for table in tables}
        assert {table for table in tables if now[table] < left[table]} == {
            kept.table for kept in KEPT if kept.class_ is class_ and kept.table in tables
        }
        left = now


def test_attempts_go_by_their_own_time_and_leave_the_delivery(world: World) -> None:
    with_rule(world)
    click = world.click(age_s=60)
    world.send(click, "txid=T&value=5")
    deliver(world)
    assert purge(world, Class.ATTEMPTS, DAY_S) == 0
    world.now_ms += 40 * DAY_S * 1000
    assert purge(world, Class.ATTEMPTS, 30 * DAY_S) >= 1
    assert rows(world, "attempts") == []
    assert len(rows(world, "deliveries")) == 1


def test_counts_go_by_the_minute(world: World) -> None:
    minute = world.now_ms // 60_000
    flow = [
        FlowMinute(
            minute - ago, {"busy": 1}, {3: (1, 5)}, {(0, "sub1", "e-mail"): 2}, [(7, "zone"), (7, "aff")]
        )
        for ago in (0, 30 * 1440)
    ]
    world.run(world.store.write(Batch(flow=flow), world.rulebook))
    world.run(world.store.write(Batch(flow=flow[:1]), world.rulebook))
    assert purge(world, Class.COUNTS, 14 * DAY_S) == 5
    for table in ("refusals", "response_times", "finds"):
        assert len(rows(world, table)) == 1, table
    assert world.query("finds") == [{"network": 0, "field": "sub1", "kind": "e-mail", "count": 4}]
    names = [{"network": 7, "name": name, "first": minute, "last": minute} for name in ("aff", "zone")]
    assert sorted(world.query("alarm_names"), key=lambda row: str(row["name"])) == names


def test_an_erased_click_is_forgotten_with_its_conversions(world: World) -> None:
    from tests.store.test_contract_erasure import erase

    click = old_conversion(world)
    erase(world, click)
    purge(world, Class.CLICKS, YEAR_S)
    assert len(rows(world, "erased_clicks")) == 1
    purge(world, Class.CONVERSIONS, 2 * YEAR_S)
    assert rows(world, "erased_clicks") == []


KEEP = Keep(
    {Class.CLICKS: 90, Class.POSTBACKS: 30, Class.ATTEMPTS: 30, Class.CONVERSIONS: 760, Class.COUNTS: 14}
)


def test_the_first_purge_of_filled_tables_is_held_and_goes_on_when_confirmed(world: World) -> None:
    world.send(world.click(age_s=60), "txid=T")
    world.now_ms += 100 * DAY_MS
    planned = world.run(retention.plan(world.store, KEEP, world.now_ms))
    assert planned.held is not None
    assert world.run(retention.run(world.store, KEEP, world.now_ms, 0, lambda: False, None)) == planned.held
    assert len(world.query("log")) == 1
    world.run(retention.carry_out(world.store, planned, world.now_ms))
    assert world.query("log") == []
    assert world.query("purge_clock") == [{"at_ms": world.now_ms}]


@pytest.mark.parametrize("days", [3, 30, 3653])
def test_a_clock_that_jumps_purges_nothing_until_it_is_back(world: World, days: int) -> None:
    assert world.run(retention.run(world.store, KEEP, world.now_ms, 0, lambda: False, None)) is None
    click = world.click(age_s=40 * DAY_S)
    world.send(click, "txid=T")
    jumped = world.now_ms + days * DAY_MS + 100 * DAY_MS
    assert world.run(retention.run(world.store, KEEP, jumped, 0, lambda: False, None)) is not None
    assert world.query("click", click_id=click.stamp) != []
    assert len(world.query("log")) == 1
    assert world.run(retention.run(world.store, KEEP, world.now_ms + 1000, 0, lambda: False, None)) is None
    assert world.query("click", click_id=click.stamp) != []


def test_what_purges_deleted_is_remembered_for_the_brake(world: World) -> None:
    world.run(world.store.note_purge(world.now_ms, {Class.CLICKS: 7, Class.COUNTS: 0}))
    assert world.query("purges") == [{"at_ms": world.now_ms, "class": "clicks", "rows": 7}]


def test_every_column_of_every_table_is_in_the_table_of_what_is_kept(world: World) -> None:
    async def read() -> set[tuple[str, str]]:
        store = world.store
        if world.kind.name == "sqlite":
            return set(
                store.connection.execute(  # type: ignore[attr-defined]
                    "SELECT t.name, c.name FROM sqlite_schema AS t, pragma_table_info(t.name) AS c "
                    "WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%'"
                )
            )
        found = await (await store.connection()).fetch(  # type: ignore[attr-defined]
            "SELECT c.relname, a.attname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid "
            "WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped "
            "AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'clicks'::regclass) "
            "AND c.relname NOT LIKE 'stub%' AND c.relname NOT LIKE 'pg_dist%'"
        )
        return {(row[0], row[1]) for row in found}

    named = {(kept.table, kept.column) for kept in KEPT}
    there = {column for column in world.run(read()) if column[0] not in FOR_EVER}
    assert there - named == set()
    if world.kind.name != "sqlite":
        assert named - there == set()
