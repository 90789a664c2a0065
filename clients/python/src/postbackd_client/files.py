"""The files of a spool: their names, who has them, how they are removed and brought to the disk."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from pathlib import Path
from time import time
from typing import List, Tuple

SUFFIX = ".spool"
LOCK_SUFFIX = ".lock"


def is_for(path: Path, tracker: str) -> bool:
    """Whether a file, or its lock, is one of this tracker's."""
    return path.stem.endswith(f"-{tracker}")


def list_files(directory: Path) -> List[Path]:
    """The files of a spool, the oldest first; also one of which only the lock is left, or that has lost its lock."""
    found = {lock.with_suffix(SUFFIX) for lock in directory.glob(f"*{LOCK_SUFFIX}")}
    return sorted(found.union(directory.glob(f"*{SUFFIX}")))


class Held(Exception):
    """Another process has this file, or it is gone."""


class Lock:
    """Who has a file of the spool.  It ends with the process, whatever ends that."""

    def __init__(self, path: Path) -> None:
        """Raises ``Held``."""
        self.path = path
        self._number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it may have removed it between the opening and the locking: then this is nobody's file.
            if path.stat().st_ino != os.fstat(self._number).st_ino:
                raise FileNotFoundError
        except OSError as error:
            os.close(self._number)
            raise Held(str(path)) from error

    def release(self) -> None:
        """In a forked child this closes the child's copy only: the parent keeps the lock."""
        os.close(self._number)


def is_held(lock: Path) -> bool:
    """Whether a living process has the file of this lock."""
    if not lock.exists():
        return False
    try:
        Lock(lock).release()
    except (Held, OSError):  # what cannot be looked at is left alone
        return True
    return False


def claim_name(directory: Path, tracker: str) -> Tuple[Path, Lock]:
    """A new name in the order of time, and its lock."""
    # Whoever looks for files without an owner may be quicker than we are: then another name.
    for _ in range(5):
        name = f"{int(time() * 1000):013d}-{os.getpid()}-{secrets.token_hex(3)}-{tracker}"
        path = directory / f"{name}{SUFFIX}"
        with contextlib.suppress(Held):
            return path, Lock(path.with_suffix(LOCK_SUFFIX))
    raise OSError(f"no new file can be had in {directory}")


def log_path(path: Path) -> Path:
    """Where SQLite keeps what was appended to a file."""
    return path.with_name(f"{path.name}-wal")


def remove(path: Path) -> None:
    """The lock last: as long as it is there, nobody takes what is left for a file."""
    for one in (path, log_path(path), path.with_suffix(LOCK_SUFFIX)):
        with contextlib.suppress(FileNotFoundError):
            one.unlink()


sync_file = getattr(os, "fdatasync", os.fsync)
"""macOS has no fdatasync."""


def sync_directory(directory: Path) -> None:
    number = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
