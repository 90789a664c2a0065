"""A batch notes each row before it is sent and after, sends what is not settled, and stops when nothing is taken."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from time import time
from typing import Any

import pytest
import uvloop

from postbackd.core.became import Became
from postbackd.exchanges.batch import GIVE_UP_AFTER, Batch
from postbackd.exchanges.journal import Journal, JournalError
from postbackd.exchanges.postback import Endpoint, Postback
from postbackd.exchanges.rows import Row
from postbackd.exchanges.timed import Timer
from tests.delivery.targets import OK, Script, Talk, answers, target
from tests.exchanges.places import run, trusting

BUSY = b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"


def rows(count: int) -> Iterator[Row]:
    for number in range(count):
        yield Row(line=number + 2, cells={}, postback=Postback(click_id=f"c{number}"), key=f"k{number}")


def now_ms() -> int:
    return int(time() * 1000)


async def send(
    script: Script, journal: Path, count: int, **options: Any
) -> tuple[Batch, list[bytes], list[Became | None]]:
    """One run; the batch, the targets of the requests, and what became of the rows."""
    heard: list[Became | None] = []
    async with target(script) as place:
        timer = Timer(trusting(), total_ms=1000)
        opened = Journal(journal, "there")
        batch = Batch(Endpoint(url=place.url("/p")), opened, timer, now_ms, **options)
        try:
            await batch.run(rows(count), lambda row, became: heard.append(became))
        finally:
            opened.close()
            timer.close()
        return batch, [request.split(b" ")[1] for request in place.requests], heard


def test_a_second_run_sends_nothing_that_was_settled(tmp_path: Path) -> None:
    async def work() -> None:
        _, first, _ = await send(answers(OK), tmp_path / "j", 5)
        batch, second, heard = await send(answers(OK), tmp_path / "j", 7)
        assert (len(first), len(second), batch.totals.settled_before) == (5, 2, 5)
        assert heard.count(None) == 5

    run(work())


def test_what_was_not_settled_is_sent_again_under_the_same_transaction_id(tmp_path: Path) -> None:
    async def work() -> None:
        _, first, _ = await send(answers(BUSY), tmp_path / "j", 3, tries=1)
        _, second, _ = await send(answers(OK), tmp_path / "j", 3)
        assert sorted(first) == sorted(second)
        _, other, _ = await send(answers(OK), tmp_path / "another", 3)
        assert not set(other) & set(first)  # the control: without that journal they are other conversions

    run(work())


def test_a_busy_endpoint_is_asked_again_in_the_same_run(tmp_path: Path) -> None:
    async def work() -> None:
        _, sent, heard = await send(answers(BUSY, OK), tmp_path / "j", 1, tries=2, parallel=1)
        assert len(sent) == 2
        assert [became and became.word for became in heard] == ["delivered"]

    run(work())


def test_a_run_stops_when_nothing_is_taken_and_the_rest_is_for_the_next_one(tmp_path: Path) -> None:
    async def work() -> None:
        missing = answers(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
        batch, sent, _ = await send(missing, tmp_path / "j", 500, parallel=1)
        assert len(sent) == GIVE_UP_AFTER
        assert "HTTP 404" in batch.totals.stopped
        _, sent, _ = await send(answers(OK), tmp_path / "j", 500)
        assert len(sent) == 500

    run(work())


def test_a_rate_is_kept(tmp_path: Path) -> None:
    async def work() -> None:
        batch, _, _ = await send(answers(OK), tmp_path / "j", 11, rate=20)
        assert 0.49 <= batch.totals.took_s < 3
        batch, _, _ = await send(answers(OK), tmp_path / "k", 11)
        assert batch.totals.took_s < 0.49  # the control

    run(work())


def test_a_row_is_on_the_disk_before_its_request_has_arrived(tmp_path: Path) -> None:
    async def work() -> None:
        noted = []

        async def script(talk: Talk) -> None:
            while await talk.request():
                noted.append(b'["s","k0"]' in (tmp_path / "j").read_bytes())
                await talk.say(OK)

        await send(script, tmp_path / "j", 1)
        assert noted == [True]

    run(work())


def test_when_the_journal_cannot_be_written_nothing_more_is_sent(tmp_path: Path) -> None:
    journal = tmp_path / "j"

    async def work() -> None:
        Journal(journal, "there").close()
        timer = Timer(trusting())
        opened = Journal(journal, "there")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (journal.stat().st_size + 150, limits[1]))
        try:
            async with target(answers(OK)) as place:
                batch = Batch(Endpoint(url=place.url("/p")), opened, timer, now_ms, parallel=1)
                with pytest.raises(OSError, match="too large"):
                    await batch.run(rows(50), lambda row, became: None)
                sent = len(place.requests)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, ignored)
            opened.close()
            timer.close()
        assert 0 < sent < 50
        _, rest, _ = await send(answers(OK), journal, 50)  # what is there is whole, and the next run goes on
        assert 50 - sent <= len(rest) <= 50 - sent + 1

    run(work())


def test_a_line_that_was_cut_by_a_crash_is_dropped_and_the_rest_is_good(tmp_path: Path) -> None:
    async def work() -> None:
        await send(answers(OK), tmp_path / "j", 2, parallel=1)
        os.truncate(tmp_path / "j", (tmp_path / "j").stat().st_size - 3)
        batch, sent, _ = await send(answers(OK), tmp_path / "j", 2)
        assert (len(sent), batch.totals.settled_before) == (1, 1)

    run(work())


def test_a_journal_is_refused_to_a_second_run_to_another_endpoint_and_when_it_is_none(tmp_path: Path) -> None:
    first = Journal(tmp_path / "j", "there")
    uvloop.run(first.note_sending("k"))
    with pytest.raises(JournalError, match="in use"):
        Journal(tmp_path / "j", "there")
    first.close()
    with pytest.raises(JournalError, match="another endpoint"):
        Journal(tmp_path / "j", "elsewhere")
    with pytest.raises(JournalError, match="another endpoint"):
        Journal(tmp_path / "j", "there", test=True)
    (tmp_path / "own").write_text("my notes\n")
    with pytest.raises(JournalError, match="no journal"):
        Journal(tmp_path / "own", "there")
    assert (tmp_path / "own").read_text() == "my notes\n"


def test_a_url_that_was_wrong_from_the_first_row_on_may_be_mended(tmp_path: Path) -> None:
    async def work() -> None:
        await send(answers(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"), tmp_path / "j", 2)
        Journal(tmp_path / "j", "elsewhere").close()
        await send(answers(BUSY), tmp_path / "k", 2, tries=1)
        with pytest.raises(JournalError):  # the control: a 503 may have been counted
            Journal(tmp_path / "k", "elsewhere")

    run(work())


def test_an_interrupted_run_ends_what_it_began_and_begins_nothing_more(tmp_path: Path) -> None:
    async def work() -> None:
        async with target(answers(OK)) as place:
            timer = Timer(trusting())
            opened = Journal(tmp_path / "j", "there")
            batch = Batch(Endpoint(url=place.url("/p")), opened, timer, now_ms, rate=20)
            heard: list[Became | None] = []
            running = asyncio.create_task(batch.run(rows(1000), lambda row, became: heard.append(became)))
            await place.asked.wait()
            batch.stopping.set()
            totals = await running
            opened.close()
            timer.close()
            assert totals.stopped == "interrupted"
            assert len(place.requests) == len(heard) < 10
            assert {became and became.word for became in heard} == {"delivered"}

    run(work())
