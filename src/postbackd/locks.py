"""Locks on a data directory: which process has it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from postbackd.store.base import StoreRefused

LOCK_NAME = "postbackd.lock"
"""Held by the ingest process of a data directory."""


@contextmanager
def lock_data(directory: Path, name: str, busy: str) -> Iterator[None]:
    """Hold a lock file in the data directory for one process.

    Raises ``StoreRefused`` when another one has it; ``busy`` says what that one does.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreRefused(
            f"cannot use {directory}: {error.strerror}; check the path and its owner"
        ) from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreRefused(f"{busy} {directory}; stop it or choose another --data") from error
        yield
    finally:
        os.close(file)


def is_held(lock: Path) -> bool:
    """Whether a process holds a lock file."""
    try:
        file = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(file)
