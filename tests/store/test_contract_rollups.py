"""Roll-ups say what the raw rows say, whatever happens to these, and go on saying it when the raw rows are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from postbackd.core.grouping import Grouping, Part
from postbackd.core.model import Click
from postbackd.core.retention import Class
from postbackd.core.rollups import Kind, Level, slot_of
from postbackd.core.zones import QUARTER_MS
from postbackd.reports.explore import Table, explore
from postbackd.reports.question import Question
from postbackd.store.base import Batch, Erasing
from postbackd.upkeep.rollup_check import Difference, RollupCheck
from postbackd.upkeep.rollup_subs import STEP_ROWS, changed_subs
from postbackd.upkeep.rollups import RollupKeeper
from tests.store.contract import NOW_MS, PIXEL, World
from tests.store.test_contract_erasure import rows
from tests.store.test_contract_retention import purge

DAY_S = 86_400
MIDNIGHT_MS = NOW_MS // (DAY_S * 1000) * DAY_S * 1000
BERLIN, KOLKATA = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kolkata")


def roll(world: World, zone: tzinfo = UTC) -> None:
    """What the keeper does when all that was on its way has arrived."""
    world.now_ms += 60_000
    assert world.run(RollupKeeper(world.store, zone, lambda: world.now_ms).catch_up())


def check(world: World, zone: tzinfo = UTC) -> list[Difference]:
    async def compare() -> list[Difference]:
        found = RollupCheck(world.store, zone).differences(0, world.now_ms // QUARTER_MS + 1)
        return [one async for one in found]

    return world.run(compare())


def ask(world: World, *by: str, zone: str = "UTC", report_zone: tzinfo = UTC, **more: Any) -> Table:
    question = Question(
        by=by, since_ms=more.pop("since_ms", MIDNIGHT_MS - 40 * DAY_S * 1000),
        until_ms=more.pop("until_ms", NOW_MS + 400 * DAY_S * 1000), zone=zone, **more,
    )  # fmt: skip
    return world.run(explore(world.store, question, now_ms=world.now_ms, report_zone=report_zone))


def by_key(table: Table) -> dict[tuple[Any, ...], Any]:
    return {tuple(line.key): line.measures for line in table.lines}


def erase(world: World, click: Click) -> None:
    erasing = Erasing("click_id", "r", [click.stamp], [], world.now_ms)
    world.run(world.store.erase(erasing, world.rulebook.masker))


def busy(world: World) -> Sequence[Click]:
    """Clicks of some days with conversions of all kinds."""
    clicks = [
        world.click(
            age_s=age * 7 * 3600 + 60, country=country, subs=(f"place{age % 3}", None, "x"), cost_micros=cost
        )
        for age, (country, cost) in enumerate(
            [("DE", 250_000), ("FR", None), ("DE", 1_000_000), (None, 10)] * 3
        )
    ]
    for number, click in enumerate(clicks):
        world.send(click, f"txid=T{number}&value={number}.25")
    world.send(clicks[0], "txid=T0&value=1")
    world.send(clicks[1], "txid=T1&status=reversed")
    world.send(clicks[2], "value=3", channel=PIXEL)
    world.send("nothing", "value=3")
    return clicks


def test_everything_is_rolled_up_and_looking_again_changes_nothing(world: World) -> None:
    busy(world)
    roll(world)
    before = {
        table: rows(world, table) for table in ("click_rollups", "postback_rollups", "conversion_facts")
    }
    roll(world)
    world.run(world.store.mark_slots({(kind, NOW_MS // QUARTER_MS) for kind in Kind}))
    roll(world)
    assert before == {table: rows(world, table) for table in before}
    assert check(world) == []
    assert rows(world, "rollup_marks") == []
    total = ask(world, "country").total
    assert (total.clicks, total.conversions, total.taken_back, total.cost) == (12, 11, 1, "3.75003")
    assert total.value == {"USD": "67.75"}


def test_what_is_written_late_is_rolled_up_again(world: World) -> None:
    click = world.click(age_s=3 * DAY_S)
    roll(world)
    late = world.click(age_s=2 * DAY_S, country="DE")
    waiting = world.make(click, "txid=L&value=2")
    world.now_ms += 3_600_000
    roll(world)
    world.settle(waiting)  # as when a spool is drained
    assert {row[1:] for row in rows(world, "rollup_marks")} == {
        (Kind.POSTBACKS, slot_of(waiting.request.request_id))
    }
    roll(world)
    assert check(world) == []
    assert by_key(ask(world, "country"))["DE",].clicks == 1
    assert slot_of(late.stamp) < slot_of(click.stamp) + 2 * 96
    assert ask(world, "day").total.value == {"USD": "2.00"}


def test_a_late_match_a_replay_and_a_change_of_status_are_followed(world: World) -> None:
    lost = world.make_click(age_s=60)
    early = world.make(lost, "txid=E&value=4")
    world.settle(early)
    roll(world)
    assert ask(world, "campaign").total.match_rate == 0
    world.write([lost])
    roll(world)
    total = ask(world, "campaign").total
    assert (total.match_rate, total.conversions, total.value) == (1, 1, {"USD": "4.00"})
    world.now_ms += 3 * DAY_S * 1000
    world.send(lost, "txid=E&status=rejected")
    roll(world)
    total = ask(world, "campaign").total
    assert (total.conversions, total.taken_back, total.value) == (0, 1, {})
    assert check(world) == []


def test_purges_change_nothing_and_a_status_may_change_after_them(world: World) -> None:
    clicks = busy(world)
    roll(world)
    world.now_ms += 100 * DAY_S * 1000
    roll(world)
    before = {
        by: ask(world, *by.split(",")).lines for by in ("country", "day", "campaign,sub1", "weekday,status")
    }
    purge(world, Class.CLICKS, 30 * DAY_S)
    purge(world, Class.POSTBACKS, 30 * DAY_S)
    roll(world)
    assert before == {by: ask(world, *by.split(",")).lines for by in before}
    world.send(clicks[3], "txid=T3&status=rejected")
    roll(world)
    assert by_key(ask(world, "country", "sub1"))[None, "place0"].taken_back == 1
    assert ask(world, "country").total.clicks == 12
    assert check(world) == []
    asked = ask(world, "country", "sub1")
    assert asked.basis == "rows"
    assert asked.total.clicks is None
    assert "purged" in asked.notes[0]


def test_a_purge_of_a_quarter_that_is_not_over_hides_nothing_that_was_added_up(world: World) -> None:
    world.click(age_s=3 * DAY_S)
    world.click()
    roll(world)
    before = ask(world, "day").lines
    purge(world, Class.CLICKS, 0)
    world.now_ms += 3600 * 1000
    roll(world)
    assert ask(world, "day").lines == before != []


def test_an_erasure_keeps_the_totals_and_takes_what_was_known_of_the_person(world: World) -> None:
    clicks = busy(world)
    roll(world)
    world.now_ms += 3 * DAY_S * 1000
    roll(world)
    before = ask(world, "campaign").lines
    erase(world, clicks[0])
    roll(world)
    assert ask(world, "campaign").lines == before
    assert check(world) == []
    assert by_key(ask(world, "country"))["DE",].clicks == 5
    assert sum("place0" in map(str, row) for row in rows(world, "conversion_facts")) == 3
    purge(world, Class.CLICKS, 0.001)
    erase(world, clicks[3])
    roll(world)
    assert sum("place0" in map(str, row) for row in rows(world, "conversion_facts")) == 2
    assert ask(world, "campaign").lines == before


@pytest.mark.parametrize("zone", [BERLIN, KOLKATA], ids=str)
def test_the_days_of_another_report_zone_are_made_anew(world: World, zone: tzinfo) -> None:
    busy(world)
    roll(world)
    roll(world, zone)
    assert check(world, zone) == []
    there = ask(world, "day", "campaign", "country", zone=str(zone), report_zone=zone)
    here = ask(world, "day", "campaign", "country", zone=str(zone), report_zone=UTC)
    assert there.lines == here.lines
    assert there.total.clicks == 12
    assert {row[1] for row in rows(world, "click_rollups") if row[0] == Level.DAY} == {
        row[1] for row in rows(world, "postback_rollups") if row[0] == Level.DAY
    } | {row[1] for row in rows(world, "click_rollups") if row[0] == Level.DAY}


def test_only_one_keeper_works_and_another_takes_over_when_it_is_silent(world: World) -> None:
    first = RollupKeeper(world.store, UTC, lambda: world.now_ms)
    second = RollupKeeper(world.store, UTC, lambda: world.now_ms)
    assert world.run(first.round())
    assert not world.run(second.round())
    world.now_ms += 61_000
    assert world.run(second.round())
    assert not world.run(first.round())
    assert not world.run(first.catch_up())
    world.run(second._give_up())
    assert world.run(first.catch_up())


PLANTED = (
    ("UPDATE click_rollups SET clicks = clicks + 1 WHERE level = 1 AND country = 'FR'", "clicks"),
    ("DELETE FROM click_rollups WHERE level = 4", "level"),
    ("UPDATE click_rollups SET cost_micros = cost_micros + 1 WHERE level = 5", "level"),
    ("UPDATE postback_rollups SET matched = matched - 1 WHERE level = 1", "postbacks"),
    ("UPDATE conversion_facts SET status = 4 WHERE status = 2", "conversion"),
    ("UPDATE conversion_facts SET country = 'XX' WHERE country = 'FR'", "conversion"),
    ("DELETE FROM conversion_facts", "conversion"),
    ("UPDATE sub_rollups SET clicks = 77 WHERE level = 5 AND sub = 3", "sub"),
    ("DELETE FROM conversions", "conversion"),
)


def test_the_check_finds_planted_differences_and_mends_them(world: World) -> None:
    busy(world)
    world.now_ms += 3_600_000
    roll(world)
    assert check(world) == []
    keeper = RollupKeeper(world.store, UTC, lambda: world.now_ms)
    for plant, what in PLANTED:
        world.run(world.kind.execute(world.store, plant))
        found = check(world)
        assert what in {one.what for one in found}, plant
        assert all(one.text() for one in found)
        assert world.run(keeper.mend(found))
        assert check(world) == [], plant


def test_an_aggregate_says_what_it_cannot_be_grouped_by(world: World) -> None:
    asked = Grouping(part=Part.CLICKS, first=0, end=1, by=("status",))
    with pytest.raises(ValueError, match="cannot be grouped by status"):
        world.run(world.store.aggregate(asked))


def test_a_sub_id_with_another_value_for_every_click_is_written_in_short_steps(world: World) -> None:
    world.now_ms = MIDNIGHT_MS + 2 * 3_600_000
    count = STEP_ROWS + 500
    clicks = [world.make_click(age_s=5400, country="DE", subs=(f"u{n}", "same")) for n in range(count)]
    world.write(clicks)
    start = slot_of(clicks[0].stamp) // 4 * 4

    def steps(level: Level, end: int) -> list[int]:
        found = world.run(changed_subs(world.store, level, start, end))
        return [len(step.values) for step in found if step.sub <= 2]

    roll(world)
    assert steps(Level.HOUR_SUBS, start + 4) == []
    erase(world, clicks[0])
    world.click(age_s=5400, subs=("late", "same"))
    assert steps(Level.HOUR_SUBS, start + 4) == [
        3,
        1,
    ]  # without the erased one's, with none, and the late one
    roll(world)
    assert by_key(ask(world, "sub2"))["same",].clicks == count
    world.now_ms += 2 * DAY_S * 1000
    roll(world)
    assert check(world) == []
    assert {row[0] for row in rows(world, "sub_rollups")} == {Level.DAY}
    world.run(world.kind.execute(world.store, "DELETE FROM sub_rollups WHERE level >= 0"))
    assert max(steps(Level.HOUR_SUBS, start + 4)) == STEP_ROWS


def test_a_filter_on_no_source_finds_postbacks_of_no_campaign(world: World) -> None:
    world.send("nothing", "value=3")
    world.send(world.click(), "value=3")
    roll(world)
    everything = by_key(ask(world, "source"))
    assert {key: found.postbacks for key, found in everything.items()} == {(None,): 1, (world.source.id,): 1}
    alone = by_key(ask(world, "source", where={"source": ("",)}))
    assert alone == {(None,): everything[None,]}


def test_a_round_ends_although_late_rows_keep_coming(world: World) -> None:
    world.click(age_s=7200)
    roll(world)

    async def drain(ended: asyncio.Event) -> None:
        while not ended.is_set():
            late = [world.make_click(age_s=7200 + number) for number in range(5)]
            await world.store.write(Batch(clicks=late), world.rulebook)
            await asyncio.sleep(0)

    async def both() -> None:
        ended = asyncio.Event()
        draining = asyncio.create_task(drain(ended))
        try:
            await asyncio.wait_for(RollupKeeper(world.store, UTC, lambda: world.now_ms).round(), 10)
        finally:
            ended.set()
            await draining

    world.run(both())
    world.now_ms += 61_000
    roll(world)
    assert check(world) == []
