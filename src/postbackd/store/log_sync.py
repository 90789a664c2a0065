"""Syncs a write-ahead log beside the event loop, so that waiting for the disk does not keep requests waiting.

A commit in WAL mode with ``synchronous=NORMAL`` appends to the log and does not sync it.  Who then syncs the log before
answering has promised the same as ``synchronous=FULL``: frames that were appended earlier are covered too, because a
sync covers the whole file.  Checkpoints sync on their own in both modes.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path
from queue import SimpleQueue

_SWITCH_INTERVAL_S = 0.0001
"""How long the thread may wait for the interpreter after the disk has answered; the default, 5 ms, would be felt."""


class LogSync:
    """One thread that calls ``fdatasync`` on request."""

    def __init__(self, path: Path) -> None:
        """``path``: the log.  It must exist and stay the same file until ``close``."""
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._loop = asyncio.get_running_loop()
        self._asked: SimpleQueue[asyncio.Future[None] | None] = SimpleQueue()
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        self._thread = threading.Thread(target=self._run, name="log sync", daemon=True)
        self._thread.start()

    async def sync(self) -> None:
        """Return when everything that was written to the log before is on the disk.  Raises ``OSError``."""
        done = self._loop.create_future()
        self._asked.put(done)
        await done

    def close(self) -> None:
        """End the thread."""
        self._asked.put(None)
        self._thread.join()
        os.close(self._file)

    def _run(self) -> None:
        error: OSError | None = None
        while (done := self._asked.get()) is not None:
            try:
                if error is None:
                    os.fdatasync(self._file)
            except OSError as failure:
                error = (
                    failure  # for good: the kernel reports a lost page once, later syncs would not know of it
                )
            self._loop.call_soon_threadsafe(_finish, done, error)


def _finish(done: asyncio.Future[None], error: OSError | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
