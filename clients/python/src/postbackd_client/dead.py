"""Conversions that will not be sent again: refused for good, or given up.  Kept as lines of JSON, for people to read.

    {"at":1750000000,"reason":"the tracker answered 404","status":404,"conversion":{"click_id":"…"}}

All processes of a spool append to one file.  When it is large it takes the place of the one before, which is lost then.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List

NAME = "dead.ndjson"
OLD_NAME = "dead.old.ndjson"
_LARGEST_BYTES = 64 << 20


def bury(directory: Path, at_s: int, reason: str, status: int, payload: str) -> None:
    """Keep one.  Raises ``OSError`` when the disk takes nothing."""
    entry = {"at": at_s, "reason": reason, "status": status, "conversion": _read(payload)}
    line = json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n"
    with _locked(directory):
        _append(directory, line)


def _append(directory: Path, line: str) -> None:
    number = os.open(directory / NAME, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(number).st_size
        if size and os.pread(number, 1, size - 1) != b"\n":
            line = "\n" + line  # a crash or a full disk has cut the one before: it must not spoil this one
        # As an escape of JSON: a text of a damaged page need not be one that UTF-8 can write.
        raw = line.encode("utf-8", "backslashreplace")
        if os.write(number, raw) < len(raw):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(number)
        too_large = os.fstat(number).st_size > _LARGEST_BYTES
    finally:
        os.close(number)
    if too_large:
        (directory / NAME).replace(directory / OLD_NAME)


def _read(payload: str) -> Any:
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return payload


def count(directory: Path) -> int:
    """How many are kept."""
    return sum(1 for _ in entries(directory))


def entries(directory: Path) -> Iterator[Dict[str, Any]]:
    """Those that are kept, the oldest first.  A line that was cut by a crash is left out."""
    for name in (OLD_NAME, NAME):
        path = directory / name
        if path.exists():
            yield from _entries_of(path)


def _entries_of(path: Path) -> Iterator[Dict[str, Any]]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and isinstance(entry.get("conversion"), dict):
                yield entry


@contextmanager
def exhumed(directory: Path) -> Iterator[List[str]]:
    """Take all of them out, as payloads; they are gone when the block ends well, and stay when it does not."""
    with _locked(directory):
        aside = [_set_aside(directory / name) for name in (OLD_NAME, NAME)]
        found = [entry for path in aside if path.exists() for entry in _entries_of(path)]
        yield [json.dumps(entry["conversion"], ensure_ascii=False) for entry in found]
        for path in aside:
            path.unlink(missing_ok=True)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """What one process takes out must not be what another is just adding to."""
    with (directory / "dead.guard").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield


def _set_aside(path: Path) -> Path:
    """What an earlier attempt has set aside and not brought to an end comes first."""
    aside = path.with_suffix(".again")
    if path.exists():
        if aside.exists():
            with aside.open("ab") as file:
                file.write(path.read_bytes())
            path.unlink()
        else:
            path.replace(aside)
    return aside
