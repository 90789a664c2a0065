"""Has backups made at their times, each by a process of its own, and shouts when one fails.

When the next one is due follows from the files that are there, so that a restart changes nothing.  The front door does
no part of the work: it starts ``postbackd backup`` and waits.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from postbackd.backup.files import forget_failure, list_backups, note_failure

log = logging.getLogger("postbackd.upkeep")

_LOOK_EVERY_S = 60.0
"""A clock that jumps, or a disk that comes back, is noticed as soon as that."""

_AGAIN_S = 600.0
"""Before the next try after one that failed."""

_HOUR_MS = 3_600_000

_END_WITHIN_S = 2.0
"""A server that stops gives a backup so long to remove what it has begun; else the next one does."""


class BackupSchedule:
    """When to make a backup, and the making."""

    def __init__(
        self,
        directory: Path,
        data: Path,
        every_h: int,
        environment: Mapping[str, str],
        now_ms: Callable[[], int],
        end_within_s: float = _END_WITHIN_S,
    ) -> None:
        """``environment``: the settings of the command, added to ours."""
        self._directory = directory
        self._data = data
        self._every_ms = every_h * _HOUR_MS
        self._environment = environment
        self._now_ms = now_ms
        self._end_within_s = end_within_s

    def is_due(self) -> bool:
        """Whether the newest backup is old enough, or cannot be found."""
        try:
            backups = list_backups(self._directory)
        except OSError:
            return True  # the try will say what is wrong
        # One from the future was made before the clock was set back, and says nothing.
        made = [backup.made_ms for backup in backups if backup.made_ms <= self._now_ms()]
        return not made or self._now_ms() - made[-1] >= self._every_ms

    async def keep(self) -> None:
        """Make them until cancelled."""
        while True:
            if not self.is_due():
                await asyncio.sleep(_LOOK_EVERY_S)
            elif await self.make():
                await asyncio.sleep(0)
            else:
                await asyncio.sleep(_AGAIN_S)

    async def make(self) -> bool:
        """Make one now; returns whether there is one more."""
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "postbackd", "backup",
                env={**os.environ, **self._environment},
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
        except OSError as error:
            self._shout(f"it could not be started: {error}")
            return False
        try:
            _, errors = await process.communicate()
        except asyncio.CancelledError:
            await _end(process, self._end_within_s)
            raise
        if process.returncode == 0:
            forget_failure(self._data)
            return True
        lines = errors.decode(errors="replace").strip().splitlines()
        self._shout(lines[-1].removeprefix("postbackd: ") if lines else f"exit code {process.returncode}")
        return False

    def _shout(self, reason: str) -> None:
        log.error("NO BACKUP WAS MADE: %s", reason)
        note_failure(self._data, self._now_ms(), reason)


async def _end(process: asyncio.subprocess.Process, within_s: float) -> None:
    process.terminate()
    try:
        await asyncio.wait_for(process.communicate(), within_s)
    except TimeoutError:
        process.kill()
        await process.communicate()
