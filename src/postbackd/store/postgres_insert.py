"""Inserting sets of rows on PostgreSQL: each column an array, or, where that is better, a list of values."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import asyncpg

from postbackd.store.postgres_partitions import Partition, partition_of
from postbackd.store.transaction import Row


class PartitionMissing(Exception):
    """Rows were refused because there is no partition for them yet."""

    def __init__(self, partitions: set[Partition]) -> None:
        super().__init__(", ".join(sorted(partition.name for partition in partitions)))
        self.partitions = partitions


@contextmanager
def naming_partitions(table: str, stamps: Collection[int]) -> Iterator[None]:
    """Raises ``PartitionMissing`` when one of a table is, for rows with these stamps."""
    try:
        yield
    except asyncpg.CheckViolationError as error:
        if error.constraint_name is not None:
            raise
        raise PartitionMissing({partition_of(table, stamp) for stamp in stamps}) from error


class Columns:
    """Columns that travel to the server as one array each, the first parameters of a statement."""

    def __init__(self, text: str) -> None:
        """``text``: ``name type`` pairs, as in ``click_id bigint, own_id text``."""
        pairs = [column.split() for column in text.split(",")]
        self.text = text
        self.names = ", ".join(name for name, _ in pairs)
        self.types = [type_ for _, type_ in pairs]
        self.arrays = ", ".join(f"${number}::{type_}[]" for number, type_ in enumerate(self.types, 1))

    def mark(self, number: int) -> str:
        """The mark of a parameter behind the columns, from 1."""
        return f"${len(self.types) + number}"

    def values(self, rows: Sequence[Row]) -> Sequence[Sequence[Any]]:
        """The rows, a sequence a column."""
        return list(zip(*rows, strict=True)) if rows else [()] * len(self.types)


class Insert:
    """A statement that inserts any number of rows, each column an array."""

    def __init__(self, table: str, columns: str, on_conflict: str = "") -> None:
        """``columns``: ``name type`` pairs, as in ``click_id bigint, own_id text``."""
        named = Columns(columns)
        self.table = table
        self._types = named.types
        self._begin = f"INSERT INTO {table} ({named.names})"
        self._end = on_conflict
        self.sql = f"{self._begin} SELECT * FROM unnest({named.arrays}) {on_conflict}"

    async def run(self, db: asyncpg.Connection, rows: Sequence[Row]) -> int:
        """Insert the rows; returns how many went in.  Raises ``PartitionMissing``."""
        if not rows:
            return 0
        assert len(rows[0]) == len(self._types)
        with naming_partitions(self.table, [row[0] for row in rows]):
            return count_of(await db.execute(self.sql, *zip(*rows, strict=True)))

    async def run_values(self, db: asyncpg.Connection, rows: Sequence[Row]) -> int:
        """As ``run``, in statements that name their rows; some hundred rows each, of a few sizes."""
        inserted = 0
        start = 0
        while start < len(rows):
            size = next(size for size in _VALUES_SIZES if size <= len(rows) - start)
            part = rows[start : start + size]
            with naming_partitions(self.table, [row[0] for row in part]):
                values = [value for row in part for value in row]
                inserted += count_of(await db.execute(self.values_sql(size), *values))
            start += size
        return inserted

    def values_sql(self, size: int) -> str:
        """The statement for so many rows."""
        width = len(self._types)
        lines = (
            ", ".join(f"${line * width + column}::{type_}" for column, type_ in enumerate(self._types, 1))
            for line in range(size)
        )
        return f"{self._begin} VALUES ({'), ('.join(lines)}) {self._end}"


_VALUES_SIZES = (256, 64, 16, 4, 1)
"""Of a few sizes, so that each statement is prepared once."""


def count_of(tag: str) -> int:
    """How many rows a statement touched, from what it answered: ``INSERT 0 57``."""
    return int(tag.rpartition(" ")[2])
