"""What only the embedded store has: files, locks, failing disks, the log beside the database."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from postbackd.store import sqlite_file
from postbackd.store.base import Batch, StoreRefused, StoreUnavailable
from postbackd.store.sqlite import SqliteStore
from postbackd.store.sqlite_file import APPLICATION_ID, FILE_NAME, TOUCH, migrations
from tests.store.contract import KINDS, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    (kind,) = [kind for kind in KINDS if kind.name == "sqlite"]
    made = World(kind, tmp_path / "data")
    yield made
    made.close()


def store_of(world: World) -> SqliteStore:
    assert isinstance(world.store, SqliteStore)
    return world.store


NOBODY = 65_534

# --- files --------------------------------------------------------------------------------------------------


def test_nobody_else_can_read_any_file_of_the_database(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    before = os.umask(0o022)
    try:
        store = asyncio.run(SqliteStore.open(shared, create=True))
    finally:
        os.umask(before)
    store.connection.execute(TOUCH)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in shared.iterdir()}
    assert {name.removeprefix(FILE_NAME) for name in modes} == {"", "-wal", "-shm"}
    assert set(modes.values()) == {0o600}
    asyncio.run(store.close())


def test_a_directory_that_is_made_is_ours_alone(world: World) -> None:
    assert stat.S_IMODE(world.directory.stat().st_mode) == 0o700


def test_commits_are_synced_and_foreign_keys_hold(world: World) -> None:
    db = store_of(world).connection
    assert (db.pragma("journal_mode"), db.pragma("synchronous"), db.pragma("foreign_keys")) == ("wal", 2, 1)
    assert db.pragma("application_id") == APPLICATION_ID
    assert world.run(world.store.examine())["integrity"] == "ok"


# --- refused starts -----------------------------------------------------------------------------------------


def refusal(directory: Path, *, create: bool = True) -> str:
    """The one line with which opening is refused."""
    with pytest.raises(StoreRefused) as refused:
        asyncio.run(SqliteStore.open(directory, create=create, busy_timeout_ms=0))
    line = str(refused.value)
    assert "\n" not in line
    return line


def test_without_leave_to_create_a_missing_database_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    assert "no database in" in refusal(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("content", [b"garbage, not a database. " * 400, b"\x00" * 8192, b"xyz"])
@pytest.mark.parametrize("create", [True, False])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(
    tmp_path: Path, content: bytes, create: bool
) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(content)
    assert "not a postbackd database" in refusal(tmp_path, create=create)
    assert path.read_bytes() == content


def test_the_database_of_another_program_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    other = apsw.Connection(str(path))
    other.execute("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)")
    other.close()
    before = path.read_bytes()
    assert "belongs to another program" in refusal(tmp_path)
    assert path.read_bytes() == before


def test_a_newer_schema_is_refused_and_left_as_it_is(world: World) -> None:
    world.run(world.store.close())
    path = world.directory / FILE_NAME
    newer = apsw.Connection(str(path))
    newer.pragma("user_version", 999)
    newer.close()
    before = path.read_bytes()
    assert "newer postbackd (schema 999" in refusal(world.directory)
    assert path.read_bytes() == before
    older = apsw.Connection(str(path))
    older.pragma("user_version", len(migrations()))
    older.close()
    world.store = world.run(world.kind.open(world.directory))


def test_an_old_schema_is_migrated_only_with_leave(world: World) -> None:
    store_of(world).connection.pragma("user_version", 0)
    world.run(world.store.close())
    assert "start 'postbackd serve' once" in refusal(world.directory, create=False)
    db = apsw.Connection(str(world.directory / FILE_NAME))
    db.pragma("user_version", len(migrations()))
    db.close()
    world.store = world.run(world.kind.open(world.directory))


def test_a_directory_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    assert "make the file and its folder writable" in refusal(tmp_path)


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "check the path and its owner" in refusal(tmp_path / "file")


def test_a_folder_that_cannot_be_written_is_refused() -> None:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(NOBODY)  # root may write everywhere
        assert "writable" in refusal(folder)
    finally:
        if root:
            os.seteuid(0)
        folder.rmdir()


def test_a_database_that_another_program_keeps_to_itself_is_refused(world: World) -> None:
    world.run(world.store.close())
    greedy = apsw.Connection(str(world.directory / FILE_NAME))
    greedy.pragma("locking_mode", "exclusive")
    greedy.execute("BEGIN EXCLUSIVE")
    assert "locked by another program" in refusal(world.directory)
    greedy.execute("ROLLBACK")
    greedy.close()
    world.store = world.run(world.kind.open(world.directory))


def test_a_database_cut_short_is_refused_or_unavailable_and_never_empty(world: World, tmp_path: Path) -> None:
    world.send(world.click(), "txid=T")
    world.run(world.store.close())
    broken = tmp_path / "broken"
    shutil.copytree(world.directory, broken)
    path = broken / FILE_NAME
    path.write_bytes(path.read_bytes()[:4096])
    world.store = world.run(world.kind.open(world.directory))
    with pytest.raises((StoreRefused, StoreUnavailable)):
        _use(broken)


def _use(directory: Path) -> None:
    store = asyncio.run(SqliteStore.open(directory, create=True))
    try:
        asyncio.run(store.load_catalog())
    finally:
        asyncio.run(store.close())


def test_an_sqlite_with_the_known_bug_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "_version_of_sqlite", lambda: (3, 40, 1))
    assert "can corrupt databases" in refusal(tmp_path)


# --- failing writes -----------------------------------------------------------------------------------------


@contextmanager
def full_disk(world: World) -> Iterator[None]:
    """No further page fits into the database while this lasts."""
    db = store_of(world).connection
    db.pragma("max_page_count", db.pragma("page_count"))
    yield


@contextmanager
def locked(world: World) -> Iterator[None]:
    """Another program writes and does not end."""
    store = store_of(world)
    store._busy_timeout_ms = 5
    store.connection.set_busy_timeout(5)
    other = apsw.Connection(str(world.directory / FILE_NAME))
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()
    store._busy_timeout_ms = 5000


def fill(world: World) -> None:
    """More than the free space of the pages that exist."""
    click = world.click()
    world.settle(*(world.make(click, f"txid={'x' * 100}{n}") for n in range(400)))


def test_a_full_disk_is_unavailable_stores_nothing_of_the_batch_and_recovers(world: World) -> None:
    click = world.click()
    first = world.send(click, "txid=T")
    before = len(world.query("log", limit=1000))
    with full_disk(world), pytest.raises(StoreUnavailable, match="Full"):
        fill(world)
    world.run(world.store.recover())
    assert len(world.query("log", limit=1000)) == before
    assert world.send(click, "txid=T") == ("duplicate", "", first.conversion)
    fill(world)


def test_a_locked_database_is_unavailable_and_goes_on_when_it_is_free(world: World) -> None:
    click = world.click()
    with locked(world), pytest.raises(StoreUnavailable, match="locked"):
        world.send(click, "txid=T")
    world.run(world.store.recover())
    assert world.send(click, "txid=T").verdict == "accepted"


def test_recovering_is_refused_while_the_database_is_locked(world: World) -> None:
    with locked(world), pytest.raises(StoreUnavailable):
        world.run(world.store.recover())
    world.run(world.store.recover())
    assert world.send(world.click(), "txid=T").verdict == "accepted"


def test_after_a_failed_write_nothing_is_acknowledged_before_the_store_has_recovered(world: World) -> None:
    click = world.click()
    with full_disk(world), pytest.raises(StoreUnavailable):
        fill(world)
    store_of(world).connection.pragma("max_page_count", 1 << 30)
    with pytest.raises(StoreUnavailable):
        world.send(click, "txid=T")
    world.run(world.store.recover())
    assert world.send(click, "txid=T").verdict == "accepted"


def test_after_a_failed_recovery_every_verb_says_unavailable_and_a_later_recovery_succeeds(
    world: World,
) -> None:
    click = world.click()
    with full_disk(world), pytest.raises(StoreUnavailable):
        fill(world)
    away = world.directory.with_name("away")
    world.directory.rename(away)
    with pytest.raises(StoreUnavailable):
        world.run(world.store.recover())
    for verb in (
        lambda: world.send(click, "txid=T"),
        lambda: world.run(world.store.catalog_generation()),
        lambda: world.query("log"),
    ):
        with pytest.raises(StoreUnavailable):
            verb()
    away.rename(world.directory)
    world.run(world.store.recover())
    assert world.send(click, "txid=T").verdict == "accepted"


def test_a_purge_of_a_full_disk_is_unavailable_and_not_a_crash(world: World) -> None:
    with locked(world), pytest.raises(StoreUnavailable):
        world.run(world.store.purge(world.now_ms, 10))


# --- syncing beside the event loop --------------------------------------------------------------------------


def test_commits_are_answered_after_the_log_was_synced_beside(world: World) -> None:
    click = world.click()
    postbacks = [world.make(click, f"txid={n}") for n in range(20)]

    async def serve() -> list[str]:
        store = store_of(world)
        store.sync_beside()
        batches = [Batch((), [postback]) for postback in postbacks]
        written = await asyncio.gather(*(store.write(batch, world.rulebook) for batch in batches))
        return [w.outcomes[0].verdict.word for w in written]

    assert world.run(serve()) == ["accepted"] * 20
    world.run(world.store.recover())
    assert world.send(click, "txid=0").verdict == "duplicate"


def test_a_sync_that_fails_is_unavailable_and_the_store_recovers(world: World) -> None:
    click = world.click()
    postback = world.make(click, "txid=T")

    async def serve() -> str:
        store = store_of(world)
        store.sync_beside()
        assert store._log_sync is not None
        healthy, store._log_sync._file = store._log_sync._file, os.open("/dev/null", os.O_RDWR)
        try:
            with pytest.raises(StoreUnavailable):
                await store.write(Batch((), [postback]), world.rulebook)
            with pytest.raises(StoreUnavailable):
                await store.write(Batch((), [world.make(click, "txid=U")]), world.rulebook)
        finally:
            os.close(healthy)
        await store.recover()
        again = await store.write(Batch((), [world.make(click, "txid=T")]), world.rulebook)
        return again.outcomes[0].verdict.word

    assert world.run(serve()) in ("accepted", "duplicate")


def test_waiting_for_another_writer_does_not_stop_the_event_loop(world: World) -> None:
    click = world.click()
    other = apsw.Connection(str(world.directory / FILE_NAME))
    other.execute("BEGIN IMMEDIATE")
    postback = world.make(click, "txid=T")

    async def serve() -> str:
        store = store_of(world)
        store.sync_beside()
        writing = asyncio.ensure_future(store.write(Batch((), [postback]), world.rulebook))
        finished, _ = await asyncio.wait([writing], timeout=0.05)
        other.execute("ROLLBACK")
        assert not finished
        return (await writing).outcomes[0].verdict.word

    assert world.run(serve()) == "accepted"
    other.close()


# --- checkpoints --------------------------------------------------------------------------------------------


def test_a_long_log_is_copied_into_the_database_and_starts_over(world: World) -> None:
    store = store_of(world)
    store._log._most_pages = 50
    fill(world)
    wants = [store.wants_checkpoint]
    world.run(store.checkpoint())
    wants.append(store.wants_checkpoint)
    assert wants == [True, False]
    size = (world.directory / f"{FILE_NAME}-wal").stat().st_size
    world.send(world.click(), "txid=T")
    assert (world.directory / f"{FILE_NAME}-wal").stat().st_size == size


def test_a_write_during_the_checkpoint_that_lets_the_log_start_over_waits_and_is_stored(world: World) -> None:
    store = store_of(world)
    store._log._most_pages = 50
    fill(world)
    click = world.click()
    postback = world.make(click, "txid=T")

    async def both() -> tuple[str, bool]:
        copying = asyncio.ensure_future(store.checkpoint())
        while not store._turn.locked():
            assert not copying.done()
            await asyncio.sleep(0)
        written = await store.write(Batch((), [postback]), world.rulebook)
        return written.outcomes[0].verdict.word, copying.done()

    assert world.run(both()) == ("accepted", True)
    assert (world.directory / f"{FILE_NAME}-wal").stat().st_size > 50 * 4096
    assert store._log._pages < 50, "the log did not start over"


def test_a_checkpoint_with_a_reader_in_the_way_is_no_failure(world: World) -> None:
    fill(world)
    reader = apsw.Connection(str(world.directory / FILE_NAME))
    reader.execute("BEGIN; SELECT count(*) FROM postbacks").fetchall()
    world.run(store_of(world).checkpoint())
    fill(world)
    reader.execute("COMMIT")
    reader.close()
    world.run(store_of(world).checkpoint())


def lose_what_a_checkpoint_copies(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint whose sync fails, on a disk that then has what it had before."""
    path = world.directory / FILE_NAME
    before = world.directory.parent / "before"
    world.run(store_of(world).checkpoint())
    subprocess.run(["cp", path, before], check=True)  # a process of its own: see Checkpoint.release
    fill(world)

    def fail(_file: int) -> None:
        raise OSError(errno.EIO, "the disk failed")

    with monkeypatch.context() as patch:
        patch.setattr("postbackd.store.checkpoint.os.fdatasync", fail)
        with pytest.raises(StoreUnavailable, match="the disk failed"):
            world.run(store_of(world).checkpoint())
    subprocess.run(["cp", before, path], check=True)


@contextmanager
def another_program_reads(world: World) -> Iterator[None]:
    program = (
        "import apsw, sys\n"
        "db = apsw.Connection(sys.argv[1])\n"
        "db.execute('SELECT count(*) FROM postbacks').fetchall()\n"
        "print('open', flush=True)\n"
        "input()\n"
    )
    command = [sys.executable, "-c", program, str(world.directory / FILE_NAME)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdin is not None
        assert reader.stdout.readline() == b"open\n"
        yield
        reader.stdin.write(b"\n")


def test_what_a_failed_checkpoint_copied_is_copied_again_before_anything_is_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with another_program_reads(world):
        lose_what_a_checkpoint_copies(world, monkeypatch)
        with pytest.raises(StoreUnavailable, match="not recovered"):
            world.send(world.click(), "txid=T")
        with pytest.raises(StoreUnavailable, match="end other programs"):
            world.run(world.store.recover())
    world.run(world.store.recover())
    assert store_of(world).connection.pragma("integrity_check") == "ok"
    assert store_of(world).connection.execute("SELECT count(*) FROM conversions").get == 400


def test_what_a_failed_checkpoint_copied_is_copied_again_after_a_new_start(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_what_a_checkpoint_copies(world, monkeypatch)
    world.run(world.store.close())
    world.store = asyncio.run(SqliteStore.open(world.directory, create=False))
    assert store_of(world).connection.pragma("integrity_check") == "ok"
    assert store_of(world).connection.execute("SELECT count(*) FROM conversions").get == 400


def test_control_without_copying_again_the_database_is_damaged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with another_program_reads(world):
        lose_what_a_checkpoint_copies(world, monkeypatch)
        store_of(world)._log.failed, store_of(world)._failed = False, True
        with pytest.raises(StoreUnavailable, match="malformed"):
            world.run(world.store.recover())


def test_a_page_that_the_disk_did_not_take_while_it_was_handed_over_counts_as_a_failed_copy(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_range: int) -> int:
        ctypes.set_errno(errno.EIO)
        return -1

    fill(world)
    with monkeypatch.context() as patch:
        patch.setattr("postbackd.store.checkpoint._sync_file_range", fail)
        with pytest.raises(StoreUnavailable, match="Input/output error"):
            world.run(store_of(world).checkpoint())
    with pytest.raises(StoreUnavailable, match="not recovered"):
        world.send(world.click(), "txid=T")
    world.run(world.store.recover())
    assert world.send(world.click(), "txid=T").verdict == "accepted"


def test_a_checkpoint_that_is_cancelled_ends_first_and_its_failure_is_known(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(world)
    fill(world)
    begun, may_end = threading.Event(), threading.Event()

    def fail(_file: int) -> None:
        begun.set()
        may_end.wait(10)
        raise OSError(errno.EIO, "the disk failed")

    async def cancel() -> tuple[bool, bool]:
        copying = asyncio.ensure_future(store.checkpoint())
        assert await asyncio.to_thread(begun.wait, 10)
        copying.cancel()
        await asyncio.sleep(0)
        held = store._copying.locked()
        may_end.set()
        await asyncio.wait([copying])
        return held, copying.cancelled()

    with monkeypatch.context() as patch:
        patch.setattr("postbackd.store.checkpoint.os.fdatasync", fail)
        assert world.run(cancel()) == (True, True)
    assert store._log.failed


def test_a_reader_that_keeps_the_log_keeps_no_writer_waiting(world: World) -> None:
    store = store_of(world)
    store._log._most_pages = 50
    reader = apsw.Connection(str(world.directory / FILE_NAME))
    reader.execute("BEGIN; SELECT count(*) FROM postbacks").fetchall()
    fill(world)

    async def copy() -> bool:
        await store._turn.acquire()  # a writer at work: the checkpoint must not wait for it
        await asyncio.wait_for(store.checkpoint(), 10)
        store._turn.release()
        return store._log.overlong

    assert world.run(copy())
    reader.close()
    world.run(store.checkpoint())
    world.send(world.click(), "txid=T")
    assert not store._log.overlong


def test_a_database_that_was_replaced_is_not_written_to(world: World) -> None:
    fill(world)
    world.run(store_of(world).checkpoint())
    path, away = world.directory / FILE_NAME, world.directory / "away"
    path.rename(away)
    shutil.copy(away, path)
    fill(world)
    with pytest.raises(StoreUnavailable, match="not the file that was opened"):
        world.run(store_of(world).checkpoint())
    with pytest.raises(StoreUnavailable, match="not the file that was opened"):
        world.run(world.store.recover())
    away.rename(path)
    world.run(world.store.recover())
    assert store_of(world).connection.execute("SELECT count(*) FROM conversions").get == 800


def test_a_recovery_without_the_database_keeps_its_log(world: World) -> None:
    fill(world)
    store_of(world)._failed = True
    path = world.directory / FILE_NAME
    log = world.directory / f"{FILE_NAME}-wal"
    before = log.read_bytes()
    path.rename(world.directory / "away")
    with pytest.raises(StoreUnavailable):
        world.run(world.store.recover())
    assert log.read_bytes() == before
    assert not path.exists()
    (world.directory / "away").rename(path)
    world.run(world.store.recover())
    assert store_of(world).connection.execute("SELECT count(*) FROM conversions").get == 400


def test_a_log_whose_name_is_not_on_the_disk_is_not_written_to(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_file: int) -> None:
        raise OSError(errno.EIO, "the disk failed")

    store_of(world)._failed = True
    with monkeypatch.context() as patch:
        patch.setattr("postbackd.store.sqlite_file.os.fsync", fail)
        with pytest.raises(StoreUnavailable, match="the disk failed"):
            world.run(world.store.recover())
        with pytest.raises(StoreUnavailable, match="not recovered"):
            world.send(world.click(), "txid=T")
        with pytest.raises(StoreRefused, match="the disk failed"):
            asyncio.run(SqliteStore.open(world.directory, create=True))
    world.run(world.store.recover())
    assert world.send(world.click(), "txid=T").verdict == "accepted"


def test_a_lock_that_is_gone_needs_no_readers_to_leave(world: World) -> None:
    click = world.click()
    reader = apsw.Connection(str(world.directory / FILE_NAME))
    reader.execute("BEGIN; SELECT count(*) FROM postbacks").fetchall()
    fill(world)
    with locked(world), pytest.raises(StoreUnavailable):
        world.send(click, "txid=T")
    world.run(world.store.recover())
    assert world.send(click, "txid=T").verdict == "accepted"
    reader.close()


def test_copying_leaves_the_processor_to_the_event_loop(world: World) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    fill(world)
    world.run(store_of(world).checkpoint())
    threads = [thread.native_id for thread in store_of(world)._log._gentle._threads]
    assert [os.getpriority(os.PRIO_PROCESS, thread) for thread in threads if thread] == [19]
    assert os.getpriority(os.PRIO_PROCESS, 0) == own


def test_the_log_is_not_copied_in_the_middle_of_a_commit(world: World) -> None:
    assert store_of(world).connection.pragma("wal_autocheckpoint") == 0


# --- unsafe switches of the trust campaign ------------------------------------------------------------------


def test_the_unsafe_switches_do_what_their_names_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTBACKD_UNSAFE_SYNC", "off")
    monkeypatch.setenv("POSTBACKD_UNSAFE_NO_UNIQUE", "1")
    (kind,) = [kind for kind in KINDS if kind.name == "sqlite"]
    world = World(kind, tmp_path / "data")
    assert store_of(world).connection.pragma("synchronous") == 0
    click = world.click()
    assert [world.send(click, "txid=T").verdict for _ in range(2)] == ["accepted", "accepted"]
    world.close()


def test_a_limit_of_file_size_is_unavailable_and_not_the_end_of_the_process(world: World) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (world.directory / f"{FILE_NAME}-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        with pytest.raises(StoreUnavailable):
            fill(world)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    world.run(world.store.recover())
    fill(world)
