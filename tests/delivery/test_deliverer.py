"""The loop of the deliver role: a real store, a real client, a target that answers by script."""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from time import time
from typing import Any

import pytest
from msgspec.structs import replace

from postbackd.core.deliveries import DeliveryState, TargetState
from postbackd.core.model import Click, How, RequestForm, Rule
from postbackd.core.model import Target as CatalogTarget
from postbackd.core.webhooks import verify
from postbackd.delivery.client import Client
from postbackd.delivery.deliverer import Deliverer
from postbackd.reports.checking import check_rows
from postbackd.store.base import Turn
from tests.delivery.targets import OK, Script, Talk, Target, loopback, target
from tests.store.contract import KINDS, World

Until = Callable[[], Coroutine[Any, Any, bool]]

STORES = [kind for kind in KINDS if kind.name in ("sqlite", KINDS[1].name)]
SECRET_BYTES = b"0123456789" * 3
SECRET = "whsec_" + b64encode(SECRET_BYTES).decode()


def answer(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers)
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


def in_turn(*answers: bytes, then: bytes = OK) -> Script:
    """The answers one after another, whatever the connection; then the same for ever."""
    left = list(answers)

    async def script(talk: Talk) -> None:
        while await talk.request():
            await talk.say(left.pop(0) if left else then)

    return script


class Shop:
    """A world with a deliverer that runs while something is waited for."""

    def __init__(self, world: World) -> None:
        world.now_ms = int(time() * 1000)
        self.world = world
        self.opened: dict[str, str] = {}
        self.stack = AsyncExitStack()

    def target(self, target: Target, name: str = "ads", **more: Any) -> CatalogTarget:
        forms = {
            "conversion": RequestForm(
                url=target.url("/pb?id={source_click_id}&v={value}&t={goal}"),
                headers={"X-Delivery": "{delivery_id}"},
            ),
            "retraction": RequestForm(url=target.url("/back?id={source_click_id}")),
        }
        secrets = more.pop("secrets", {})
        how = How(**{"requests": forms, "schedule_s": (0, 0, 0), **more})
        return self.world.save(CatalogTarget(id=0, name=name, how=how, secrets=secrets))

    def rule(self, target: CatalogTarget, **more: Any) -> Rule:
        saved = self.world.save(
            Rule(
                id=0, name=target.name, source=self.world.source.id, target=target.id, on_reversal="retract",
                **more,
            )
        )  # fmt: skip
        self.world.reload()
        return saved

    def sale(self, query: str = "txid=T&type=sale&value=2.50", source_click_id: str = "S1") -> Click:
        click = self.world.click(source_click_id=source_click_id)
        self.world.send(click, query)
        return click

    def rows(self, click: Click) -> list[dict[str, Any]]:
        return self.world.query("deliveries_of_click", click_id=click.stamp)

    def states(self, click: Click) -> list[str]:
        return [DeliveryState(row["state"]).word for row in self.rows(click)]

    def attempts(self, click: Click, which: int = 0) -> list[dict[str, Any]]:
        return self.world.query("attempts_of_delivery", number=self.rows(click)[which]["number"])

    def open(self, script: Script) -> Target:
        """A target that listens until the test ends."""
        opened: Target = self.world.run(self.stack.enter_async_context(target(script)))
        return opened

    def deliver(self, until: Until, *targets: Target) -> None:
        """Run a deliverer until something is so; stop it as the role does."""
        self.world.run(self._deliver(until, targets))

    async def _deliver(self, until: Until, targets: Sequence[Target]) -> None:
        client = Client(loopback(*(one.port for one in targets)))
        deliverer = Deliverer(self.world.store, client.send, self.open_secret, lambda: 0.0)
        task = asyncio.create_task(deliverer.run(alone=True))
        try:
            async with asyncio.timeout(20):
                while True:
                    if task.done() or await until():
                        break
                    await asyncio.sleep(0.005)
        finally:
            deliverer.stop()
            await task
            await client.close()

    def open_secret(self, sealed: str) -> str:
        if sealed not in self.opened:
            raise ValueError("the key of the secrets is not here")
        return self.opened[sealed]

    def settled(self, click: Click, *states: str) -> Until:
        """Whether the deliveries of a click are in these states."""

        async def look() -> bool:
            rows = await self.world.store.query("deliveries_of_click", click_id=click.stamp)
            return [DeliveryState(row["state"]).word for row in rows] == list(states)

        return look

    def tried(self, click: Click, times: int) -> Until:
        """Whether the first delivery of a click was tried so often."""

        async def look() -> bool:
            rows = await self.world.store.query("deliveries_of_click", click_id=click.stamp)
            return bool(rows) and rows[0]["attempts"] >= times

        return look


@pytest.fixture(params=STORES, ids=lambda kind: kind.name)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    world = World(request.param, tmp_path / "data")
    made = Shop(world)
    yield made
    world.run(made.stack.aclose())
    world.close()


def ids(target: Target) -> list[str]:
    """The delivery ids that a target has seen."""
    return [
        found.decode() for request in target.requests for found in re.findall(rb"X-Delivery: (\S+)", request)
    ]


def lines(target: Target) -> list[str]:
    return [request.split(b"\r\n", 1)[0].decode() for request in target.requests]


def test_a_conversion_reaches_its_source_and_the_answer_is_kept(shop: Shop) -> None:
    ads = shop.open(in_turn(answer("200 OK", b"thanks, mail a@b.example")))
    shop.rule(shop.target(ads, types={"sale": "3"}))
    click = shop.sale()
    shop.deliver(shop.settled(click, "delivered"), ads)
    assert lines(ads) == ["GET /pb?id=S1&v=2.50&t=3 HTTP/1.1"]
    (attempt,) = shop.attempts(click)
    assert (attempt["http_status"], attempt["error"]) == (200, "")
    assert attempt["excerpt"].startswith("thanks, mail ")
    assert "a@b" not in attempt["excerpt"]


def test_a_failed_delivery_is_tried_again_under_the_same_id(shop: Shop) -> None:
    ads = shop.open(in_turn(answer("500 No"), answer("404 No")))
    shop.rule(shop.target(ads))
    click = shop.sale()
    shop.deliver(shop.settled(click, "delivered"), ads)
    assert len(ids(ads)) == 3
    assert len(set(ids(ads))) == 1
    assert [one["error"] for one in shop.attempts(click)] == ["HTTP 500", "HTTP 404", ""]


def test_every_attempt_is_a_span_of_its_own_in_the_trace_that_the_postback_named(shop: Shop) -> None:
    ads = shop.open(in_turn(answer("500 No")))
    shop.rule(shop.target(ads))
    click = shop.world.click(source_click_id="S1")
    trace = "0af7651916cd43dd8448eb211c80319c-01"
    shop.world.settle(replace(shop.world.make(click, "txid=T&value=2.50"), trace=trace))
    shop.deliver(shop.settled(click, "delivered"), ads)
    spans = [re.search(rb"\ntraceparent: 00-(\w{32})-(\w{16})-01\r", request) for request in ads.requests]
    assert [found[1].decode() if found else "" for found in spans] == [trace[:32]] * 2
    assert len({found[2] for found in spans if found}) == 2


def test_what_fails_to_the_end_of_the_schedule_is_dead_and_kept(shop: Shop) -> None:
    ads = shop.open(in_turn(then=answer("200 OK", b'{"status":"error"}')))
    shop.rule(shop.target(ads, failure=('"status":"error"',)))
    click = shop.sale()
    shop.deliver(shop.settled(click, "dead"), ads)
    assert len(ids(ads)) == 3
    (row,) = shop.rows(click)
    assert row["reason"].startswith("given up after 3 attempts: HTTP 200, but the answer fits")


def test_a_status_by_which_the_target_says_never_ends_it_at_once(shop: Shop) -> None:
    ads = shop.open(in_turn(then=answer("400 Bad")))
    shop.rule(shop.target(ads, final=(400,)))
    click = shop.sale()
    shop.deliver(shop.settled(click, "dead"), ads)
    assert len(ids(ads)) == 1


def test_a_target_that_is_gone_is_paused_until_it_is_resumed(shop: Shop) -> None:
    ads = shop.open(in_turn(answer("410 Gone")))
    saved = shop.target(ads)
    shop.rule(saved)
    click = shop.sale()
    shop.deliver(shop.tried(click, 1), ads)
    (state,) = shop.world.query("target_states")
    assert (state["state"], state["until_ms"]) == ("paused", 0)
    assert "410" in state["reason"]
    later = shop.sale("txid=U", "S2")

    async def planned() -> bool:
        return bool(await shop.world.store.query("deliveries_of_click", click_id=later.stamp))

    shop.deliver(planned, ads)
    assert len(ids(ads)) == 1
    resume = Turn(holder="x", now_ms=1, states=[TargetState(saved.id, "", 0, 0, "")])
    shop.world.run(shop.world.store.take_turn(resume))
    shop.deliver(shop.settled(later, "delivered"), ads)
    assert shop.states(click) == ["delivered"]


def test_a_reversal_never_overtakes_its_approval(shop: Shop) -> None:
    ads = shop.open(in_turn(answer("503 Busy"), answer("503 Busy")))
    shop.rule(shop.target(ads))
    click = shop.sale()
    shop.deliver(shop.tried(click, 1), ads)
    shop.world.send(click, "txid=T&type=sale&status=reversed")
    shop.deliver(shop.settled(click, "delivered", "delivered"), ads)
    assert [line.split("?")[0] for line in lines(ads)] == ["GET /pb", "GET /pb", "GET /pb", "GET /back"]


def test_what_is_reversed_before_it_was_sent_is_not_sent(shop: Shop) -> None:
    ads = shop.open(in_turn())
    shop.rule(shop.target(ads))
    click = shop.sale()
    shop.world.send(click, "txid=T&type=sale&status=reversed")
    shop.deliver(shop.settled(click, "cancelled", "cancelled"), ads)
    assert ads.requests == []
    assert [row["reason"] for row in shop.rows(click)] == [
        "the conversion changed before it was sent",
        "the source was never told of the conversion",
    ]


def test_what_waited_for_its_rule_is_looked_at_once_more(shop: Shop) -> None:
    ads = shop.open(in_turn())
    rule = shop.rule(shop.target(ads), delay_s=2)
    shop.world.save(replace(rule, on_reversal="ignore"))
    taken_back, stays = shop.sale(), shop.sale("txid=U", "S2")

    async def planned() -> bool:
        return bool(await shop.world.store.query("deliveries_of_click", click_id=stays.stamp))

    shop.deliver(planned, ads)
    assert ads.requests == []
    shop.world.send(taken_back, "txid=T&type=sale&status=rejected")
    shop.deliver(shop.settled(stays, "delivered"), ads)
    shop.deliver(shop.settled(taken_back, "cancelled"), ads)
    assert [line.split("&")[0] for line in lines(ads)] == ["GET /pb?id=S2"]


def test_what_is_too_old_for_its_target_is_dead_without_an_attempt(shop: Shop) -> None:
    ads = shop.open(in_turn())
    shop.rule(shop.target(ads, fresh_s=30, fresh_from="click"))
    click = shop.sale()  # a minute old
    shop.deliver(shop.settled(click, "dead"), ads)
    assert ads.requests == []
    assert "too old" in shop.rows(click)[0]["reason"]


def test_without_the_id_of_the_source_nothing_can_be_told(shop: Shop) -> None:
    ads = shop.open(in_turn())
    shop.rule(shop.target(ads))
    click = shop.world.click()
    shop.world.send(click, "txid=T")
    shop.deliver(shop.settled(click, "dead"), ads)
    assert "without the source's click id" in shop.rows(click)[0]["reason"]


def test_a_target_that_stays_silent_keeps_nobody_else_waiting(shop: Shop) -> None:
    async def silent(talk: Talk) -> None:
        await talk.request()
        await talk.silence()

    slow, quick = shop.open(silent), shop.open(in_turn())
    shop.rule(shop.target(slow, "slow", total_ms=700))
    shop.rule(shop.target(quick, "quick"))
    click = shop.sale()

    async def quick_is_done() -> bool:
        rows = await shop.world.store.query("deliveries_of_click", click_id=click.stamp)
        return any(row["target_name"] == "quick" and row["state"] == 2 for row in rows)

    shop.deliver(quick_is_done, slow, quick)
    assert sorted(shop.states(click)) == ["delivered", "waiting"]


def test_a_host_that_fails_and_fails_is_left_alone_for_a_while_and_that_is_said(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    ads = shop.open(in_turn(then=answer("500 No")))
    shop.rule(shop.target(ads, schedule_s=(0,) * 50))
    click = shop.sale()

    async def said() -> bool:
        return bool(await shop.world.store.query("target_states"))

    shop.deliver(said, ads)
    (state,) = shop.world.query("target_states")
    assert (state["state"], state["until_ms"] > state["since_ms"]) == ("broken", True)
    assert shop.states(click) == ["waiting"]
    assert len(ids(ads)) < 50
    assert "paused for 5 s" in caplog.text


def test_a_target_decides_how_long_to_wait(shop: Shop) -> None:
    ads = shop.open(in_turn(answer("429 Slow", b"", "Retry-After: 3600")))
    shop.rule(shop.target(ads))
    click = shop.sale()
    shop.deliver(shop.tried(click, 1), ads)
    (row,) = shop.rows(click)
    assert row["due_ms"] >= shop.attempts(click)[0]["at_ms"] + 3_600_000


def test_the_address_that_could_not_be_called_is_said_and_the_check_of_what_is_kept_knows_it(
    shop: Shop,
) -> None:
    ads = shop.open(in_turn())
    form = RequestForm(url=f"http://10.9.8.7:{ads.port}/pb?id={{source_click_id}}")
    shop.rule(shop.target(ads, requests={"conversion": form}, schedule_s=(0,)))
    click = shop.sale()
    shop.deliver(shop.settled(click, "dead"), ads)
    said = "address 10.9.8.7 is private; allow it with --deliver-ranges"
    assert [attempt["error"] for attempt in shop.attempts(click)] == [said]
    assert said in shop.rows(click)[0]["reason"]

    async def check() -> list[Any]:
        masker = shop.world.rulebook.masker
        return [one async for one in check_rows(shop.world.store, masker) if not isinstance(one, int)]

    assert shop.world.run(check()) == []


def test_a_secret_is_sent_and_never_kept(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    async def echo(talk: Talk) -> None:
        while request := await talk.request():
            await talk.say(answer("400 Bad", request))

    ads = shop.open(echo)
    shop.opened["sealed"] = "hush-hush"
    forms = {"conversion": RequestForm(url=ads.url("/pb?key={account.KEY}&id={source_click_id}"))}
    shop.rule(shop.target(ads, requests=forms, secrets={"KEY": "sealed"}))
    click = shop.sale()
    shop.deliver(shop.settled(click, "dead"), ads)
    assert b"key=hush-hush" in ads.requests[0]
    assert "key=(KEY)" in shop.attempts(click)[0]["excerpt"]
    kept = repr([shop.rows(click), shop.attempts(click), caplog.text])
    assert "hush" not in kept


def test_a_target_whose_secret_cannot_be_opened_waits_and_the_others_are_served(shop: Shop) -> None:
    ads = shop.open(in_turn())
    shop.rule(shop.target(ads, "sealed", secrets={"KEY": "another key's"}))
    shop.rule(shop.target(ads, "open"))
    click = shop.sale()

    async def one_is_done() -> bool:
        rows = await shop.world.store.query("deliveries_of_click", click_id=click.stamp)
        return sorted(row["state"] for row in rows) == [1, 2]

    shop.deliver(one_is_done, ads)
    (state,) = shop.world.query("target_states")
    assert (state["target_name"], state["reason"]) == ("sealed", "the key of the secrets is not here")


def test_a_webhook_is_signed_anew_in_every_attempt_under_the_same_id(shop: Shop) -> None:
    ads = shop.open(in_turn(answer("500 No")))
    shop.opened["sealed"] = SECRET
    forms = {"conversion": RequestForm(url=ads.url("/hook"), method="POST")}
    shop.rule(shop.target(ads, kind="webhook", requests=forms, secrets={"SECRET": "sealed"}))
    click = shop.sale()
    shop.deliver(shop.settled(click, "delivered"), ads)
    seen = set()
    for request in ads.requests:
        head, _, body = request.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        seen.add(
            verify({name.lower(): value for name, value in headers.items()}, body, [SECRET_BYTES], time())
        )
    assert len(ads.requests) == 2
    assert len(seen) == 1


def test_a_changed_target_is_followed_while_deliveries_wait(shop: Shop) -> None:
    dead, alive = shop.open(in_turn(then=answer("500 No"))), shop.open(in_turn())
    saved = shop.target(dead, schedule_s=(0, 1, 1, 1))
    shop.rule(saved)
    click = shop.sale()
    shop.deliver(shop.tried(click, 1), dead)
    form = RequestForm(url=alive.url("/new?id={source_click_id}"))
    shop.world.save(replace(saved, how=replace(saved.how, requests={"conversion": form})))
    shop.deliver(shop.settled(click, "delivered"), dead, alive)
    assert lines(alive) == ["GET /new?id=S1 HTTP/1.1"]


def test_what_was_claimed_and_not_sent_is_free_again_after_a_stop(shop: Shop) -> None:
    async def silent(talk: Talk) -> None:
        await talk.request()
        await talk.silence()

    ads = shop.open(silent)
    shop.rule(shop.target(ads, concurrency=1, total_ms=300))
    clicks = [shop.sale(f"txid={number}") for number in range(4)]

    async def asked() -> bool:
        return ads.asked.is_set()

    shop.deliver(asked, ads)
    rows = [row for click in clicks for row in shop.rows(click)]
    assert {row["holder"] for row in rows} == {None}
    assert {row["state"] for row in rows} == {1}
    assert sum(row["attempts"] for row in rows) == 1


def test_a_million_of_one_source_does_not_starve_another(shop: Shop) -> None:
    quick = shop.open(in_turn())
    one, other = shop.target(quick, "one"), shop.target(quick, "other")
    shop.rule(one)
    for number in range(300):
        shop.sale(f"txid={number}")
    shop.rule(other)
    last = shop.sale("txid=last")

    async def last_is_told() -> bool:
        rows = await shop.world.store.query("deliveries_of_click", click_id=last.stamp)
        return any(row["target"] == other.id and row["state"] == 2 for row in rows)

    shop.deliver(last_is_told, quick)
    assert len(quick.requests) >= 1


def test_a_target_whose_key_comes_back_is_served_soon(shop: Shop) -> None:
    listening = shop.open(in_turn())
    waiting = shop.target(listening, "late", secrets={"T": "sealed"})
    shop.rule(waiting)
    click = shop.sale()

    async def noted() -> bool:
        return bool(await shop.world.store.query("target_states"))

    async def then_delivered() -> bool:
        if "sealed" not in shop.opened and await noted():
            shop.opened["sealed"] = "opened"
        rows = await shop.world.store.query("deliveries_of_click", click_id=click.stamp)
        return [DeliveryState(row["state"]).word for row in rows] == ["delivered"]

    shop.deliver(then_delivered, listening)
    assert shop.world.query("target_states") == []
