"""What a check returns: one thing that was looked at."""

from __future__ import annotations

from msgspec import Struct


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    check: str
    ok: bool
    detail: str
    fix: str | None = None

    def write(self) -> str:
        """One line."""
        word = "ok    " if self.ok else "FAILED"
        return f"{word}  {self.check}: {self.detail}{f'. {self.fix}' if self.fix else ''}"
