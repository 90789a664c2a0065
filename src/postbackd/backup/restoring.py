"""Puts a backup back, to a new place only: a data directory without a database, or an empty PostgreSQL database.

The database gets its name when it has been verified; nothing that is there is ever overwritten.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from postbackd.backup.container import BackupFailed
from postbackd.backup.files import SCRATCH_NAME, alone, failing, part_file
from postbackd.backup.keys import BackupKey
from postbackd.backup.manifest import Manifest
from postbackd.backup.opening import check_database, open_backup
from postbackd.store.failpoints import pass_failpoint
from postbackd.store.sqlite_file import FILE_NAME, sync_names

SECRET_KEY_NAME = "secret.key"  # noqa: S105  # the name of a file


async def check_backup(file: Path, key: BackupKey | None, data: Path) -> Manifest:
    """Prove that a backup can be restored: restore it beside the data, verify that, and remove it again."""
    with _scratch(data) as directory:
        return await _unpack(file, key, directory / FILE_NAME)


async def restore_to_directory(file: Path, key: BackupKey | None, directory: Path) -> Manifest:
    """Raises ``BackupFailed``; then there is no database in the directory."""
    with failing(f"cannot use {directory}"):
        for name in (FILE_NAME, f"{FILE_NAME}-wal"):
            if (directory / name).exists():
                raise BackupFailed(
                    f"there is a database in {directory} already, and nothing is ever overwritten; name a new directory"
                )
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with failing(f"the backup was not restored to {directory}"):
        manifest = await _unpack(file, key, directory / FILE_NAME)
        if manifest.secret_key is not None:
            _put_secret_key(directory / SECRET_KEY_NAME, manifest.secret_key)
    return manifest


async def restore_to_database(
    file: Path, key: BackupKey | None, data: Path, move: Callable[[Path], Awaitable[None]]
) -> Manifest:
    """As ``restore_to_directory``, into another database; ``move`` copies an embedded one there and proves it."""
    with _scratch(data) as directory:
        manifest = await _unpack(file, key, directory / FILE_NAME)
        await move(directory)
        return manifest


@contextmanager
def _scratch(data: Path) -> Iterator[Path]:
    """A directory of our own in the data directory, for as long as it is needed."""
    with alone(data, f"a backup of {data} is being made or verified; wait until it is done"):
        directory = data / SCRATCH_NAME
        with failing("cannot use the data directory"):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(mode=0o700)
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


async def _unpack(file: Path, key: BackupKey | None, target: Path) -> Manifest:
    with failing(f"cannot read {file}"), file.open("rb") as packed, failing(f"cannot write {target.parent}"):
        backup = open_backup(packed, str(file), key)
        needed, free = backup.manifest.file_bytes, shutil.disk_usage(target.parent).free
        if needed > free:
            raise BackupFailed(
                f"the database needs {needed / 2**20:.0f} MiB in {target.parent}, "
                f"and {free / 2**20:.0f} MiB are free; free some, and try again"
            )
        with part_file(target) as part:
            for block in backup.blocks():
                part.file.write(block)
                pass_failpoint("restore_writing")
            part.sync()
            await check_database(part.path, backup.manifest)
            pass_failpoint("restore_verified")
            part.finish()
    return backup.manifest


def _put_secret_key(path: Path, key: str) -> None:
    """The key of the targets' secrets, where there is none."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        if path.read_text("ascii").strip() == key.strip():
            return
        raise BackupFailed(
            f"the database was restored, but there is another {path} already; "
            "move it away, and restore to another directory, if the targets need the old one"
        ) from None
    try:
        os.write(file, key.encode())
        os.fsync(file)
    finally:
        os.close(file)
    sync_names(path.parent)
