"""The spool: what it keeps is found again in order, whatever happened to the process, the file or the disk."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from postbackd.core.model import Channel, Click, ClickRef, Postback, Request, Terms
from postbackd.ingest.spool import FOLDER, Spool, SpoolFull
from postbackd.store.base import Batch, StoreAway
from tests.ingest.test_batcher import Heard, Office

LIMIT = 1 << 30


def make(number: int) -> Postback:
    terms = Terms("sale", "12.50", "USD", None, "sale", 12_500_000, "USD", 2)
    return Postback(
        Request(number, 1, Channel.S2S, 80, 1_750_000_000_000),
        4,
        ClickRef(7, 1),
        None,
        terms,
        f"T{number}",
        None,
        f"Tä{number}",
    )


def numbers(batch: Batch | None) -> list[int]:
    return [] if batch is None else [postback.request.request_id for postback in batch.postbacks]


def take_all(spool: Spool, limit: int = 10) -> list[int]:
    taken = []
    while (batch := spool.read(limit)) is not None:
        taken += numbers(batch)
        spool.drop()
    return taken


def segments(directory: Path) -> list[Path]:
    return sorted((directory / FOLDER).glob("*.spool"))


def test_what_is_kept_is_read_in_order_and_unchanged(tmp_path: Path) -> None:
    spool = Spool(tmp_path, LIMIT)
    click = Click(5, 1, 1, 0, "source", 20_000, "DE", "203.0.113.0/24", None, ("a", None, "ü"))
    postbacks = [make(n) for n in range(5)]
    spool.keep([click], postbacks[:2])
    spool.keep([], postbacks[2:])
    batch = spool.read(100)
    assert batch is not None
    assert (batch.clicks, batch.postbacks) == ([click], postbacks)
    spool.drop()
    assert spool.empty
    assert segments(tmp_path) == []


def test_what_was_read_but_not_dropped_is_read_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path, LIMIT)
    for n in range(4):
        spool.keep([], [make(n)])
    assert numbers(spool.read(2)) == [0, 1]
    assert numbers(spool.read(3)) == [0, 1, 2]
    spool.drop()
    assert numbers(spool.read(9)) == [3]


def test_keeping_and_taking_may_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postbackd.ingest.spool._SEGMENT_BYTES", 1000)
    spool = Spool(tmp_path, LIMIT)
    taken: list[int] = []
    kept = 0
    for turn in range(60):
        for _ in range(turn % 4):
            spool.keep([], [make(kept)])
            kept += 1
        batch = spool.read(turn % 3 + 1)
        spool.keep([], [make(kept)])
        kept += 1
        taken += numbers(batch)
        spool.drop()
    taken += take_all(spool)
    assert taken == list(range(kept))
    assert spool.empty
    assert segments(tmp_path) == []


def test_another_process_finds_what_was_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postbackd.ingest.spool._SEGMENT_BYTES", 1000)
    for start in (0, 10, 20):
        spool = Spool(tmp_path, LIMIT)
        for n in range(start, start + 10):
            spool.keep([], [make(n)])
        spool.close()
    assert take_all(Spool(tmp_path, LIMIT)) == list(range(30))


@pytest.mark.parametrize("kept", [0, 1, 3, 11, 12, 13, 100, -1])
def test_a_torn_tail_is_left_out_and_nothing_before_it(tmp_path: Path, kept: int) -> None:
    spool = Spool(tmp_path, LIMIT)
    spool.keep([], [make(0)])
    whole = segments(tmp_path)[0].stat().st_size
    spool.keep([], [make(1)])
    spool.close()
    os.truncate(segments(tmp_path)[0], whole + kept if kept >= 0 else 2 * whole - 1)
    spool = Spool(tmp_path, LIMIT)
    assert take_all(spool) == [0]
    assert spool.empty
    spool.keep([], [make(2)])
    assert take_all(spool) == [2]


def test_a_damaged_record_costs_itself_and_not_its_neighbours(tmp_path: Path) -> None:
    spool = Spool(tmp_path, LIMIT)
    ends = []
    for n in range(3):
        spool.keep([], [make(n)])
        ends.append(segments(tmp_path)[0].stat().st_size)
    spool.close()
    for offset in range(ends[0], ends[1]):
        content = bytearray(segments(tmp_path)[0].read_bytes())
        content[offset] ^= 0x41
        segments(tmp_path)[0].write_bytes(content)
        spool = Spool(tmp_path, LIMIT)
        assert numbers(spool.read(10)) == [0, 2], offset
        assert spool.unreadable_bytes == ends[1] - ends[0]
        spool.close()
        content[offset] ^= 0x41
        segments(tmp_path)[0].write_bytes(content)
    assert take_all(Spool(tmp_path, LIMIT)) == [0, 1, 2]


def test_a_full_spool_says_so_and_takes_more_when_some_has_gone(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    spool.keep([], [make(0)])
    kept = 1000 // spool.kept_bytes
    for n in range(1, kept):
        spool.keep([], [make(n)])
    with pytest.raises(SpoolFull, match="1000 bytes"):
        spool.keep([], [make(kept)])
    assert take_all(spool) == list(range(kept))
    spool.keep([], [make(99)])
    assert take_all(spool) == [99]


@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
def test_what_could_not_be_synced_is_not_kept_and_the_next_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    spool = Spool(tmp_path, LIMIT)
    spool.keep([], [make(0)])

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(f"postbackd.ingest.spool.os.{call}", fail)
        with pytest.raises(OSError, match="Input/output"):
            spool.keep([], [make(1)])
    spool.keep([], [make(2)])
    assert len(segments(tmp_path)) == 2
    assert take_all(spool) == [0, 2]


def test_the_newest_stamp_is_found_and_nothing_is_taken(tmp_path: Path) -> None:
    spool = Spool(tmp_path, LIMIT)
    assert spool.newest_stamp() == 0
    spool.keep([Click(70, 1, 1, 0)], [make(50), make(60)])
    spool.keep([], [make(65)])
    assert spool.newest_stamp() == 70
    assert numbers(spool.read(10)) == [50, 60, 65]


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path, LIMIT)
    spool.keep([], [make(0)])
    assert segments(tmp_path)[0].stat().st_mode & 0o777 == 0o600
    assert (tmp_path / FOLDER).stat().st_mode & 0o777 == 0o700


# --- beside a database that is away ---------------------------------------------------------------------------


class Spooling(Office):
    """A batcher with a spool, over a database that can be locked."""

    def begin(self, most_bytes: int = LIMIT) -> None:
        self.spool = Spool(self.directory, most_bytes)
        self.batcher = self.batcher_with(self.spool)

    async def back(self) -> None:
        """Wait until the spool has been written to the database."""
        overflow = self.batcher._overflow
        assert overflow is not None
        if overflow._draining is not None:
            await overflow._draining


def within(directory: Path, test: Callable[[Spooling], Awaitable[None]]) -> None:
    async def whole() -> None:
        office = Spooling(directory)
        await office.open()
        try:
            async with asyncio.timeout(30):
                await test(office)
                await office.batcher.drain()
        finally:
            await office.store.close()

    asyncio.run(whole())


async def told(heard: list[Heard]) -> list[str]:
    for each in heard:
        await each.told.wait()
    return [word for each in heard for word in each.words]


def test_while_the_database_is_locked_requests_are_queued_and_counted_once_afterwards(tmp_path: Path) -> None:
    async def test(office: Spooling) -> None:
        office.begin()
        other = office.lock()
        heard = [office.add(str(n)) for n in range(10)]
        assert await told(heard) == ["queued"] * 10
        click = office.make_click()
        seen = Heard()
        office.batcher.add_click(click, seen)
        assert await told([seen]) == ["stored"]
        again = [office.add(str(n)) for n in range(5)]
        assert await told(again) == ["queued"] * 5
        assert office.batcher.ready
        other.execute("ROLLBACK")
        other.close()
        await office.back()
        assert await told([office.add(str(n)) for n in range(10)]) == ["duplicate"] * 10
        log = await office.store.query("log")
        assert [row["verdict"] for row in log] == [2] * 10 + [2] * 5 + [1] * 10
        assert len(await office.store.query("click", click_id=click.stamp)) == 1

    within(tmp_path / "data", test)


def test_what_an_earlier_process_kept_goes_first(tmp_path: Path) -> None:
    async def test(office: Spooling) -> None:
        office.begin()
        office.spool.keep([], [office.make("early")])
        office.spool.close()
        office.begin()
        away = [office.batcher.away]
        assert await told([office.add("early")]) == ["duplicate"]
        assert [*away, office.batcher.away] == [True, False]
        assert [row["verdict"] for row in await office.store.query("log")] == [2, 1]

    within(tmp_path / "data", test)


def test_a_batch_that_was_committed_although_nobody_heard_is_not_written_twice(tmp_path: Path) -> None:
    async def test(office: Spooling) -> None:
        office.begin()
        write = office.store.write
        postbacks = [office.make(str(n)) for n in range(6)]
        await write(Batch((), postbacks[:3]), office.rulebook)
        office.spool.keep([], postbacks)
        office.spool.close()
        office.begin()
        await office.back()
        log = await office.store.query("log")
        assert [row["verdict"] for row in log] == [1] * 6
        assert len(await office.store.query("conversions_of_click", click_id=office.click.stamp)) == 6

    within(tmp_path / "data", test)


def test_a_commit_whose_answer_is_lost_is_queued_and_counted_once(tmp_path: Path) -> None:
    async def test(office: Spooling) -> None:
        office.begin()
        write = office.store.write
        calls = 0

        async def lose_the_first_answer(batch: Batch, rulebook: object, **_: object) -> object:
            nonlocal calls
            calls += 1
            written = await write(batch, office.rulebook)
            if calls == 1:
                raise StoreAway("the connection broke")
            return written

        office.store.write = lose_the_first_answer  # type: ignore[assignment, method-assign]
        assert await told([office.add(str(n)) for n in range(4)]) == ["queued"] * 4
        await office.back()
        assert [row["verdict"] for row in await office.store.query("log")] == [1] * 4

    within(tmp_path / "data", test)


def test_a_database_that_is_slow_gets_less_at_a_time_until_the_spool_is_empty(tmp_path: Path) -> None:
    async def test(office: Spooling) -> None:
        office.begin()
        postbacks = [office.make(str(n)) for n in range(40)]
        for start in range(0, 40, 4):
            office.spool.keep([], postbacks[start : start + 4])
        office.spool.close()
        write = office.store.write
        sizes: list[int] = []

        async def slow(batch: Batch, rulebook: object, *, patience_s: float = 0) -> object:
            assert patience_s > 1
            sizes.append(len(batch.postbacks))
            if len(batch.postbacks) > 8:
                raise StoreAway("too slow")
            return await write(batch, office.rulebook)

        office.store.write = slow  # type: ignore[assignment, method-assign]
        office.begin()
        await office.back()
        assert max(sizes) > 8
        assert [row["verdict"] for row in await office.store.query("log")] == [1] * 40

    within(tmp_path / "data", test)


def test_a_registration_with_an_own_id_is_refused_meanwhile(tmp_path: Path) -> None:
    async def test(office: Spooling) -> None:
        office.begin()
        other = office.lock()
        heard = Heard()
        office.batcher.add_click(Click(office.mint.mint(1_800_000_000_000), 1, 1, 0, own_id="mine"), heard)
        assert await told([heard]) == ["failed"]
        other.close()
        await office.back()

    within(tmp_path / "data", test)


def test_a_full_spool_is_answered_as_a_store_that_fails(tmp_path: Path) -> None:
    async def test(office: Spooling) -> None:
        office.begin(most_bytes=2000)
        other = office.lock()
        words: list[str] = []
        for n in range(40):
            words += await told([office.add(str(n))])
        assert words == ["queued"] * words.count("queued") + ["failed"] * words.count("failed")
        assert "queued" in words
        assert "failed" in words
        assert (office.batcher.available, office.batcher.ready) == (True, False)
        other.close()
        await office.back()
        assert office.batcher.ready
        assert await told([office.add("later")]) == ["accepted"]
        assert len(await office.store.query("log", limit=1000)) == words.count("queued") + 1

    within(tmp_path / "data", test)


def test_what_is_left_at_the_end_is_written_after_the_next_start(tmp_path: Path) -> None:
    directory = tmp_path / "data"

    async def first(office: Spooling) -> None:
        office.begin()
        other = office.lock()
        assert await told([office.add("T")]) == ["queued"]
        await office.batcher.drain()
        other.close()

    within(directory, first)

    async def second(office: Spooling) -> None:
        office.begin()
        await office.back()
        assert [row["verdict"] for row in await office.store.query("log")] == [1]

    office_again = second
    asyncio.run(_reopened(directory, office_again))


async def _reopened(directory: Path, test: Callable[[Spooling], Awaitable[None]]) -> None:
    office = Spooling(directory)
    await office.reopen()
    try:
        async with asyncio.timeout(30):
            await test(office)
            await office.batcher.drain()
    finally:
        await office.store.close()
