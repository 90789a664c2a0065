"""Reads an embedded database for ``store.verifying``, whatever state it is in, and changes nothing in it.

Beside a running server a statement that reads for long would keep the write-ahead log from starting over; so the rows
are read in turns of a second.  The next turn begins behind the last row that fits its checksum: only its key can be
trusted to say where that is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import apsw

from postbackd.core.checksum import checksum
from postbackd.core.click_id import write_stamp
from postbackd.store.queries import STATEMENTS
from postbackd.store.sqlite_file import tune
from postbackd.store.verifying import Damage, MoneyTable, StoredRow, Unreadable, read_text

_ROWS = 2000
_TURN_S = 1.0

_MOST_COMPLAINTS = 200
"""Of the check of the structure; one damaged page can have thousands."""

_VALUE = "CASE typeof({0}) WHEN '{1}' THEN {2} WHEN 'null' THEN NULL ELSE quote(CAST({0} AS BLOB)) END"
"""A text as its bytes, a number as it is, and anything else in their place as text that no sender wrote: a flipped bit
can make it another type, or bytes that are no UTF-8, and neither shall end the reading."""

_FAILURES = (apsw.Error, OSError)

_MISSING = {
    "accepted_without_conversion": "was accepted, and its conversion is not there",
    "updated_without_history": "changed a conversion, and the change is not there",
}


def open_to_read(path: Path, *, alone: bool) -> apsw.Connection:
    """A connection that cannot change the database.

    ``alone``: nobody else uses the file, and nothing is made beside it.  Raises ``apsw.Error``.
    """
    uri = f"file:{_quoted(path)}?mode=ro{'&immutable=1' if alone else ''}"
    db = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    db.set_busy_timeout(10_000)
    tune(db)
    db.pragma("query_only", 1)
    db.pragma("cell_size_check", 1)
    return db


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


class SqliteReader:
    """``store.verifying.Reader`` over one file."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db

    async def examine(self) -> AsyncIterator[Damage]:
        try:
            encoding = self._db.pragma("encoding")
            if encoding != "UTF-8":
                yield Damage(where="structure", detail=f"the encoding of texts is {encoding}, and was UTF-8")
            for (line,) in self._db.execute(f"PRAGMA integrity_check({_MOST_COMPLAINTS})"):
                if line != "ok":
                    yield Damage(where="structure", detail=" ".join(str(line).split()))
        except (*_FAILURES, UnicodeDecodeError) as error:
            yield Damage(where="structure", detail=f"cannot be checked ({_words(error)})")

    async def unsealed_to(self) -> int:
        try:
            return int(self._db.execute(STATEMENTS["unsealed_to"].sql).get or 0)
        except (*_FAILURES, ValueError, UnicodeDecodeError):
            return 0  # what is wrong is found elsewhere; then every row must have one

    async def read(self, table: MoneyTable) -> AsyncIterator[Sequence[StoredRow | Unreadable]]:
        after: Sequence[Any] | None = None
        last: StoredRow | None = None
        ended = False
        while not ended:
            ended, chunk, deadline = True, list[StoredRow](), monotonic() + _TURN_S
            try:
                for last in self._rows(table, after, "ASC"):
                    chunk.append(last)
                    if len(chunk) < _ROWS:
                        continue
                    yield chunk
                    chunk = []
                    if monotonic() > deadline and last.checksum == checksum(last.columns):
                        after, ended = last.columns[: len(table.key)], False
                        break
            except _FAILURES as error:
                yield [
                    *chunk,
                    Unreadable(f"rows behind {_name(table, last)} cannot be read ({_words(error)})"),
                ]
                for part in self._read_from_the_end(table, last):
                    yield part
                return
            yield chunk

    def _rows(self, table: MoneyTable, after: Sequence[Any] | None, order: str) -> Iterator[StoredRow]:
        columns = ", ".join(_value_of(name, table) for name in (*table.columns, "checksum"))
        key = ", ".join(table.key)
        behind = f"WHERE ({key}) > ({', '.join('?' * len(table.key))})" if after is not None else ""
        ordered = ", ".join(f"{name} {order}" for name in table.key)
        sql = f"SELECT {columns} FROM {table.name} {behind} ORDER BY {ordered}"
        texts = [index for index, name in enumerate(table.columns) if name in table.texts]
        for row in self._db.execute(sql, tuple(after or ())):
            yield _stored(row, texts)

    def _read_from_the_end(
        self, table: MoneyTable, last: StoredRow | None
    ) -> Iterator[Sequence[StoredRow | Unreadable]]:
        """What lies behind a place that cannot be read: backwards, as far as that goes."""
        chunk: list[StoredRow | Unreadable] = []
        try:
            for row in self._rows(table, None, "DESC"):
                if row == last:
                    break
                chunk.append(row)
                if len(chunk) >= _ROWS:
                    yield chunk
                    chunk = []
        except _FAILURES as error:
            chunk.append(Unreadable(f"rows cannot be read from the end either ({_words(error)})"))
        yield chunk

    async def missing(self) -> AsyncIterator[Damage]:
        for name, words in _MISSING.items():
            statement = STATEMENTS[name]
            try:
                for request, conversion, _ in self._db.execute(statement.sql, statement.defaults):
                    yield Damage(
                        where="log",
                        conversion=_stamp(conversion),
                        detail=f"request {_stamp(request)} {words}",
                    )
            except (*_FAILURES, UnicodeDecodeError) as error:
                yield Damage(where="log", detail=f"cannot be read ({_words(error)})")

    async def close(self) -> None:
        self._db.close(force=True)


def _value_of(name: str, table: MoneyTable) -> str:
    if name in table.texts:
        return _VALUE.format(name, "text", f"CAST({name} AS BLOB)")
    return _VALUE.format(name, "integer", name)


def _stored(row: Sequence[Any], texts: Sequence[int]) -> StoredRow:
    columns = list(row[:-1])
    for index in texts:
        value = columns[index]
        if isinstance(value, bytes):
            columns[index] = read_text(value)
        elif value is not None:
            columns[index] = ("no text", value)
    stored = row[-1]
    return StoredRow(columns, stored if isinstance(stored, int) else None)


def _name(table: MoneyTable, row: StoredRow | None) -> str:
    return "the first" if row is None else f"that of {_stamp(row.columns[table.conversion])}"


def _stamp(value: Any) -> str:
    return write_stamp(value) if isinstance(value, int) and 0 <= value < 1 << 63 else repr(value)


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
