"""Where a simulation is kept: a directory of its own inside the data directory, known by a marker file.

Nothing is ever removed that the marker does not vouch for, and nothing beside what a simulation makes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

DIRECTORY = "demo"
"""Below the data directory."""

MARKER = "demo.json"
TRUTH = "truth.json"
LOCK = "demo.lock"
"""Held by the command that adds to it."""

_FILES = frozenset({"postbackd.lock", "deliver.lock", "admin.lock", "secret.key", LOCK, TRUTH, MARKER})
_FAMILIES = ("postbackd.db", TRUTH, MARKER)
"""These, and what a database or a half-written file is called beside them."""

_WORD = "simulated data"


class NotADemo(Exception):
    """The directory is not what a simulation made; says what to do."""


class Made(Struct, frozen=True, kw_only=True):
    """What the marker says."""

    seed: int
    clicks: int
    until_ms: int
    """The end of the simulated month: the same three make the same month."""
    holds: str = _WORD


def demo_directory(data: Path) -> Path:
    """Where the simulation of a data directory is, if there is one."""
    return data / DIRECTORY


def read_marker(directory: Path) -> Made | None:
    """The marker, ``None`` where there is none.  Raises ``NotADemo`` for one that cannot be read."""
    try:
        made = msgspec.json.decode((directory / MARKER).read_bytes(), type=Made)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NotADemo(
            f"{directory / MARKER} is not a demo's marker ({error}); look at it, and remove it by hand"
        ) from error
    if made.holds != _WORD:
        raise NotADemo(f"{directory / MARKER} is not a demo's marker; look at it, and remove it by hand")
    return made


def check_place(directory: Path) -> None:
    """Raises ``NotADemo`` when something is in the directory that no simulation made.  It may be missing."""
    if not directory.is_dir() or read_marker(directory) is not None:
        return
    strangers = sorted(
        entry.name for entry in directory.iterdir() if entry.name not in (LOCK, f"{MARKER}.new")
    )
    if strangers:
        raise NotADemo(
            f"{directory} holds {strangers[0]!r} and no marker of a demo; move it away, or choose another --data"
        )


def write_marker(directory: Path, made: Made) -> None:
    """Vouch for the directory, after ``check_place``."""
    write_document(directory / MARKER, made)


def write_document(path: Path, document: Any) -> None:
    """Whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    new.replace(path)


def remove(directory: Path) -> None:
    """Remove a simulation, the marker last, so that a removal that is interrupted can be done again.

    Raises ``NotADemo``, having removed nothing, unless all of it is a simulation's.
    """
    if directory.is_symlink() or read_marker(directory) is None:
        raise NotADemo(f"{directory} has no marker of a demo ({MARKER}), so nothing was removed")
    entries = sorted(directory.iterdir(), key=lambda entry: (entry.name == MARKER, entry.name))
    for entry in entries:
        if not _is_ours(entry):
            raise NotADemo(
                f"{directory} holds {entry.name!r}, which no demo made, so nothing was removed; move it away first"
            )
    for entry in entries:
        entry.unlink()
    directory.rmdir()


def _is_ours(entry: Path) -> bool:
    if entry.is_symlink() or not entry.is_file():
        return False
    return entry.name in _FILES or entry.name.startswith(_FAMILIES)
