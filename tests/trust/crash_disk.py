"""What a disk may hold after a crash, from a trace of what was written and synced.

The model: a write lies in memory until a sync of that file that began after it has returned.  At a crash any subset of
what lies in memory may have reached the disk, in pieces of 512 bytes (one sector), in any order.  A new or removed
name is on the disk after a sync of its directory.  After a sync that *failed* the kernel calls the pages clean without
having written them: later syncs do not cover what was pending then.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.trust.trace import Event

SECTOR = 512
_WRITES = ("pwrite64", "pwritev", "pwritev2", "write", "writev")
_IGNORED = ("-shm", ".lock")
"""Rebuilt by SQLite at every start; a lock without content."""

Choice = Callable[[], bool]
"""Says of each piece in memory whether it reached the disk."""


@dataclass(slots=True)
class _Change:
    """A write (``content``), or a new size (``size``), that lies in memory."""

    end: int
    offset: int = 0
    content: bytes = b""
    size: int = -1


@dataclass(slots=True)
class _File:
    synced: bytearray = field(default_factory=bytearray)
    pending: list[_Change] = field(default_factory=list)
    doomed: list[_Change] = field(default_factory=list)
    """Were pending when a sync failed; never safe, but may have arrived."""
    named: bool = True
    """The name is on the disk."""
    removed: bool = False
    """Unlinked, but the directory is not synced since."""


class CrashDisk:
    """The files of a data directory, fed with events; gives the states that a crash may leave."""

    def __init__(self, directory: Path, before: Mapping[str, bytes]) -> None:
        """``directory`` as it was traced, ``before``: its files by name, all of them on the disk."""
        self._directory = str(directory.resolve())
        self._files = {name: _File(bytearray(content)) for name, content in before.items() if _kept(name)}

    def concerns(self, event: Event) -> bool:
        """Whether the event changes what a crash may leave."""
        return self._name(event.path) is not None or event.path == self._directory

    def apply(self, event: Event) -> None:
        """Take one event in; events come in the order of ``read_trace``."""
        if event.path == self._directory:
            if event.call in ("fsync", "fdatasync") and not event.failed:
                self._sync_names()
            return
        name = self._name(event.path)
        if name is None:
            return
        if event.call in ("openat", "open", "creat"):
            if not event.failed and event.creates and (name not in self._files or self._files[name].removed):
                self._files[name] = _File(named=False)
        elif event.call.startswith("unlink"):
            if not event.failed and name in self._files:
                self._files[name].removed = True
        elif event.call.startswith("rename"):
            raise NotImplementedError("the store is not expected to rename files")
        else:
            self._change(self._files.setdefault(name, _File(named=False)), event)

    def _change(self, file: _File, event: Event) -> None:
        if event.call in _WRITES:
            if event.content:
                file.pending.append(_Change(event.end, event.offset, event.content))
        elif event.call in ("ftruncate", "fallocate"):
            if not event.failed:
                file.pending.append(_Change(event.end, size=event.offset))
        elif event.call in ("fsync", "fdatasync"):
            self._sync(file, event)

    def _sync(self, file: _File, event: Event) -> None:
        covered = [change for change in file.pending if change.end < event.begin]
        file.pending = [change for change in file.pending if change.end >= event.begin]
        if event.failed:
            file.doomed += covered
            return
        for change in covered:
            _put(file.synced, change)

    def _sync_names(self) -> None:
        for name, file in list(self._files.items()):
            file.named = True
            if file.removed:
                del self._files[name]

    def _name(self, path: str) -> str | None:
        directory, _, name = path.removesuffix(" (deleted)").rpartition("/")
        return name if directory == self._directory and _kept(name) else None

    # --- states -----------------------------------------------------------------------------------------------

    def nothing_more(self) -> dict[str, bytes]:
        """Only what was synced reached the disk."""
        return {name: bytes(file.synced) for name, file in self._files.items() if file.named}

    def everything(self) -> dict[str, bytes]:
        """All that lay in memory reached the disk."""
        return {name: _with(file, lambda: True) for name, file in self._files.items() if not file.removed}

    def some(self, draw: random.Random) -> dict[str, bytes]:
        """A random subset of the sectors and names that lay in memory reached the disk."""
        state = {}
        for name, file in self._files.items():
            share = draw.choice((0.1, 0.5, 0.9))
            if (file.removed or not file.named) and draw.random() < 0.5:
                continue
            state[name] = _with(file, lambda share=share: draw.random() < share)  # type: ignore[misc]
        return state


def _kept(name: str) -> bool:
    return name.startswith("postbackd.db") and not name.endswith(_IGNORED)


def _with(file: _File, arrives: Choice) -> bytes:
    content = bytearray(file.synced)
    for change in (*file.doomed, *file.pending):
        for piece in _pieces(change):
            if arrives():
                _put(content, piece)
    return bytes(content)


def _pieces(change: _Change) -> list[_Change]:
    """A write as the sectors that it touches; a new size is one piece."""
    if change.size >= 0:
        return [change]
    pieces, at, end = [], change.offset, change.offset + len(change.content)
    while at < end:
        until = min(end, (at // SECTOR + 1) * SECTOR)
        part = change.content[at - change.offset : until - change.offset]
        pieces.append(_Change(change.end, at, part))
        at = until
    return pieces


def _put(content: bytearray, change: _Change) -> None:
    if change.size >= 0:
        del content[change.size :]
        content.extend(bytes(change.size - len(content)))
        return
    if len(content) < change.offset:
        content.extend(bytes(change.offset - len(content)))
    content[change.offset : change.offset + len(change.content)] = change.content
