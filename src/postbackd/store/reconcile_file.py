"""One reconciliation as a file of its own: the rows of the export, our conversions beside them, and what was found.

An SQLite file that nothing else depends on, so that a million rows need no memory, can be looked at page by page, and
are gone when the file is.  It is written without syncing: after a crash it is thrown away.  No original text of the
export is in it that the firewall would not let into the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import msgspec

from postbackd.core.export_rows import Row
from postbackd.core.reconciling import Bucket, Shift

_SCHEMA = """
CREATE TABLE rows (
    line INTEGER PRIMARY KEY, problem INTEGER, transaction_id TEXT, click INTEGER, campaign INTEGER, own_id TEXT,
    type TEXT, value_micros INTEGER, currency TEXT, status INTEGER, status_text TEXT, time_ms INTEGER, day INTEGER,
    zone_min INTEGER
);
CREATE TABLE ours (
    n INTEGER PRIMARY KEY, click INTEGER, type TEXT, transaction_id TEXT, conversion_id INTEGER, campaign INTEGER,
    status INTEGER, value_micros INTEGER, currency TEXT, channels INTEGER, time_ms INTEGER, own_id TEXT
);
CREATE TABLE found (line INTEGER PRIMARY KEY, bucket INTEGER, problem INTEGER, n INTEGER, other INTEGER);
CREATE TABLE left_over (n INTEGER PRIMARY KEY, bucket INTEGER);
CREATE TABLE summary (document TEXT);
"""
# found.other: of a duplicate the line of the first row; of a missing row our conversion of its click that has
# another transaction id.

_CACHE_KIB = 65_536

_PAIRED = """
SELECT r.line, r.transaction_id, r.click, r.own_id, r.type, r.value_micros, r.currency, r.status, r.time_ms, r.day,
       r.zone_min, o.n, o.click, o.type, o.transaction_id, o.value_micros, o.currency, o.status, o.time_ms, o.own_id
FROM rows AS r LEFT JOIN ours AS o ON o.transaction_id = r.transaction_id AND o.transaction_id <> ''
WHERE r.problem = 0 ORDER BY r.line
"""

_OURS = "SELECT n, click, type, transaction_id, value_micros, currency, status, time_ms, own_id FROM ours "

_MONEY = """
sum(CASE WHEN {status} >= 3 THEN 0 ELSE {value} / 1000000 END),
sum(CASE WHEN {status} >= 3 THEN 0 ELSE {value} % 1000000 END)
"""
# Statuses from 3 on are rejected and reversed.  Units and micros are added apart: large sums leave 64 bits.

_THEIRS = _MONEY.format(status="coalesce(r.status, 0)", value="r.value_micros")
_OF_OURS = _MONEY.format(status="o.status", value="o.value_micros")

_SHOWN = """
SELECT f.line, coalesce(f.bucket, :bucket) AS bucket, f.problem, f.other,
       r.transaction_id, r.click, r.campaign, r.own_id, r.type, r.value_micros, r.currency, r.status, r.status_text,
       r.time_ms, r.zone_min,
       o.n, o.click AS our_click, o.type AS our_type, o.transaction_id AS our_transaction_id,
       o.conversion_id AS our_conversion_id, o.campaign AS our_campaign, o.status AS our_status,
       o.value_micros AS our_value_micros, o.currency AS our_currency, o.channels AS our_channels,
       o.time_ms AS our_time_ms
"""


class FileUnusable(Exception):
    """The file cannot be read: damaged, or still being written."""


class ReconcileFile:
    """The file, open."""

    def __init__(self, path: Path, *, create: bool) -> None:
        """Raises ``OSError`` or ``FileUnusable`` when it cannot be used."""
        self.path = path
        flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
        if create:
            path.touch(mode=0o600)
        try:
            self._db = apsw.Connection(str(path), flags)
        except apsw.Error as error:
            raise FileUnusable(str(error)) from error
        self._db.pragma("cache_size", -_CACHE_KIB)
        if create:
            for name, value in (
                ("journal_mode", "OFF"),
                ("synchronous", "OFF"),
                ("locking_mode", "EXCLUSIVE"),
            ):
                self._db.pragma(name, value)
            self._db.execute(_SCHEMA)

    def begin(self) -> None:
        """One transaction for everything that is written at a time."""
        self._db.execute("BEGIN")

    def commit(self) -> None:
        """End it."""
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Raises nothing."""
        self._db.close()

    # --- filling -----------------------------------------------------------------------------------------------

    def add_rows(self, rows: Sequence[Row]) -> None:
        """What the export says."""
        self._db.executemany(
            "INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            map(msgspec.structs.astuple, rows),
        )

    def add_ours(self, rows: Iterable[Sequence[Any]]) -> None:
        """Conversions of ours, in the order of the columns but for the number."""
        self._db.executemany("INSERT INTO ours VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def index(self) -> None:
        """Before anything is looked up."""
        self._db.execute(
            "CREATE INDEX ours_by_transaction ON ours (transaction_id) WHERE transaction_id <> ''"
        )
        self._db.execute("CREATE INDEX ours_by_click ON ours (click)")
        self._db.execute("CREATE INDEX ours_by_own_id ON ours (own_id) WHERE own_id IS NOT NULL")

    def add_found(self, found: Sequence[tuple[int, int, int, int | None, int | None]]) -> None:
        """``(line, bucket, problem, our number, other)``."""
        self._db.executemany("INSERT INTO found VALUES (?, ?, ?, ?, ?)", found)

    def add_left_over(self, found: Iterable[tuple[int, int]]) -> None:
        """``(our number, bucket)`` of conversions that no row matched."""
        self._db.executemany("INSERT INTO left_over VALUES (?, ?)", found)

    def mark_duplicates(self) -> None:
        """Missing rows that say the same id again are duplicates of the first one."""
        self._db.execute(
            "UPDATE found SET bucket = :duplicate, other = d.first FROM ("
            " SELECT r.line, min(r.line) OVER (PARTITION BY r.transaction_id, r.click, r.own_id, r.type) AS first"
            " FROM found AS f JOIN rows AS r ON r.line = f.line WHERE f.bucket = :missing) AS d "
            "WHERE found.line = d.line AND d.first < d.line",
            {"duplicate": Bucket.DUPLICATE, "missing": Bucket.MISSING_HERE},
        )

    def finish(self, document: dict[str, Any]) -> None:
        """Keep the summary, and make the buckets quick to page through."""
        self._db.execute("CREATE INDEX found_by_bucket ON found (bucket, line)")
        self._db.execute("CREATE INDEX left_over_by_bucket ON left_over (bucket, n)")
        self._db.execute("INSERT INTO summary VALUES (?)", (msgspec.json.encode(document).decode(),))

    # --- asking ------------------------------------------------------------------------------------------------

    def _one(self, sql: str, *values: Any) -> Any:
        return self._db.execute(sql, values).fetchone()

    def _ask(self, sql: str, *values: Any) -> Iterator[Any]:
        """Rows are read as they are wanted."""
        return iter(self._db.execute(sql, values))

    def span(self) -> tuple[int | None, int | None]:
        """The first and the last time that usable rows show."""
        first, last = self._one("SELECT min(time_ms), max(time_ms) FROM rows WHERE problem = 0")
        return first, last

    def span_shown(self) -> tuple[int | None, int | None, int | None]:
        """The same by the clock of the file, and minutes ahead of UTC where rows name their zone."""
        shown = "time_ms + coalesce(zone_min, 0) * 60000"
        first, last, zone = self._one(
            f"SELECT min({shown}), max({shown}), max(zone_min) FROM rows WHERE problem = 0 AND time_ms IS NOT NULL"
        )
        return first, last, zone

    def span_matched(self) -> tuple[int | None, int | None]:
        """The first and the last time of our conversions whose transaction id is in the file."""
        first, last = self._one(
            "SELECT min(o.time_ms), max(o.time_ms) FROM rows AS r JOIN ours AS o "
            "ON o.transaction_id = r.transaction_id AND o.transaction_id <> '' WHERE r.problem = 0"
        )
        return first, last

    def has_own_ids(self) -> bool:
        """Whether any row names a click id that is not ours."""
        return self._one("SELECT 1 FROM rows WHERE own_id IS NOT NULL LIMIT 1") is not None

    def unresolved(self) -> Iterator[tuple[str, int | None]]:
        """Transaction and click ids of rows whose transaction id is none of ours so far."""
        return self._ask(
            "SELECT transaction_id, click FROM rows AS r WHERE problem = 0 AND NOT EXISTS "
            "(SELECT 1 FROM ours AS o WHERE o.transaction_id = r.transaction_id AND o.transaction_id <> '')"
        )

    def our_types(self) -> set[str]:
        """Types of our conversions."""
        return {word for (word,) in self._ask("SELECT DISTINCT type FROM ours")}

    def their_types(self, limit: int) -> set[str]:
        """Some of the types that the file names."""
        rows = self._ask("SELECT DISTINCT type FROM rows WHERE type IS NOT NULL LIMIT ?", limit)
        return {word for (word,) in rows}

    def our_transactions(self) -> tuple[int, int]:
        """How many of our conversions bear a transaction id of the network's, and how many none."""
        none = "transaction_id = '' OR transaction_id LIKE '#%'"
        named, unnamed = self._one(
            f"SELECT count(*) FILTER (WHERE NOT ({none})), count(*) FILTER (WHERE {none}) FROM ours"
        )
        return named, unnamed

    def count_ours(self) -> int:
        """The largest number of a conversion."""
        return int(self._one("SELECT coalesce(max(n), 0) FROM ours")[0])

    def count_timed(self) -> int:
        """How many usable rows have a time."""
        return int(self._one("SELECT count(*) FROM rows WHERE problem = 0 AND time_ms IS NOT NULL")[0])

    def pairs(self, by_click: bool, every: int, limit: int) -> list[tuple[int, int]]:
        """(their time, our time) of rows that fit one conversion, of one line in so many."""
        same = (
            "o.click = r.click"
            if by_click
            else "o.transaction_id = r.transaction_id AND o.transaction_id <> ''"
        )
        return list(
            self._ask(
                f"SELECT r.time_ms, min(o.time_ms) FROM rows AS r JOIN ours AS o ON {same} "
                "WHERE r.problem = 0 AND r.time_ms IS NOT NULL AND r.zone_min IS NULL AND r.line % ? = 0 "
                "GROUP BY r.line HAVING count(*) = 1 LIMIT ?",
                every,
                limit,
            )
        )

    def problems(self) -> Iterator[tuple[int, int]]:
        """(line, problem) of the rows that cannot be used."""
        return self._ask("SELECT line, problem FROM rows WHERE problem <> 0")

    def our_times(self) -> Iterator[tuple[int, int]]:
        """(number, time) of our conversions."""
        return self._ask("SELECT n, time_ms FROM ours")

    def sum_rows(self) -> list[Any]:
        """(bucket, currency, rows, units, micros) of what the file says."""
        return list(
            self._ask(
                f"SELECT f.bucket, r.currency, count(*), {_THEIRS} FROM found AS f "
                "JOIN rows AS r ON r.line = f.line GROUP BY 1, 2"
            )
        )

    def sum_ours(self) -> list[Any]:
        """The same of what we say, each conversion once."""
        matched = (
            f"SELECT f.bucket, o.currency, count(*), {_OF_OURS} FROM found AS f JOIN ours AS o ON o.n = f.n "
            f"WHERE f.bucket <> {Bucket.DUPLICATE:d} GROUP BY 1, 2"
        )
        alone = (
            f"SELECT l.bucket, o.currency, count(*), {_OF_OURS} FROM left_over AS l JOIN ours AS o ON o.n = l.n "
            "GROUP BY 1, 2"
        )
        return [*self._ask(matched), *self._ask(alone)]

    def count_problems(self) -> list[tuple[int, int]]:
        """(problem, rows) of what is unusable, most first."""
        return list(
            self._ask(
                "SELECT problem, count(*) FROM found WHERE bucket = ? GROUP BY 1 ORDER BY 2 DESC, 1",
                Bucket.UNUSABLE,
            )
        )

    def lines_of_problem(self, problem: int, limit: int) -> list[int]:
        """The first lines that have it."""
        rows = self._ask(
            "SELECT line FROM found WHERE bucket = ? AND problem = ? ORDER BY line LIMIT ?",
            Bucket.UNUSABLE,
            problem,
            limit,
        )
        return [line for (line,) in rows]

    def count(self, bucket: Bucket) -> int:
        """Rows of the file in a bucket."""
        return int(self._one("SELECT count(*) FROM found WHERE bucket = ?", bucket)[0])

    def paired(self) -> Iterator[Any]:
        """Every usable row with each conversion of ours that has its transaction id, in the order of the file."""
        return self._ask(_PAIRED)

    def of_click(self, click: int) -> list[Any]:
        """Our conversions of a click."""
        return self._db.execute(f"{_OURS} WHERE click = ?", (click,)).fetchall()

    def of_own_id(self, own_id: str) -> list[Any]:
        """Our conversions of a caller's own click id."""
        return self._db.execute(f"{_OURS} WHERE own_id = ?", (own_id,)).fetchall()

    def summary(self) -> dict[str, Any]:
        """The document; empty when the reconciliation was never finished."""
        try:
            row = self._one("SELECT document FROM summary")
        except apsw.Error as error:
            raise FileUnusable(str(error)) from error
        return msgspec.json.decode(row[0]) if row is not None else {}

    def page(self, bucket: Bucket, after: int, limit: int) -> list[dict[str, Any]]:
        """Entries of a bucket behind a place, in order; each has its ``place``.

        Rows of the file come first, by line; then conversions that only we have.  ``utc_ms`` is the row's time.
        """
        rows = self._entries(
            f"{_SHOWN}, f.line AS place FROM found AS f JOIN rows AS r ON r.line = f.line "
            "LEFT JOIN ours AS o ON o.n = f.n WHERE f.bucket = :bucket AND f.line > :after "
            "ORDER BY f.line LIMIT :limit",
            {"bucket": bucket, "after": after, "limit": limit},
        )
        if len(rows) < limit:
            rows += self._entries(
                f"{_SHOWN}, {_OURS_FROM} + l.n AS place FROM left_over AS l JOIN ours AS o ON o.n = l.n "
                "LEFT JOIN found AS f ON f.line = -1 LEFT JOIN rows AS r ON r.line = -1 "
                "WHERE l.bucket = :bucket AND l.n > :after ORDER BY l.n LIMIT :limit",
                {"bucket": bucket, "after": after - _OURS_FROM, "limit": limit - len(rows)},
            )
        shift = self._shift()
        for row in rows:
            shown, zone = row["time_ms"], row["zone_min"]
            row["utc_ms"] = shown if shown is None or zone is not None else shift.to_utc(shown)
        return rows

    def _shift(self) -> Shift:
        clock = self.summary()["clock"]
        return Shift(
            clock["shift_minutes"] or 0,
            later=clock["later_shift_minutes"],
            switch_ms=clock["later_from_ms"] or 0,
        )

    def _entries(self, sql: str, values: dict[str, Any]) -> list[dict[str, Any]]:
        cursor = self._db.execute(sql, values)
        try:
            names = [column[0] for column in cursor.get_description()]
        except apsw.ExecutionCompleteError:
            return []
        return [dict(zip(names, row, strict=True)) for row in cursor]


_OURS_FROM = 1 << 40
"""Places of conversions begin here, behind those of all lines."""
