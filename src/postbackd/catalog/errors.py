"""What can be wrong with what somebody asks of the catalog.  Whoever asked for him says it in his own way."""

from __future__ import annotations


class EntryError(ValueError):
    """A field of an entry cannot be what it is; ``field`` names it, the message says what it may be."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class NoEntry(LookupError):
    """There is nothing of this name; the message says what there is."""


class NotNow(Exception):
    """What is stored stands against it; the message says what to do first."""
