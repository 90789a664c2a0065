"""The files of backups: their names, how one comes to be whole or not at all, and which are removed."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import apsw
from msgspec import Struct

from postbackd.backup.container import BackupFailed
from postbackd.store.sqlite_file import sync_names

_NAME = re.compile(r"postbackd-(\d{8}T\d{6})Z\.backup")
_PART = re.compile(r"\.postbackd-\d{8}T\d{6}Z\.backup\.part")
_MOMENT = "%Y%m%dT%H%M%S"

LOCK_NAME = "backup.lock"
FAILURE_NAME = "backup.failed"
"""In the data directory, while the newest try of a server failed."""

SCRATCH_NAME = "backup-scratch"


class BackupFile(Struct, frozen=True):
    """One backup in a directory."""

    path: Path
    made_ms: int
    bytes: int


def name_at(ms: int) -> str:
    """The name of a backup made at this time."""
    return f"postbackd-{datetime.fromtimestamp(ms // 1000, UTC):{_MOMENT}}Z.backup"


def list_backups(directory: Path) -> Sequence[BackupFile]:
    """The backups in a directory, oldest first; half-made ones have another name.  Raises ``OSError``."""
    found = []
    for path in directory.iterdir():
        match = _NAME.fullmatch(path.name)
        if match is not None and path.is_file():
            made = datetime.strptime(match[1], _MOMENT).replace(tzinfo=UTC)
            found.append(BackupFile(path, int(made.timestamp()) * 1000, path.stat().st_size))
    return sorted(found, key=lambda backup: backup.path.name)


def remove_old(directory: Path, keep: int) -> Sequence[Path]:
    """Remove all but the newest ``keep`` backups (0: none is removed); returns those that went."""
    old = list_backups(directory)[:-keep] if keep else []
    for backup in old:
        backup.path.unlink()
    return [backup.path for backup in old]


class Failure(Struct, frozen=True):
    """Why the newest try failed."""

    at_ms: int
    reason: str


def note_failure(data: Path, now_ms: int, reason: str) -> None:
    """Leave a note for ``postbackd doctor``.  On a disk that takes no note the log has to do."""
    with suppress(OSError):
        (data / FAILURE_NAME).write_text(f"{now_ms} {' '.join(reason.split())}\n", "utf-8")


def forget_failure(data: Path) -> None:
    (data / FAILURE_NAME).unlink(missing_ok=True)


def read_failure(data: Path) -> Failure | None:
    """The note, when there is one."""
    try:
        at_ms, _, reason = (data / FAILURE_NAME).read_text("utf-8").strip().partition(" ")
        return Failure(int(at_ms), reason)
    except (OSError, ValueError):
        return None


@contextmanager
def failing(what: str) -> Iterator[None]:
    """What the system and SQLite raise, as one line that says what to do."""
    try:
        yield
    except apsw.FullError as error:
        raise BackupFailed(f"{what}: no space is left; free some, and try again") from error
    except apsw.IOError as error:
        raise BackupFailed(f"{what}: reading or writing failed; check the disk and its free space") from error
    except apsw.Error as error:
        raise BackupFailed(f"{what}: {type(error).__name__}: {error}; run 'postbackd doctor'") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise BackupFailed(f"{what}: no space is left; free some, and try again") from error
        where = f" {error.filename}" if error.filename else ""
        raise BackupFailed(
            f"{what}: {error.strerror or error}{where}; check the path, its owner and the disk"
        ) from error


@contextmanager
def alone(data: Path, busy: str) -> Iterator[None]:
    """Hold the lock of backups in a data directory.  Raises ``BackupFailed`` when another process does."""
    with failing("cannot use the data directory"):
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(data / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BackupFailed(busy) from error
        yield
    finally:
        os.close(file)


class PartFile:
    """A file that gets its name when it is whole and on the disk.

    Whoever is killed leaves a file of another name, which the next one sweeps away.
    """

    def __init__(self, final: Path) -> None:
        """Raises ``OSError``; ``FileExistsError`` when the name is taken already or by somebody who is at work."""
        if final.exists():
            raise FileExistsError(errno.EEXIST, "there is a file of this name already", str(final))
        self.final = final
        self.path = final.with_name(f".{final.name}.part")
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise FileExistsError(errno.EEXIST, "another process is writing it", str(final)) from error
        os.ftruncate(descriptor, 0)
        self.file: BinaryIO = os.fdopen(descriptor, "r+b")

    def sync(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())

    def finish(self) -> None:
        """Give it its name.  Raises ``FileExistsError`` when somebody else has taken that meanwhile."""
        self.sync()
        try:
            os.link(self.path, self.final)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS) or self.final.exists():
                raise
            self.path.rename(self.final)  # a file system without links
        self.path.unlink(missing_ok=True)
        sync_names(self.final.parent)

    def close(self) -> None:
        """Remove what has not got its name."""
        self.path.unlink(missing_ok=True)
        self.file.close()


@contextmanager
def part_file(final: Path) -> Iterator[PartFile]:
    part = PartFile(final)
    try:
        yield part
    finally:
        part.close()


def sweep(directory: Path) -> Sequence[Path]:
    """Remove what killed processes left half-made; what somebody is writing stays."""
    swept = []
    for path in directory.iterdir():
        if not _PART.fullmatch(path.name):
            continue
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            swept.append(path)
        except BlockingIOError:
            continue
        finally:
            os.close(file)
    return swept


def spool_bytes(data: Path) -> int:
    """How much lies in the spool of a data directory."""
    found = 0
    for path in (data / "spool").glob("*.spool"):
        try:
            found += path.stat().st_size
        except OSError:  # it has been emptied and removed meanwhile
            continue
    return found
