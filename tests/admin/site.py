"""The real application of the admin role on a real socket, beside a test; whoever asks is let in as the test says."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from postbackd.admin.api import ENDPOINTS
from postbackd.admin.app import build_app
from postbackd.admin.desk import DataSet, Desk
from postbackd.admin.endpoints import NOBODY, Endpoint, Principal, Scope
from postbackd.admin.reception import Reception
from postbackd.administration import make_desk, serve_app
from postbackd.ingest.batcher import now_ms
from postbackd.settings import Settings
from postbackd.store.base import Store
from tests.store.contract import KINDS

EVERYTHING = frozenset(Scope)


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Letting:
    """A doorkeeper that believes the header ``Scopes``; without one it is somebody who may do everything."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, str, int]] = []

    async def identify(self, request: Request) -> Principal:
        text = request.headers.get("scopes")
        if text == "nobody":
            return NOBODY
        scopes = EVERYTHING if text is None else frozenset(Scope(word) for word in text.split())
        return Principal("the test", scopes)

    async def note(self, who: Principal, endpoint: Endpoint, request: Request, response: Response) -> None:
        self.noted.append((who.name, f"{endpoint.method} {endpoint.path}", response.status_code))


class Site:
    """Runs in a thread with an event loop of its own; use it with ``with``."""

    def __init__(
        self,
        directory: Path,
        open_store: Callable[[Path], Awaitable[Store]] = KINDS[0].open,
        endpoints: Sequence[Endpoint] = ENDPOINTS,
        now: Callable[[], int] = now_ms,
        address: str | None = None,
    ) -> None:
        """``address``: of the PostgreSQL database that ``open_store`` opens, for the commands that are started."""
        self.directory = directory
        self.doorkeeper = Letting()
        self._open_store = open_store
        self._endpoints = endpoints
        self._now = now
        self._address = address
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.base = f"http://127.0.0.1:{self.port}"
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Site:
        self._thread.start()
        if not self._ready.wait(30) or self._failure is not None:
            raise RuntimeError("the site did not start") from self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        if self._failure is not None and kind is None:
            raise RuntimeError("the site failed") from self._failure

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return self.ask("GET", path, headers=headers)

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """``body``: what becomes JSON, or bytes as they are (then ``headers`` name their type)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            names = {name.lower(): text for name, text in response.getheaders()}
            return Answer(response.status, names, response.read())
        finally:
            connection.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        store = await self._open_store(self.directory)
        reception = Reception(store.people, self._now, url=self.base)
        settings = Settings(data=str(self.directory), store=self._address)
        desk = make_desk(settings, store, reception, self._now)

        async def find_desk(data_set: DataSet) -> Desk | None:
            return desk if data_set is DataSet.REAL else None

        try:
            app = build_app(self._endpoints, find_desk, self.doorkeeper)
            await serve_app(app, self._listening, self._stop, self._ready.set)
        finally:
            await desk.close()
            await store.close()
