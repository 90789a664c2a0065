"""The data directory: whether it can be used, who can read it, and how much room is left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from postbackd.backup.files import BackupFile, list_backups
from postbackd.core.alarm_troubles import DISK_BYTES
from postbackd.core.finding import Finding
from postbackd.settings import Settings

LEAST_DAYS = 14
"""Time to get another disk."""

_DAY_MS = 86_400_000


class Disk(Struct, frozen=True):
    """The disk of the data."""

    free: int
    grows: float | None = None
    """Bytes a day; ``None``: not known."""


def look_at_directory(settings: Settings) -> list[Finding]:
    directory = Path(settings.data)
    if not directory.is_dir() and settings.store is not None:
        detail = (
            f"{directory} does not exist, and need not: with --store it holds the lock and spool of a node"
        )
        return [Finding(check="data directory", ok=True, detail=detail)]
    if not directory.is_dir():
        fix = f"Start 'postbackd serve --data {directory}' once, or name another directory with --data."
        return [Finding(check="data directory", ok=False, detail=f"{directory} does not exist", fix=fix)]
    writable = os.access(directory, os.R_OK | os.W_OK | os.X_OK)
    secret = [
        *directory.glob("postbackd.db*"),
        *directory.glob("secret.key"),
        *directory.glob("backup-scratch/*"),
    ]
    open_files = [path.name for path in sorted(secret) if path.stat().st_mode & 0o077]
    return [
        check_writable(str(directory), writable=writable),
        check_permissions(str(directory), open_files),
        check_disk(Disk(free_bytes(directory), _growth(settings, directory / "postbackd.db"))),
    ]


def free_bytes(directory: Path) -> int:
    return shutil.disk_usage(directory).free


def check_writable(directory: str, *, writable: bool) -> Finding:
    return Finding(
        check="data directory",
        ok=writable,
        detail=f"{directory} is {'writable' if writable else 'not writable'}",
        fix=None if writable else "Make it yours: chown it to the user that runs postbackd.",
    )


def check_permissions(directory: str, open_files: Sequence[str]) -> Finding:
    """The database holds endpoint keys and signing secrets."""
    return Finding(
        check="permissions",
        ok=not open_files,
        detail=f"others can read {', '.join(open_files)}"
        if open_files
        else "only the owner can read the database",
        fix=f"Run: chmod 600 {' '.join(f'{directory}/{name}' for name in open_files)}"
        if open_files
        else None,
    )


def check_disk(disk: Disk) -> Finding:
    days = disk.free / disk.grows if disk.grows else None
    ok = disk.free >= DISK_BYTES and (days is None or days >= LEAST_DAYS)
    growth = (
        f", about {disk.grows / 2**20:.0f} MiB more are used a day"
        if disk.grows and disk.grows >= 2**20
        else ""
    )
    return Finding(
        check="disk",
        ok=ok,
        detail=f"{disk.free / 2**30:.1f} GiB free{growth}",
        fix=None if ok else "Free some space or purge old clicks: 'postbackd purge --before 90d'.",
    )


def _growth(settings: Settings, database: Path) -> float | None:
    """From what the backups of a day and more ago and of now weigh; nothing else here remembers."""
    if settings.backup_dir is None or not database.exists():
        return None
    try:
        return growth_of(list_backups(Path(settings.backup_dir)), database.stat().st_size)
    except OSError:
        return None


def growth_of(backups: Sequence[BackupFile], database_bytes: int) -> float | None:
    """Bytes a day; ``None`` when the backups do not tell."""
    if not backups or not backups[-1].bytes:
        return None
    days = (backups[-1].made_ms - backups[0].made_ms) / _DAY_MS
    if days < 1:
        return None
    packed = (backups[-1].bytes - backups[0].bytes) / days
    return max(packed, 0) * database_bytes / backups[-1].bytes
