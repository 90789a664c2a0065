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
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from random import random
from time import monotonic

import msgspec

from postbackd.ingest.batcher import now_ms
from postbackd.ingest.catalog import Snapshot
from postbackd.ingest.front_door import FrontDoor
from postbackd.ingest.spool import Spool, SpoolOfAnother
from postbackd.settings import Settings
from postbackd.store.base import Store, StoreNotReached, StoreRefused, StoreUnavailable
from postbackd.store.sqlite import SqliteStore
from postbackd.store.sqlite_file import unsafe_sync
from postbackd.upkeep import retention
from postbackd.upkeep.checkpoints import keep_log_short
from postbackd.upkeep.nodes import NodeNumber
from postbackd.upkeep.partitions import keep_partitions_ahead

log = logging.getLogger("postbackd.runtime")

LOCK_NAME = "postbackd.lock"
"""Held by the ingest process of a data directory."""

DELIVER_LOCK_NAME = "deliver.lock"
"""Held by the process that delivers from an embedded database."""

_LOOK_FOR_SERVER_S = 5.0

_NICENESS = 15
"""Of a deliver role beside a front door."""

_WRITE_TIMEOUT_S = 1.5
"""After which a database is called away, and requests are kept elsewhere."""

_QUESTION_TIMEOUT_S = 10.0

_TRY_EVERY_S = 0.5

_PATIENCE_S = 10.0
"""How long a role that a supervisor started waits for its database; then it ends, and says why."""


async def open_store(settings: Settings, create: bool, *, serving: bool = False) -> Store:
    """The store that the settings name.  Raises ``StoreRefused`` with one line that says what to do.

    ``serving``: requests wait for its answers, so that none may take long.
    """
    if settings.store is not None:
        patience_s = max(_WRITE_TIMEOUT_S, settings.busy_timeout_ms / 1000)
        return await _open_postgres(
            settings.store, create, patience_s, _QUESTION_TIMEOUT_S if serving else None
        )
    return await SqliteStore.open(
        Path(settings.data),
        create=create,
        busy_timeout_ms=settings.busy_timeout_ms,
        checkpoint_pages=settings.checkpoint_pages,
    )


async def _open_postgres(
    address: str, create: bool, write_timeout_s: float, question_timeout_s: float | None
) -> Store:
    try:
        from postbackd.store.postgres import PostgresStore
    except ImportError as error:
        raise StoreRefused(
            f"a PostgreSQL store needs asyncpg ({error}); pip install 'postbackd[postgres]'"
        ) from error
    return await PostgresStore.open(
        address, create=create, write_timeout_s=write_timeout_s, question_timeout_s=question_timeout_s
    )


async def tend_store(store: Store) -> None:
    """The regular work that a store needs beside a server or a long command, until cancelled."""
    if isinstance(store, SqliteStore):
        await keep_log_short(store)
    else:
        from postbackd.store.postgres import PostgresStore

        assert isinstance(store, PostgresStore)
        await keep_partitions_ahead(store)


@contextmanager
def lock_data(directory: Path, name: str, busy: str) -> Iterator[None]:
    """Hold a lock file in the data directory for one process.

    Raises ``StoreRefused`` when another one has it; ``busy`` says what that one does.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreRefused(
            f"cannot use {directory}: {error.strerror}; check the path and its owner"
        ) from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreRefused(f"{busy} {directory}; stop it or choose another --data") from error
        yield
    finally:
        os.close(file)


def is_held(lock: Path) -> bool:
    """Whether a process holds a lock file."""
    try:
        file = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
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
    with lock_data(Path(settings.data), LOCK_NAME, "another postbackd server uses"):
        uvloop.run(_ingest(settings, listening, ready, lifeline))


async def _ingest(
    settings: Settings, listening: socket.socket, ready: Callable[[], None], lifeline: int | None
) -> None:
    loop = asyncio.get_running_loop()
    stop = _hear_signals(lifeline)
    store = await _open_patiently(settings, stop, None if lifeline is None else _PATIENCE_S)
    if store is None:
        return
    try:
        if isinstance(store, SqliteStore):
            store.wait_in_loop()
            if settings.sync == "beside":
                store.sync_beside()
        snapshot = Snapshot(await store.load_catalog())
        spool = _open_spool(settings, snapshot)
        node = NodeNumber(store)
        # The embedded database does not know of stamps that are in the spool only.
        await node.claim(settings.node, now_ms(), spool.newest_stamp() if spool else 0)
        try:
            limits = settings.queue_limit, settings.batch_limit
            door = FrontDoor(store, snapshot, node.mint, *limits, spool, settings.consent)
            gc.collect()
            gc.freeze()
            gc.set_threshold(50_000, 20, 50)
            await door.start(listening)
            tasks = [loop.create_task(work) for work in (door.tend(), tend_store(store), node.keep(now_ms))]
            if settings.purge_every_s:
                tasks.append(loop.create_task(_keep_retention(settings)))
            if lifeline is not None:
                tasks.append(loop.create_task(_ask_to_deliver(door)))
            ready()
            await stop.wait()
            await door.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await node.release()
    finally:
        await store.close()


def _hear_signals(lifeline: int | None) -> asyncio.Event:
    """Set when the process is told to stop, or when whoever started it is gone."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if lifeline is not None:
        loop.add_reader(lifeline, stop.set)
    return stop


async def _keep_retention(settings: Settings) -> None:
    """Delete what has to go, now and then, until cancelled: in a thread, over a connection of its own."""
    stopping = threading.Event()
    began = now_ms() - _running_ms()
    held: str | None = None
    try:
        while True:
            await asyncio.sleep(settings.purge_every_s)
            drift_ms = now_ms() - _running_ms() - began
            try:
                held = await asyncio.to_thread(_purge, settings, drift_ms, stopping, held)
            except (StoreUnavailable, StoreRefused) as error:
                log.warning("nothing was purged (%s); trying again", error)
    finally:
        stopping.set()


def _running_ms() -> int:
    """Milliseconds of a clock that nobody sets and that goes on while the machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def _purge(settings: Settings, drift_ms: int, stopping: threading.Event, held: str | None) -> str | None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)

    async def work() -> str | None:
        store = await open_store(settings, create=False)
        try:
            return await retention.run(store, settings.keep, now_ms(), drift_ms, stopping.is_set, held)
        finally:
            await store.close()

    return asyncio.run(work())


async def _ask_to_deliver(door: FrontDoor) -> None:
    """Ask the supervisor for the deliver role as soon as the catalog has a rule."""
    while True:
        await asyncio.sleep(_TRY_EVERY_S)
        if door.catalog.rules:
            os.kill(os.getppid(), signal.SIGUSR1)
            return


def run_deliver(settings: Settings, ready: Callable[[], None], lifeline: int | None) -> None:
    """The deliver role: tell targets what they are owed until SIGTERM or SIGINT.

    ``ready`` and ``lifeline`` as for ``run_ingest``.  Raises ``StoreRefused``.
    """
    import uvloop

    _start_logging(settings.log_format)
    if lifeline is not None:
        os.nice(_NICENESS)  # there is a front door on this machine, and it comes first
    with _alone(settings):
        uvloop.run(_deliver(settings, ready, lifeline))


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """One process delivers from an embedded database; from a server any number may."""
    if settings.store is not None:
        yield
        return
    with lock_data(Path(settings.data), DELIVER_LOCK_NAME, "another process delivers from"):
        yield


async def _deliver(settings: Settings, ready: Callable[[], None], lifeline: int | None) -> None:
    from postbackd.core.addresses import read_allowed
    from postbackd.delivery.client import Client
    from postbackd.delivery.deliverer import Deliverer

    stop = _hear_signals(lifeline)
    store = await _open_patiently(settings, stop, None)
    if store is None:
        return
    if isinstance(store, SqliteStore):
        store.sync_beside()  # the front door need not wait for our syncs
    client = Client(read_allowed(settings.deliver_ranges, settings.deliver_ports))
    try:
        deliverer = Deliverer(store, client.send, _secret_opener(settings), random)
        tending = asyncio.create_task(_tend_unserved(store, settings))
        running = asyncio.create_task(deliverer.run(alone=settings.store is None))
        ready()
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        deliverer.stop()
        tending.cancel()
        stopping.cancel()
        await running
    finally:
        await client.close()
        await store.close()


def _secret_opener(settings: Settings) -> Callable[[str], str]:
    """Opens the secrets of targets; the key is looked for when the first one is met."""
    from postbackd.sealing import Sealer, SealError, find_sealer

    @cache
    def sealer() -> Sealer:
        return find_sealer(settings.secret_key, Path(settings.data), create=False)

    def open_secret(sealed: str) -> str:
        try:
            return sealer().open(sealed)
        except SealError as error:  # of one target: the others are served
            raise ValueError(str(error)) from error

    return open_secret


async def _tend_unserved(store: Store, settings: Settings) -> None:
    """The regular work of a store, where no ingest process does it beside us."""
    while True:
        if is_held(Path(settings.data) / LOCK_NAME):
            await asyncio.sleep(_LOOK_FOR_SERVER_S)
            continue
        tending = asyncio.create_task(tend_store(store))
        try:
            await asyncio.wait((tending,), timeout=_LOOK_FOR_SERVER_S)
        finally:
            tending.cancel()


def _open_spool(settings: Settings, snapshot: Snapshot) -> Spool | None:
    """Raises ``StoreRefused``, also when what is in it belongs to another database."""
    if not settings.spool_mb:
        return None
    try:
        return Spool(Path(settings.data), settings.spool_mb * 1_000_000, snapshot.identity)
    except SpoolOfAnother as error:
        raise StoreRefused(
            f"the spool in {settings.data} holds requests for another database; start once with that one, "
            "or choose another --data"
        ) from error
    except OSError as error:
        raise StoreRefused(
            f"cannot use the spool in {settings.data}: {error.strerror}; check its owner, or set --spool-mb 0"
        ) from error


async def _open_patiently(settings: Settings, stop: asyncio.Event, patience_s: float | None) -> Store | None:
    """The store, as soon as its database can be reached; ``None`` when told to stop before.

    ``patience_s``: how long to try; ``None``: for ever.  Raises ``StoreRefused``.
    """
    deadline = None if patience_s is None else monotonic() + patience_s
    said = ""
    while not stop.is_set():
        try:
            return await open_store(settings, create=True, serving=True)
        except StoreNotReached as error:
            if deadline is not None and monotonic() > deadline:
                raise
            if str(error) != said:
                log.warning("%s; trying again", error)
            said = str(error)
        try:
            await asyncio.wait_for(stop.wait(), _TRY_EVERY_S)
        except TimeoutError:
            continue
    return None


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
