"""Who asks, and how often: clients behind proxies, limits, and what opens the secrets of networks.

Made from the settings, once.  The address of a client is looked at and forgotten; what is kept of it is truncated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from postbackd.core.client_address import (
    AddressRanges,
    find_client,
    read_address,
    read_forwarded,
    read_forwarded_for,
)
from postbackd.core.rate import RateLimit

FORWARDED_FOR, FORWARDED = "x-forwarded-for", "forwarded"


def peer_of(transport: Any) -> str:
    """The address of the other end; one of IPv4 as such, also on a socket that listens on both families."""
    name = transport.get_extra_info("peername")
    return name[0].removeprefix("::ffff:") if name else ""


class Proxies(Struct, frozen=True):
    """The proxies whose word is believed."""

    trusted: AddressRanges
    header: str = FORWARDED_FOR
    """The header that they write; any other one comes from the client and is not read."""
    protocol: bool = False
    """Whether their connections begin with a PROXY header."""

    def client_of(self, peer: str, headers: Mapping[bytes, bytes]) -> str:
        """The client of a request that came from ``peer``, which may be a proxy."""
        if peer not in self.trusted:
            return read_address(peer) or peer
        read = read_forwarded if self.header == FORWARDED else read_forwarded_for
        written = headers.get(self.header.encode("ascii"))
        return peer if written is None else find_client(peer, read(written), self.trusted)


def cannot_open(_sealed: str) -> str:
    """Where no key is known.  Raises ``ValueError``."""
    raise ValueError("there is no key for the secrets of networks")


class Entrance(Struct, frozen=True):
    """What the front door was told about those who come to it."""

    proxies: Proxies | None = None
    per_key: RateLimit | None = None
    """Of postbacks that may pass, by network."""
    per_prefix: RateLimit | None = None
    """Of all requests, by /24 or /64."""
    open_secret: Callable[[str], str] = cannot_open
    """Opens a sealed secret.  Raises ``ValueError``."""
