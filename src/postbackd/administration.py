"""Builds the admin role from the settings: what its endpoints work with, and the server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from postbackd.admin.desk import Desk, SettingValue
from postbackd.ingest.batcher import now_ms
from postbackd.settings import Settings, list_settings
from postbackd.store.base import Store

_STOP_WITHIN_S = 3
"""Requests that are being answered when the role is told to stop have so long; live logs never end by themselves."""


def make_desk(settings: Settings, store: Store) -> Desk:
    """What the endpoints work with."""
    values = tuple(
        SettingValue(
            one.name, None if one.secret else getattr(settings, one.name), one.default, one.help, one.secret
        )
        for one in list_settings()
    )
    return Desk(store, now_ms, base_url=settings.base_url, data=Path(settings.data), settings=values)


class _Server(uvicorn.Server):
    """One that leaves the signals to the role."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve_app(
    app: ASGIApp, listening: socket.socket, stop: asyncio.Event, ready: Callable[[], None]
) -> None:
    """Answer requests until told to stop."""
    config = uvicorn.Config(
        app, lifespan="off", log_config=None, access_log=False, server_header=False,
        timeout_graceful_shutdown=_STOP_WITHIN_S, timeout_keep_alive=75, limit_concurrency=512,
        proxy_headers=False,
    )  # fmt: skip
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    ready()
    await asyncio.wait((serving, asyncio.create_task(stop.wait())), return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await serving
