"""Builds the admin role from the settings: what its endpoints work with, and the server."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from postbackd.admin.desk import Desk, SettingValue
from postbackd.admin.jobs import Run
from postbackd.catalog.accounts import Seal
from postbackd.catalog.errors import NotNow
from postbackd.core.retention import Class
from postbackd.ingest.batcher import now_ms
from postbackd.sealing import SealError, find_sealer
from postbackd.settings import Settings, find_setting, list_settings
from postbackd.store.base import Store

_STOP_WITHIN_S = 3
"""Requests that are being answered when the role is told to stop have so long; live logs never end by themselves."""


def make_desk(settings: Settings, store: Store, clock: Callable[[], int] = now_ms) -> Desk:
    """What the endpoints work with."""
    values = tuple(
        SettingValue(
            one.name, None if one.secret else getattr(settings, one.name), one.default, one.help, one.secret
        )
        for one in list_settings()
    )
    tools: dict[str, Callable[..., Any]] = {"seal": _sealing(settings), "run": _running(settings)}
    return Desk(
        store, clock, base_url=settings.base_url, data=Path(settings.data), settings=values, tools=tools
    )


def _sealing(settings: Settings) -> Seal:
    def seal(values: Mapping[str, str], purpose: str) -> dict[str, str]:
        if not values:
            return {}
        try:
            sealer = find_sealer(settings.secret_key, Path(settings.data), create=True)
            return {name: sealer.seal(value, purpose) for name, value in values.items()}
        except SealError as error:
            raise NotNow(str(error)) from error

    return seal


def _running(settings: Settings) -> Run:
    """Starts commands of this program with the settings of this process; secrets go through the environment."""
    chosen = [find_setting(name) for name in _OF_COMMANDS]
    values = {one.variable: getattr(settings, one.name) for one in chosen}
    environment = {variable: "" if value is None else str(value) for variable, value in values.items()}
    environment |= {one.file_variable: "" for one in chosen}  # not from two places

    async def run(arguments: Sequence[str]) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "postbackd", *arguments,
            env={**os.environ, **environment},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
        )  # fmt: skip

    return run


_OF_COMMANDS = (
    *("data", "store", "public_url", "domain", "secret_key"),
    *("backup_dir", "backup_keep", "backup_every_h", "backup_key_file"),
    *(f"keep_{class_}_days" for class_ in Class),
)
"""Settings that commands read which are started here."""

_LONGEST_LINE = 1 << 24
"""Of what a command prints: the result of a job is one document."""


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
