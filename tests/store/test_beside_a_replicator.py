"""Beside a program that replicates the write-ahead log, as Litestream does, the server goes on and loses nothing.

Litestream itself is not run here.  What it does to a database is: it holds a read transaction, so that nobody else lets
the log start over, and now and then lets go, takes the write lock for a moment and checkpoints.
"""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from tests.commands import run_here
from tests.trust.ledger import Ledger
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
