"""What a backup says of itself: the first frame of its file, sealed as the rest."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from postbackd.backup.container import BackupFailed
from postbackd.store.contents import Contents


class Manifest(Struct, frozen=True, kw_only=True):
    """What is in a backup, and what a restored database is held against."""

    made_ms: int
    """The moment that the database is kept as of, or shortly before it."""
    program: str
    sqlite: str
    kept_in: str
    """``sqlite`` or ``postgresql``: where the data were.  In the file they are an embedded database either way."""
    file_bytes: int
    file_sha256: str
    contents: Contents
    money_rows: int
    """Rows whose checksums were verified when the backup was made."""
    unsealed: int
    """Rows among them that had none yet."""
    secret_key: str | None = None
    """The key that opens what is stored sealed; in encrypted backups alone."""

    def write(self) -> bytes:
        return msgspec.json.encode(self)


def read_manifest(frame: bytes, name: str) -> Manifest:
    """Raises ``BackupFailed``."""
    try:
        return msgspec.json.decode(frame, type=Manifest)
    except msgspec.DecodeError as error:
        raise BackupFailed(f"{name} was made by a newer postbackd; restore it with that version") from error
