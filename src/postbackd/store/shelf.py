"""A shelf: a few small documents about certificates, shared by all who serve one database.

Two kinds keep the same promises: files in the data directory beside an embedded database, and rows of a PostgreSQL
database (``postgres_shelf``), which are sealed because others can read them.  The documents hold private keys.

Everybody may load; only the holder of the shelf may change anything, so that one order is under way at a time.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from postbackd.store.base import StoreUnavailable
from postbackd.store.failpoints import pass_failpoint
from postbackd.store.sqlite_file import sync_names

T = TypeVar("T")

LARGEST_DOCUMENT = 256 * 1024

_NAME = re.compile(r"[a-z0-9-]+\.(?:json|pem)")


class NotHeld(StoreUnavailable):
    """Somebody else holds the shelf, or does by now."""


class Shelf(Protocol):
    """Documents by name, such as ``order.json``.  Every verb raises ``StoreUnavailable``."""

    async def load(self, name: str) -> bytes | None:
        """The document, whole, or ``None``."""
        ...

    async def save(self, name: str, document: bytes) -> None:
        """Replace the document; it is on the disk when this returns, and never there in part.

        Raises ``NotHeld`` unless we hold the shelf.
        """
        ...

    async def remove(self, name: str) -> None:
        """Remove it, if it is there.  Raises ``NotHeld``."""
        ...

    async def hold(self) -> bool:
        """Become the holder, or go on to be: whether we are now.  Ask again between steps, because a holder that is
        silent for long may be taken for dead."""
        ...

    async def let_go(self) -> None:
        """Hold it no longer."""
        ...

    async def close(self) -> None: ...


class FileShelf:
    """Files that only their owner can read, in a directory of their own; a lock file that the holder locks."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock: int | None = None

    async def load(self, name: str) -> bytes | None:
        # A read of a small file that was read a second ago: a thread would cost more.
        return _io(lambda: self._load(name), f"cannot read {self._directory / name}")

    def _load(self, name: str) -> bytes | None:
        try:
            with self._path(name).open("rb") as file:
                return file.read(LARGEST_DOCUMENT)
        except FileNotFoundError:
            return None

    async def save(self, name: str, document: bytes) -> None:
        self._check_held()
        path = self._path(name)
        await asyncio.to_thread(_io, lambda: self._save(path, document), f"cannot write {path}")

    def _save(self, path: Path, document: bytes) -> None:
        draft = path.with_name(f"{path.name}.new")
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(file, 0o600)
            _write_whole(file, document)
            os.fsync(file)
        finally:
            os.close(file)
        pass_failpoint(f"shelf_before_{path.name}")
        draft.replace(path)
        sync_names(self._directory)
        pass_failpoint(f"shelf_after_{path.name}")

    async def remove(self, name: str) -> None:
        self._check_held()
        await asyncio.to_thread(_io, lambda: self._remove(name), f"cannot remove {self._directory / name}")

    def _remove(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)
        sync_names(self._directory)

    async def hold(self) -> bool:
        if self._lock is None:
            self._lock = _io(self._take_lock, f"cannot use {self._directory}")
        return self._lock is not None

    def _take_lock(self) -> int | None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        return file

    async def let_go(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def close(self) -> None:
        await self.let_go()

    def _check_held(self) -> None:
        if self._lock is None:
            raise NotHeld("another process looks after the certificate")

    def _path(self, name: str) -> Path:
        check_name(name)
        return self._directory / name


def check_name(name: str) -> None:
    """Names become file names."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a document")


def _write_whole(file: int, document: bytes) -> None:
    left = memoryview(document)
    while left:
        left = left[os.write(file, left) :]


def _io(work: Callable[[], T], what: str) -> T:
    try:
        return work()
    except OSError as error:
        raise StoreUnavailable(f"{what}: {error.strerror}") from error
