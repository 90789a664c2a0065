"""The PROXY protocol, versions 1 and 2 (haproxy.org, doc/proxy-protocol.txt): who is behind a proxy that passes bytes
on.

The header stands once, in front of everything else a connection carries.  Whether it may be believed is not decided
here.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from postbackd.core.client_address import read_address

PROXY_UNKNOWN = b"PROXY UNKNOWN\r\n"
"""The header of a connection that stands for nobody else."""

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_V1 = b"PROXY "
_LONGEST_V1 = 107
"""Bytes, the line end included (section 2.1)."""

_LONGEST_V2 = 16 + 4096
"""Addresses take 216 bytes at most; the rest is for extensions, which are skipped."""

_V2_HEAD = 16
_INET, _INET6 = 0x10, 0x20
_PORT = re.compile(r"[0-9]{1,5}")


class ProxyHeaderMalformed(Exception):
    """The connection does not begin with a PROXY header."""


class ProxyHeader(NamedTuple):
    """A header that was read."""

    address: str | None
    """The client; ``None`` when the proxy speaks for itself (its own checks) or does not know."""
    length: int
    """Bytes that it took."""


def read_proxy_header(data: bytes) -> ProxyHeader | None:
    """The header at the start of ``data``, ``None`` while more of it has to come.  Raises ``ProxyHeaderMalformed``."""
    if data.startswith(_SIGNATURE):
        return _read_v2(data)
    if data.startswith(_V1):
        return _read_v1(data)
    if _SIGNATURE.startswith(data) or _V1.startswith(data):
        return None
    raise ProxyHeaderMalformed("no PROXY header")


def _read_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, _LONGEST_V1)
    if end < 0:
        if len(data) >= _LONGEST_V1:
            raise ProxyHeaderMalformed("the line does not end")
        return None
    words = data[len(_V1) : end].decode("latin-1").split(" ")
    if words[0] == "UNKNOWN":
        return ProxyHeader(None, end + 2)
    if len(words) != 5 or words[0] not in ("TCP4", "TCP6"):
        raise ProxyHeaderMalformed("the line has other fields")
    version = IPv4Address if words[0] == "TCP4" else IPv6Address
    try:
        address = read_address(str(version(words[1])))
        version(words[2])
    except ValueError as error:
        raise ProxyHeaderMalformed("an address is none") from error
    if not all(_PORT.fullmatch(port) and int(port) <= 65535 for port in words[3:]):
        raise ProxyHeaderMalformed("a port is none")
    return ProxyHeader(address, end + 2)


def _read_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < _V2_HEAD:
        return None
    version, command = data[12] >> 4, data[12] & 0x0F
    length = _V2_HEAD + int.from_bytes(data[14:16], "big")
    if version != 2 or command > 1 or length > _LONGEST_V2:
        raise ProxyHeaderMalformed("another version, another command or too long")
    if len(data) < length:
        return None
    family = data[13] & 0xF0
    if command == 0 or family not in (_INET, _INET6):
        return ProxyHeader(None, length)
    size = 4 if family == _INET else 16
    if length < _V2_HEAD + 2 * size + 4:
        raise ProxyHeaderMalformed("the addresses are cut off")
    packed = data[_V2_HEAD : _V2_HEAD + size]
    address = IPv4Address(packed) if family == _INET else IPv6Address(packed)
    return ProxyHeader(read_address(str(address)), length)
