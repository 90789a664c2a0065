"""The spool's files: order, what is settled, who has them, how much fits, and what a damaged one costs."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from postbackd_client import leftovers
from postbackd_client.files import LOCK_SUFFIX, Held, list_files, log_path
from postbackd_client.memory import Memory
from postbackd_client.segment import Row, Segment
from postbackd_client.spool import Limits, Spool, Taken
from postbackd_client.survey import survey

NOW_S = 1_750_000_000
TRACKER = "0123456789"


def filled(directory: Path, count: int, **limits: object) -> Spool:
    spool = Spool(directory, Limits(**limits), TRACKER)  # type: ignore[arg-type]
    for number in range(count):
        assert spool.append(NOW_S + number, f"p{number}")
    return spool


def take(spool: Spool, limit: int = 100, now_s: float = NOW_S) -> Taken:
    taken = spool.take(now_s, limit)
    assert taken
    return taken


def payloads(rows: list[Row]) -> list[str]:
    return [row.payload for row in rows]


def abandon(spool: Spool) -> None:
    """As a process leaves its files that is killed: nothing is closed, and the locks are gone."""
    (segment,) = spool._segments()
    own = [segment.path, log_path(segment.path), segment.path.with_suffix(LOCK_SUFFIX)]
    for path in own:
        shutil.copyfile(path, path.with_name(f"0-left-{path.name}"))
    spool.close()
    for path in own:
        path.unlink(missing_ok=True)


def test_conversions_are_taken_in_their_order_until_they_are_settled(tmp_path: Path) -> None:
    spool = filled(tmp_path, 5)
    first = take(spool, 2)
    assert payloads(first.rows) == ["p0", "p1"]
    assert take(spool, 2) == first
    spool.settle(first)
    assert payloads(take(spool).rows) == ["p2", "p3", "p4"]
    assert (spool.waiting, spool.oldest_s()) == (3, NOW_S + 2)
    spool.close()


def test_what_is_postponed_waits_alone(tmp_path: Path) -> None:
    spool = filled(tmp_path, 3)
    taken = take(spool)
    spool.settle(taken, [(taken.rows[1], NOW_S + 60.0)])
    assert spool.take(NOW_S, 9) is None
    assert (spool.waiting, spool.next_due_s(), spool.oldest_s()) == (1, NOW_S + 60.0, NOW_S + 1)
    again = take(spool, now_s=NOW_S + 61)
    assert again.rows == [Row(2, NOW_S + 1, "p1", 1)]
    spool.settle(again, [(again.rows[0], NOW_S + 600.0)])
    spool.hasten()
    spool.settle(take(spool))
    assert spool.waiting == 0
    spool.close()


def test_what_an_ended_process_has_left_is_taken_over_by_another(tmp_path: Path) -> None:
    left = filled(tmp_path, 5)
    done = take(left, 2)
    left.settle(done, [(done.rows[0], 0.0)])
    abandon(left)
    heir = filled(tmp_path, 1)
    while heir.adopt():
        pass
    assert heir.waiting == 5
    found = []
    while taken := heir.take(NOW_S, 100):
        found += payloads(taken.rows)
        heir.settle(taken)
    assert sorted(found) == ["p0", "p0", "p2", "p3", "p4"]
    heir.close()
    assert list(tmp_path.iterdir()) == []


def test_nobody_takes_the_files_of_a_living_process(tmp_path: Path) -> None:
    living, other = filled(tmp_path, 3), filled(tmp_path, 1)
    assert not other.adopt()
    with pytest.raises(Held):
        Segment.adopt(next(path for path in tmp_path.glob("*.spool")))
    assert (living.waiting, other.waiting) == (3, 1)
    living.close()
    other.close()


def test_what_was_reported_to_another_tracker_stays_until_somebody_says_that_the_url_has_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    abandon(filled(tmp_path, 3))
    other = Spool(tmp_path, Limits(), "another")
    assert not other.adopt()
    assert (other.leftovers.foreign, other.waiting) == (1, 0)
    assert "drain --any-url" in caplog.text
    other.leftovers.ask(any_tracker=True)
    assert not other.adopt()
    assert payloads(take(other).rows) == ["p0", "p1", "p2"]
    other.close()


def test_of_many_files_a_few_are_taken_at_once_and_the_directory_is_listed_once_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(9):
        filled(tmp_path, 1).close()
    listed: list[Path] = []

    def list_and_note(directory: Path) -> list[Path]:
        listed.append(directory)
        return list_files(directory)

    monkeypatch.setattr(leftovers, "list_files", list_and_note)
    spool, most = Spool(tmp_path, Limits(), TRACKER), 0
    while spool.adopt():
        most = max(most, spool.waiting)
        while taken := spool.take(NOW_S, 100):
            spool.settle(taken)
    assert (most, spool.waiting, len(listed)) == (4, 1, 1)
    spool.close()


def test_a_name_that_was_locked_and_never_used_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / f"1-2-3-{TRACKER}.lock").touch()
    spool = filled(tmp_path, 1)
    assert not spool.adopt()
    assert not (tmp_path / f"1-2-3-{TRACKER}.lock").exists()
    spool.close()


def test_a_large_file_is_followed_by_another_and_removed_when_it_is_done(tmp_path: Path) -> None:
    spool = Spool(tmp_path, Limits(spool_bytes=8 << 18), TRACKER)
    for number in range(1000):
        spool.append(NOW_S, f"{number:0600d}")
        if number % 50 == 0:
            spool.tend()
    files = len(list(tmp_path.glob("*.spool")))
    assert files > 2
    settled = 0
    while taken := spool.take(NOW_S, 100):
        settled += len(taken.rows)
        spool.settle(taken)
    assert settled == 1000
    assert len(list(tmp_path.glob("*.spool"))) == 1
    spool.close()


def test_a_file_that_cannot_be_read_is_set_aside_and_harms_no_other(tmp_path: Path) -> None:
    left = filled(tmp_path, 3)
    left.close()
    path = next(tmp_path.glob("*.spool"))
    path.write_bytes(b"not a database" * 100)
    spool = filled(tmp_path, 2)
    assert not spool.adopt()
    assert spool.leftovers.damaged == 1
    assert len(list(tmp_path.glob("*.spool.damaged"))) == 1
    assert spool.waiting == 2
    spool.close()


def test_a_file_that_cannot_be_opened_now_is_left_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    abandon(filled(tmp_path, 3))
    spool = Spool(tmp_path, Limits(), TRACKER)

    def fail(_path: Path) -> Segment:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as failing:
        failing.setattr(Segment, "adopt", fail)
        assert not spool.adopt()
    assert (spool.leftovers.damaged, spool.waiting) == (0, 0)
    assert not spool.adopt()
    assert spool.waiting == 3
    spool.close()


def test_what_is_reported_is_for_its_owner_only(tmp_path: Path) -> None:
    spool = filled(tmp_path / "made" / "here", 1)
    modes = {path.stat().st_mode & 0o077 for path in [tmp_path / "made" / "here", *spool.directory.iterdir()]}
    assert modes == {0}
    spool.close()


# --- how much fits -------------------------------------------------------------------------------------------


def fill_up(spool: Spool, count: int) -> int:
    """How many found a place."""
    kept = 0
    for number in range(count):
        kept += spool.append(NOW_S, f"{number:0500d}") is not None
        spool.tend()
    return kept


def test_a_full_spool_takes_no_more_than_fits_into_memory_and_counts_what_is_lost(tmp_path: Path) -> None:
    spool = Spool(tmp_path, Limits(spool_bytes=200_000, memory_rows=10), TRACKER)
    kept = fill_up(spool, 400)
    assert kept < 400
    assert spool.memory.waiting == 10
    assert spool.dropped == 400 - kept
    assert payloads(take(spool, 1).rows) == [f"{0:0500d}"]
    spool.close()


def test_the_oldest_give_way_only_when_told_so_and_are_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path, Limits(spool_bytes=200_000, memory_rows=10, drop_oldest=True), TRACKER)
    assert fill_up(spool, 400) == 400
    assert 0 < spool.dropped < 400
    assert spool.waiting == 400 - spool.dropped
    assert payloads(take(spool, 1).rows) == [f"{spool.dropped:0500d}"]
    spool.close()


def test_a_disk_that_takes_nothing_costs_nothing_but_memory(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    directory.write_text("a file where the directory should be")
    spool = filled(directory, 3)
    assert spool.trouble
    assert (spool.waiting, spool.memory.waiting) == (3, 3)
    directory.unlink()
    spool._mended_at = 0.0
    spool.tend()
    assert (spool.trouble, spool.waiting, spool.memory.waiting) == ("", 3, 0)
    assert payloads(take(spool).rows) == ["p0", "p1", "p2"]
    spool.close()


def test_what_memory_alone_holds_at_the_end_is_counted_as_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "spool"
    directory.write_text("a file where the directory should be")
    spool = filled(directory, 3)
    spool.close()
    assert spool.dropped == 3
    assert "3 conversions were in memory only and are lost" in caplog.text


def test_what_memory_holds_at_the_end_goes_to_a_disk_that_takes_it_again(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    directory.write_text("a file where the directory should be")
    spool = filled(directory, 3)
    directory.unlink()
    spool.close()
    assert spool.dropped == 0
    assert [one.waiting for one in survey(directory)] == [3]


def test_what_is_being_sent_from_memory_is_not_moved_to_the_disk_meanwhile(tmp_path: Path) -> None:
    memory = Memory(10)
    for number in range(5):
        memory.append(NOW_S, f"p{number}")
    sending = memory.take(NOW_S, 2)
    segment = Segment.create(tmp_path, TRACKER)
    memory.move_to(segment)
    assert payloads(segment.take(NOW_S, 9)) == ["p2", "p3", "p4"]
    memory.settle(sending[:1])
    memory.settle(sending[1:], [(sending[1], 0.0)])
    assert payloads(memory.take(NOW_S, 9)) == ["p1"]
    segment.close()


def test_what_was_sent_is_not_sent_again_because_the_disk_is_full(tmp_path: Path) -> None:
    """That it is settled cannot be written, and is remembered."""
    spool = filled(tmp_path, 4)
    segment = spool._active
    assert segment
    segment._connection.execute("PRAGMA query_only=ON")
    spool.settle(take(spool, 2))
    assert payloads(take(spool).rows) == ["p2", "p3"]
    taken = take(spool)
    with pytest.raises(sqlite3.Error):
        spool.settle(taken, [(taken.rows[0], NOW_S + 5.0)])
    assert take(spool) == taken
    segment._connection.execute("PRAGMA query_only=OFF")
    spool.close()


def test_a_failed_sync_is_noticed_and_another_file_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kernel does with a write that it could not bring to the disk is out of anybody's hands."""
    spool = filled(tmp_path, 2)

    def fail(_number: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("postbackd_client.segment.sync_file", fail)
    spool.tend()
    assert "Input/output error" in spool.trouble
    monkeypatch.setattr("postbackd_client.segment.sync_file", os.fdatasync)
    spool._mended_at = 0.0
    spool.tend()
    assert spool.append(NOW_S, "p2")
    assert spool.waiting == 3
    assert len(list(tmp_path.glob("*.spool"))) == 2
    spool.close()


# --- looking from outside ------------------------------------------------------------------------------------


def test_a_survey_sees_what_waits_in_files_of_living_and_of_ended_processes(tmp_path: Path) -> None:
    left, living = filled(tmp_path, 3), filled(tmp_path, 5)
    taken = take(living, 3)
    living.settle(taken, [(taken.rows[0], NOW_S + 60.0)])
    abandon(left)
    found = sorted(survey(tmp_path))
    assert [(one.held, one.waiting, one.oldest_s) for one in found] == [(False, 3, NOW_S), (True, 3, NOW_S)]
    assert living.append(NOW_S, "still working")
    assert take(living).rows
    living.close()


def test_whoever_waits_for_the_disk_is_told_when_the_file_is_followed_by_another(tmp_path: Path) -> None:
    spool = Spool(tmp_path, Limits(spool_bytes=8000), TRACKER)
    place = spool.append(NOW_S, "x" * 2000)
    assert place
    assert place.segment
    spool.tend()
    assert spool.append(NOW_S, "y")
    assert len(list(tmp_path.glob("*.spool"))) == 2
    assert place.segment.synced == place.number
    assert place.segment.append(NOW_S, "too late") == 0
    spool.close()
