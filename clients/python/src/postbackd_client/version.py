"""The one place of the version: the package metadata and the User-Agent read it from here."""

from __future__ import annotations

VERSION = "0.1.0"
