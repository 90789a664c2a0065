"""T25PG: bits flip in the files of a stopped PostgreSQL server without data checksums; ``verify`` finds what matters.

A flip counts when the money rows are read differently than before.  The control is what the server itself says of it.
"""

from __future__ import annotations

import random
import signal
from collections import Counter
from pathlib import Path

from tests.trust.ledger import Ledger
from tests.trust.load import Load
from tests.trust.postgres import Database, versions
from tests.trust.registry import Control, Result, Size, trust_test
from tests.trust.server import Server, make_catalog, run_cli

_FILES = """
SELECT pg_relation_filepath(c.oid) FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent IN ('conversions'::regclass, 'conversion_history'::regclass) AND pg_relation_size(c.oid) > 0
"""
_READ_CONVERSIONS = """
SELECT click_id, type, transaction_id, conversion_id, network, campaign, offer, status, value_micros, currency,
       channels, status_time_ms FROM conversions
"""
_READ_CHANGES = """
SELECT request_id, conversion_id, status_from, status_to, status_word, value_micros_from, value_micros_to
FROM conversion_history
"""
_QUIET = {"autovacuum": "off", "restart_after_crash": "off"}


@trust_test("T25PG", "bit rot in the files of PostgreSQL")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    flips = size.pick(12, 250, 1_500)
    draw, figures, notes = random.Random(seed), Counter[str](), list[str]()
    with Database(versions()[0], _QUIET) as database:
        env = {"POSTBACKD_STORE": database.address}
        _fill(work_dir, database, env, seed)
        files = [database.server.directory / "cluster" / path for (path,) in database.rows(_FILES)]
        before = _read(database)
        if run_cli(work_dir / "data", "verify", env=env).returncode:
            notes.append("the undamaged database has findings")
        for number in range(flips):
            path = draw.choices(files, [file.stat().st_size for file in files])[0]
            found, changed = _flip(database, path, draw, before, work_dir, env)
            figures["flips"] += 1
            figures["in_money_rows"] += changed is not None
            figures["found_elsewhere"] += found and changed is None
            if changed is None:
                continue
            figures["missed_by_the_server"] += changed
            if not found:
                figures["missed"] += 1
                notes.append(f"flip {number} in {path.name} was not found")
    judged, silent = figures["in_money_rows"], figures["missed_by_the_server"]
    control = Control("the server alone", silent > 0, {"missed": silent})
    shown = {"n": judged, "missed": 0, **figures}
    return Result(judged > 0 and not notes, shown, (control,), "; ".join(notes[:5]))


def _fill(work_dir: Path, database: Database, env: dict[str, str], seed: int) -> None:
    data = work_dir / "data"
    catalog = make_catalog(data, env=env)
    with Ledger(work_dir / "ledger") as ledger, Server(data, env=env) as server:
        with Load(server, catalog, ledger, seed=seed, limit=1_500) as load:
            load.wait_end(120)
        server.stop()
    database.execute("VACUUM FREEZE")
    database.execute("CHECKPOINT")


def _read(database: Database) -> list[list[list[str]]] | None:
    """The money rows; ``None``: the server says that something is wrong."""
    try:
        return [sorted(database.rows(sql)) for sql in (_READ_CONVERSIONS, _READ_CHANGES)]
    except (RuntimeError, OSError, ValueError):
        return None


def _flip(
    database: Database,
    path: Path,
    draw: random.Random,
    before: object,
    work_dir: Path,
    env: dict[str, str],
) -> tuple[bool, bool | None]:
    """Whether ``verify`` found it, and whether the server read other rows without a word (``None``: the same rows)."""
    database.server.stop(signal.SIGINT)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[_place(whole, draw)] ^= 1 << draw.randrange(8)
    path.write_bytes(damaged)
    database.start()
    after = _read(database)
    database.revive()
    found = run_cli(work_dir / "data", "verify", env=env, timeout_s=120).returncode != 0
    database.revive()
    database.server.stop(signal.SIGINT)
    path.write_bytes(whole)
    database.start()
    return found, None if after == before else after is not None


def _place(whole: bytes, draw: random.Random) -> int:
    """Somewhere in what is used of a block: its head, its line pointers, its rows."""
    block = draw.randrange(len(whole) // 8192) * 8192
    lower = int.from_bytes(whole[block + 12 : block + 14], "little")
    upper = int.from_bytes(whole[block + 14 : block + 16], "little")
    used = [*range(lower), *range(upper, 8192)]
    return int(block + draw.choice(used))
