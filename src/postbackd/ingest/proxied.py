"""Connections of proxies that say who is behind them before they pass anything on (PROXY protocol).

Only those whose peer is a trusted proxy begin so, and they all have to; what else begins so is malformed HTTP.
"""

from __future__ import annotations

from typing import Any

from postbackd.core.proxy_protocol import ProxyHeaderMalformed, read_proxy_header
from postbackd.ingest.client import peer_of
from postbackd.ingest.http import Connection


class ProxiedConnection(Connection):
    """A connection whose first bytes may be a PROXY header."""

    __slots__ = ("_begin",)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        proxies = self._handler.proxies
        trusted = proxies is not None and peer_of(transport) in proxies.trusted
        self._begin: bytes | None = b"" if trusted else None

    def data_received(self, data: bytes) -> None:
        if self._begin is None:
            super().data_received(data)
            return
        data = self._begin + data
        try:
            header = read_proxy_header(data)
        except ProxyHeaderMalformed:
            self._handler.refused("proxy_header")
            self._transport.abort()
            return
        if header is None:
            self._begin = data
            return
        self._begin = None
        self.address = header.address
        if rest := data[header.length :]:
            super().data_received(rest)
