"""The front door: which request goes where, and the life of the ingest role."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import ssl
from time import perf_counter

from postbackd.core.click_id import StampMint
from postbackd.core.consent import Consent
from postbackd.core.model import Catalog, Channel
from postbackd.core.rate import RateLimit, limit_prefix
from postbackd.ingest import answers
from postbackd.ingest.arrivals import HANDSHAKE_S, SHUTDOWN_S, Arrivals
from postbackd.ingest.batcher import Batcher, now_ms
from postbackd.ingest.catalog import Endpoint, Snapshot
from postbackd.ingest.clicks import ClickDesk
from postbackd.ingest.client import Entrance
from postbackd.ingest.exchange import Exchange
from postbackd.ingest.flow import Flow
from postbackd.ingest.http import Connection, Handler
from postbackd.ingest.names import Names
from postbackd.ingest.postbacks import UNLOGGED, PostbackDesk
from postbackd.ingest.proxied import ProxiedConnection
from postbackd.ingest.spool import Spool
from postbackd.store.base import Store, StoreRefused, StoreUnavailable

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
        entrance: Entrance | None = None,
        consent: Consent | None = None,
    ) -> None:
        entrance = entrance or Entrance()
        self.proxies = entrance.proxies
        self._open_secret = entrance.open_secret
        self._per_key = entrance.per_key
        self._per_prefix = entrance.per_prefix
        self._store = store
        self._snapshot = snapshot
        self._flow = Flow()
        self._mint = mint
        self._matched_ms = now_ms() - _FIRST_LOOK_MS
        """What was received before, and waits for a click that is there, has been matched."""
        self._batcher = Batcher(
            store, lambda: self._snapshot.rulebook, self._flow, queue_limit, batch_limit, spool
        )
        self._names = Names(self._flow)
        self._postbacks = PostbackDesk(self._batcher, mint, self._flow)
        self._clicks = ClickDesk(self._batcher, store, mint, self._flow, random.random, consent)
        self._servers: list[asyncio.Server] = []
        self._arrivals = Arrivals(self)
        self.connections: set[Connection] = set()
        self.draining = False
        self._refused = ""
        """Why the newest catalog could not be read, when that has been said."""
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
        if self._per_prefix is not None and self._asks_too_often(exchange, path, self._per_prefix):
            return
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
            if key.endswith(_PIXEL) and exchange.method == b"GET" and not exchange.body:
                channel = Channel.PIXEL
                plain = key[: -len(_PIXEL)]
            else:
                plain = key.removesuffix("/")
            endpoint = snapshot.endpoints.get(plain) or snapshot.former_endpoint(plain, now_ms())
            if endpoint is None:
                self._not_found(exchange)
                return
        if endpoint.guard is not None:
            self._take_guarded(exchange, endpoint, snapshot, key, query, channel)
        elif exchange.method != b"GET" and exchange.method != b"POST":
            exchange.reply(answers.NOT_A_POSTBACK)
            self.refused("method")
        elif self._may_enter(exchange) and self._may_send(exchange, endpoint):
            self._charge(
                exchange, endpoint, self._postbacks.take(exchange, endpoint, snapshot, query, channel)
            )

    def _take_guarded(
        self,
        exchange: Exchange,
        endpoint: Endpoint,
        snapshot: Snapshot,
        key: str,
        query: str,
        channel: Channel,
    ) -> None:
        """As for any network, but somebody who may not send must not notice that there is one."""
        guard = endpoint.guard
        if guard is None or guard.rules is None:
            exchange.reply(answers.UNVERIFIABLE)
            self.refused("unverifiable")
            return
        if exchange.method != b"GET" and exchange.method != b"POST":
            exchange.reply(answers.NOT_FOUND if guard.rules.enforces else answers.NOT_A_POSTBACK)
            self.refused("method")
            return
        finding = None
        if channel is not Channel.PIXEL or not guard.rules.pixel_open:
            finding = guard.check(exchange, f"/p/{key}", query, now_ms())
            if finding.refused:
                exchange.reply(answers.NOT_FOUND)
                if self._batcher.available and self._mint.may_mint(now_ms()) and not self._batcher.full:
                    self._postbacks.note_refused(exchange, endpoint, snapshot, query, channel, finding)
                else:
                    self.refused(UNLOGGED)
                return
        if self._may_enter(exchange) and self._may_send(exchange, endpoint):
            taken = self._postbacks.take(exchange, endpoint, snapshot, query, channel, finding)
            self._charge(exchange, endpoint, taken)

    def _asks_too_often(self, exchange: Exchange, path: str, limit: RateLimit) -> bool:
        """Whether a client's neighbourhood is over its limit; health checks have none."""
        if path[:3] not in ("/p/", "/c/"):
            return False
        wait_s = limit.take(limit_prefix(exchange.client), exchange.started)
        if wait_s:
            exchange.reply(answers.write_too_many(wait_s))
            self.refused("rate_of_prefix")
        return wait_s > 0

    def _may_send(self, exchange: Exchange, endpoint: Endpoint) -> bool:
        """Whether a network is within its limit.  Only what may pass counts: strangers cannot use it up."""
        if self._per_key is None:
            return True
        wait_s = self._per_key.take(endpoint.network.key, exchange.started)
        if wait_s:
            exchange.reply(answers.write_too_many(wait_s))
            self.refused("rate_of_key")
        return not wait_s

    def _charge(self, exchange: Exchange, endpoint: Endpoint, taken: int) -> None:
        """A batch counts as many times as it holds postbacks, which is not known before it has been read."""
        if taken <= 1:
            return
        if self._per_key is not None:
            self._per_key.charge(endpoint.network.key, exchange.started, taken - 1)
        if self._per_prefix is not None:
            self._per_prefix.charge(limit_prefix(exchange.client), exchange.started, taken - 1)

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
        ready = path == "/healthz" or (self._batcher.ready and self._mint.may_mint(now_ms()))
        exchange.reply(answers.OK if ready else answers.UNAVAILABLE)

    def _not_found(self, exchange: Exchange) -> None:
        exchange.reply(answers.NOT_FOUND)
        self.refused("not_found")

    def refused(self, kind: str) -> None:
        self._flow.refused(now_ms() // 60_000, kind)

    # --- life ------------------------------------------------------------------------------------------------

    async def start(self, listening: socket.socket, handler: Handler | None = None) -> None:
        """Begin to accept connections on a socket that is bound and listening already.

        ``handler``: who answers them in our place.
        """
        loop, answering = asyncio.get_running_loop(), handler or self
        kind = ProxiedConnection if self.proxies is not None and self.proxies.protocol else Connection
        server = await loop.create_server(lambda: kind(answering), sock=listening, backlog=_BACKLOG)
        self._servers.append(server)

    async def start_tls(self, listening: socket.socket, context: ssl.SSLContext) -> None:
        """The same over TLS."""
        server = await asyncio.get_running_loop().create_server(
            self._arrivals.greet,
            sock=listening,
            backlog=_BACKLOG,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_S,
            ssl_shutdown_timeout=SHUTDOWN_S,
        )
        self._servers.append(server)

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
                        self._names.gather(self._snapshot, now_ms())
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
        self._arrivals.look(self.now)

    async def _refresh(self) -> None:
        """Swap the catalog when it has changed."""
        if await self._store.catalog_generation() == self._snapshot.generation:
            return
        try:
            self._snapshot = Snapshot(await self._store.load_catalog(), self._open_secret)
        except StoreRefused as error:
            if str(error) != self._refused:
                log.warning("%s; going on with the catalog as it was", error)
            self._refused = str(error)
        except (ValueError, LookupError):
            log.exception("the new catalog cannot be used; going on with the old one")
        else:
            self._refused = ""
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
        for server in self._servers:
            server.close()
        started = perf_counter()
        while (waited := perf_counter() - started) < _DRAIN_S:
            if not self.connections and not (self._arrivals.expected and waited < _UNFINISHED_REQUEST_S):
                break
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


_BACKLOG = 4096

_DRAIN_S = 11.0
"""Longer than a client may take to read its answer."""

_UNFINISHED_REQUEST_S = 1.0
"""What a request that has begun may take to arrive whole; a slow one must not keep newcomers waiting for long."""

_FIRST_REQUEST_S = 0.3
"""What a connection that was accepted last may take to send its first request; others wait for it to end."""
