"""A spool in which something is broken: what is whole is sent all the same, and what is not is kept for people."""

from __future__ import annotations

import errno
import os
import sqlite3
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from postbackd_client import Client, Conversion, dead
from postbackd_client.endpoint import read_endpoint
from postbackd_client.files import LOCK_SUFFIX
from postbackd_client.payload import encode
from postbackd_client.segment import Row, Segment
from postbackd_client.spool import Limits, Spool
from postbackd_client.survey import survey
from tests.client.test_client import DEADLINE_S, SOON, client_of
from tests.client.tracker import Tracker

NOW_S = 1_750_000_000


def left(url: str, directory: Path, *click_ids: str) -> Path:
    """A file of an ended process with these conversions in it."""
    client = Client("http://127.0.0.1:9/p/KEY", spool=directory, schedule=SOON)
    for click_id in click_ids:
        client.conversion(click_id, transaction_id=f"T-{click_id}")
    client.close(0)
    (path,) = directory.glob("*.spool")
    fingerprint = read_endpoint(url).fingerprint
    mine = path.with_name(f"{path.stem.rpartition('-')[0]}-{fingerprint}{path.suffix}")
    path.with_suffix(LOCK_SUFFIX).rename(mine.with_suffix(LOCK_SUFFIX))
    return path.rename(mine)


def change(path: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement, values)
    connection.close()


def sent(tracker: Tracker) -> list[str]:
    return sorted(
        word
        for one in tracker.asked
        for word in one.body.decode("utf-8", "replace").split("&")
        if "txid" in word
    )


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM progress",
        "UPDATE progress SET settled = 'x'",
        "UPDATE progress SET settled = 99",
        "DROP TABLE later",
    ],
)
def test_a_file_that_says_nonsense_of_itself_is_kept_aside_and_the_others_are_sent(
    tracker: Tracker, tmp_path: Path, statement: str
) -> None:
    damaged = left(tracker.url(), tmp_path, "a")
    change(damaged, statement)
    with client_of(tracker.url(), tmp_path) as client:
        client.conversion("b", transaction_id="T-b")
        assert client.drain(DEADLINE_S)
        assert client.statistics().damaged == 1
    assert sent(tracker) == ["txid=T-b"]
    assert [path.name for path in tmp_path.glob("*.spool.damaged")] == [f"{damaged.name}.damaged"]


def test_a_text_of_damaged_bytes_is_kept_as_dead_and_the_others_are_sent(
    tracker: Tracker, tmp_path: Path
) -> None:
    path = left(tracker.url(), tmp_path, "a", "b", "c")
    change(
        path, "UPDATE waiting SET payload = CAST(x'7b22636c69636b5f6964223a22ff227d' AS TEXT) WHERE id = 2"
    )
    with client_of(tracker.url(), tmp_path) as client:
        assert client.drain(DEADLINE_S)
    assert sent(tracker) == ["txid=T-a", "txid=T-c"]
    (entry,) = dead.entries(tmp_path)
    assert entry["conversion"] == {"click_id": "\udcff"}


def test_damaged_bytes_in_a_batch_spoil_themselves_alone(tracker: Tracker, tmp_path: Path) -> None:
    path = left(tracker.url(), tmp_path, *(f"c{number}" for number in range(12)))
    change(path, "UPDATE waiting SET payload = CAST(x'ff' AS TEXT) WHERE id = 5")
    with client_of(tracker.url(), tmp_path) as client:
        assert client.drain(DEADLINE_S)
        assert client.statistics().dead == 1
    assert len(sent(tracker)) == 11


def test_a_file_whose_pages_are_damaged_is_noticed_while_it_is_read(tracker: Tracker, tmp_path: Path) -> None:
    path = left(tracker.url(), tmp_path, *(f"click-{number:040d}" for number in range(100)))
    raw = bytearray(path.read_bytes())
    raw[4096 : 4096 + 8 * 1024] = b"\xa5" * (8 * 1024)
    path.write_bytes(raw)
    with client_of(tracker.url(), tmp_path) as client:
        client.conversion("b", transaction_id="T-b")
        assert client.drain(DEADLINE_S)
        assert client.statistics().damaged == 1
    assert "txid=T-b" in sent(tracker)
    assert list(tmp_path.glob("*.spool.damaged"))


def test_rows_that_are_out_of_order_are_not_sent_over_and_over(tracker: Tracker, tmp_path: Path) -> None:
    """A leaf of zeros reads as rows of the number 0."""
    path = left(tracker.url(), tmp_path, *(f"c{number}" for number in range(100)))
    raw = bytearray(path.read_bytes())
    page = next(at for at in range(2048, len(raw), 1024) if b'"c40"' in raw[at : at + 1024])
    (cells,) = struct.unpack_from(">H", raw, page + 3)
    for cell in range(cells):
        struct.pack_into(">H", raw, page + 8 + 2 * cell, 8 + 2 * cells)
    raw[page + 8 + 2 * cells : page + 1024] = b"\0" * (1024 - 8 - 2 * cells)
    path.write_bytes(raw)
    with client_of(tracker.url("/p/KEY"), tmp_path) as client:
        assert client.drain(DEADLINE_S)
        assert client.statistics().damaged == 1
    assert "txid=T-c0" in sent(tracker)
    assert max(Counter(sent(tracker)).values()) == 1


def test_a_survey_counts_what_it_cannot_read(tracker: Tracker, tmp_path: Path) -> None:
    change(left(tracker.url(), tmp_path, "a"), "DELETE FROM progress")
    assert [one.unreadable for one in survey(tmp_path)] == [True]


def test_a_file_that_has_lost_its_lock_is_sent(tracker: Tracker, tmp_path: Path) -> None:
    left(tracker.url(), tmp_path, "a").with_suffix(LOCK_SUFFIX).unlink()
    with client_of(tracker.url(), tmp_path) as client:
        assert client.drain(DEADLINE_S)
    assert sent(tracker) == ["txid=T-a"]
    assert not list(tmp_path.glob("*.spool"))


def test_what_an_ended_process_has_left_is_sent_before_anybody_reports(
    tracker: Tracker, tmp_path: Path
) -> None:
    left(tracker.url(), tmp_path, "a")
    with client_of(tracker.url(), tmp_path) as client:
        with client._works._sender.progress:  # type: ignore[union-attr]
            assert client._works._sender.progress.wait_for(lambda: tracker.asked, DEADLINE_S)  # type: ignore[union-attr]
        assert client.statistics().reported == 0
    with client_of(tracker.url(), tmp_path) as quiet:
        assert not quiet._works._running  # type: ignore[union-attr]


def test_what_was_postponed_by_a_clock_that_was_wrong_is_sent_when_it_is_right(tmp_path: Path) -> None:
    spool = Spool(tmp_path, Limits(), "0123456789")
    spool.append(NOW_S, "p")
    taken = spool.take(NOW_S, 1)
    assert taken
    spool.settle(taken, [(taken.rows[0], NOW_S + 86_400 * 365)])
    again = spool.take(NOW_S, 1)
    assert again
    assert again.rows[0].payload == "p"
    spool.settle(again, [(again.rows[0], NOW_S + 3_600)])
    assert spool.take(NOW_S, 1) is None
    spool.close()


def test_a_disk_that_is_full_when_the_tracker_is_back_sends_nothing_twice(
    tmp_path: Path,
) -> None:
    segment = Segment.create(tmp_path, "0123456789")
    segment.append(NOW_S, "p")
    segment.settle([Row(1, NOW_S, "p", 0)], [(Row(1, NOW_S, "p", 0), NOW_S + 60.0)])
    segment._connection.execute("PRAGMA query_only=ON")
    segment.hasten()
    assert segment.next_due_s == NOW_S + 60
    segment._connection.execute("PRAGMA query_only=OFF")
    segment.hasten()
    assert segment.next_due_s == 0
    segment.close()


# --- dead.ndjson ------------------------------------------------------------------------------------------------------


def test_a_line_that_was_cut_spoils_no_other(tmp_path: Path) -> None:
    payload = encode(Conversion("a"))
    dead.bury(tmp_path, NOW_S, "one", 404, payload)
    with (tmp_path / dead.NAME).open("ab") as file:
        file.write(b'{"at":1,"conv')
    dead.bury(tmp_path, NOW_S, "two", 404, payload)
    assert [entry["reason"] for entry in dead.entries(tmp_path)] == ["one", "two"]


def test_a_dead_conversion_that_fits_only_in_part_is_not_taken_for_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write: Callable[[int, bytes], int] = os.write
    monkeypatch.setattr(os, "write", lambda number, raw: write(number, raw[:10]))
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        dead.bury(tmp_path, NOW_S, "one", 404, encode(Conversion("a")))


def test_a_full_disk_sends_what_was_postponed_once_and_holds_up_nobody(tmp_path: Path) -> None:
    segment = Segment.create(tmp_path, "0123456789")
    for payload in ("late", "later", "fresh"):
        segment.append(NOW_S, payload)
    rows = segment.take(NOW_S, 2)
    segment.settle(rows, [(row, NOW_S + row.number) for row in rows])
    segment._connection.execute("PRAGMA query_only=ON")
    seen = []
    while not segment.is_finished:
        (row,) = segment.take(NOW_S + 60, 1)
        segment.settle([row])
        seen.append(row.payload)
    assert seen == ["late", "later", "fresh"]
    assert segment.next_due_s == float("inf")
    segment._connection.execute("PRAGMA query_only=OFF")
    segment.close()
