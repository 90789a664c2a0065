"""Builds the admin role from the settings: what its endpoints work with, its regular work, and the server."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from msgspec.structs import replace
from starlette.types import ASGIApp

from postbackd.admin.api import ENDPOINTS
from postbackd.admin.api.alarms import TEST_TOOL
from postbackd.admin.app import build_app
from postbackd.admin.connections import PatientProtocol
from postbackd.admin.desk import DataSet, Desk, SettingValue
from postbackd.admin.doorkeeper import PeopleDoorkeeper
from postbackd.admin.hosts import HostGuard, Hosts
from postbackd.admin.reception import Reception
from postbackd.admin.scraping import metrics_route
from postbackd.admin_address import dashboard_names, dashboard_url, serves_tls
from postbackd.admin_tools import make_tools
from postbackd.alarming import make_client, make_keeper, make_test_tool
from postbackd.core.client_address import read_ranges
from postbackd.delivery.client import Client
from postbackd.ingest.batcher import now_ms
from postbackd.ingest.client import Proxies
from postbackd.market.place import demo_directory
from postbackd.measuring import surroundings_of
from postbackd.reports.metrics import Metrics
from postbackd.reports.question import open_zone
from postbackd.settings import Settings, list_settings
from postbackd.store.base import Store, StoreRefused, StoreUnavailable
from postbackd.upkeep.rollups import RollupKeeper

log = logging.getLogger("postbackd.admin")

_STOP_WITHIN_S = 3
"""Requests that are being answered when the role is told to stop have so long; live logs never end by themselves."""

_TIDY_EVERY_S = 3600.0

HSTS = ("Strict-Transport-Security", "max-age=31536000")
"""A year, and of this name alone: others below it may not speak TLS."""

Work = Coroutine[Any, Any, None]


def regular_work(settings: Settings, store: Store, reception: Reception, client: Client) -> list[Work]:
    """What is done beside answering, each until cancelled.  More of it is added here, a line each."""
    return [
        _keep_tidy(reception),
        RollupKeeper(store, open_zone(settings.report_zone), now_ms).run(),
        make_keeper(settings, store, client, now_ms).run(),
    ]


async def _keep_tidy(reception: Reception) -> None:
    """Forget sessions and links that are over, and the oldest of the audit log."""
    while True:
        try:
            await reception.people.tidy(now_ms())
        except StoreUnavailable as error:
            log.info("what is over is forgotten later: %s", error)
        await asyncio.sleep(_TIDY_EVERY_S)


# --- desks -------------------------------------------------------------------------------------------------------


def make_desk(
    settings: Settings,
    store: Store,
    reception: Reception | None = None,
    clock: Callable[[], int] = now_ms,
    tools: Mapping[str, Callable[..., Any]] | None = None,
) -> Desk:
    """What the endpoints work with.  ``tools``: beside those that every desk has."""
    return Desk(
        store, clock, base_url=settings.base_url, data=Path(settings.data),
        settings=_setting_values(settings), tools={**make_tools(settings), **(tools or {})}, reception=reception,
    )  # fmt: skip


def _setting_values(settings: Settings) -> tuple[SettingValue, ...]:
    return tuple(
        SettingValue(
            one.name,
            None if one.secret else getattr(settings, one.name),
            one.default,
            one.help,
            one.secret,
            given=getattr(settings, one.name) not in (None, "", ()),
        )
        for one in list_settings()
    )


class DemoDesk:
    """The desk of the simulated data: there while their directory is."""

    def __init__(self, settings: Settings, open_store: Callable[[Path], Awaitable[Store]]) -> None:
        """``open_store``: opens the embedded database in a directory.  Raises ``StoreRefused``."""
        self._settings = settings
        self._path = demo_directory(Path(settings.data))
        self._open_store = open_store
        self._opening = asyncio.Lock()
        self._desk: Desk | None = None
        self._rolling: asyncio.Task[None] | None = None
        self._seen: tuple[int, int] | None = None
        """Which directory the desk is of: another one may have come under its name."""

    async def find(self) -> Desk | None:
        """``None``: there are no simulated data."""
        async with self._opening:
            there = await asyncio.to_thread(self._look)
            if there != self._seen:
                await self._close()
            if self._desk is None and there is not None:
                await self._open(there)
            return self._desk

    def _look(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    async def _open(self, there: tuple[int, int]) -> None:
        try:
            store = await self._open_store(self._path)
        except StoreRefused as error:  # it is being made
            log.info("the simulated data cannot be opened: %s", error)
            return
        own = replace(self._settings, data=str(self._path), store=None, backup_dir=None)
        self._desk = Desk(
            store, now_ms, base_url=self._settings.base_url, data=self._path,
            settings=_setting_values(own), tools=make_tools(own), data_set=DataSet.DEMO,
        )  # fmt: skip
        keeper = RollupKeeper(store, open_zone(self._settings.report_zone), now_ms)
        self._rolling = asyncio.create_task(keeper.run())
        self._rolling.add_done_callback(_name_failure)
        self._seen = there

    async def _close(self) -> None:
        desk, self._desk, self._seen = self._desk, None, None
        if self._rolling is not None:
            self._rolling.cancel()
            await asyncio.wait((self._rolling,))
            self._rolling = None
        if desk is not None:
            await desk.close()
            await desk.store.close()

    async def close(self) -> None:
        """For the end of the role."""
        async with self._opening:
            await self._close()


# --- the role ----------------------------------------------------------------------------------------------------


async def administer(
    settings: Settings,
    store: Store,
    apart: Store,
    open_demo: Callable[[Path], Awaitable[Store]],
    listening: socket.socket,
    stop: asyncio.Event,
    ready: Callable[[], None],
    more: Sequence[Work] = (),
) -> None:
    """Answer requests until told to stop, and do the regular work beside over ``apart``, ``more`` of it too."""
    url = dashboard_url(settings, listening.getsockname()[1])
    reception = Reception(store.people, now_ms, url=url, client_of=_client_of(settings))
    client = make_client(settings)
    tools = {TEST_TOOL: make_test_tool(settings, client, now_ms)}
    desk, demo = make_desk(settings, store, reception, tools=tools), DemoDesk(settings, open_demo)

    async def find_desk(data_set: DataSet) -> Desk | None:
        return desk if data_set is DataSet.REAL else await demo.find()

    headers = [HSTS] if url.startswith("https://") else []
    doorkeeper = PeopleDoorkeeper(reception, now_ms)
    metrics = metrics_route(Metrics(surroundings_of(settings), now_ms()), store, doorkeeper, now_ms)
    app = build_app(ENDPOINTS, find_desk, doorkeeper, routes=[metrics], headers=headers)
    guarded = HostGuard(app, Hosts(dashboard_names(settings)))
    context, works = await _find_tls(settings)
    regular = regular_work(settings, apart, reception, client)
    tasks = [asyncio.create_task(work) for work in (*works, *regular, *more)]
    for task in tasks:
        task.add_done_callback(_name_failure)
    try:
        await serve_app(guarded, listening, stop, ready, context)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await desk.close()
        await demo.close()
        await client.close()


def _name_failure(task: asyncio.Task[None]) -> None:
    """Regular work must not end in silence."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("regular work of the admin role has ended: %s", error, exc_info=error)


def _client_of(settings: Settings) -> Callable[[str, dict[bytes, bytes]], str]:
    proxies = Proxies(read_ranges(settings.trusted_proxies), settings.client_header)
    return proxies.client_of


async def _find_tls(settings: Settings) -> tuple[ssl.SSLContext | None, list[Work]]:
    """The context to listen with, and the work that keeps its certificate up to date.  Raises ``StoreRefused``."""
    if not serves_tls(settings):
        return None, []
    from postbackd.https import SecureDoor, open_shelf  # noqa: PLC0415 - a role without TLS loads nothing of it

    shelf = open_shelf(settings) if settings.domain and settings.tls == "auto" else None
    secure = SecureDoor(settings, shelf, None)
    return secure.context, await secure.find_certificate()


class _Server(uvicorn.Server):
    """One that leaves the signals to the role."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve_app(
    app: ASGIApp,
    listening: socket.socket,
    stop: asyncio.Event,
    ready: Callable[[], None],
    context: ssl.SSLContext | None = None,
) -> None:
    """Answer requests until told to stop; over TLS with a ``context``."""
    config = uvicorn.Config(
        app, http=PatientProtocol, lifespan="off", log_config=None, access_log=False, server_header=False,
        timeout_graceful_shutdown=_STOP_WITHIN_S, timeout_keep_alive=75, limit_concurrency=512,
        proxy_headers=False,
        ssl_context_factory=None if context is None else lambda _config, _default: context,
    )  # fmt: skip
    if listening.family in (socket.AF_INET, socket.AF_INET6):
        # Connections inherit it.  asyncio leaves it out for sockets that were made without naming the protocol, and
        # then the end of every second answer waits 40 ms for the client's acknowledgement.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # it tells of each start and stop
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    ready()
    await asyncio.wait((serving, asyncio.create_task(stop.wait())), return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await serving
