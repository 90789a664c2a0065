"""Beside a program that replicates the write-ahead log, as Litestream does, the server goes on and loses nothing.

Litestream itself is run by T39 of the trust campaign.  What it does to a database is done here: it holds a read
transaction, so that nobody else lets the log start over, and now and then lets go, takes the write lock for a moment
and checkpoints.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from textwrap import indent

import apsw
import pytest

from postbackd.store import sqlite_scrub
from postbackd.store.base import StoreRefused
from postbackd.store.checkpoint import Checkpoint
from postbackd.store.sqlite_file import FILE_NAME, REPLICATOR_STATE, connect
from tests.commands import run_here
from tests.trust.ledger import Ledger
from tests.trust.litestream import CONFIGURATION
from tests.trust.load import Load
from tests.trust.oracle import DATABASE, check
from tests.trust.server import Server, make_catalog

HOLD = "BEGIN; SELECT count(*) FROM _replicated"


@pytest.mark.parametrize("mode", [apsw.SQLITE_CHECKPOINT_PASSIVE, apsw.SQLITE_CHECKPOINT_TRUNCATE])
def test_a_held_log_and_checkpoints_of_another_program_cost_no_row(tmp_path: Path, mode: int) -> None:
    data = tmp_path / "data"
    catalog = make_catalog(data, run=run_here)
    settings = {"POSTBACKD_CHECKPOINT_PAGES": "100", "POSTBACKD_BUSY_TIMEOUT_MS": "5000"}
    with Ledger(tmp_path / "ledger") as ledger, Server(data, env=settings) as server:
        pids = server.ingest_pids()
        other = apsw.Connection(str(data / DATABASE))
        other.set_busy_timeout(5000)
        other.wal_autocheckpoint(0)
        other.execute("CREATE TABLE _replicated (id INTEGER PRIMARY KEY, seq INTEGER)")
        log = data / f"{DATABASE}-wal"
        sizes = []
        with Load(server, catalog, ledger, seed=1) as load:
            for turn in range(4):
                other.execute(HOLD).fetchall()
                load.wait_acknowledged(600)
                sizes.append(log.stat().st_size)
                other.execute("ROLLBACK")
                other.wal_checkpoint(mode=mode)
                other.execute(
                    "INSERT INTO _replicated VALUES (1, ?) ON CONFLICT DO UPDATE SET seq = seq + 1", (turn,)
                )
            load.wait_acknowledged(600)
        other.close()
        assert server.ingest_pids() == pids
        assert load.unanswered == 0
        assert ledger.unavailable == 0
        assert max(sizes) > 100 * 4096, "the log was held"
        assert check(ledger, data / DATABASE).figures == {
            "n": ledger.answered, "lost": 0, "double": 0, "phantom": 0, "wrong": 0,
        }  # fmt: skip


def _start_over(db: apsw.Connection, path: Path) -> int:
    """Fill the log, copy it, and let the next commit start it over; returns the size of its file then."""
    db.execute("INSERT INTO filled SELECT zeroblob(400000)")
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    db.execute("INSERT INTO filled VALUES (1)")
    return path.with_name(f"{FILE_NAME}-wal").stat().st_size


def _new(directory: Path) -> apsw.Connection:
    db = connect(directory / FILE_NAME, 1000, create=True)
    db.pragma("journal_mode", "wal")
    db.wal_autocheckpoint(0)
    db.execute("CREATE TABLE filled (bytes)")
    return db


def test_a_log_that_starts_over_is_cut_where_litestream_would_take_its_old_end_for_the_new_one(
    tmp_path: Path,
) -> None:
    with closing(_new(tmp_path)) as plain:
        assert _start_over(plain, tmp_path / FILE_NAME) > 400_000, "writing over a file is cheaper"
    (tmp_path / REPLICATOR_STATE).mkdir()
    with closing(connect(tmp_path / FILE_NAME, 1000, create=False)) as replicated:
        replicated.wal_autocheckpoint(0)
        assert _start_over(replicated, tmp_path / FILE_NAME) < 50_000


def test_a_connection_that_was_there_before_litestream_cuts_the_log_from_the_second_time_on(
    tmp_path: Path,
) -> None:
    path = tmp_path / FILE_NAME
    with closing(_new(tmp_path)) as db, closing(Checkpoint(path, 1000)) as log:
        log.watch(db)
        (tmp_path / REPLICATOR_STATE).mkdir()
        assert _start_over(db, path) > 400_000
        assert _start_over(db, path) < 50_000


def test_the_server_leaves_the_log_to_litestream(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    with closing(_new(tmp_path)) as db, closing(Checkpoint(path, 100)) as log:
        log.watch(db)
        db.execute("INSERT INTO filled SELECT zeroblob(500000)")
        assert log.wanted
        (tmp_path / REPLICATOR_STATE).mkdir()
        assert not log.wanted


def test_the_guide_shows_the_configuration_that_was_tried() -> None:
    guide = Path(__file__).parents[2] / "docs" / "how-to" / "backup.md"
    tried = CONFIGURATION.format(
        socket="/run/litestream/litestream.sock",
        database="/var/lib/postbackd/postbackd.db",
        replica="/mnt/replica/postbackd",
    )
    assert indent(tried, "    ") in guide.read_text("utf-8")


def test_an_erasure_that_litestream_stands_in_the_way_of_says_so_with_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_scrub, "_PATIENCE_S", 0.2)
    path = tmp_path / FILE_NAME
    (tmp_path / REPLICATOR_STATE).mkdir()
    with closing(_new(tmp_path)) as writer, closing(connect(path, 1000, create=False)) as eraser:
        holder = connect(path, 1000, create=False)
        holder.execute("BEGIN; SELECT count(*) FROM filled").fetchall()
        writer.execute("INSERT INTO filled VALUES (2)")
        with pytest.raises(
            StoreRefused, match="Litestream has been reading the database; stop it, run the same"
        ):
            sqlite_scrub.scrub(path, eraser)
        holder.close(force=True)
        assert sqlite_scrub.scrub(path, eraser) == 0
