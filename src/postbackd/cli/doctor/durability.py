"""What durability depends on, as the store examined it."""

from __future__ import annotations

from collections.abc import Mapping

from postbackd.core.finding import Finding

WANTED = {
    "journal mode": ("wal", "Use a local disk and restart the server."),
    "synchronous": ("full", "Unset POSTBACKD_UNSAFE_SYNC: acknowledged rows can be lost."),
    "integrity": ("ok", "Run 'postbackd verify', stop the server, and restore a backup."),
    "fsync": ("on", "Switch fsync on in the server's settings: acknowledged rows can be lost."),
    "full page writes": (
        "on",
        "Switch full_page_writes on in the server's settings: a crash can damage the database.",
    ),
    "synchronous commit": ("on", "Unset POSTBACKD_UNSAFE_SYNC: acknowledged rows can be lost."),
}
"""What was examined -> what it has to be, and what to do if it is not."""


def check_examined(found: Mapping[str, str]) -> list[Finding]:
    """``found``: what ``Store.examine`` returned."""
    return [_expect(check, detail, *WANTED.get(check, (detail, ""))) for check, detail in found.items()]


def _expect(check: str, found: str, wanted: str, fix: str) -> Finding:
    return Finding(check=check, ok=found == wanted, detail=found, fix=None if found == wanted else fix)
