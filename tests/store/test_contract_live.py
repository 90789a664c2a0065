"""The live log on every store: what is stored is told once, and what is left out is said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from postbackd.core.click_id import write_stamp
from postbackd.core.deliveries import Attempt, Delivery, DeliveryState, Settled
from postbackd.core.model import Postback
from postbackd.reports.live import RATE, RESUMED, WAITING, Event, Feed, Filter, Kind, Listener
from postbackd.reports.log import describe_row
from postbackd.store.base import Batch, StoreRefused, Turn
from tests.store.contract import NOW_MS, World
from tests.store.test_contract_outbox import ME, Desk

DEADLINE_S = 10.0


async def collect(listener: Listener, enough: Callable[[list[Event]], bool]) -> list[Event]:
    """What a listener is told until it is enough."""
    events: list[Event] = []
    loop = asyncio.get_running_loop()
    ends = loop.time() + DEADLINE_S
    while not enough(events):
        assert loop.time() < ends, events
        events += await listener.take(0.2)
    return events


def rows(events: list[Event]) -> list[str]:
    return [event.id for event in events if event.word in ("postback", "click")]


def ids(postbacks: list[Postback]) -> list[str]:
    return [write_stamp(postback.request.request_id) for postback in postbacks]


def written(world: World, postbacks: list[Postback]) -> Awaitable[Any]:
    return world.store.write(Batch((), postbacks), world.rulebook)


def test_each_row_is_told_once_with_its_document_also_when_it_is_committed_late(world: World) -> None:
    click = world.click()
    before = [world.make(click, "txid=before")]
    world.settle(*before)
    early = [world.make(click, f"txid=e{n}") for n in range(3)]
    late = [world.make(click, "txid=late")]  # older than those in the middle, and committed behind them
    middle = [world.make("{cid}", f"txid=m{n}", network="add") for n in range(4)]

    async def listen() -> None:
        feed = Feed(world.store, lambda: world.now_ms)
        add = world.networks["add"].id
        async with (
            feed.listen(Kind.POSTBACKS, Filter()) as everything,
            feed.listen(Kind.POSTBACKS, Filter(network=add, verdict=5, click_text="{cid}")) as some,
            feed.listen(Kind.POSTBACKS, Filter(click_id=click.stamp)) as of_click,
            feed.listen(Kind.CLICKS, Filter()) as clicks,
        ):
            await written(world, early)
            await written(world, middle)
            seen = await collect(everything, lambda told: len(rows(told)) >= 7)
            await written(world, late)
            seen += await collect(everything, lambda told: len(rows(told)) >= 1)
            assert rows(seen) == ids([*early, *middle, *late])
            expected = describe_row(
                (await world.store.query("postback", request_id=early[0].request.request_id))[0],
                world.rulebook.keys,
            )
            assert seen[0].document == expected
            assert rows(await collect(some, lambda told: len(rows(told)) >= 4)) == ids(middle)
            assert rows(await collect(of_click, lambda told: len(rows(told)) >= 4)) == ids([*early, *late])
            one = world.make_click()
            await world.store.write(Batch([one]), world.rulebook)
            assert rows(await collect(clicks, lambda told: bool(told))) == [write_stamp(one.stamp)]
            assert await everything.take(0.3) == []
        await feed.rest()

    world.run(listen())


def test_above_the_rate_a_share_is_shown_and_the_true_count_is_said(world: World) -> None:
    click = world.click()
    first = [world.make(click, f"txid=a{n}") for n in range(RATE)]
    many = [world.make(click, f"txid=b{n}") for n in range(RATE * 6)]

    async def listen() -> None:
        now = [NOW_MS]
        feed = Feed(world.store, lambda: now[0])
        async with feed.listen(Kind.POSTBACKS, Filter()) as listener:
            await written(world, first)
            told = await collect(listener, lambda told: len(rows(told)) >= RATE)
            assert rows(told) == ids(first)
            now[0] += 1000
            await written(world, many)
            told = await collect(listener, lambda told: len(rows(told)) >= RATE)
            assert (told[0].word, told[0].document["shown"], told[0].document["matched"]) == (
                "rate",
                RATE,
                RATE,
            )
            shown = rows(told)
            assert len(shown) == RATE
            assert shown[0] == ids(many)[0]
            assert ids(many).index(shown[-1]) >= len(many) - 6  # evenly, not the first ones
            now[0] += 1000
            (rate,) = await collect(listener, lambda told: bool(told))
            assert (rate.word, rate.document["shown"], rate.document["matched"]) == ("rate", RATE, RATE * 6)
        await feed.rest()

    world.run(listen())


def test_who_comes_back_is_told_what_was_missed_and_how_much_of_it(world: World) -> None:
    click = world.click()
    missed = [world.make(click, f"txid={n}") for n in range(RESUMED + 20)]
    world.settle(*missed)

    async def listen() -> None:
        feed = Feed(world.store, lambda: world.now_ms)
        after = missed[9].request.request_id
        async with feed.listen(Kind.POSTBACKS, Filter(), after=after) as listener:
            told = await collect(listener, lambda told: any(event.word == "resumed" for event in told))
            assert rows(told) == ids(missed[-RESUMED:])
            assert told[-1].document == {"shown": RESUMED, "matched": RESUMED + 10, "complete": True}
            new = [world.make(click, "txid=new")]
            await written(world, new)
            assert rows(await collect(listener, lambda told: bool(told))) == ids(new)
        await feed.rest()

    world.run(listen())


def test_attempts_to_deliver_are_told_when_they_have_ended_also_those_that_took_long(world: World) -> None:
    desk = Desk(world)
    for number in range(4):
        world.send(world.click(), f"txid=d{number}")
    desk.plan()
    before, *claimed = desk.claim()
    desk.settle(before, DeliveryState.DELIVERED)

    def settled(delivery: Delivery, ms_ago: int, error: str = "") -> Turn:
        attempt = Attempt(1, NOW_MS + 1000 - ms_ago, ms_ago, 0 if error else 200, "", error)
        state = DeliveryState.DEAD if error else DeliveryState.DELIVERED
        done = Settled(delivery, state, NOW_MS, error, attempt)
        return Turn(holder=ME, now_ms=NOW_MS, lease_ms=1000, settled=[done])

    async def listen() -> None:
        feed = Feed(world.store, lambda: world.now_ms)
        async with (
            feed.listen(Kind.DELIVERIES, Filter()) as everything,
            feed.listen(Kind.DELIVERIES, Filter(failed=True)) as failed,
        ):
            await world.store.take_turn(settled(claimed[0], 10))
            await world.store.take_turn(settled(claimed[1], 12, "no answer"))
            (first, second) = await collect(everything, lambda told: len(told) >= 2)
            outcomes = {(one.document["outcome"], one.document["last"]["error"]) for one in (first, second)}
            assert outcomes == {("delivered", None), ("dead", "no answer")}
            await world.store.take_turn(settled(claimed[2], 9000))  # it began long before the others
            (slow,) = await collect(everything, lambda told: len(told) >= 1)
            assert (slow.word, slow.document["last"]["ms"], slow.document["target"]) == (
                "delivery",
                9000,
                "ads",
            )
            (one,) = await failed.take(0.1)
            assert one.document["reason"] == "no answer"
            assert await everything.take(0.3) == []
        await feed.rest()

    world.run(listen())


def test_a_slow_listener_loses_the_oldest_and_is_told_how_many() -> None:
    async def listen() -> None:
        listener = Listener(Kind.POSTBACKS, Filter())
        for number in range(WAITING + 7):
            listener.push(Event("postback", {"n": number}))
        told = await listener.take(1)
        assert (told[0].word, told[0].document) == ("lost", {"count": 7})
        assert [event.document["n"] for event in told[1:]] == list(range(7, WAITING + 7))
        assert await listener.take(0.01) == []

    asyncio.run(listen())


def test_the_share_of_a_busy_second_is_spread_over_it() -> None:
    listener = Listener(Kind.POSTBACKS, Filter())
    shown = []
    for tenth in range(30):
        now_ms = NOW_MS // 1000 * 1000 + tenth * 100
        shown.append(len(listener.choose([{"id": n} for n in range(500)], now_ms)))
    assert sum(shown[:10]) == RATE
    assert sum(shown[10:20]) == sum(shown[20:]) == RATE
    assert max(shown[10:]) <= RATE // 10 + 1


def test_what_ends_the_feed_ends_its_listeners_and_the_next_one_begins_anew(world: World) -> None:
    class Broken:
        """The store, once it refuses."""

        refuses = True

        def __getattr__(self, name: str) -> Any:
            return getattr(world.store, name)

        async def catalog_generation(self) -> int:
            if self.refuses:
                raise StoreRefused("the keys are gone")
            return await world.store.catalog_generation()

    async def listen() -> None:
        store: Any = Broken()
        feed = Feed(store, lambda: world.now_ms)
        async with feed.listen(Kind.POSTBACKS, Filter()) as listener:
            await written(world, [world.make("{cid}")])
            with pytest.raises(StoreRefused, match="the keys are gone"):
                await collect(listener, lambda told: bool(told))
        store.refuses = False
        async with feed.listen(Kind.POSTBACKS, Filter()) as listener:
            new = [world.make("{cid}")]
            await written(world, new)
            assert rows(await collect(listener, lambda told: bool(told))) == ids(new)
        await feed.rest()

    world.run(listen())


def test_nothing_is_read_while_nobody_listens(world: World) -> None:
    asked: list[str] = []

    class Counting:
        """The store, and what it is asked."""

        def __getattr__(self, name: str) -> Any:
            return getattr(world.store, name)

        async def query(self, name: str, /, **parameters: Any) -> list[dict[str, Any]]:
            asked.append(name)
            return await world.store.query(name, **parameters)

    async def listen() -> None:
        store: Any = Counting()
        feed = Feed(store, lambda: world.now_ms)
        async with feed.listen(Kind.POSTBACKS, Filter()) as listener:
            await written(world, [world.make("{cid}")])
            await collect(listener, lambda told: bool(told))
        await feed.rest()
        before = len(asked)
        await written(world, [world.make("{cid}")])
        assert len(asked) == before
        async with feed.listen(Kind.POSTBACKS, Filter()) as listener:
            new = [world.make("{cid}")]
            await written(world, new)
            assert rows(await collect(listener, lambda told: bool(told))) == ids(new)
        await feed.rest()

    world.run(listen())
