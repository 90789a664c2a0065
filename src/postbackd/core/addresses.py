"""Which addresses a delivery may connect to, so that a forged target reaches nothing behind our own walls (SSRF).

Judged is the address that is connected to, never a name or the spelling of a URL.  Public unicast is allowed, and what
an operator allows.  An IPv6 address that stands for an IPv4 address is judged as that one too: a gateway on the way
would turn it back.  The ranges are those of IANA's special-purpose registries (RFC 6890 and its successors) and
the addresses at which clouds give out credentials.

``ipaddress.is_global`` is not asked: on Python 3.11 it calls 64:ff9b::169.254.169.254 global.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from msgspec import Struct

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_METADATA = "a cloud's metadata service"
_SPECIAL: tuple[tuple[str, str], ...] = (
    ("169.254.169.254/32", _METADATA),
    ("169.254.170.0/24", _METADATA),  # credentials of containers
    ("168.63.129.16/32", _METADATA),  # the only one with an address that is otherwise public
    ("100.100.100.200/32", _METADATA),
    ("192.0.0.192/32", _METADATA),
    ("0.0.0.0/8", "unspecified"),  # Linux connects 0.0.0.0 to itself
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared by a provider's customers"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", "for documentation"),
    ("192.88.99.0/24", "reserved"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "for benchmarks"),
    ("198.51.100.0/24", "for documentation"),
    ("203.0.113.0/24", "for documentation"),
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255/32", "broadcast"),
    ("240.0.0.0/4", "reserved"),
    ("fd00:ec2::/32", _METADATA),
    ("fd20:ce::254/128", _METADATA),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("64:ff9b:1::/48", "behind a local NAT64"),
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "private"),
    ("ff00::/8", "multicast"),
    ("2001:2::/48", "for benchmarks"),
    ("2001:db8::/32", "for documentation"),
    ("3fff::/20", "for documentation"),
)
"""Range and what it is; the first that holds an address names it."""

_TEREDO = IPv6Network("2001::/32")
_ASSIGNMENTS = IPv6Network("2001::/23")
"""Protocol assignments of the IETF: nobody's web server, Teredo aside."""
_SIX_TO_FOUR = IPv6Network("2002::/16")
_UNICAST = IPv6Network("2000::/3")
"""All that is handed out to networks; the rest of IPv6 is reserved."""
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_LAST_32_BITS = tuple(
    IPv6Network(text)
    for text in (
        "::/96",  # v4-compatible
        "::ffff:0:0/96",  # v4-mapped: the kernel itself connects by IPv4
        "::ffff:0:0:0/96",  # v4-translated (RFC 2765)
        "64:ff9b::/96",  # NAT64 (RFC 6052)
    )
)
_ISATAP = 0x5EFE
_V4_BITS = 0xFFFFFFFF

_SPECIAL_NETWORKS = tuple((ip_network(text), what) for text, what in _SPECIAL)


class Allowed(Struct, frozen=True):
    """What an operator allows; ``Allowed()`` is the public Internet on ports 80 and 443."""

    ranges: tuple[Network, ...] = ()
    """Allowed whatever they are, also as the IPv4 address inside an IPv6 address."""
    ports: frozenset[int] = frozenset((80, 443))

    def refusal(self, address: str, port: int) -> str:
        """Empty when the numeric address may be connected to, otherwise why not, with the option that allows it."""
        if port not in self.ports:
            return f"port {port} is not allowed; allow it with --deliver-ports"
        if "%" in address:
            return f"address {address} has a zone, which no public address has"
        try:
            parsed = ip_address(address)
        except ValueError:
            return f"{address} is no IP address"
        for inner in (parsed, *_embedded(parsed)):
            what = "" if self._is_listed(inner) else _what(inner)
            if what:
                means = "" if inner == parsed else f"means {inner}, which "
                return f"address {parsed} {means}is {what}; allow it with --deliver-ranges"
        return ""

    def _is_listed(self, address: Address) -> bool:
        return any(address.version == range_.version and address in range_ for range_ in self.ranges)


def _what(address: Address) -> str:
    """Why an address is not public unicast; empty when it is.  What is embedded in it is not looked at."""
    for network, what in _SPECIAL_NETWORKS:
        if address.version == network.version and address in network:
            return what
    if isinstance(address, IPv4Address) or any(address in network for network in _LAST_32_BITS):
        return ""
    if address not in _UNICAST or (address in _ASSIGNMENTS and address not in _TEREDO):
        return "reserved"
    return ""


def _embedded(address: Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that an IPv6 address stands for.  ``::`` and ``::1`` stand for none."""
    if isinstance(address, IPv4Address):
        return
    bits = int(address)
    last = IPv4Address(bits & _V4_BITS)
    if bits > 1 and any(address in network for network in _LAST_32_BITS):
        yield last
    elif address in _SIX_TO_FOUR:
        yield IPv4Address(bits >> 80 & _V4_BITS)
    elif address in _TEREDO:
        yield IPv4Address(bits >> 64 & _V4_BITS)  # the server
        yield IPv4Address(bits & _V4_BITS ^ _V4_BITS)  # the client, its bits turned over
    elif address in _LOCAL_NAT64:
        yield from _behind_local_nat64(bits)
    if bits >> 32 & 0xFCFFFFFF == _ISATAP:  # the universal and group bits may be set (RFC 5214 section 6.1)
        yield last


def _behind_local_nat64(bits: int) -> Iterator[IPv4Address]:
    """The address in each layout of RFC 6052 section 2.2: which one a site uses cannot be seen.

    What begins with a zero byte is another layout's filling; only when there is nothing else is it the answer.
    """
    packed = bits.to_bytes(16)
    layouts = (packed[6:8] + packed[9:11], packed[7:8] + packed[9:12], packed[9:13], packed[12:])
    found = [IPv4Address(layout) for layout in layouts if layout[0]]
    yield from found or [IPv4Address(packed[12:])]


def read_allowed(ranges: str = "", ports: str = "80,443") -> Allowed:
    """What the settings say: ``127.0.0.0/8, fd00::/8`` and ``80,443,8000-8099``.

    Raises ``ValueError`` with a sentence that shows how it is written.
    """
    networks = tuple(_read_range(word) for word in _words(ranges))
    numbers: set[int] = set()
    for word in _words(ports):
        numbers.update(_read_ports(word))
    return Allowed(networks, frozenset(numbers))


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[,\s]+", text) if word]


def _read_range(word: str) -> Network:
    try:
        return ip_network(word)
    except ValueError:
        raise ValueError(
            f"{word!r} is no range of addresses; write it like 10.1.0.0/16 or fd00:1::/32"
        ) from None


def _read_ports(word: str) -> range:
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", word)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 0 < first <= last <= 65535:
        raise ValueError(f"{word!r} is no port; write it like 443 or 8000-8099")
    return range(first, last + 1)
