"""The front door: which request goes where, and the life of the ingest role."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from time import perf_counter

from postbackd.core.click_id import StampMint
from postbackd.core.consent import Consent
from postbackd.core.model import Catalog, Channel
from postbackd.ingest import answers
from postbackd.ingest.batcher import Batcher, now_ms
from postbackd.ingest.catalog import Snapshot
from postbackd.ingest.clicks import ClickDesk
from postbackd.ingest.exchange import Exchange
from postbackd.ingest.flow import Flow
from postbackd.ingest.http import Connection
from postbackd.ingest.postbacks import PostbackDesk
from postbackd.ingest.spool import Spool
from postbackd.store.base import Store, StoreUnavailable

log = logging.getLogger("postbackd.ingest")

_TICK_S = 0.25
_CATALOG_EVERY_TICKS = 2
_WAITING_EVERY_TICKS = 20
_WAITING_MS = 60_000
"""A click and its postback that did not see each other were committed within seconds."""

_FIRST_LOOK_MS = 3_600_000
"""How far back a new process looks: all may have been away before it."""
_PIXEL = "/pixel.gif"


class FrontDoor:
    """Routes requests.  Implements ``http.Handler``."""

    def __init__(
        self,
        store: Store,
        snapshot: Snapshot,
        mint: StampMint,
        queue_limit: int,
        batch_limit: int,
        spool: Spool | None = None,
        consent: Consent | None = None,
    ) -> None:
        self._store = store
        self._snapshot = snapshot
        self._flow = Flow()
        self._mint = mint
        self._matched_ms = now_ms() - _FIRST_LOOK_MS
        """What was received before, and waits for a click that is there, has been matched."""
        self._batcher = Batcher(
            store, lambda: self._snapshot.rulebook, self._flow, queue_limit, batch_limit, spool
        )
        self._postbacks = PostbackDesk(self._batcher, mint, self._flow)
        self._clicks = ClickDesk(self._batcher, store, mint, self._flow, random.random, consent)
        self._server: asyncio.Server | None = None
        self.connections: set[Connection] = set()
        self.draining = False
        self.now = perf_counter()

    @property
    def catalog(self) -> Catalog:
        """The catalog by which requests are judged now."""
        return self._snapshot.rulebook.catalog

    # --- requests --------------------------------------------------------------------------------------------

    def handle(self, exchange: Exchange) -> None:
        target = exchange.target.decode("utf-8", "replace")
        if target[:1] != "/":
            target = _strip_origin(target)
        path, _, query = target.partition("?")
        if path[:3] == "/p/":
            self._handle_postback(exchange, path[3:], query)
        elif path[:3] == "/c/":
            self._handle_click(exchange, path[3:], query)
        elif path in ("/healthz", "/readyz"):
            self._handle_health(exchange, path)
        else:
            self._not_found(exchange)

    def _handle_postback(self, exchange: Exchange, key: str, query: str) -> None:
        snapshot = self._snapshot
        channel = Channel.S2S
        endpoint = snapshot.endpoints.get(key)
        if endpoint is None:
            if key.endswith(_PIXEL) and exchange.method == b"GET":
                channel = Channel.PIXEL
                endpoint = snapshot.endpoints.get(key[: -len(_PIXEL)])
            elif key.endswith("/"):
                endpoint = snapshot.endpoints.get(key[:-1])
            if endpoint is None:
                self._not_found(exchange)
                return
        if exchange.method != b"GET" and exchange.method != b"POST":
            exchange.reply(answers.NOT_A_POSTBACK)
            self.refused("method")
        elif self._may_enter(exchange):
            self._postbacks.take(exchange, endpoint, snapshot, query, channel)

    def _handle_click(self, exchange: Exchange, slug: str, query: str) -> None:
        snapshot = self._snapshot
        link = snapshot.links.get(slug.rstrip("/"))
        if link is None:
            self._not_found(exchange)
        elif exchange.method not in (b"GET", b"HEAD", b"POST"):
            exchange.reply(answers.NOT_A_CLICK)
            self.refused("method")
        elif self._may_enter(exchange):
            self._clicks.take(exchange, link, snapshot, query)

    def _may_enter(self, exchange: Exchange) -> bool:
        if not self._batcher.available or not self._mint.may_mint(now_ms()):
            exchange.reply(answers.UNAVAILABLE)
            self.refused("unavailable")
            return False
        if self._batcher.full:
            exchange.reply(answers.BUSY)
            self.refused("busy")
            return False
        return True

    def _handle_health(self, exchange: Exchange, path: str) -> None:
        ready = path == "/healthz" or (self._batcher.available and self._mint.may_mint(now_ms()))
        exchange.reply(answers.OK if ready else answers.UNAVAILABLE)

    def _not_found(self, exchange: Exchange) -> None:
        exchange.reply(answers.NOT_FOUND)
        self.refused("not_found")

    def refused(self, kind: str) -> None:
        self._flow.refused(now_ms() // 60_000, kind)

    # --- life ------------------------------------------------------------------------------------------------

    async def start(self, listening: socket.socket) -> None:
        """Begin to accept connections on a socket that is bound and listening already."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), sock=listening, backlog=4096)

    async def tend(self) -> None:
        """Regular work until cancelled.  Deadlines are kept whatever the database does."""
        await asyncio.gather(self._keep_deadlines(), self._keep_up())

    async def _keep_deadlines(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            try:
                self._check_deadlines()
            except Exception:
                log.exception("a fault in closing connections")

    async def _keep_up(self) -> None:
        """The catalog, counts, and what waits for clicks."""
        ticks = 0
        while True:
            await asyncio.sleep(_TICK_S)
            ticks += 1
            try:
                if self._batcher.away:
                    continue  # the spool's task asks for the database; what is known of the catalog will do
                if self._batcher.available:
                    if ticks % _CATALOG_EVERY_TICKS == 0:
                        await self._refresh()
                    if ticks % _WAITING_EVERY_TICKS == 0:
                        await self._match_waiting()
                    await self._batcher.write_flow()
            except StoreUnavailable as error:
                self._batcher.report_failure(error)
            except Exception:
                log.exception("a fault in the regular work")

    def _check_deadlines(self) -> None:
        self.now = perf_counter()
        for connection in list(self.connections):
            connection.check_deadline(self.now)

    async def _refresh(self) -> None:
        """Swap the catalog when it has changed."""
        if await self._store.catalog_generation() == self._snapshot.generation:
            return
        try:
            self._snapshot = Snapshot(await self._store.load_catalog())
        except (ValueError, LookupError):
            log.exception("the new catalog cannot be used; going on with the old one")
        else:
            log.info("catalog generation %d", self._snapshot.generation)

    async def _match_waiting(self) -> None:
        began = now_ms()
        try:
            await self._store.match_waiting(self._snapshot.rulebook, self._matched_ms - _WAITING_MS)
        except StoreUnavailable as error:  # no request depends on it; the next round looks as far back
            log.info("waiting postbacks were not looked at (%s)", error)
        else:
            self._matched_ms = began

    async def stop(self) -> None:
        """Accept nothing new, answer what was asked, close."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        started = perf_counter()
        while self.connections and (waited := perf_counter() - started) < _DRAIN_S:
            for connection in list(self.connections):
                connection.close_idle(
                    unserved=waited > _FIRST_REQUEST_S, unfinished=waited > _UNFINISHED_REQUEST_S
                )
            self._check_deadlines()
            await asyncio.sleep(0.01)
        await self._batcher.drain()


def _strip_origin(target: str) -> str:
    """The path of an absolute target, which every server must accept (RFC 9112 section 3.2.2)."""
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        return target
    _, slash, path = rest.partition("/")
    return slash + path


_DRAIN_S = 11.0
"""Longer than a client may take to read its answer."""

_UNFINISHED_REQUEST_S = 1.0
"""What a request that has begun may take to arrive whole; a slow one must not keep newcomers waiting for long."""

_FIRST_REQUEST_S = 0.3
"""What a connection that was accepted last may take to send its first request; others wait for it to end."""
