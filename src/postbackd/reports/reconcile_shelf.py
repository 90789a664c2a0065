"""Where reconciliations are kept: files in the data directory, few and for a day.

They are for looking at and importing from, not records: the database holds what was imported.  Whoever adds one, or
looks, first throws away what is too old, and what is too much.  The export itself is deleted as soon as it is read.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from postbackd.store.reconcile_file import FileUnusable, ReconcileFile

FOLDER = "reconcile"
"""In the data directory."""

LIFE_S = 86_400
MOST_FILES = 20
MOST_BYTES = 4 << 30

_ID = re.compile(r"[0-9a-z]{13,26}")


class NotKept(LookupError):
    """There is no such reconciliation, or not any more; the message says what to do."""


class Kept(Struct, frozen=True):
    """A reconciliation that is there."""

    id: str
    at_s: float
    """When it was made, seconds since 1970."""
    size: int


class Shelf:
    """The folder of one data directory."""

    def __init__(self, data: Path) -> None:
        self._folder = data / FOLDER

    def prepare(self, id_: str) -> tuple[Path, Path]:
        """Room for one more: ``(where to put the export, where its reconciliation goes)``.  Raises ``OSError``."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.tidy()
        export = self._folder / f"{id_}.csv"
        export.touch(mode=0o600)
        return export, self._folder / f"{id_}.db"

    def tidy(self) -> None:
        """Throw away what is too old or too much."""
        now_s = time.time()
        left = 0
        for number, path in enumerate(self._newest_first()):
            found = path.stat()
            left += found.st_size
            if now_s - found.st_mtime > LIFE_S or number >= MOST_FILES or left > MOST_BYTES:
                path.unlink(missing_ok=True)

    def _newest_first(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        files = [path for path in self._folder.iterdir() if path.suffix in (".db", ".csv") and path.is_file()]
        return sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)

    def list(self) -> list[Kept]:
        """What is there, the newest first."""
        self.tidy()
        return [
            Kept(path.stem, path.stat().st_mtime, path.stat().st_size)
            for path in self._newest_first()
            if path.suffix == ".db"
        ]

    @contextmanager
    def open(self, id_: str) -> Iterator[ReconcileFile]:
        """One that is there.  Raises ``NotKept``."""
        self.tidy()
        path = self._folder / f"{id_}.db"
        if _ID.fullmatch(id_) is None or not path.is_file():
            raise NotKept(
                f"there is no reconciliation {id_[:40]!r}: it is kept for a day; upload the file again"
            )
        lost = (
            f"reconciliation {id_!r} cannot be read; it may still be written: wait, or upload the file again"
        )
        try:
            file = ReconcileFile(path, create=False)
        except FileUnusable as error:
            raise NotKept(lost) from error
        try:
            try:
                document = file.summary()
            except FileUnusable as error:
                raise NotKept(lost) from error
            if not document:
                raise NotKept(lost)
            yield file
        finally:
            file.close()

    def drop_export(self, id_: str) -> None:
        """The export itself, as soon as it was read."""
        (self._folder / f"{id_}.csv").unlink(missing_ok=True)

    def drop(self, id_: str) -> None:
        """Throw one away, whole or not."""
        if _ID.fullmatch(id_) is not None:
            for suffix in (".csv", ".db"):
                (self._folder / f"{id_}{suffix}").unlink(missing_ok=True)
