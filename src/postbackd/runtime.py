"""Builds each role from the settings and fixes the order in which things start and stop.

The only module that names a concrete store.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from postbackd.core.click_id import StampMint
from postbackd.ingest.catalog import Snapshot
from postbackd.ingest.front_door import FrontDoor
from postbackd.settings import Settings
from postbackd.store.base import StoreRefused
from postbackd.store.sqlite import SqliteStore
from postbackd.store.sqlite_file import unsafe_sync
from postbackd.upkeep.checkpoints import keep_log_short

log = logging.getLogger("postbackd.runtime")

LOCK_NAME = "postbackd.lock"


async def open_store(settings: Settings, create: bool) -> SqliteStore:
    """The store that the settings name.  Raises ``StoreRefused`` with one line that says what to do."""
    return await SqliteStore.open(
        Path(settings.data),
        create=create,
        busy_timeout_ms=settings.busy_timeout_ms,
        checkpoint_pages=settings.checkpoint_pages,
    )


@contextmanager
def lock_data(directory: Path) -> Iterator[None]:
    """Hold the data directory for one ingest process.  Raises ``StoreRefused`` when another one has it."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreRefused(
            f"cannot use {directory}: {error.strerror}; check the path and its owner"
        ) from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreRefused(
                f"another postbackd server uses {directory}; stop it or choose another --data"
            ) from error
        yield
    finally:
        os.close(file)


def run_ingest(
    settings: Settings, listening: socket.socket, ready: Callable[[], None], lifeline: int | None
) -> None:
    """The ingest role: serve a listening socket until SIGTERM or SIGINT.

    ``ready`` is called when requests are being accepted.  ``lifeline`` is a file descriptor that becomes readable when
    whoever started this process is gone.  Raises ``StoreRefused``.
    """
    import uvloop

    _start_logging(settings.log_format)
    if word := unsafe_sync():
        log.warning("UNSAFE: synchronous=%s loses acknowledged conversions at a power cut", word)
    _raise_file_limit()
    with lock_data(Path(settings.data)):
        uvloop.run(_ingest(settings, listening, ready, lifeline))


async def _ingest(
    settings: Settings, listening: socket.socket, ready: Callable[[], None], lifeline: int | None
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if lifeline is not None:
        loop.add_reader(lifeline, stop.set)
    store = await open_store(settings, create=True)
    try:
        if settings.sync == "beside":
            store.sync_beside()
        snapshot = Snapshot(await store.load_catalog())
        mint = StampMint(settings.node, await store.last_stamp())
        door = FrontDoor(store, snapshot, mint, settings.queue_limit, settings.batch_limit)
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        await door.start(listening)
        tasks = [loop.create_task(door.tend()), loop.create_task(keep_log_short(store))]
        ready()
        await stop.wait()
        await door.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        await store.close()


class _JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            message += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})"
        line = {
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        return msgspec.json.encode(line).decode()


def _start_logging(log_format: str) -> None:
    """The process's own log, on standard error: starts, stops and failures, never a request."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _JsonLines() if log_format == "json" else logging.Formatter("postbackd: %(message)s")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("asyncio").setLevel(logging.ERROR)


def _raise_file_limit() -> None:
    """As many connections as the system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
