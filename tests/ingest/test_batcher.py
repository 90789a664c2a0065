"""Group commit over a real store: everybody is answered, whatever fails, and nothing is written behind a failure."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import apsw
import pytest

from postbackd.core.click_id import StampMint
from postbackd.core.model import (
    Campaign,
    Channel,
    Click,
    Network,
    Offer,
    Postback,
    Request,
    Source,
    WeightedOffer,
)
from postbackd.core.rulebook import Rulebook
from postbackd.core.rules import judge
from postbackd.ingest.batcher import Batcher, now_ms
from postbackd.ingest.flow import Flow
from postbackd.ingest.spool import Spool
from postbackd.store.base import Outcome
from postbackd.store.sqlite import SqliteStore
from tests.ingest.shop import FILE_NAME


class Heard:
    """Whoever waits, and what it was told."""

    def __init__(self, *, fails: bool = False) -> None:
        self.words: list[str] = []
        self.told = asyncio.Event()
        self._fails = fails

    def _hear(self, word: str) -> None:
        self.words.append(word)
        self.told.set()
        if self._fails:
            raise ConnectionResetError("the client has gone")

    def settled(self, postback: Postback, outcome: Outcome) -> None:
        self._hear(outcome.verdict.word)

    def stored(self, stamp: int) -> None:
        self._hear("stored")

    def failed(self) -> None:
        self._hear("failed")


class Office:
    """A batcher over a store with one click."""

    def __init__(self, directory: Path, queue_limit: int = 1000, batch_limit: int = 100) -> None:
        self.directory = directory
        self.mint = StampMint(0)
        self.flow = Flow()
        self._limits = (queue_limit, batch_limit)

    async def open(self) -> None:
        self.store = await SqliteStore.open(self.directory, create=True, busy_timeout_ms=20)
        network = await self.store.save(Network(id=0, name="n", key="k"))
        source = await self.store.save(Source(id=0, name="s"))
        offer = await self.store.save(Offer(id=0, name="o", network=network.id, url="https://shop.example/"))
        offers = (WeightedOffer(offer.id),)
        await self.store.save(Campaign(id=0, name="c", slug="c", source=source.id, offers=offers))
        self.rulebook = Rulebook(await self.store.load_catalog())
        self.batcher = Batcher(self.store, lambda: self.rulebook, self.flow, *self._limits)
        self.click = await self.hear_click(self.make_click())

    async def reopen(self) -> None:
        """Go on with the data of an earlier one."""
        self.store = await SqliteStore.open(self.directory, create=False, busy_timeout_ms=20)
        self.rulebook = Rulebook(await self.store.load_catalog())

    def batcher_with(self, spool: Spool) -> Batcher:
        return Batcher(self.store, lambda: self.rulebook, self.flow, *self._limits, spool)

    def make_click(self) -> Click:
        return Click(self.mint.mint(now_ms()), 1, 1, 0)

    async def hear_click(self, click: Click) -> Click:
        heard = Heard()
        self.batcher.add_click(click, heard)
        await heard.told.wait()
        return click

    def make(self, txid: str) -> Postback:
        rules = self.rulebook.networks[1]
        text = self.rulebook.keys.write(self.click.stamp, 1)
        request = Request(self.mint.mint(now_ms()), 1, Channel.S2S, 10, now_ms())
        received = rules.field_map.read_query(f"cid={text}&txid={txid}")
        return judge(received, rules, self.rulebook.keys, self.rulebook.masker, request)

    def add(self, txid: str, *, fails: bool = False) -> Heard:
        heard = Heard(fails=fails)
        self.batcher.add_postback(self.make(txid), heard)
        return heard

    def lock(self) -> apsw.Connection:
        """Another program that writes until it is closed."""
        other = apsw.Connection(str(self.directory / FILE_NAME))
        other.execute("BEGIN IMMEDIATE")
        return other

    async def recovered(self) -> None:
        if self.batcher._recovering is not None:
            await self.batcher._recovering


Test = Callable[[Office], Awaitable[None]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., None]:
    """Run a test in an event loop over a fresh store."""

    def running(test: Test, **limits: int) -> None:
        async def whole() -> None:
            office = Office(tmp_path / "data", **limits)
            await office.open()
            try:
                async with asyncio.timeout(30):
                    await test(office)
                    await office.batcher.drain()
            finally:
                await office.store.close()

        asyncio.run(whole())

    return running


def test_everybody_is_answered_in_batches_no_larger_than_the_limit(run: Callable[..., None]) -> None:
    async def test(office: Office) -> None:
        heard = [office.add(str(n % 30)) for n in range(50)]
        for each in heard:
            await each.told.wait()
        words = [word for each in heard for word in each.words]
        assert (words.count("accepted"), words.count("duplicate")) == (30, 20)

    run(test, batch_limit=7)


def test_a_client_that_has_gone_does_not_keep_the_others_waiting(run: Callable[..., None]) -> None:
    async def test(office: Office) -> None:
        heard = [office.add(str(n), fails=n in (0, 3)) for n in range(6)]
        for each in heard:
            await each.told.wait()
        assert [each.words for each in heard] == [["accepted"]] * 6
        later = office.add("later")
        await later.told.wait()

    run(test)


def test_a_full_queue_says_so_until_it_is_emptied(run: Callable[..., None]) -> None:
    async def test(office: Office) -> None:
        heard = [office.add("1"), office.add("2")]
        full = [office.batcher.full]
        heard.append(office.add("3"))
        full.append(office.batcher.full)
        for each in heard:
            await each.told.wait()
        assert [*full, office.batcher.full] == [False, True, False]

    run(test, queue_limit=3)


def test_when_the_store_fails_everybody_who_waits_is_told_at_once_and_nothing_is_written_behind(
    run: Callable[..., None],
) -> None:
    async def test(office: Office) -> None:
        other = office.lock()
        heard = [office.add(str(n)) for n in range(10)]
        click = Heard()
        office.batcher.add_click(office.make_click(), click)
        for each in (*heard, click):
            await each.told.wait()
        assert [each.words for each in heard] == [["failed"]] * 10
        assert click.words == ["failed"]
        assert not office.batcher.available
        other.execute("ROLLBACK")
        other.close()
        await office.recovered()
        again = [office.add(str(n)) for n in range(10)]
        for each in again:
            await each.told.wait()
        assert [each.words for each in again] == [["accepted"]] * 10

    run(test, batch_limit=3)


class Attempts(logging.Handler):
    """Hears of recoveries that failed; ``made`` after the second."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.made = asyncio.Event()
        self._count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self._count += "still fails" in record.getMessage()
        if self._count >= 2:
            self.made.set()


def test_a_recovery_is_tried_until_it_succeeds(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "postbackd.ingest")

    async def test(office: Office) -> None:
        attempts = Attempts()
        logging.getLogger("postbackd.ingest").addHandler(attempts)
        other = office.lock()
        heard = office.add("1")
        await heard.told.wait()
        await attempts.made.wait()
        assert not office.batcher.available
        other.close()
        await office.recovered()
        logging.getLogger("postbackd.ingest").removeHandler(attempts)
        again = office.add("1")
        await again.told.wait()
        assert again.words == ["accepted"]

    run(test)


def test_counts_that_could_not_be_written_are_written_later(run: Callable[..., None]) -> None:
    async def test(office: Office) -> None:
        office.flow.refused(100, "busy")
        office.flow.answered(100, 500)
        office.flow.answered(100, 501)
        other = office.lock()
        office.batcher._flow_written = 0.0
        await office.batcher.write_flow()
        assert not office.batcher.available
        await office.batcher.write_flow()
        other.execute("ROLLBACK")
        other.close()
        await office.recovered()
        office.flow.refused(100, "busy")
        office.batcher._flow_written = 0.0
        await office.batcher.write_flow()
        assert await office.store.query("refusals") == [{"kind": "busy", "count": 2}]
        (times,) = await office.store.query("response_times")
        assert (times["count"], times["total_us"]) == (2, 1001)

    run(test)


def test_draining_answers_everybody_and_writes_the_last_counts(run: Callable[..., None]) -> None:
    async def test(office: Office) -> None:
        office.flow.refused(7, "not_found")
        heard = [office.add(str(n)) for n in range(20)]
        await office.batcher.drain()
        assert [each.words for each in heard] == [["accepted"]] * 20
        assert await office.store.query("refusals") == [{"kind": "not_found", "count": 1}]

    run(test, batch_limit=3)


def test_draining_while_the_store_is_away_ends(run: Callable[..., None]) -> None:
    async def test(office: Office) -> None:
        other = office.lock()
        heard = office.add("1")
        await heard.told.wait()
        await office.batcher.drain()
        other.close()

    run(test)
