"""Reads a backup, and proves it: the file itself, and the database that it holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from postbackd.backup.container import BackupFailed, Reader
from postbackd.backup.keys import BackupKey, find_file_key
from postbackd.backup.manifest import Manifest, read_manifest
from postbackd.store.contents import differences, read_contents
from postbackd.store.sqlite_file import migrations
from postbackd.store.sqlite_verify import SqliteReader, open_to_read
from postbackd.store.verifying import Damage, Progress, verify

_MOST_DAMAGES = 3
"""Named in a message."""


class OpenedBackup:
    """A backup whose manifest has been read."""

    def __init__(self, name: str, encrypted: bool, manifest: Manifest, frames: Iterator[bytes]) -> None:
        """Use ``open_backup``."""
        self.manifest = manifest
        self.encrypted = encrypted
        self._name = name
        self._frames = frames

    def blocks(self) -> Iterator[bytes]:
        """The database, block by block, to its proven end.  Raises ``BackupFailed``."""
        digest, length = hashlib.sha256(), 0
        for block in self._frames:
            digest.update(block)
            length += len(block)
            yield block
        if (length, digest.hexdigest()) != (self.manifest.file_bytes, self.manifest.file_sha256):
            raise BackupFailed(f"{self._name} does not hold the database that it names; use another backup")


def open_backup(file: BinaryIO, name: str, key: BackupKey | None) -> OpenedBackup:
    """Raises ``BackupFailed``, also when the key is not the right one."""
    reader = Reader(file, name)
    head = reader.head
    found = find_file_key(key, head.method, head.salt, head.check) if reader.encrypted else None
    frames = reader.frames(found)
    manifest = read_manifest(next(frames), name)
    if manifest.contents.schema > len(migrations()):
        raise BackupFailed(
            f"{name} was made by a newer postbackd ({manifest.program}); restore it with that version"
        )
    return OpenedBackup(name, reader.encrypted, manifest, frames)


async def check_database(path: Path, manifest: Manifest) -> None:
    """Hold a restored database file against what the backup says of it.  Raises ``BackupFailed``."""
    await check_copy(path, "the restored database is damaged")
    db = open_to_read(path, alone=True)
    try:
        found = differences(read_contents(db), manifest.contents)
    finally:
        db.close()
    if found:
        raise BackupFailed(f"the restored database is not what the backup says: {'; '.join(found)}")


async def check_copy(copy: Path, words: str) -> tuple[int, int]:
    """How many money rows a database file has that nobody else uses, and how many of them have no checksum yet.

    Raises ``BackupFailed`` when anything is wrong with it.
    """
    damages: list[Damage] = []
    rows = unsealed = 0
    reader = SqliteReader(open_to_read(copy, alone=True))
    try:
        async for found in verify(reader):
            if isinstance(found, Progress):
                rows, unsealed = rows + found.rows, unsealed + found.unsealed
            else:
                damages.append(found)
    finally:
        await reader.close()
    if damages:
        few = "; ".join(damage.write() for damage in damages[:_MOST_DAMAGES])
        raise BackupFailed(f"{words}: {len(damages)} findings: {few}; run 'postbackd verify'")
    return rows, unsealed
