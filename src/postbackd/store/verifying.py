"""Finds every damaged money row: what both databases are read for, and what is made of it.

A ``Reader`` reads one database and changes nothing in it; ``verify`` says what is wrong with what it read.  Three
things are looked at: the structure of the database as its own checks see it, each conversion and each change of one
against its checksum, and the postback log, which knows what must be there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple, Protocol

from msgspec import Struct

from postbackd.core.checksum import CHANGE_COLUMNS, CONVERSION_COLUMNS, checksum
from postbackd.core.click_id import write_stamp

Columns = Sequence[Any]


class MoneyTable(NamedTuple):
    """A table whose rows are money."""

    name: str
    columns: Sequence[str]
    """What the checksum covers, in its order."""
    texts: frozenset[str]
    key: Sequence[str]
    conversion: int
    """Which of the columns is the id of the conversion."""
    request: int
    """Which of the columns is the id of the request that made the row."""


CONVERSIONS = MoneyTable(
    "conversions",
    CONVERSION_COLUMNS,
    frozenset({"type", "transaction_id", "currency"}),
    ("click_id", "type", "transaction_id"),
    3,
    3,
)
CHANGES = MoneyTable("conversion_history", CHANGE_COLUMNS, frozenset({"status_word"}), ("request_id",), 1, 0)
MONEY_TABLES = (CONVERSIONS, CHANGES)


class Damage(Struct, frozen=True, kw_only=True):
    """One thing that is wrong."""

    where: str
    """A table, ``structure``, or ``log``."""
    conversion: str = ""
    """The conversion's id as people see it, when it can be told."""
    detail: str

    def write(self) -> str:
        """One line."""
        return ": ".join(part for part in (self.where, self.conversion, self.detail) if part)


class Unreadable(NamedTuple):
    """Rows that the database could not give."""

    detail: str


class StoredRow(NamedTuple):
    """A row as it lies in the database."""

    columns: Columns
    """Of a text that is none any more, something that no checksum was made of."""
    checksum: int | None
    misplaced: str = ""
    """Where it lies although it belongs elsewhere; empty when it lies where it belongs."""


class Reader(Protocol):
    """Reads a database for ``verify``; nothing raises what the database raises."""

    def examine(self) -> AsyncIterator[Damage]:
        """What the database's own checks say of its structure."""
        ...

    def read(self, table: MoneyTable) -> AsyncIterator[Sequence[StoredRow | Unreadable]]:
        """Every row, a few thousand at a time."""
        ...

    async def unsealed_to(self) -> int:
        """Rows that came with a request after this must have a checksum."""
        ...

    def missing(self) -> AsyncIterator[Damage]:
        """What the log says was counted or changed, and is not there."""
        ...

    async def close(self) -> None: ...


class Progress(Struct, frozen=True):
    """How far it is."""

    step: str
    rows: int = 0
    """Money rows read since the last one."""
    unsealed: int = 0
    """Rows among them that have no checksum yet, and need none."""


async def verify(reader: Reader) -> AsyncIterator[Damage | Progress]:
    """Read all of it; yields what is wrong, and between that how far it is."""
    yield Progress("structure")
    async for damage in reader.examine():
        yield damage
    unsealed_to = await reader.unsealed_to()
    for table in MONEY_TABLES:
        async for rows in reader.read(table):
            unsealed = 0
            for row in rows:
                if isinstance(row, Unreadable):
                    yield Damage(where=table.name, detail=row.detail)
                elif may_be_unsealed(table, row, unsealed_to):
                    unsealed += 1
                elif (found := judge(table, row)) is not None:
                    yield found
            yield Progress(table.name, len(rows), unsealed)
    yield Progress("log")
    async for damage in reader.missing():
        yield damage


def may_be_unsealed(table: MoneyTable, row: StoredRow, unsealed_to: int) -> bool:
    """Whether a row has no checksum because it is from before there were any."""
    request = row.columns[table.request]
    return row.checksum is None and isinstance(request, int) and request <= unsealed_to


def judge(table: MoneyTable, row: StoredRow) -> Damage | None:
    """What is wrong with a row that must have a checksum."""
    if row.checksum == checksum(row.columns) and not row.misplaced:
        return None
    says = ", ".join(f"{name} {value!r}" for name, value in zip(table.columns, row.columns, strict=True))
    if row.misplaced:
        wrong = row.misplaced
    elif row.checksum is None:
        wrong = "its checksum is gone"
    else:
        wrong = "it does not fit its checksum"
    return Damage(
        where=table.name, conversion=_id_of(row.columns[table.conversion]), detail=f"{wrong}; it says {says}"
    )


def _id_of(stamp: Any) -> str:
    return write_stamp(stamp) if isinstance(stamp, int) and 0 <= stamp < 1 << 63 else ""


def read_text(stored: bytes) -> Any:
    """The text of these bytes; of others something that no checksum was made of."""
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return ("no UTF-8", stored)
