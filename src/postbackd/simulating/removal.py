"""Takes the files of a simulated market's database away, and nothing that a server did not make there."""

from __future__ import annotations

from pathlib import Path

_FILES = frozenset({"postbackd.lock", "deliver.lock", "admin.lock", "secret.key"})
_FAMILY = "postbackd.db"
"""The database, and what is called so beside it."""
_SPOOL = ("spool", "spool/database")


class NotSimulated(Exception):
    """Something else is there; says what."""


def list_files(directory: Path) -> list[Path]:
    """What is to go, the database last: until then the removal can be done again.  Raises ``NotSimulated``."""
    found = []
    for entry in sorted(directory.rglob("*")):
        name = str(entry.relative_to(directory))
        plain = not entry.is_symlink()
        if name == _SPOOL[0] and plain and entry.is_dir():
            continue
        ours = name in _FILES or name.startswith(_FAMILY) or name == _SPOOL[1]
        if not (ours and plain and entry.is_file()):
            raise NotSimulated(
                f"{directory} holds {name!r}, which no simulated market needs, so nothing was removed; "
                "move it away first"
            )
        found.append(entry)
    return sorted(found, key=lambda entry: (entry.name.startswith(_FAMILY), entry.name))


def remove_files(directory: Path, files: list[Path]) -> None:
    """Remove them, and the directory."""
    for path in files:
        path.unlink()
    if (directory / _SPOOL[0]).is_dir():
        (directory / _SPOOL[0]).rmdir()
    directory.rmdir()
