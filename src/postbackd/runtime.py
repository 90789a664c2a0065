"""Builds each role from the settings and fixes the order in which things start and stop.

The only module that names a concrete store.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import random
from time import monotonic
from typing import Any

import msgspec

from postbackd.core.client_address import read_ranges
from postbackd.core.rate import RateLimit
from postbackd.ingest.batcher import now_ms
from postbackd.ingest.catalog import Snapshot
from postbackd.ingest.client import Entrance, Proxies
from postbackd.ingest.front_door import FrontDoor
from postbackd.ingest.spool import Spool, SpoolOfAnother
from postbackd.locks import LOCK_NAME, is_held, lock_data
from postbackd.role import hear_signals, let_thread_stand_back, raise_file_limit, stand_back, start_logging
from postbackd.sealing import KeptSealer, SealError
from postbackd.settings import Settings
from postbackd.settings_passing import as_environment
from postbackd.store.base import Store, StoreNotReached, StoreRefused
from postbackd.store.sealed import SENDER_SECRET, TARGET
from postbackd.store.sqlite import SqliteStore
from postbackd.store.sqlite_file import unsafe_sync
from postbackd.upkeep.checkpoints import keep_log_short
from postbackd.upkeep.nodes import NodeNumber
from postbackd.upkeep.partitions import keep_partitions_ahead
from postbackd.upkeep.purges import PurgeSchedule

log = logging.getLogger("postbackd.runtime")

DELIVER_LOCK_NAME = "deliver.lock"
"""Held by the process that delivers from an embedded database."""

_LOOK_FOR_SERVER_S = 5.0


_WRITE_TIMEOUT_S = 1.5
"""After which a database is called away, and requests are kept elsewhere."""

_QUESTION_TIMEOUT_S = 10.0

_TRY_EVERY_S = 0.5

_ADMIN_PATIENCE_MS = 2000
"""How long a change that somebody makes in the dashboard waits for a database that another program has locked."""

_PATIENCE_S = 10.0
"""How long a role that a supervisor started waits for its database; then it ends, and says why."""


async def open_store(settings: Settings, create: bool, *, serving: bool = False) -> Store:
    """The store that the settings name.  Raises ``StoreRefused`` with one line that says what to do.

    ``serving``: requests wait for its answers, so that none may take long.
    """
    if settings.store is not None:
        patience_s = max(_WRITE_TIMEOUT_S, settings.busy_timeout_ms / 1000)
        return await _open_postgres(settings, create, patience_s, _QUESTION_TIMEOUT_S if serving else None)
    return await SqliteStore.open(
        Path(settings.data),
        create=create,
        busy_timeout_ms=settings.busy_timeout_ms,
        checkpoint_pages=settings.checkpoint_pages,
        seals=_keep_sealer(settings),
    )


def _keep_sealer(settings: Settings) -> KeptSealer:
    """Nodes of other machines would not find the key that lies in this directory: there it has to be a setting."""
    embedded = settings.store is None
    seals_new = embedded or settings.secret_key is not None
    return KeptSealer(settings.secret_key, Path(settings.data), seals_new=seals_new, seals_old=embedded)


async def _open_postgres(
    settings: Settings, create: bool, write_timeout_s: float, question_timeout_s: float | None
) -> Store:
    assert settings.store is not None
    try:
        from postbackd.store.postgres import PostgresStore
    except ImportError as error:
        raise StoreRefused(
            f"a PostgreSQL store needs asyncpg ({error}); pip install -r requirements-postgres.txt"
        ) from error
    return await PostgresStore.open(
        settings.store,
        create=create,
        write_timeout_s=write_timeout_s,
        question_timeout_s=question_timeout_s,
        seals=_keep_sealer(settings),
    )


def spare_syncs(store: Store) -> None:
    """For data that can be made again: commit to an embedded database without waiting for the disk."""
    assert isinstance(store, SqliteStore)
    store.spare_syncs()


async def tend_store(store: Store) -> None:
    """The regular work that a store needs beside a server or a long command, until cancelled."""
    if isinstance(store, SqliteStore):
        await keep_log_short(store)
    else:
        from postbackd.store.postgres import PostgresStore

        assert isinstance(store, PostgresStore)
        await keep_partitions_ahead(store)


def run_ingest(
    settings: Settings,
    sockets: Mapping[str, socket.socket],
    ready: Callable[[], None],
    lifeline: int | None,
    tray: int | None = None,
) -> None:
    """The ingest role: serve listening sockets (``listen``; ``https``, ``http``) until SIGTERM or SIGINT.

    ``ready`` is called when requests are being accepted.  ``lifeline`` is a file descriptor that becomes readable when
    whoever started this process is gone; ``tray``, one of a file in memory for our successor.  Raises ``StoreRefused``.
    """
    import uvloop

    start_logging(settings.log_format)
    if word := unsafe_sync():
        log.warning("UNSAFE: synchronous=%s loses acknowledged conversions at a power cut", word)
    raise_file_limit()
    with lock_data(Path(settings.data), LOCK_NAME, "another postbackd server uses"):
        uvloop.run(_ingest(settings, sockets, ready, lifeline, tray))


async def _ingest(
    settings: Settings,
    sockets: Mapping[str, socket.socket],
    ready: Callable[[], None],
    lifeline: int | None,
    tray: int | None,
) -> None:
    loop = asyncio.get_running_loop()
    stop = hear_signals(lifeline)
    store = await _open_patiently(settings, stop, None if lifeline is None else _PATIENCE_S)
    if store is None:
        return
    try:
        if isinstance(store, SqliteStore):
            store.wait_in_loop()
            if settings.sync == "beside":
                store.sync_beside()
        entrance = _build_entrance(settings)
        snapshot = Snapshot(await store.load_catalog(), entrance.open_secret)
        spool = _open_spool(settings, snapshot)
        node = NodeNumber(store)
        # The embedded database does not know of stamps that are in the spool only.
        await node.claim(settings.node, now_ms(), spool.newest_stamp() if spool else 0)
        try:
            limits = settings.queue_limit, settings.batch_limit
            door = FrontDoor(store, snapshot, node.mint, *limits, spool, entrance, settings.consent)
            gc.collect()
            gc.freeze()
            gc.set_threshold(50_000, 20, 50)
            await door.start(sockets["listen"])
            works = [door.tend(), tend_store(store), node.keep(now_ms)]
            if settings.serves_tls:
                works += await _open_https(settings, door, sockets, lifeline, tray)
            tasks = [loop.create_task(work) for work in works]
            if settings.purge_every_s:
                tasks.append(loop.create_task(_keep_retention(settings)))
            if lifeline is not None:
                tasks.append(loop.create_task(_ask_to_deliver(door)))
            if settings.backup_dir is not None:
                tasks.append(loop.create_task(_keep_backups(settings, settings.backup_dir)))
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


def _build_entrance(settings: Settings) -> Entrance:
    trusted = read_ranges(settings.trusted_proxies)
    proxies = Proxies(trusted, settings.client_header, settings.proxy_protocol != "off") if trusted else None
    return Entrance(
        proxies,
        RateLimit(settings.rate_per_key) if settings.rate_per_key else None,
        RateLimit(settings.rate_per_prefix) if settings.rate_per_prefix else None,
        open_secrets(settings, SENDER_SECRET),
    )


async def _open_https(
    settings: Settings,
    door: FrontDoor,
    sockets: Mapping[str, socket.socket],
    lifeline: int | None,
    tray: int | None,
) -> list[Coroutine[Any, Any, None]]:
    """Accept connections over TLS too; returns the work beside.  Raises ``StoreRefused``."""
    from postbackd.https import SecureDoor, make_keeper, open_shelf

    shelf = open_shelf(settings) if settings.domain and settings.tls == "auto" else None
    secure = SecureDoor(settings, shelf, tray)
    works = await secure.open(door, sockets)
    if lifeline is None:
        secure.hear_hangup()
        if shelf is not None:  # nobody else does; a connection of its own, because it may hold it
            works.append(make_keeper(settings, open_shelf(settings)).run())
    return works


def run_certificates(settings: Settings, ready: Callable[[], None], lifeline: int | None) -> None:
    """The certificates role: obtain and renew the certificate of ``--domain`` until SIGTERM or SIGINT.

    ``ready`` and ``lifeline`` as for ``run_ingest``.  Raises ``StoreRefused``.
    """
    start_logging(settings.log_format)
    if lifeline is not None:
        stand_back()
    asyncio.run(_keep_certificate(settings, ready, lifeline))


async def _keep_certificate(settings: Settings, ready: Callable[[], None], lifeline: int | None) -> None:
    from postbackd.https import make_keeper, open_shelf

    stop = hear_signals(lifeline)
    keeping = asyncio.create_task(make_keeper(settings, open_shelf(settings)).run())
    ready()
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((keeping, stopping), return_when=asyncio.FIRST_COMPLETED)
    for task in (keeping, stopping):
        task.cancel()
    await asyncio.gather(keeping, stopping, return_exceptions=True)


async def _keep_backups(settings: Settings, directory: str) -> None:
    from postbackd.upkeep.backups import BackupSchedule

    names = ("data", "store", "backup_dir", "backup_keep", "backup_key_file", "secret_key")
    environment = as_environment(settings, names)
    schedule = BackupSchedule(
        Path(directory), Path(settings.data), settings.backup_every_h, environment, now_ms
    )
    await schedule.keep()


async def _keep_retention(settings: Settings) -> None:
    def open_own() -> Coroutine[Any, Any, Store]:
        return open_store(settings, create=False)

    await PurgeSchedule(open_own, settings.keep, let_thread_stand_back, now_ms).keep(settings.purge_every_s)


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

    start_logging(settings.log_format)
    if lifeline is not None:
        stand_back()  # there is a front door on this machine, and it comes first
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

    stop = hear_signals(lifeline)
    store = await _open_patiently(settings, stop, None)
    if store is None:
        return
    if isinstance(store, SqliteStore):
        store.sync_beside()  # the front door need not wait for our syncs
    client = Client(read_allowed(settings.deliver_ranges, settings.deliver_ports))
    try:
        deliverer = Deliverer(store, client.send, open_secrets(settings, TARGET), random)
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


def run_admin(
    settings: Settings, listening: socket.socket, ready: Callable[[], None], lifeline: int | None
) -> None:
    """The admin role: the API and the dashboard on a listening socket, until SIGTERM or SIGINT.

    ``ready`` and ``lifeline`` as for ``run_ingest``.  Raises ``StoreRefused``.
    """
    import uvloop

    start_logging(settings.log_format)
    if lifeline is not None:
        stand_back()
    raise_file_limit()
    uvloop.run(_administer(settings, listening, ready, lifeline))


async def _administer(
    settings: Settings, listening: socket.socket, ready: Callable[[], None], lifeline: int | None
) -> None:
    from postbackd.administration import administer

    stop = hear_signals(lifeline)
    patient = msgspec.structs.replace(
        settings, busy_timeout_ms=max(settings.busy_timeout_ms, _ADMIN_PATIENCE_MS)
    )
    store = await _open_patiently(patient, stop, None)
    if store is None:
        return

    async def open_demo(directory: Path) -> Store:
        embedded = msgspec.structs.replace(patient, store=None, secret_key=None, data=str(directory))
        return await open_store(embedded, create=False)

    # On a server the regular work has connections of its own: a person's question does not wait behind it.
    apart = store if settings.store is None else await open_store(patient, create=False)
    try:
        tending = _tend_unserved(store, settings)
        await administer(settings, store, apart, open_demo, listening, stop, ready, [tending])
    finally:
        if apart is not store:
            await apart.close()
        await store.close()


def open_secrets(settings: Settings, purpose: str) -> Callable[[str], str]:
    """Opens what was sealed for a purpose; the key is looked for when the first one is met."""
    sealer = _keep_sealer(settings)

    def open_secret(sealed: str) -> str:
        try:
            return sealer.open(sealed, purpose)
        except SealError as error:  # of one target or network: the others are served
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
