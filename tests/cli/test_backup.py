"""Backups are made beside a server, proven, and put back to a new place; what goes wrong leaves nothing half-made."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from postbackd.backup.files import name_at
from postbackd.core.model import Channel
from postbackd.locks import LOCK_NAME, lock_data
from tests.cli.conftest import Run
from tests.store.contract import KINDS, World

_TIMEOUT_S = 60


@pytest.fixture
def world(data: Path) -> Iterator[World]:
    made = World(KINDS[0], data)
    clicks = [made.make_click(subs=(f"sub {number}",)) for number in range(300)]
    made.write(clicks)
    made.settle(*(made.make(c, f"txid=T{n}&value={n}.25&status=pending") for n, c in enumerate(clicks)))
    made.send(made.click(), "value=6", channel=Channel.PIXEL)
    yield made
    made.close()


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "backups"
    directory.mkdir()
    monkeypatch.setenv("POSTBACKD_BACKUP_DIR", str(directory))
    return directory


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text("correct horse battery staple")
    return path


def only(directory: Path) -> Path:
    """The one file of a directory, half-made ones too."""
    (path,) = directory.iterdir()
    return path


def contents(database: Path) -> dict[str, list[Any]]:
    db = apsw.Connection(str(database))
    try:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {name: sorted(db.execute(f"SELECT * FROM {name}"), key=repr) for name in tables}
    finally:
        db.close()


def test_a_backup_is_restored_row_for_row(
    run: Run, world: World, data: Path, target: Path, tmp_path: Path
) -> None:
    made = run("backup", "--json").json
    assert made["path"] == str(only(target))
    assert made["tables"]["conversions"] == 301
    assert only(target).stat().st_mode & 0o777 == 0o600
    assert "sound" in run("backup", "verify", made["path"]).out
    restored = run("restore", made["path"], "--to", str(tmp_path / "new"), "--json").json
    assert restored["money"] == made["money"]
    assert contents(tmp_path / "new" / "postbackd.db") == contents(data / "postbackd.db")
    assert (tmp_path / "new" / "postbackd.db").stat().st_mode & 0o777 == 0o600
    assert not (data / "backup-scratch").exists()


def test_what_is_written_meanwhile_is_not_in_it_and_does_not_disturb_it(
    world: World, data: Path, tmp_path: Path
) -> None:
    from postbackd.store.sqlite_snapshot import copy_snapshot

    world.store.connection.wal_autocheckpoint(0)  # type: ignore[attr-defined]
    before = contents(data / "postbackd.db")
    steps = 0
    for _ in copy_snapshot(data / "postbackd.db", tmp_path / "copy"):
        world.send(world.click(), f"txid=M{steps}&value=1")
        steps += 1
    assert steps >= 1
    assert contents(tmp_path / "copy") == before


def test_nothing_is_ever_overwritten(run: Run, world: World, data: Path, target: Path) -> None:
    made = run("backup", "--json").json
    before = (data / "postbackd.db").read_bytes()
    assert "nothing is ever overwritten" in run("restore", made["path"], "--to", str(data), code=1).err
    assert (data / "postbackd.db").read_bytes() == before


def test_older_backups_go_when_a_new_one_is_sound(run: Run, world: World, target: Path) -> None:
    old = [target / name_at(1_700_000_000_000 + number * 1000) for number in range(3)]
    for path in old:
        path.write_bytes(b"old")
    (target / "mine.backup").write_bytes(b"not ours")
    ran = run("backup", "--backup-keep", "2", "--json").json
    assert ran["removed"] == [str(path) for path in old[:2]]
    assert old[2].exists()
    assert (target / "mine.backup").exists()
    assert run("backup", "list", "--json").json[-1]["path"] == ran["path"]


def test_a_failed_backup_removes_nothing(run: Run, world: World, data: Path, target: Path) -> None:
    old = target / name_at(1_700_000_000_000)
    old.write_bytes(b"old")
    world.store.connection.execute(  # type: ignore[attr-defined]
        "UPDATE conversions SET value_micros = 7 WHERE transaction_id = 'T7'"
    )
    ran = run("backup", "--backup-keep", "1", code=1)
    assert "the database is damaged" in ran.err
    assert "value_micros 7" in ran.err
    assert ran.err.count("\n") == 1
    assert only(target) == old


def test_after_one_flipped_bit_was_accepted_there_are_backups_again_and_the_doctor_tells_it(
    run: Run, world: World, target: Path
) -> None:
    db = world.store.connection  # type: ignore[attr-defined]
    db.execute("UPDATE conversions SET value_micros = 7 WHERE transaction_id = 'T7'")
    assert "run 'postbackd verify'" in run("backup", code=1).err
    ran = run("verify", "--json", code=1)
    conversion = ran.json["findings"][0]["conversion"]
    assert "'postbackd verify --accept ID" in ran.err
    assert "go together" in run("verify", "--accept", conversion, code=2).err
    assert "why" in run("verify", "--accept", conversion, "--because", " ", code=2).err
    ran = run("verify", "--accept", conversion, "--because", "the network says seven")
    assert "accepted as it is: conversions" in ran.out
    assert "value_micros 7," in ran.out
    assert run("verify").out == "301 money rows read, 0 findings\n"
    assert run("backup", "--json").json["path"] == str(only(target))
    (told,) = [one for one in run("doctor", "--json").json if one["check"] == "accepted damage"]
    assert told["ok"]
    assert conversion in told["detail"]
    noted = run("audit", "--json").json[0]
    assert (noted["action"], noted["kind"]) == ("accept damage", "command line")
    assert noted["object"] == f"conversion {conversion}: the network says seven"
    again = run("verify", "--accept", conversion, "--because", "x", code=1).err
    assert "no row of conversion" in again


def test_a_row_that_says_nothing_that_it_can_say_is_not_accepted(run: Run, world: World) -> None:
    db = world.store.connection  # type: ignore[attr-defined]
    db.execute("UPDATE conversions SET transaction_id = CAST(x'ff41' AS TEXT) WHERE transaction_id = 'T7'")
    conversion = run("verify", "--json", code=1).json["findings"][0]["conversion"]
    refused = run("verify", "--accept", conversion, "--because", "x", code=1).err
    assert "transaction_id is nothing that it can be" in refused
    assert "restore it from a backup" in refused


def test_a_directory_that_is_not_there_is_not_made(run: Run, world: World, tmp_path: Path) -> None:
    ran = run("backup", "--backup-dir", str(tmp_path / "unmounted"), code=1)
    assert "make it, or mount the disk" in ran.err
    assert not (tmp_path / "unmounted").exists()
    assert "--backup-dir" in run("backup", code=2).err


def test_two_at_once_are_refused(run: Run, world: World, data: Path, target: Path) -> None:
    with lock_data(data, "backup.lock", "x"):
        assert "another backup" in run("backup", code=1).err
    assert list(target.iterdir()) == []


# --- keys --------------------------------------------------------------------------------------------------------


def test_the_key_of_the_secrets_is_in_an_encrypted_backup_alone(
    run: Run, world: World, data: Path, target: Path, key_file: Path, tmp_path: Path
) -> None:
    (data / "secret.key").write_text("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n")
    ran = run("backup")
    assert "not in it" in ran.out
    assert "secret.key" in ran.out
    plain = only(target)
    run("restore", str(plain), "--to", str(tmp_path / "plain"))
    assert not (tmp_path / "plain" / "secret.key").exists()
    plain.unlink()
    run("backup", "--backup-key-file", str(key_file))
    assert b"MDEyMzQ1" not in only(target).read_bytes()
    run("restore", str(only(target)), "--to", str(tmp_path / "new"), "--backup-key-file", str(key_file))
    assert (tmp_path / "new" / "secret.key").read_text() == (data / "secret.key").read_text()
    assert (tmp_path / "new" / "secret.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("given", "words"),
    [(None, "is encrypted"), ("another passphrase", "another key"), ("A" * 43 + "=", "something else")],
)
def test_without_its_key_nothing_is_restored(
    run: Run, world: World, target: Path, key_file: Path, tmp_path: Path, given: str | None, words: str
) -> None:
    run("backup", "--backup-key-file", str(key_file))
    options = []
    if given is not None:
        (tmp_path / "other").write_text(given)
        options = ["--backup-key-file", str(tmp_path / "other")]
    ran = run("restore", str(only(target)), "--to", str(tmp_path / "new"), *options, code=1)
    assert words in ran.err
    assert not (tmp_path / "new" / "postbackd.db").exists()


def test_a_damaged_backup_is_refused_and_leaves_no_database(
    run: Run, world: World, target: Path, tmp_path: Path
) -> None:
    run("backup")
    whole = only(target).read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 40)):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        only(target).write_bytes(damaged)
        ran = run("restore", str(only(target)), "--to", str(tmp_path / "new"), code=1)
        assert ran.err.count("\n") == 1
        assert [path.name for path in (tmp_path / "new").iterdir()] == []


# --- killed, and no space ----------------------------------------------------------------------------------------


def start(data: Path, *arguments: str, failpoint: str = "", most_bytes: int | None = None) -> tuple[int, str]:
    """Exit code and last line of a command in a process of its own."""

    def limit() -> None:
        if most_bytes is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    command = [sys.executable, "-m", "postbackd", *arguments]
    environment = {**os.environ, "POSTBACKD_FAILPOINT": failpoint, "POSTBACKD_DATA": str(data)}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, preexec_fn=limit
    )
    return done.returncode, (done.stderr.splitlines() or [""])[-1]


@pytest.mark.parametrize("failpoint", ["backup_copied", "backup_writing", "backup_written"])
def test_a_killed_backup_has_no_name_and_the_next_one_sweeps(
    run: Run, world: World, data: Path, target: Path, failpoint: str
) -> None:
    code, _ = start(data, "backup", failpoint=failpoint)
    assert code == -signal.SIGKILL
    assert run("backup", "list", "--json").json == []
    assert (data / "backup-scratch").exists()
    made = run("backup", "--json").json
    assert str(only(target)) == made["path"]
    assert not (data / "backup-scratch").exists()


@pytest.mark.parametrize("failpoint", ["restore_writing", "restore_verified"])
def test_a_killed_restore_leaves_no_database_and_can_be_run_again(
    run: Run, world: World, data: Path, target: Path, tmp_path: Path, failpoint: str
) -> None:
    run("backup")
    arguments = ("restore", str(only(target)), "--to", str(tmp_path / "new"))
    assert start(data, *arguments, failpoint=failpoint)[0] == -signal.SIGKILL
    assert not (tmp_path / "new" / "postbackd.db").exists()
    run(*arguments)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["postbackd.db"]


@pytest.mark.parametrize("kilobytes", [0, 3, 40, 120])
def test_without_space_there_is_no_backup_and_it_says_so(
    world: World, data: Path, target: Path, kilobytes: int
) -> None:
    code, line = start(data, "backup", most_bytes=kilobytes * 1024)
    assert code == 1
    assert "space" in line
    assert list(target.iterdir()) == []


def test_without_space_nothing_is_restored(
    run: Run, world: World, data: Path, target: Path, tmp_path: Path
) -> None:
    run("backup")
    code, line = start(data, "restore", str(only(target)), "--to", str(tmp_path / "new"), most_bytes=100_000)
    assert (code, "no space is left" in line) == (1, True)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_served_directory_is_backed_up_gently(run: Run, world: World, data: Path, target: Path) -> None:
    with lock_data(data, LOCK_NAME, "x"):
        code, _ = start(data, "backup")
    assert code == 0
