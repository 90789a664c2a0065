"""Versions: of the program, Python, SQLite, and the schema that the database has."""

from __future__ import annotations

import platform

import apsw

from postbackd import __version__
from postbackd.core.finding import Finding

OLDEST_SQLITE = (3, 51, 3)
"""Older versions can corrupt a database in WAL mode."""

OLDEST_PYTHON = (3, 11)


def look_at_versions() -> list[Finding]:
    """What this program runs on."""
    return [check_python(platform.python_version()), check_sqlite(apsw.sqlite_lib_version())]


def check_python(version: str) -> Finding:
    ok = _numbers(version)[:2] >= OLDEST_PYTHON
    fix = None if ok else "Install Python 3.11 or newer."
    return Finding(check="program", ok=ok, detail=f"postbackd {__version__}, Python {version}", fix=fix)


def check_sqlite(version: str) -> Finding:
    ok = _numbers(version) >= OLDEST_SQLITE
    fix = None if ok else "Install apsw 3.51.3 or newer: older SQLite can corrupt a database in WAL mode."
    return Finding(check="SQLite", ok=ok, detail=version, fix=fix)


def _numbers(version: str) -> tuple[int, ...]:
    digits = ("".join(c for c in part if c.isdigit()) for part in version.split("."))
    return tuple(int(part) for part in digits if part)
