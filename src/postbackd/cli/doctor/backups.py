"""Backups: how old the newest is, whether the last try failed, and whether there is room for more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from postbackd.backup.files import BackupFile, Failure, list_backups, read_failure
from postbackd.cli.doctor.files import free_bytes
from postbackd.core.finding import Finding
from postbackd.core.moments import write_moment
from postbackd.settings import Settings

_HOUR_MS = 3_600_000

LATE = 1.5
"""Times the interval: one that takes long, or was tried again, is not late yet."""

_ROOM = 2
"""Backups as large as the newest that have to fit: the next one, and its growth."""


class BackupFacts(Struct, frozen=True):
    """What is known of the backups of a server that makes them."""

    directory: str
    every_h: int
    backups: Sequence[BackupFile] | None
    """``None``: the directory cannot be read."""
    free: int
    same_disk: bool
    failure: Failure | None
    encrypted: bool


def look_at_backups(settings: Settings, now_ms: int) -> list[Finding]:
    if settings.backup_dir is None:
        detail = "the server makes none (backup_dir is not set)"
        return [
            Finding(
                check="backups",
                ok=True,
                detail=detail,
                fix="See docs/how-to/backup.md for the ways to have some.",
            )
        ]
    directory, data = Path(settings.backup_dir), Path(settings.data)
    try:
        backups: Sequence[BackupFile] | None = list_backups(directory)
        same = data.exists() and directory.stat().st_dev == data.stat().st_dev
        free = free_bytes(directory)
    except OSError:
        backups, same, free = None, False, 0
    facts = BackupFacts(
        str(directory),
        settings.backup_every_h,
        backups,
        free,
        same,
        read_failure(data),
        bool(settings.backup_key_file),
    )
    return check_backups(facts, now_ms)


def check_backups(facts: BackupFacts, now_ms: int) -> list[Finding]:
    """The age, the last failure, the room."""
    if facts.backups is None:
        fix = "Make the directory, or mount its disk; the server's user has to be able to write there."
        return [Finding(check="backups", ok=False, detail=f"cannot read {facts.directory}", fix=fix)]
    findings = [_check_age(facts, facts.backups, now_ms)]
    if facts.failure is not None:
        detail = f"the try of {write_moment(facts.failure.at_ms)} failed: {facts.failure.reason}"
        fix = "Do what the line says, then run 'postbackd backup'."
        findings.append(Finding(check="last backup", ok=False, detail=detail, fix=fix))
    newest = facts.backups[-1].bytes if facts.backups else 0
    room = facts.free >= _ROOM * newest
    findings.append(
        Finding(
            check="backup disk",
            ok=room,
            detail=f"{facts.free / 2**30:.1f} GiB free, the newest backup has {newest / 2**30:.2f} GiB"
            + ("; it is the disk of the data, and both go when it fails" if facts.same_disk else ""),
            fix=None if room else "Free some space there, or keep fewer with --backup-keep.",
        )
    )
    return findings


def _check_age(facts: BackupFacts, backups: Sequence[BackupFile], now_ms: int) -> Finding:
    if not backups:
        fix = "Run 'postbackd backup', and look at the server's log."
        return Finding(check="backups", ok=False, detail=f"there is none in {facts.directory}", fix=fix)
    newest = backups[-1]
    late = now_ms - newest.made_ms > LATE * facts.every_h * _HOUR_MS
    plain = "" if facts.encrypted else ", not encrypted"
    return Finding(
        check="backups",
        ok=not late,
        detail=f"{len(backups)}{plain}, the newest of {write_moment(newest.made_ms)}, "
        f"{(now_ms - newest.made_ms) / _HOUR_MS:.1f} h ago",
        fix=f"One is due every {facts.every_h} h: look at the server's log, run 'postbackd backup'."
        if late
        else None,
    )
