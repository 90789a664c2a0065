"""``postbackd purge`` beside a running server."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from typing import Self

from bench.machine import SERVER_CORE, NotRun, pinned_to
from bench.subjects import command_line

_TIMEOUT_S = 90.0


class Purge:
    """Deletes what lies before a date, on the server's core."""

    def __init__(self, where: Sequence[str], before: str, niceness: int = 0) -> None:
        """``where``: the options that name the database; ``before``: a date, ``YYYY-MM-DD``."""
        command = ["nice", "-n", str(niceness), *command_line(), "purge", *where, "--yes", "--before", before]
        self.began = time.monotonic()
        with pinned_to(SERVER_CORE):
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def wait(self) -> float:
        """Seconds that it took.  Raises ``NotRun`` with its last line when it failed or does not end."""
        try:
            output, _nothing = self._process.communicate(timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired as reason:
            raise NotRun(f"postbackd purge had not ended after {_TIMEOUT_S:g} s") from reason
        if self._process.returncode:
            raise NotRun(f"postbackd purge failed: {(output.strip() or 'no output').splitlines()[-1]}")
        return time.monotonic() - self.began
