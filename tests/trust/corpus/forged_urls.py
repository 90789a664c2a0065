"""URLs and name servers that want a delivery to reach what it must not, and the process that T15 watches.

One range of the loopback stands for the public Internet here: it is allowed, and a target answers there.  All else is
forbidden, the rest of the loopback included, so that nothing leaves this machine even when the guard is switched off.

``python -m tests.trust.corpus.forged_urls guarded|open REBINDS SEED`` sends to all of them and prints what it heard.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import socket
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

import uvloop

from postbackd.core.addresses import read_allowed
from postbackd.core.deliveries import Outgoing
from postbackd.delivery.client import Client
from postbackd.delivery.resolver import AddressInfo, Resolver
from tests.delivery.targets import Talk, target

SAFE = "127.77.0.1"
SAFE_RANGE = "127.77.0.0/16"
AT_ONCE = 32

V4 = (
    *(
        "127.0.0.1",
        "127.0.0.53",
        "127.1.2.3",
        "0.0.0.0",
        "10.0.0.1",
        "10.255.255.254",
        "172.16.0.1",
        "172.31.0.1",
    ),
    *("192.168.0.1", "192.168.1.254", "169.254.169.254", "169.254.170.2", "169.254.0.1", "100.64.0.1"),
    *(
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "192.0.2.1",
        "198.18.0.1",
        "198.51.100.7",
        "203.0.113.9",
    ),
    *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
)
V6 = (
    *("::", "::1", "fe80::1", "fec0::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254", "ff02::1", "ff0e::1"),
    *("2001:db8::1", "100::1", "2001:2::1", "3fff::1", "5f00::1", "64:ff9b:1::808:808"),
)
LOOPBACK = ("127.0.0.1", "127.0.0.53", "::1")
"""What is tried with the guard switched off, as it is and mapped: nobody else is disturbed."""


def in_v6(address: str, *, far: bool = True) -> Iterator[str]:
    """The IPv6 addresses that stand for an IPv4 address; without ``far`` only the mapped one."""
    bits = int(IPv4Address(address))
    if not far:
        yield f"::ffff:{address}"
        return
    for base, place in (
        (0xFFFF << 32, 0),  # mapped
        (0, 0),  # compatible
        (0xFFFF << 48, 0),  # translated
        (0x64FF9B << 96, 0),  # NAT64
        (0x64FF9B0001 << 80, 0),  # local NAT64
        (0x2002 << 112 | 1, 80),  # 6to4
        (0x20010000_08080808 << 64 | 0xF7F7F7F7, 0),  # Teredo; turned over below
        (0x2606470000000000_00005EFE << 32, 0),  # ISATAP
    ):
        turned = bits ^ 0xFFFFFFFF if base >> 96 == 0x20010000 else bits
        yield str(IPv6Address(base & ~(0xFFFFFFFF << place) | turned << place))


def spellings(address: str, *, far: bool = True) -> Iterator[str]:
    """Ways to write a host that some program reads as this IPv4 address."""
    bits, parts = int(IPv4Address(address)), [int(part) for part in address.split(".")]
    a, b, c, d = parts
    yield from (address, f"{address}.", f"{a}.{b}.{c << 8 | d}", f"{a}.{b << 16 | c << 8 | d}", str(bits))
    yield from (".".join(f"0{part:o}" for part in parts), ".".join(f"0x{part:x}" for part in parts))
    yield from (".".join(f"{part:03d}" for part in parts), ".".join(f"0X{part:02X}" for part in parts))
    yield from (f"0x{bits:08x}", f"0{bits:o}", f"0x{a:x}.{b}.0{c:o}.{d}", str(bits + (1 << 32)))
    yield from (f"{a + 256}.{b}.{c}.{d}", address.replace(".", "%2e"), address.replace(".", "\u3002"))
    yield "".join(chr(ord(c) + 0xFEE0) if c.isdigit() else c for c in address)  # full-width digits
    yield from (f"[{inner}]" for inner in in_v6(address, far=far))
    yield from (f"[0:0:0:0:0:FFFF:{address}]", f"[{address}]")


def tricks(host: str) -> Iterator[str]:
    """URLs in which programs disagree about where the host is."""
    for before, after in (
        ("http://safe.test@", "/"),
        ("http://safe.test:80@", "/"),
        ("http://safe.test%20@", "/"),
        ("http://safe.test\\@", "/"),
        ("http://safe.test/@", "/"),
        ("http:///", "/"),
        ("http:", "/"),
        ("//", "/"),
        ("http:\\\\", "\\"),
        ("http://", "#@safe.test/"),
        ("http://", "?@safe.test/"),
        ("http://", "/.safe.test/"),
        ("http://", "\\.safe.test/"),
        ("http://", "\t.safe.test/"),
        ("http://", "\r\nHost: safe.test/"),
        ("http://", " /"),
        ("http://", "%00.safe.test/"),
        ("http://safe.test ", "/"),
        ("http://safe.test\r\nLocation: http://", "/"),
        ("gopher://", ":80/_GET"),
        ("file://", "/etc/passwd"),
        ("ftp://", "/"),
        ("https://", ":80/"),
    ):
        yield f"{before}{host}{after}"


def forged_urls(port: int, only: Sequence[str] | None = None) -> list[str]:
    """Every URL; the target and with it the allowed port is ``port``."""
    v4 = [address for address in V4 if only is None or address in only]
    v6 = [address for address in V6 if only is None or address in only]
    hosts = [host for address in v4 for host in spellings(address, far=only is None)]
    hosts += [f"[{address}]" for address in v6] + [
        f"[{IPv6Address(address).exploded.upper()}]" for address in v6
    ]
    hosts += [f"[{address}%25lo]" for address in v6] + [f"[{address}%lo]" for address in v6]
    hosts += [
        "localhost",
        "LOCALHOST",
        "localhost.",
        "ip6-localhost",
        "metadata.google.internal",
        "[::]",
        "0",
    ]
    urls = [f"http://{host}:{port}/" for host in hosts]
    urls += [url for address in v4 for url in tricks(f"{address}:{port}")]
    names = [f"forged-{number}.test" for number in range(len(v4) + len(v6))]
    urls += [f"http://{name}:{port}/" for name in (*names, *(f"mixed-{name}" for name in names))]
    urls += [f"http://{SAFE}:{port}/to/{address}" for address in v4]  # redirects there
    return urls


class Names:
    """A name server of an attacker; a host that is no name of its own is read as the system reads it."""

    def __init__(self, seed: int, only: Sequence[str] | None = None) -> None:
        self._draw = random.Random(seed)
        self._forbidden = [address for address in (*V4, *V6) if only is None or address in only]
        v4 = [address for address in self._forbidden if ":" not in address]
        self._all = self._forbidden + [inner for address in v4 for inner in in_v6(address, far=only is None)]
        self._turns = itertools.count()

    def __call__(self, host: str) -> list[AddressInfo]:
        if host == "safe.test":
            return _rows(SAFE)
        if host.startswith("forged-"):
            return _rows(self._numbered(host))
        if host.startswith("mixed-forged-"):
            return _rows(self._numbered(host), SAFE, self._draw.choice(self._all))
        if host.startswith("rebind"):
            return _rows(*self._alternating())
        return list(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))

    def _numbered(self, host: str) -> str:
        return self._forbidden[int(host.removesuffix(".test").rpartition("-")[2])]

    def _alternating(self) -> list[str]:
        """Harmless when it is checked, forbidden when it is used, and every other order."""
        forbidden = self._draw.choice(self._all)
        return ([SAFE], [forbidden], [SAFE, forbidden], [forbidden, SAFE], [forbidden, forbidden])[
            next(self._turns) % 5
        ]


def _rows(*addresses: str) -> list[AddressInfo]:
    versions = {4: socket.AF_INET, 6: socket.AF_INET6}
    return [(versions[ip_address(a).version], socket.SOCK_STREAM, 6, "", (a, 0)) for a in addresses]


async def _redirect(talk: Talk) -> None:
    """One answer a connection, so that every request connects anew."""
    asked = await talk.request()
    _, _, address = asked.split(b" ")[1].rpartition(b"/")
    location = b"Location: http://%s/\r\n" % address if b"/to/" in asked else b""
    status = b"302 Found" if location else b"200 OK"
    await talk.say(
        b"HTTP/1.1 " + status + b"\r\n" + location + b"Content-Length: 0\r\nConnection: close\r\n\r\n"
    )


async def _send_all(guarded: bool, rebinds: int, seed: int) -> dict[str, int]:
    only = None if guarded else LOOPBACK
    heard: Counter[str] = Counter()
    async with target(_redirect, host=SAFE) as safe:
        ranges, ports = (SAFE_RANGE, f"80,443,{safe.port}") if guarded else ("0.0.0.0/0,::/0", "1-65535")
        resolver = Resolver(Names(seed, only), fresh_s=0)
        client = Client(read_allowed(ranges, ports), resolver=resolver)
        urls = forged_urls(safe.port, only)
        work = iter([*urls, *(f"http://rebind{n % 64}.test:{safe.port}/" for n in range(rebinds))])

        async def send_some() -> None:
            for url in work:
                answer = await client.send(Outgoing("GET", url), connect_ms=1000, total_ms=2000)
                heard["answered" if answer.status else "refused"] += 1
                heard["redirects"] += answer.status == 302

        await asyncio.gather(*(send_some() for _ in range(AT_ONCE)))
        await client.close()
    return {"urls": len(urls), "rebinds": rebinds, **heard}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(_send_all(sys.argv[1] == "guarded", int(sys.argv[2]), int(sys.argv[3])))))
