"""PostgreSQL servers that a test may kill, freeze and use up, and the oracle's look into them.

The tables are copied out by ``psql`` into a file of the shape that the oracle reads, so that the same checks judge both
stores; no line of the program under test takes part.
"""

from __future__ import annotations

import asyncio
import csv
import io
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import asyncpg

from tests.postgres_server import PostgresServer, find_programs
from tests.trust import oracle
from tests.trust.ledger import Ledger
from tests.trust.registry import Skip
from tests.trust.server import descendants, is_alive, wait_until

NAME = "trust"
USER = "tracker"
"""Owns the database, and is no superuser."""

_NULL = "\\N"

_TABLES = {
    "clicks": "click_id INTEGER, source_click_id TEXT, own_id TEXT, cost_micros INTEGER",
    "conversions": "transaction_id TEXT, click_id INTEGER, type TEXT, value_micros INTEGER, currency TEXT, "
    "status INTEGER, conversion_id INTEGER",
    "conversion_history": "conversion_id INTEGER, status_to INTEGER",
    "postbacks": "request_id INTEGER, verdict INTEGER, transaction_id TEXT, conversion_id INTEGER",
}
"""What the oracle reads.  Buckets are left out: a conversion that is there in two buckets is there twice."""


def versions() -> list[int]:
    """The oldest and the newest version that is here.  Raises ``Skip`` when there is none."""
    found = list(find_programs())
    if not found:
        raise Skip("needs PostgreSQL 15 or newer (apt-get install postgresql)")
    return sorted({found[0], found[-1]})


class Database:
    """A server of its own, with one database that nodes share.  Use as a context manager."""

    def __init__(self, version: int, options: dict[str, str] | None = None, disk: Path | None = None) -> None:
        """``options``: settings of the server; ``disk``: a folder for its data."""
        self.version = version
        self.server = PostgresServer(find_programs()[version], options, disk)
        self.server.execute(f"CREATE ROLE {USER} LOGIN")
        self.server.execute(f"CREATE DATABASE {NAME} OWNER {USER}")

    @property
    def address(self) -> str:
        """For nodes; tests look and disturb as the superuser."""
        return self.address_of(NAME)

    def address_of(self, name: str) -> str:
        """The address of another database on the same server, for the same user."""
        return self.server.address(name).replace("postbackd@", f"{USER}@", 1)

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.server.directory / f".s.PGSQL.{self.server.port}"

    @property
    def pid(self) -> int:
        if self.server.process is None:
            raise RuntimeError("the PostgreSQL server does not run")
        return self.server.process.pid

    def revive(self) -> bool:
        """Wait until it answers again; true when it had ended by itself and had to be started."""
        wait_until(lambda: self._ended or self._answers, 30, "PostgreSQL answering or ending")
        if ended := self._ended:
            self.start()
        return ended

    @property
    def _ended(self) -> bool:
        return self.server.process is not None and self.server.process.poll() is not None

    @property
    def _answers(self) -> bool:
        try:
            return bool(self.server.ask("SELECT 1"))
        except RuntimeError:
            return False

    # --- what may happen to it --------------------------------------------------------------------------------

    def crash(self) -> None:
        """``kill -9`` of all its processes at one moment: first they stop, so that none sees another one die."""
        processes = self._stop_all()
        for pid in processes:
            _signal(pid, signal.SIGKILL)
        process = self.server.process
        if process is not None:
            process.wait(timeout=30)
            self.server.process = None
        wait_until(lambda: not any(map(is_alive, processes)), 30, "the end of PostgreSQL's processes")

    def freeze(self) -> list[int]:
        """Stop all its processes where they are: connections stay open and nothing answers.  Returns them."""
        return self._stop_all()

    def thaw(self) -> None:
        for pid in (*descendants(self.pid), self.pid):
            _signal(pid, signal.SIGCONT)

    def _stop_all(self) -> list[int]:
        """The parent first: from then on there is nobody new."""
        _signal(self.pid, signal.SIGSTOP)
        below = descendants(self.pid)
        for pid in below:
            _signal(pid, signal.SIGSTOP)
        return [self.pid, *below]

    def shut_down_at_once(self) -> None:
        """SIGQUIT: it ends without writing anything more, and recovers at the next start."""
        self.server.stop(signal.SIGQUIT)

    def start(self, **options: str) -> None:
        self.server.start(**options)

    def remove(self) -> None:
        if self.server.process is not None:
            self.thaw()
        self.server.remove()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    # --- what is in it ----------------------------------------------------------------------------------------

    def execute(self, sql: str) -> None:
        self.server.ask(sql, NAME)

    def rows(self, sql: str) -> list[list[str]]:
        """The rows of a question, each value as text; NULL is ``\\N``."""
        return _copy(self.server, sql)

    def number(self, sql: str) -> int:
        """The answer to a question about one number."""
        return int(self.rows(sql)[0][0])

    def check(self, ledger: Ledger, *, late: bool = False) -> oracle.Tally:
        """Hold the ledger against the rows, see ``oracle.check``."""
        with tempfile.TemporaryDirectory(prefix="postbackd-oracle-") as directory:
            file = Path(directory) / oracle.DATABASE
            copy_tables(self.server, file)
            return oracle.check(ledger, file, late=late)

    def wait_matched(self, deadline_s: float = 60) -> float:
        """Wait until no postback waits for a click any longer; returns the seconds."""
        return wait_until(
            lambda: not self.number("SELECT count(*) FROM waiting"),
            deadline_s,
            "postbacks meeting their clicks",
        )


def _copy(server: PostgresServer, sql: str) -> list[list[str]]:
    text = server.ask(f"COPY ({sql}) TO STDOUT (FORMAT csv, NULL '{_NULL}')", NAME)
    return list(csv.reader(io.StringIO(text)))


def copy_tables(server: PostgresServer, file: Path) -> None:
    """What the oracle reads, as tables of a new SQLite file."""
    target = apsw.Connection(str(file))
    try:
        with target:
            for table, columns in _TABLES.items():
                names = ", ".join(column.split()[0] for column in columns.split(","))
                target.execute(f"CREATE TABLE {table} ({columns})")
                marks = ", ".join("?" * (columns.count(",") + 1))
                rows = (
                    [None if value == _NULL else value for value in row]
                    for row in _copy(server, f"SELECT {names} FROM {table}")
                )
                target.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
    finally:
        target.close()


@contextmanager
def used_up(database: Database) -> Iterator[int]:
    """All connections that the server allows are taken by other sessions; yields how many.  It needs a small limit."""
    loop = asyncio.new_event_loop()
    held: list[asyncpg.Connection] = []

    def take_all() -> bool:
        """End the sessions of the nodes and take their places; true when all places are ours."""
        loop.run_until_complete(held[0].execute(_END_NODES))
        while (more := loop.run_until_complete(_connect(database.server.address(NAME)))) is not None:
            held.append(more)
        return len(held) >= allowed

    try:
        allowed = database.number("SELECT current_setting('max_connections')")
        held.append(loop.run_until_complete(asyncpg.connect(database.server.address(NAME))))
        wait_until(take_all, 20, "every connection being taken")
        yield len(held)
    finally:
        for connection in held:
            connection.terminate()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


_END_NODES = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'postbackd%'"


async def _connect(address: str) -> asyncpg.Connection | None:
    try:
        return await asyncpg.connect(address, timeout=5)
    except asyncpg.TooManyConnectionsError:
        return None


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it has ended meanwhile
