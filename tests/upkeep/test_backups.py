"""Backups are made at their times, by a process of their own, and a failed one is shouted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from postbackd.backup.files import list_backups, name_at, read_failure
from postbackd.upkeep.backups import BackupSchedule
from tests.commands import run_here
from tests.store.contract import KINDS, World
from tests.trust.server import Server, make_catalog, wait_until

HOUR_MS = 3_600_000
NOW_MS = 1_790_000_000_000


@pytest.fixture
def target(tmp_path: Path) -> Path:
    directory = tmp_path / "backups"
    directory.mkdir()
    return directory


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(KINDS[0], tmp_path / "data")
    made.send(made.click(), "txid=1")
    yield made
    made.close()


def schedule(target: Path, data: Path, now_ms: int = NOW_MS) -> BackupSchedule:
    environment = {"POSTBACKD_DATA": str(data), "POSTBACKD_BACKUP_DIR": str(target), "POSTBACKD_STORE": ""}
    return BackupSchedule(target, data, 24, environment, lambda: now_ms, end_within_s=60)


@pytest.mark.parametrize(
    ("ages_h", "due"),
    [
        ([], True),
        ([23], False),
        ([24], True),
        ([90, 50, 1], False),
        ([-5], True),
        ([30, -5], True),
        ([2, -5], False),
    ],
)
def test_one_is_due_when_the_newest_is_old_enough(target: Path, ages_h: list[int], due: bool) -> None:
    for age_h in ages_h:
        (target / name_at(NOW_MS - age_h * HOUR_MS)).touch()
    assert schedule(target, target).is_due() is due


def test_a_directory_that_is_gone_is_tried_and_shouted(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = schedule(tmp_path / "gone", world.directory)
    assert gone.is_due()
    with caplog.at_level(logging.ERROR):
        assert asyncio.run(gone.make()) is False
    assert "NO BACKUP WAS MADE: there is no directory" in caplog.text
    failure = read_failure(world.directory)
    assert failure is not None
    assert failure.at_ms == NOW_MS
    assert "mount the disk" in failure.reason


def test_a_backup_forgets_the_failure_before(world: World, target: Path) -> None:
    (world.directory / "backup.failed").write_text(f"{NOW_MS} no space\n")
    assert asyncio.run(schedule(target, world.directory).make()) is True
    assert read_failure(world.directory) is None
    assert len(list_backups(target)) == 1


def test_a_cancelled_schedule_ends_its_process(world: World, target: Path) -> None:
    async def work() -> None:
        keeping = asyncio.create_task(schedule(target, world.directory).keep())
        lock = world.directory / "backup.lock"
        await asyncio.to_thread(wait_until, lock.exists, 20, "the beginning of a backup")
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)

    asyncio.run(work())
    assert not (world.directory / "backup-scratch").exists()


def test_a_server_makes_backups_by_itself(tmp_path: Path, target: Path) -> None:
    make_catalog(tmp_path / "data", run=run_here)
    with Server(tmp_path / "data", env={"POSTBACKD_BACKUP_DIR": str(target)}) as server:
        wait_until(lambda: list_backups(target), 30, "a backup")
        assert server.status("/readyz") == 200
        assert server.stop() == 0
    assert not (tmp_path / "data" / "backup.failed").exists()


@pytest.mark.parametrize(
    ("directory", "key", "words"),
    [("gone", None, "there is no directory"), (".", "gone.key", "cannot read the key file")],
)
def test_whoever_starts_a_server_hears_that_no_backups_can_be_made(
    tmp_path: Path, directory: str, key: str | None, words: str
) -> None:
    settings = {"POSTBACKD_BACKUP_DIR": str(tmp_path / directory)}
    if key is not None:
        settings["POSTBACKD_BACKUP_KEY_FILE"] = str(tmp_path / key)
    with Server(tmp_path / "data", env=settings) as server:
        assert server.status("/readyz") == 200
        assert server.stop() == 0
        assert f"NO BACKUPS WILL BE MADE: {words}" in server.stderr_path.read_text()
