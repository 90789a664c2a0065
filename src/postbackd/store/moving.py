"""Copies the embedded database into a PostgreSQL database, and proves that both hold the same.

Large tables go in chunks, a day or a month of stamps each.  A chunk is copied when the two databases do not agree on
it: how many rows it has, and sums over every column.  So a copy that was interrupted goes on where it was, and so most
of it can be done while a server still writes: run it once beside the server, then stop the server and run it again,
which copies only what has changed.  What is copied of a chunk replaces what was there, in one transaction.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from hashlib import md5
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import asyncpg

from postbackd.core.buckets import bucket_of_stamp, bucket_of_text
from postbackd.core.click_id import MAX_STAMP
from postbackd.store.base import StoreRefused
from postbackd.store.postgres_connection import check_server, connect, refusing
from postbackd.store.postgres_partitions import TABLES as PARTITIONED
from postbackd.store.postgres_partitions import make_partitions, partition_of
from postbackd.store.postgres_schema import migrate
from postbackd.store.postgres_write import bucket_of_log_row, bucket_of_ref
from postbackd.store.sealed import MARKED
from postbackd.store.sqlite_file import FILE_NAME
from postbackd.store.sqlite_file import refusing as refusing_file

_CLICK_COLUMNS = (
    "click_id campaign offer kind source_click_id cost_micros country ip_prefix own_id "
    "sub1 sub2 sub3 sub4 sub5 sub6 sub7 sub8 sub9 sub10"
)
_CONVERSION_COLUMNS = (
    "click_id type transaction_id conversion_id network campaign offer status value_micros currency channels "
    "status_time_ms checksum"
)
_HISTORY_COLUMNS = (
    "click_id request_id conversion_id status_from status_to status_word value_micros_from value_micros_to "
    "checksum"
)
_POSTBACK_COLUMNS = (
    "request_id network channel verdict reason click_id campaign conversion_id click_text type value currency "
    "transaction_id status time found_in bytes parameters first_verdict first_reason observed sender"
)
_DELIVERY_COLUMNS = (
    "click_id number request_id type transaction_id conversion_id campaign offer rule target message status "
    "value_micros currency facts created_ms expires_ms state due_ms holder unsure attempts "
    "settled_ms reason"
)
_ATTEMPT_COLUMNS = "click_id delivery attempt at_ms took_ms http_status excerpt error"
_FACT_COLUMNS = (
    "conversion_id click_id network campaign offer type status value_micros currency channels rung country "
    "sub1 sub2 sub3 sub4 sub5 sub6 sub7 sub8 sub9 sub10"
)
_EVENT_COLUMNS = (
    "click_id event request_id conversion_id status_from status value_micros_from value_micros currency trace"
)


class Table(NamedTuple):
    """A table as both databases have it."""

    name: str
    columns: Sequence[str]
    numbers: Sequence[str]
    """Columns that are added up to compare; of the others the lengths are.  None at all: whole rows are hashed."""
    key: str = ""
    """The stamp by which it is divided into chunks; empty: it goes as a whole."""
    source: str = ""
    """What the rows are read from, when that is more than the table of this name."""


def _hashed(name: str, columns: str, key: str = "", source: str = "") -> Table:
    """A table whose rows change, so that a digest has to see every character."""
    return Table(name, columns.split(), (), key, source)


def _table(name: str, columns: str, texts: str = "", key: str = "", source: str = "") -> Table:
    names = columns.split()
    return Table(name, names, [column for column in names if column not in texts.split()], key, source)


_HISTORY_WITH_CLICKS = (
    "(SELECT k.click_id, h.request_id, h.conversion_id, h.status_from, h.status_to, h.status_word, "
    "h.value_micros_from, h.value_micros_to, h.checksum "
    "FROM conversion_history AS h JOIN temp.clicks_of_history AS k ON k.conversion_id = h.conversion_id)"
)

_ATTEMPTS_WITH_CLICKS = (
    "(SELECT d.click_id, a.delivery, a.attempt, a.at_ms, a.took_ms, a.http_status, a.excerpt, a.error "
    "FROM attempts AS a JOIN deliveries AS d ON d.number = a.delivery)"
)

LARGE = (
    _table(
        "clicks",
        _CLICK_COLUMNS,
        "source_click_id country ip_prefix own_id sub1 sub2 sub3 sub4 sub5 sub6 sub7 sub8 sub9 sub10",
        "click_id",
    ),
    _hashed("conversions", _CONVERSION_COLUMNS, "click_id"),
    _table("conversion_history", _HISTORY_COLUMNS, "status_word", "click_id", _HISTORY_WITH_CLICKS),
    _table(
        "postbacks",
        _POSTBACK_COLUMNS,
        "click_text type value currency transaction_id status time found_in sender",
        "request_id",
    ),
    _hashed("deliveries", _DELIVERY_COLUMNS, "click_id"),
    _hashed("attempts", _ATTEMPT_COLUMNS, "click_id", _ATTEMPTS_WITH_CLICKS),
)

WHOLE = (
    _table("own_ids", "own_id click_id", "own_id"),
    _table("waiting", "click_ref request_id", "click_ref"),
    _table("pixel_conversions", "click_id type", "type"),
    _hashed("outbox", _EVENT_COLUMNS),
    _hashed("target_states", "target state since_ms until_ms reason"),
    _table("erased_clicks", "click_id"),
    _table("purges", "at_ms class rows", "class"),
    _table("finds", "minute network field kind count", "field kind"),
    _table("unmapped_names", "minute network name", "name"),
    _hashed("click_rollups", "level slot campaign offer country clicks costed cost_units cost_micros"),
    _hashed("postback_rollups", "level slot network campaign postbacks carried matched duplicates"),
    _hashed("sub_rollups", "level slot campaign sub value other clicks costed cost_units cost_micros"),
    _hashed("conversion_facts", _FACT_COLUMNS),
    _hashed("minute_rollups", "minute kind network word count units micros"),
    _hashed("rollup_marks", "id kind slot"),
    _hashed("rollup_state", "name value"),
    _table("refusals", "minute kind count", "kind"),
    _table("response_times", "minute bucket count total_us"),
    _hashed(
        "alarm_hours",
        "scope subject hour clicks postbacks carried matched duplicates first_ms last_ms gap_from_ms gap_until_ms",
    ),
    _hashed("alarm_words", "kind network word first_ms last_ms count"),
    _hashed(
        "alarms",
        "id kind scope subject urgent seen normal todo raised_ms bad_ms good_ms told_ms ended_ms",
    ),
    _hashed("alarm_quiets", "kind scope subject until_ms who why at_ms"),
    _hashed("alarm_notices", "id alarm place said body made_ms due_ms attempts state settled_ms error"),
)

CATALOG = (
    _table(
        "networks",
        "id name key preset currency dedup strict answer fields types statuses senders personal_data removed_ms",
    ),
    _table("sources", "id name preset fields removed_ms"),
    _table("offers", "id name network url window_min_s window_max_s removed_ms"),
    _table("campaigns", "id name slug source offers removed_ms"),
    _table("targets", "id name preset how secrets removed_ms"),
    _table(
        "rules",
        "id name source campaign target condition delay_s payout on_change on_reversal removed_ms",
    ),
    _table("signing_keys", "id secret active_from_ms retired"),
    _table("erasures", "id at_ms asked reference counts done_ms"),
    _table("users", "id name role password totp totp_on totp_step recovery known made_ms"),
    _table("tokens", "id name hash scopes user_id made_ms expires_ms used_ms"),
    _table("audit", "id at_ms who kind action object fields status prefix"),
    _table("views", "id user_id name page query"),
)
"""In the order in which they refer to each other.  Small, and copied every time; so are certificates of erasures, and
people.  Sessions are not: whoever uses the other database signs in there."""

NOTE_CLICKS_OF_HISTORY = """
CREATE TEMP TABLE clicks_of_history AS
SELECT conversion_id, click_id FROM conversions
WHERE conversion_id IN (SELECT conversion_id FROM conversion_history)
"""
"""The click of each conversion that ever changed: the embedded database keeps it with the conversion alone."""

TAKE_TURN = "SELECT pg_try_advisory_lock(8101009)"
"""Whether nobody else copies into the database; until this session ends."""

SERVED = "SELECT EXISTS (SELECT 1 FROM nodes)"
"""Whether a server has ever run on the database: what it counted would be lost."""

SET_NUMBERS = """
SELECT setval('delivery_numbers', (SELECT coalesce(max(number), 0) + 1 FROM deliveries)),
       setval(pg_get_serial_sequence('outbox', 'event'), (SELECT coalesce(max(event), 0) + 1 FROM outbox)),
       setval(pg_get_serial_sequence('rollup_marks', 'id'), (SELECT coalesce(max(id), 0) + 1 FROM rollup_marks))
"""
"""Go on counting after what was copied."""

MONEY = (
    "SELECT currency, CAST(sum(value_micros / 1000000) AS BIGINT), CAST(sum(value_micros % 1000000) AS BIGINT), "
    "count(*) FROM conversions GROUP BY currency ORDER BY currency"
)
"""Totals of what was counted, by currency: whole units, millionths, conversions."""


class Step(NamedTuple):
    """A part of the copy that has been done."""

    table: str
    rows: int
    copied: bool
    """``False``: both databases agreed on it already."""


class Mover:
    """One copy, from a data directory into a database that has our tables."""

    def __init__(self, source: apsw.Connection, target: asyncpg.Connection) -> None:
        """Use ``open_mover``."""
        self._source = source
        self._target = target

    def count(self) -> int:
        """How many rows there are to look at."""
        return sum(int(self._source.execute(f"SELECT count(*) FROM {t.name}").get) for t in (*LARGE, *WHOLE))

    async def prepare(self) -> None:
        """Make the tables where there are none.

        Raises ``StoreRefused`` when the database holds something else than an earlier copy, or is in use.
        """
        await check_server(self._target)
        if not await self._target.fetchval(TAKE_TURN):
            raise StoreRefused(
                "somebody else is copying into the database in --to; wait until that has ended"
            )
        await migrate(self._target)
        key = self._source.execute("SELECT value FROM settings WHERE name = 'privacy_key'").get
        theirs = await self._target.fetchval("SELECT value FROM secrets WHERE name = 'privacy_key'")
        used = await self._target.fetchval(
            "SELECT EXISTS (SELECT 1 FROM networks) OR EXISTS (SELECT 1 FROM clicks) "
            "OR EXISTS (SELECT 1 FROM postbacks)"
        )
        if used and theirs != key:
            raise StoreRefused(
                "the database in --to holds other data than a copy of this one; name an empty one"
            )
        if await self._target.fetchval(SERVED):
            raise StoreRefused(
                "a server has run on the database in --to, and what it counted would be lost; name an empty one"
            )

    async def copy(self) -> AsyncIterator[Step]:
        """Copy what differs; yields each part when it is done."""
        await self._copy_catalog()
        self._source.execute(NOTE_CLICKS_OF_HISTORY)
        for table in LARGE:
            for first, end in self._chunks(table):
                yield await self._copy_chunk(table, first, end)
            await self._target.execute(
                f"DELETE FROM {table.name} WHERE {table.key} < $1", self._first(table) or MAX_STAMP
            )
        for table in WHOLE:
            yield await self._copy_chunk(table, 0, 0)
        await self._target.execute(SET_NUMBERS)

    async def verify(self) -> Sequence[str]:
        """What the two databases do not agree on, in words; empty when they hold the same."""
        differences = []
        for table in (*LARGE, *WHOLE):
            ours = self._source.execute(f"SELECT count(*) FROM {table.name}").get
            theirs = await self._target.fetchval(f"SELECT count(*) FROM {table.name}")
            if ours != theirs:
                differences.append(f"{table.name}: {ours} rows here, {theirs} there")
        money = [tuple(row) for row in self._source.execute(MONEY)]
        if money != [tuple(row) for row in await self._target.fetch(MONEY)]:
            differences.append("conversions: the totals by currency differ")
        return differences

    def money(self) -> Sequence[tuple[str, int, int]]:
        """(currency, millionths, conversions) of what was counted."""
        return [(row[0], row[1] * 1_000_000 + row[2], row[3]) for row in self._source.execute(MONEY)]

    def is_sealed(self) -> bool:
        """Whether the keys in it are sealed, so that the servers of the copy need what opens them."""
        return bool(self._source.execute(MARKED).get)

    async def close(self) -> None:
        self._source.close()
        await self._target.close()

    # --- chunks --------------------------------------------------------------------------------------------------

    def _first(self, table: Table) -> int | None:
        first: int | None = self._source.execute(f"SELECT min({table.key}) FROM {_source_of(table)}").get
        return first

    def _chunks(self, table: Table) -> Iterator[tuple[int, int]]:
        """The stamps of each part in which the source has rows, the upper one not included."""
        following = self._first(table)
        while following is not None:
            partition = partition_of(table.name, following)
            yield partition.first, partition.end
            following = self._source.execute(
                f"SELECT min({table.key}) FROM {_source_of(table)} WHERE {table.key} >= ?", (partition.end,)
            ).get

    async def _copy_chunk(self, table: Table, first: int, end: int) -> Step:
        where = f" WHERE {table.key} >= {first} AND {table.key} < {end}" if table.key else ""
        ours: tuple[Any, ...] = tuple(
            self._source.execute(_digest(table, _source_of(table), where, _SQLITE)).fetchall()[0]
        )
        theirs = await self._target.fetchrow(_digest(table, table.name, where, _POSTGRES))
        assert theirs is not None
        if ours == tuple(theirs):
            return Step(table.name, ours[0], copied=False)
        if table.name in PARTITIONED:
            await make_partitions(self._target, [partition_of(table.name, first)])
        rows = self._source.execute(f"SELECT {', '.join(table.columns)} FROM {_source_of(table)}{where}")
        columns = [*table.columns, *_extra_columns(table)]
        async with self._target.transaction():
            await self._target.execute(f"DELETE FROM {table.name}{where}")
            await self._target.copy_records_to_table(
                table.name, records=(_with_bucket(table, row) for row in rows), columns=columns
            )
        return Step(table.name, ours[0], copied=True)

    async def _copy_catalog(self) -> None:
        async with self._target.transaction():
            for table in reversed(CATALOG):
                await self._target.execute(f"DELETE FROM {table.name}")
            for table in CATALOG:
                rows = self._source.execute(f"SELECT {', '.join(table.columns)} FROM {table.name}")
                await self._target.copy_records_to_table(
                    table.name, records=rows.fetchall(), columns=list(table.columns)
                )
                await self._target.execute(
                    f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), "
                    f"(SELECT coalesce(max(id), 1) FROM {table.name}), (SELECT count(*) > 0 FROM {table.name}))"
                )
            await self._target.execute("DELETE FROM secrets")
            await self._target.execute("DELETE FROM settings WHERE name <> 'opened'")
            for name, value in self._source.execute(
                "SELECT name, value FROM settings WHERE name <> 'opened'"
            ):
                into = "secrets" if isinstance(value, bytes) else "settings"
                await self._target.execute(f"INSERT INTO {into} (name, value) VALUES ($1, $2)", name, value)


async def open_mover(directory: Path, dsn: str) -> Mover:
    """Ready to copy a data directory into a database.  Raises ``StoreRefused``."""
    path = directory / FILE_NAME
    if not path.exists():
        raise StoreRefused(f"no database in {directory}; name the data directory of the server in --from")
    with refusing_file(path):
        source = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        source.set_busy_timeout(10_000)
        source.pragma("temp_store", "MEMORY")
        source.create_scalar_function("md5_number", _md5_number, 1, deterministic=True)
    with refusing(dsn):
        target = await connect(dsn, {"jit": "off"})
    return Mover(source, target)


def _source_of(table: Table) -> str:
    return table.source or table.name


class _Dialect(NamedTuple):
    """How a database writes what the other writes differently."""

    first_character: str
    last_character: str
    hash: str
    """Of a text, a number below 2**32."""


_SQLITE = _Dialect("unicode({})", "unicode(substr({}, -1))", "md5_number({})")
_POSTGRES = _Dialect("ascii({})", "ascii(right({}, 1))", "('x' || substr(md5({}), 1, 8))::bit(32)::bigint")


def _digest(table: Table, source: str, where: str, dialect: _Dialect) -> str:
    """One row that tells two versions of a chunk apart: its size, and some sums.

    Conversions and deliveries change, and are money: a hash of each whole row is summed.  Most others only grow, but
    for the verdicts of replays; of those every column is summed, with a weight that depends on the row.
    """
    if not table.numbers:
        row = " || '|' || ".join(f"coalesce(CAST(t.{column} AS TEXT), '~')" for column in table.columns)
        terms: Sequence[str] = [dialect.hash.format(row)]
    else:
        terms = [term for column in table.columns for term in _terms(table, column, dialect)]
    sums = [f"CAST(coalesce(sum({term}), 0) AS BIGINT)" for term in terms]
    return f"SELECT count(*), {', '.join(sums)} FROM {source} AS t{where}"


def _terms(table: Table, column: str, dialect: _Dialect) -> Iterator[str]:
    # A value in another row has another weight, and no sum over a billion rows leaves 64 bits.
    weight = f" * (t.{table.key} % 1009 + 1)" if table.key else ""
    name = f"t.{column}"
    if column in table.numbers:
        yield f"({name} % 1000000){weight}"
        yield f"({name} / 1000000 % 1000000){weight}"
        yield f"({name} / 1000000000000){weight}"
    else:
        yield f"length({name}){weight}"
        yield f"coalesce({dialect.first_character.format(name)}, 0){weight}"
        yield f"coalesce({dialect.last_character.format(name)}, 0){weight}"


def _md5_number(*texts: Any) -> int:
    """The first 32 bits of the hash, as PostgreSQL computes them; it is no secret that is hashed."""
    (text,) = texts
    return int.from_bytes(md5(text.encode(), usedforsecurity=False).digest()[:4], "big")


_WITHOUT_BUCKET = (
    "refusals", "response_times", "target_states", "purges", "finds", "click_rollups", "postback_rollups",
    "sub_rollups", "conversion_facts", "minute_rollups", "rollup_marks", "rollup_state", "alarm_hours", "alarm_words",
    "alarms", "alarm_quiets", "alarm_notices", "unmapped_names",
)  # fmt: skip


def _extra_columns(table: Table) -> tuple[str, ...]:
    return () if table.name in _WITHOUT_BUCKET else ("bucket",)


def _with_bucket(table: Table, row: tuple[Any, ...]) -> tuple[Any, ...]:
    name = table.name
    if name in _WITHOUT_BUCKET:
        return row
    if name == "own_ids":
        return (*row, bucket_of_text(row[0]))
    if name == "waiting":
        return (*row, bucket_of_ref(row[0]))
    if name == "postbacks":
        return (*row, bucket_of_log_row(row))
    return (*row, bucket_of_stamp(row[0]))
