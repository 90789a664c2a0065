"""Makes a backup: copy, verify the copy, write it, read back what was written, and only then give it its name.

The copy lies in the data directory as long as that takes, because it is as secret as the database beside it and not
encrypted; it needs as much space as the database.  What is written to the other directory is the finished file alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import apsw
from msgspec import Struct

from postbackd import __version__
from postbackd.backup.container import BLOCK_BYTES, NONCE_BYTES, BackupFailed, Head, Writer
from postbackd.backup.files import (
    SCRATCH_NAME,
    BackupFile,
    alone,
    failing,
    list_backups,
    name_at,
    part_file,
    remove_old,
    sweep,
)
from postbackd.backup.keys import BackupKey, make_file_key
from postbackd.backup.manifest import Manifest
from postbackd.backup.opening import check_copy, open_backup
from postbackd.store.contents import read_contents
from postbackd.store.failpoints import pass_failpoint
from postbackd.store.sqlite_file import FILE_NAME
from postbackd.store.sqlite_snapshot import copy_snapshot, size_of
from postbackd.store.sqlite_verify import open_to_read

_SPARE_BYTES = 64 * 1024 * 1024
"""Left to the server on the disk of its data, besides what the copy takes."""


class Snapshot(Protocol):
    """Makes the copy."""

    kept_in: str

    def size(self) -> int:
        """About how many bytes it will have; 0 when that is not known."""
        ...

    async def copy(self, target: Path) -> None:
        """Write a new embedded database, of one moment."""
        ...


class SqliteSnapshot:
    """Of the embedded database in a data directory."""

    kept_in = "sqlite"

    def __init__(self, data: Path, pause_share: float) -> None:
        """``pause_share``: the pause after each step, in lengths of that step."""
        self._path = data / FILE_NAME
        self._pause_share = pause_share

    def size(self) -> int:
        if not self._path.exists():
            raise BackupFailed(f"no database in {self._path.parent}; name its directory with --data")
        return size_of(self._path)

    async def copy(self, target: Path) -> None:
        for took_s, _ in copy_snapshot(self._path, target):
            await asyncio.sleep(took_s * self._pause_share)


class Order(Struct, frozen=True, kw_only=True):
    """What is to be made."""

    directory: Path
    data: Path
    """Where the copy lies meanwhile, and where the key of the targets' secrets is."""
    snapshot: Snapshot
    key: BackupKey | None = None
    keep: int = 0
    secret_key: str | None = None


class Taken(Struct, frozen=True):
    """What was made."""

    file: BackupFile
    manifest: Manifest
    removed: Sequence[Path]


async def take_backup(order: Order, now_ms: Callable[[], int]) -> Taken:
    """Raises ``BackupFailed``; then there is no file of this backup, and every older one is still there."""
    with alone(order.data, f"another backup of {order.data} is being made; wait until it is done"):
        with failing(f"cannot use {order.directory}"):
            if not order.directory.is_dir():
                raise BackupFailed(
                    f"there is no directory {order.directory}; make it, or mount the disk that it is on"
                )
            sweep(order.directory)
        scratch = order.data / SCRATCH_NAME
        try:  # from before it is made: SIGTERM raises between any two lines
            with failing("cannot use the data directory"):
                shutil.rmtree(scratch, ignore_errors=True)
                scratch.mkdir(mode=0o700)
            return await _take(order, scratch / FILE_NAME, now_ms)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


async def _take(order: Order, copy: Path, now_ms: Callable[[], int]) -> Taken:
    made_ms = now_ms()
    with failing("the database was not copied"):
        _check_space(order)
        copy.touch(mode=0o600)
        await order.snapshot.copy(copy)
    pass_failpoint("backup_copied")
    with failing("the copy was not verified"):
        manifest = await _describe(order, copy, made_ms)
    with failing(f"the backup was not written to {order.directory}"):
        final = order.directory / name_at(made_ms)
        with part_file(final) as part:
            _write(order, manifest, copy, part.file)
            part.sync()
            pass_failpoint("backup_written")
            _read_back(order, part.path, manifest)
            part.finish()
        pass_failpoint("backup_named")
        (made,) = [backup for backup in list_backups(order.directory) if backup.path == final]
        removed = remove_old(order.directory, order.keep)
    return Taken(made, manifest, removed)


def _check_space(order: Order) -> None:
    needed, free = order.snapshot.size(), shutil.disk_usage(order.data).free
    if needed + _SPARE_BYTES > free:
        raise BackupFailed(
            f"a copy of the database needs {needed / 2**20:.0f} MiB in {order.data} while the backup is made, "
            f"and {free / 2**20:.0f} MiB are free; free some, and try again"
        )


async def _describe(order: Order, copy: Path, made_ms: int) -> Manifest:
    """Verify the copy as ``postbackd verify`` does, and count what is in it."""
    rows, unsealed = await check_copy(copy, "the database is damaged, and no backup was made of it")
    db = open_to_read(copy, alone=True)
    try:
        contents = read_contents(db)
    finally:
        db.close()
    digest = hashlib.sha256()
    with copy.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return Manifest(
        made_ms=made_ms,
        program=__version__,
        sqlite=apsw.sqlite_lib_version(),
        kept_in=order.snapshot.kept_in,
        file_bytes=copy.stat().st_size,
        file_sha256=digest.hexdigest(),
        contents=contents,
        money_rows=rows,
        unsealed=unsealed,
        secret_key=order.secret_key if order.key is not None else None,
    )


def _write(order: Order, manifest: Manifest, copy: Path, into: BinaryIO) -> None:
    key = make_file_key(order.key) if order.key is not None else None
    head = (
        Head("none", nonce=os.urandom(NONCE_BYTES).hex())
        if key is None
        else Head("aes-256-gcm", os.urandom(NONCE_BYTES).hex(), key.method, key.salt, key.check)
    )
    writer = Writer(into, head, key.key if key is not None else None)
    writer.write(manifest.write(), last=False)
    left = manifest.file_bytes
    with copy.open("rb") as file:
        while left > 0:
            block = file.read(BLOCK_BYTES)
            left -= len(block)
            writer.write(block, last=left <= 0)
            pass_failpoint("backup_writing")
            if not block:
                break


def _read_back(order: Order, path: Path, manifest: Manifest) -> None:
    """What is on the disk is what was meant."""
    with path.open("rb") as file:
        opened = open_backup(file, str(path), order.key)
        if opened.manifest != manifest:
            raise BackupFailed(f"{path} does not say what was written; check the disk")
        for _ in opened.blocks():
            continue
