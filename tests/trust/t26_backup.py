"""T26: backups beside a loaded server, killed and out of space at any moment; what is restored holds what was promised.

What was acknowledged before a backup began must be in it; what was sent later may be.  A backup that is killed, or
meets a full disk, leaves no file of a backup's name, harms none that was there, and does not disturb the server.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tests.trust.disks import small_disk
from tests.trust.ledger import Ledger
from tests.trust.load import Load, Mix
from tests.trust.oracle import DATABASE, Tally, check
from tests.trust.promised import Promised
from tests.trust.registry import Control, Result, Size, Skip, trust_test
from tests.trust.server import Server, clean_environment, make_catalog, run_cli, wait_until

_PASSPHRASE = "correct horse battery staple"
_MIX = Mix(own_clicks=0.0)
"""An own click id that is acknowledged later would be needed to judge rows that are in the backup already."""

_COPIES = 10
"""Of the control: one that meets the moment right after a checkpoint has everything by luck."""


@trust_test("T26", "backups killed and out of space, restored")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    rounds = size.pick(5, 60, 400)
    data, target = work_dir / "data", work_dir / "backups"
    target.mkdir()
    (work_dir / "key").write_text(_PASSPHRASE)
    catalog, draw = make_catalog(data), random.Random(seed)
    tally, figures, notes, restored = Tally(), Counter[str](), list[str](), list[tuple[Promised, Path]]()
    with Ledger(work_dir / "ledger") as ledger, Server(data) as server:
        pids = server.ingest_pids()
        with Load(server, catalog, ledger, seed=seed, mix=_MIX, pause_s=0.002) as load:
            load.wait_acknowledged(500)
            _wait_for_another_second()
            began = time.monotonic()
            _back_up(work_dir, target, encrypted=False).unlink()
            takes_s = time.monotonic() - began
            for number in range(rounds):
                for _ in range(3):
                    _kill(work_dir, draw.uniform(0.3, 1.0) * takes_s, figures, notes)
                for trouble in (_fill, _fill_disk):
                    trouble(work_dir, draw, figures, notes)
                load.wait_acknowledged(50)
                _wait_for_another_second()
                promised = Promised(ledger)
                made = _back_up(work_dir, target, encrypted=bool(number % 2))
                restored.append((promised, _restore(work_dir, made, number)))
                figures["restored"] += 1
            copies = [
                _copy_the_file(work_dir / f"copied{number}", data, ledger, load) for number in range(_COPIES)
            ]
            load.wait_acknowledged(50)
        if server.ingest_pids() != pids:
            notes.append("the ingest process was restarted")
        for promised, directory in restored:
            tally.add(promised.judge(ledger, directory / DATABASE, work_dir / "promised"))
        tally.add(check(ledger, data / DATABASE))
        copied = Tally()
        for promised, directory in copies:
            copied.add(promised.judge(ledger, directory / DATABASE, work_dir / "promised"))
    note = "; ".join([*notes[:5], tally.note] if tally.note else notes[:5])
    figures["kept_after_trouble"] = len(list(target.iterdir()))
    return Result(
        tally.clean and not notes,
        tally.figures | dict(figures),
        (Control("cp of the file alone, under load", not copied.clean, copied.figures),),
        note,
    )


def _command(work_dir: Path, target: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "postbackd", "backup", "--json"),
        *("--data", str(work_dir / "data"), "--backup-dir", str(target)),
    ]


def _wait_for_another_second() -> None:
    """No two backups have one name."""
    wait_until(lambda: time.time() % 1 < 0.1, 30, "another second")


def _back_up(work_dir: Path, target: Path, *, encrypted: bool) -> Path:
    """A backup that nothing happens to."""
    key = ["--backup-key-file", str(work_dir / "key")] if encrypted else []
    done = subprocess.run(
        [*_command(work_dir, target), *key],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode:
        raise AssertionError(f"a backup failed: {done.stderr}")
    return Path(json.loads(done.stdout)["path"])


def _restore(work_dir: Path, made: Path, number: int) -> Path:
    directory = work_dir / f"restored{number}"
    done = run_cli(
        work_dir / "scratch", "restore", str(made), "--to", str(directory), "--backup-key-file", str(work_dir / "key"),
        timeout_s=120,
    )  # fmt: skip
    if done.returncode:
        raise AssertionError(f"a restore failed: {done.stderr}")
    return directory


def _names(directory: Path) -> dict[str, int]:
    """The files that have a backup's name."""
    return {path.name: path.stat().st_size for path in directory.iterdir() if not path.name.startswith(".")}


def _kill(work_dir: Path, after_s: float, figures: Counter[str], notes: list[str]) -> None:
    """Killed at some moment."""
    target = work_dir / "backups"
    before = _names(target)
    process = subprocess.Popen(
        _command(work_dir, target), env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        process.wait(timeout=after_s)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    figures["killed"] += process.returncode == -signal.SIGKILL
    after = _names(target)
    new = after.keys() - before.keys()
    if {name: after.get(name) for name in before} != before:
        notes.append("a killed backup harmed an older one")
    for name in new:  # whole, or not there: killed after it had got its name, or not killed at all
        figures["killed_too_late"] += 1
        if run_cli(work_dir / "scratch", "backup", "verify", str(target / name)).returncode:
            notes.append(f"{name} has a name and is not whole")
        (target / name).unlink()


def _fill(work_dir: Path, draw: random.Random, figures: Counter[str], notes: list[str]) -> None:
    """No file of the backup may grow beyond a random size: the copy and what is written of it meet a full disk."""
    most = draw.randrange((work_dir / "data" / DATABASE).stat().st_size)

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    target = work_dir / "backups"
    before = _names(target)
    done = subprocess.run(
        _command(work_dir, target), env=clean_environment(), capture_output=True, text=True, preexec_fn=limit
    )
    figures["full"] += 1
    _expect_refusal(done, before == _names(target), notes)


def _fill_disk(work_dir: Path, draw: random.Random, figures: Counter[str], notes: list[str]) -> None:
    """The disk of the backups is full at a random place."""
    try:
        with small_disk(work_dir / "disk", 8) as disk:
            room = draw.randrange(1, 60_000)
            (disk / "other").write_bytes(bytes(shutil.disk_usage(disk).free - room))
            done = subprocess.run(
                _command(work_dir, disk), env=clean_environment(), capture_output=True, text=True
            )
            if done.returncode == 0:
                return  # it fitted
            figures["disk_full"] += 1
            _expect_refusal(done, [path.name for path in disk.iterdir()] == ["other"], notes)
    except Skip:
        figures["disk_not_mounted"] += 1
    finally:
        shutil.rmtree(work_dir / "disk", ignore_errors=True)


def _expect_refusal(done: subprocess.CompletedProcess[str], untouched: bool, notes: list[str]) -> None:
    if done.returncode != 1 or done.stderr.count("\n") != 1 or "space" not in done.stderr:
        notes.append(f"a full disk: exit {done.returncode}, {done.stderr.strip()[-200:]!r}")
    if not untouched:
        notes.append("a backup that met a full disk left a file")


def _copy_the_file(directory: Path, data: Path, ledger: Ledger, load: Load) -> tuple[Promised, Path]:
    """What somebody does who does not know of the log."""
    directory.mkdir()
    load.wait_acknowledged(37)
    promised = Promised(ledger)
    shutil.copyfile(data / DATABASE, directory / DATABASE)
    return promised, directory
