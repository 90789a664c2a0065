"""T7: a database that is locked, damaged, foreign, read-only or newer: one line, exit 1, and not one byte is changed.

While another program keeps the database of a running server locked, requests wait in the spool; they go into the
database when the lock is gone, and serving goes on as before.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from tests.trust.disks import read_only
from tests.trust.ledger import Ledger
from tests.trust.load import Load
from tests.trust.oracle import DATABASE, Tally, check
from tests.trust.refusals import Findings
from tests.trust.registry import Control, Figure, Result, Size, trust_test
from tests.trust.server import Catalog, Server, make_catalog, run_cli

_RECOVERED_S = 2.0
_PAUSE_S = 0.02
"""A steady load: senders that wait for nothing but their answers would spool faster than the database takes."""


@trust_test("T7", "locked, damaged, foreign, read-only or newer database")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    template = work_dir / "template"
    catalog = make_catalog(template)
    _some_rows(template, catalog, work_dir, seed)
    findings = Findings()
    rounds = size.pick(1, 10, 50)
    for number in range(rounds):
        draw = random.Random(seed + number)
        for name, damage in DAMAGES.items():
            data = _copy(template, work_dir / f"{name}{number}")
            damage(data, draw)
            _expect_refusal(findings, name, data)
        for name, case in PLACES.items():
            case(findings, name, _copy(template, work_dir / f"{name}{number}"))
    tally, met = _lock_while_serving(findings, work_dir / "locked", seed, rounds + 2)
    figures = tally.figures | {"cases": findings.cases, "faults": len(findings.faults)} | met
    note = "; ".join([*findings.faults, *tally.details[:3]])
    controls = (_control(_copy(template, work_dir / "whole")), _without_spool(work_dir / "no-spool", seed))
    return Result(tally.clean and not findings.faults, figures, controls, note)


def _copy(template: Path, target: Path) -> Path:
    shutil.copytree(template, target)
    return target


def _some_rows(data: Path, catalog: Catalog, place: Path, seed: int) -> None:
    """Enough rows that half of the file is worth something."""
    with (
        Ledger(place / "first-ledger") as ledger,
        Server(data) as server,
        Load(server, catalog, ledger, seed=seed, limit=600) as load,
    ):
        load.wait_end(60)
        server.stop()


# --- damages: each changes the files of a copy -----------------------------------------------------------------


def _cut_at_page(data: Path, draw: random.Random) -> None:
    path = data / DATABASE
    os.truncate(path, path.stat().st_size // 8192 * 4096)


def _cut_in_page(data: Path, draw: random.Random) -> None:
    path = data / DATABASE
    os.truncate(path, draw.randrange(600, path.stat().st_size - 4096))


def _cut_to_nothing_beside_log(data: Path, draw: random.Random) -> None:
    """The log still holds rows: a start must not take the empty file for a new database and drop the log."""
    _leave_log(data)
    os.truncate(data / DATABASE, 0)


def _leave_log(data: Path) -> None:
    """A write-ahead log with a committed row in it, as a killed server leaves it."""
    path = data / DATABASE
    db = apsw.Connection(str(path))
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    db.execute("INSERT INTO settings (name, value) VALUES ('trust_test', 1)")
    db.close()
    if not path.with_name(f"{DATABASE}-wal").stat().st_size:
        raise AssertionError("no log was left")


def _garbage(data: Path, draw: random.Random) -> None:
    path = data / DATABASE
    path.write_bytes(draw.randbytes(path.stat().st_size))


def _garbage_after_header(data: Path, draw: random.Random) -> None:
    """The first 100 bytes are those of the database, the schema is not."""
    path = data / DATABASE
    content = path.read_bytes()
    path.write_bytes(content[:100] + draw.randbytes(len(content) - 100))


def _text(data: Path, draw: random.Random) -> None:
    (data / DATABASE).write_text("click_id,type,transaction_id\n" * 400)


def _foreign(data: Path, draw: random.Random) -> None:
    """A database of SQLite, but of another program."""
    (data / DATABASE).unlink()
    db = apsw.Connection(str(data / DATABASE))
    db.execute("CREATE TABLE notes (text TEXT); INSERT INTO notes VALUES ('mine')")
    db.close()


def _newer(data: Path, draw: random.Random) -> None:
    db = apsw.Connection(str(data / DATABASE))
    db.execute(f"PRAGMA user_version = {draw.randrange(900, 100_000)}")
    db.close()


def _is_directory(data: Path, draw: random.Random) -> None:
    (data / DATABASE).unlink()
    (data / DATABASE).mkdir()


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "cut-at-page": _cut_at_page,
    "cut-in-page": _cut_in_page,
    "cut-to-nothing-beside-log": _cut_to_nothing_beside_log,
    "garbage": _garbage,
    "garbage-after-header": _garbage_after_header,
    "text": _text,
    "foreign": _foreign,
    "newer": _newer,
    "is-directory": _is_directory,
}


# --- what must happen ------------------------------------------------------------------------------------------


def _digest(data: Path) -> dict[str, str]:
    """Hash of each file that holds something; SQLite's shared memory and our lock file hold nothing."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(data.iterdir())
        if path.is_file() and path.stat().st_size and not path.name.endswith(("-shm", ".lock"))
    }


def _expect_refusal(findings: Findings, case: str, data: Path) -> None:
    """The server and a catalog command both say one line and exit 1, and the files stay as they are."""
    findings.cases += 1
    before = _digest(data)
    findings.expect_refused_start(case, Server(data))
    done = run_cli(data, "network", "list")
    findings.expect_one_line(case, "network list", done.returncode, done.stderr)
    findings.expect(_digest(data) == before, case, "the files were changed")


def _read_only_file(findings: Findings, case: str, data: Path) -> None:
    with read_only(data / DATABASE):
        _expect_refused_start(findings, case, data)


def _read_only_directory(findings: Findings, case: str, data: Path) -> None:
    with read_only(data):
        _expect_refused_start(findings, case, data)


def _expect_refused_start(findings: Findings, case: str, data: Path) -> None:
    """Reading a read-only database is fine; serving from it is not."""
    findings.cases += 1
    before = _digest(data)
    findings.expect_refused_start(case, Server(data))
    findings.expect(_digest(data) == before, case, "the files were changed")


_HOLD_ALONE = """
import sys, apsw
db = apsw.Connection(sys.argv[1])
db.pragma("locking_mode", "EXCLUSIVE")
db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def _held_alone(data: Path) -> Iterator[None]:
    """Another process has the file for itself.  (Not ours: reading the file here would drop our own locks.)"""
    command = [sys.executable, "-c", _HOLD_ALONE, str(data / DATABASE)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        if holder.stdout is None or holder.stdout.readline().strip() != b"held":
            raise AssertionError("the lock could not be taken")
        yield
    finally:
        holder.communicate()


def _exclusive_at_start(findings: Findings, case: str, data: Path) -> None:
    """Another program has the file for itself when the server starts; when it is gone, a start succeeds."""
    with _held_alone(data):
        _expect_refused_start(findings, case, data)
    with Server(data) as server:
        findings.expect(server.status("/readyz") == 200, case, "no start after the lock was gone")


def _second_server(findings: Findings, case: str, data: Path) -> None:
    """The second server is refused; the first one does not notice."""
    findings.cases += 1
    with Server(data) as first:
        pids = first.ingest_pids()
        second = Server(data, stderr_path=data.with_name(f"{data.name}.second"))
        findings.expect_refused_start(case, second)
        findings.expect(first.status("/readyz") == 200, case, "the first server is not ready any longer")
        findings.expect(first.ingest_pids() == pids, case, "the first server was restarted")


PLACES: dict[str, Callable[[Findings, str, Path], None]] = {
    "read-only-file": _read_only_file,
    "read-only-directory": _read_only_directory,
    "exclusive-at-start": _exclusive_at_start,
    "second-server": _second_server,
}


# --- a lock that comes and goes --------------------------------------------------------------------------------


@contextmanager
def _locked(data: Path) -> Iterator[None]:
    """Another connection is the writer."""
    holder = apsw.Connection(str(data / DATABASE))
    holder.set_busy_timeout(5000)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        holder.execute("ROLLBACK")
        holder.close()


def _lock_while_serving(
    findings: Findings, data: Path, seed: int, times: int
) -> tuple[Tally, dict[str, Figure]]:
    """``queued`` and ready while another connection holds the write lock, accepting soon after, the same process."""
    case = "locked-while-serving"
    catalog = make_catalog(data)
    back_s = []
    with Ledger(data.with_name("locked-ledger")) as ledger, Server(data) as server:
        pids = server.ingest_pids()
        with Load(server, catalog, ledger, seed=seed, pause_s=_PAUSE_S) as load:
            for _ in range(times):
                findings.cases += 1
                load.wait_acknowledged(100)
                with _locked(data):
                    load.wait_queued(10)
                    load.wait_acknowledged(100)
                    for path in ("/healthz", "/readyz"):
                        findings.expect(server.status(path) == 200, case, f"{path} is not 200")
                back_s.append(load.wait_settled(20))
                server.wait_drained()
        findings.expect(server.ingest_pids() == pids, case, "the ingest process was restarted")
        findings.expect(max(back_s) < _RECOVERED_S, case, f"accepting {max(back_s):.2f} s after the lock")
        refused = ledger.refused
        told = refused.total() - refused["registration"]
        findings.expect(told == 0, case, f"{told} requests were refused")
        findings.expect(load.unanswered == 0, case, f"{load.unanswered} requests were not answered")
        met: dict[str, Figure] = {
            "queued": ledger.queued,
            "registrations refused": refused["registration"],
            "accepting after s (max)": round(max(back_s), 2),
        }
        return check(ledger, data / DATABASE), met


def _without_spool(data: Path, seed: int) -> Control:
    """A server that keeps nothing must be seen refusing while the database is locked."""
    catalog = make_catalog(data)
    env = {"POSTBACKD_SPOOL_MB": "0"}
    with Ledger(data.with_name("no-spool-ledger")) as ledger, Server(data, env=env) as server:
        with Load(server, catalog, ledger, seed=seed, pause_s=_PAUSE_S) as load:
            load.wait_acknowledged(100)
            with _locked(data):
                load.wait_busy(10)
        refused = ledger.refused.total() - ledger.refused["registration"]
    return Control("--spool-mb 0", refused > 0, {"refused": refused, "queued": ledger.queued})


def _control(data: Path) -> Control:
    """A whole database must not be refused: the checks above can tell the difference."""
    findings = Findings()
    _expect_refusal(findings, "whole", data)
    return Control("an undamaged database", bool(findings.faults), {"faults": len(findings.faults)})
