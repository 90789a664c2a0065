"""Ranges of addresses, and which client a chain of proxies stands for.

What a client writes about itself counts for nothing: only the entries that proxies of ours added do, and those stand
on the right.  So the chain is walked from the right, for as long as each hop is one that is trusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

_MOST_HOPS = 32
_REMEMBERED = 4096

_QUOTED_BACKWARDS = rb'"(?:[^"]|"(?=\\))*+"(?!\\)'
_ELEMENT_BACKWARDS = re.compile(rb'(?:[^,"]|%b)*+' % _QUOTED_BACKWARDS)
"""Up to the comma on the left of an element: read from the right, as far as our proxies wrote, quotes are closed."""

_PAIR = re.compile(rb'(?:[^;"]|"(?:[^"\\]|\\.)*+")++')
_FOR = re.compile(rb'\s*for\s*=\s*(?:"((?:[^"\\]|\\.)*+)"|([^";\s]+))\s*', re.IGNORECASE)
_WITH_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([0-9.]+))(?::[0-9A-Za-z_]{1,10})?")


class AddressRanges:
    """A list of addresses and CIDR ranges, v4 and v6."""

    __slots__ = ("_remembered", "_v4", "_v6", "texts")

    def __init__(self, texts: Iterable[str]) -> None:
        """Raises ``ValueError`` that names what is no address or range."""
        ranges = [read_range(text) for text in texts]
        self.texts = tuple(str(one) for one in ranges)
        self._v4 = [r for r in ranges if isinstance(r, IPv4Network)]
        self._v6 = [r for r in ranges if isinstance(r, IPv6Network)]
        self._remembered: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return bool(self.texts)

    def __contains__(self, address: object) -> bool:
        """Whether an address, as text, lies in one of the ranges; what is no address does not."""
        assert isinstance(address, str)
        known = self._remembered.get(address)
        if known is None:
            known = self._look(address)
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            if len(address) <= 45:
                self._remembered[address] = known
        return known

    def _look(self, text: str) -> bool:
        plain = read_address(text)
        if plain is None:
            return False
        address = ip_address(plain)
        ranges: Iterable[IPv4Network | IPv6Network] = self._v6 if ":" in plain else self._v4
        return any(address in one for one in ranges)


def read_range(text: str) -> IPv4Network | IPv6Network:
    """A range, or an address as the range that holds it alone.  Raises ``ValueError``."""
    try:
        found = ip_network(text.strip())
    except ValueError as error:
        raise ValueError(
            f"{text!r} is no address or range ({str(error).rpartition(' ')[0] or error}); "
            "write it like 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32"
            if "host bits" not in str(error)
            else f"{text!r} has bits set behind its length; write {ip_network(text.strip(), strict=False)}"
        ) from error
    if (
        isinstance(found, IPv6Network)
        and found.network_address.ipv4_mapped is not None
        and found.prefixlen >= 96
    ):
        return IPv4Network((found.network_address.ipv4_mapped, found.prefixlen - 96))
    return found


def write_range(text: str) -> str:
    """A range in its usual spelling, without a length where it is one address.  Raises ``ValueError``."""
    found = read_range(text)
    return str(found.network_address if found.prefixlen == found.max_prefixlen else found)


def read_ranges(text: str) -> AddressRanges:
    """Ranges separated by commas or spaces.  Raises ``ValueError``."""
    return AddressRanges(part for part in re.split(r"[,\s]+", text) if part)


def read_address(text: str) -> str | None:
    """An address in its usual spelling, v4 out of v6 where it is mapped; ``None`` if it is none."""
    try:
        address = ip_address(text.strip().partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def find_client(peer: str, hops: list[str | None], trusted: AddressRanges) -> str:
    """The client behind ``peer``: the first address from the right that is not a trusted proxy.

    ``hops``: what the header lists, in its order, ``None`` for what is no address.  Where the chain cannot be followed
    any further the last proxy that is known stands for the client.
    """
    client = peer
    for hop in reversed(hops[-_MOST_HOPS:]):
        if client not in trusted or hop is None:
            break
        client = hop
    return client


def read_forwarded_for(header: bytes) -> list[str | None]:
    """The addresses of ``X-Forwarded-For``; with a port, too, as some proxies write them."""
    return [_read_hop(part.decode("latin-1")) for part in header.split(b",")[-_MOST_HOPS:]]


def read_forwarded(header: bytes) -> list[str | None]:
    """The ``for=`` of each element of ``Forwarded`` (RFC 7239); ``None`` for ``unknown`` and hidden names.

    What the client wrote stands on the left and may end within quotes, to swallow what our proxies added.  So it is
    read from the right; where it can be followed no further, the list ends with ``None``.
    """
    hops: list[str | None] = []
    backwards, at = header[::-1], 0
    while len(hops) < _MOST_HOPS:
        found = _ELEMENT_BACKWARDS.match(backwards, at)
        assert found is not None  # it may be empty
        at = found.end()
        if at < len(backwards) and backwards[at] != ord(","):
            hops.append(None)
            break
        if element := found[0][::-1].strip():
            hops.append(_read_element(element))
        if at == len(backwards):
            break
        at += 1
    return hops[::-1]


def _read_element(element: bytes) -> str | None:
    for pair in _PAIR.findall(element):
        if found := _FOR.fullmatch(pair):
            return _read_hop((found[1] or found[2] or b"").decode("latin-1"))
    return None


def _read_hop(text: str) -> str | None:
    text = text.strip()
    plain = read_address(text)
    if plain is not None:
        return plain
    found = _WITH_PORT.fullmatch(text)
    return read_address(found[1] or found[2]) if found else None
