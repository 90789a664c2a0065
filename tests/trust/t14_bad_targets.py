"""T14: targets that refuse, stall, drip, flood, lie about lengths or speak something else, and dead name servers.

Each request must end in time, in bounded memory, with the truth in its answer.  Control: a client as it is quickly
written (read the head, read the body, decompress), which the same targets must hold up or fill.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import threading
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from postbackd.core.addresses import read_allowed
from postbackd.core.deliveries import Answer, Outgoing
from postbackd.delivery.client import Client
from postbackd.delivery.resolver import AddressInfo, Resolver
from tests.delivery.bad_targets import PORTS, SCRIPTED, Expected
from tests.delivery.targets import OK, answers, target
from tests.trust.registry import Control, Figure, Result, Size, trust_test

CONNECT_MS, TOTAL_MS = 1000, 1500
SLACK_S = 0.5
"""Beside the limit: all targets run in this process too, and some of them flood."""
AT_ONCE = 16
MEMORY_MB = 48
"""What may be added at most while ``AT_ONCE`` targets send as much as they like: the buffers of both sides."""
CARELESS_BYTES = 32 << 20
CARELESS_S = 2.0

_NAMES = {
    # Whoever gives up first: we, or the system's own resolver on a busy machine.
    "dead name server": (
        "dead.example",
        Expected(
            r"^the name dead\.example (was not looked up within 1 s$|could not be looked up: temporary )"
        ),
    ),
    "unknown name": ("unknown.example", Expected(r"^the name unknown\.example was not found$")),
    "failing name server": (
        "failing.example",
        Expected(r"^the name failing\.example could not be looked up: "),
    ),
    "name without address": ("empty.example", Expected(r"^the name empty\.example has no address$")),
    "living name beside them": ("alive.example", Expected("^$", 200, b"OK")),
}


@dataclass
class Finding:
    """What became of all requests."""

    tried: int = 0
    untrue: list[str] = field(default_factory=list)
    late: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0

    def note(self, name: str, expected: Expected, answer: Answer, took_s: float) -> None:
        self.tried += 1
        self.longest_s = max(self.longest_s, took_s)
        if took_s > TOTAL_MS / 1000 + SLACK_S:
            self.late[name] += 1
        true = re.search(expected.error, answer.error) and answer.status == expected.status
        body = expected.body is None or answer.body == expected.body
        headers = expected.headers is None or answer.headers == expected.headers
        if not (true and body and headers):
            self.untrue.append(f"{name}: {answer.status} {answer.error!r}")


class _Names:
    """A name server: one name is never answered, the others are as their word says."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def __call__(self, host: str) -> list[AddressInfo]:
        if host.startswith("dead"):
            self.over.wait(60)
        if host.startswith(("dead", "failing")):
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if host.startswith("unknown"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [] if host.startswith("empty") else [(2, 1, 6, "", ("127.0.0.1", 0))]


@trust_test("T14", "bad targets: refuse, stall, drip, flood, bombs, broken lengths, dead DNS")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """Every bad target as often as the size says: in time, in bounded memory, with the truth."""
    rounds = size.pick(ci=3, nightly=40, release=400)
    finding, more_mb, left_open = uvloop.run(_measure(rounds))
    kinds = len(SCRIPTED) + len(PORTS) + len(_NAMES) - 1
    figures: dict[str, Figure] = {
        "n": finding.tried,
        "bad targets": kinds,
        "untrue": len(finding.untrue),
        "too late": sum(finding.late.values()),
        "longest s": f"{finding.longest_s:.2f}",
        "more memory MB": more_mb,
        "left open": left_open,
    }
    clean = not finding.untrue and not finding.late and more_mb < MEMORY_MB and left_open <= 0
    note = "; ".join([*finding.untrue[:5], *(f"{name}: late {n} times" for name, n in finding.late.items())])
    return Result(clean and kinds >= 30, figures, (uvloop.run(_control()),), note)


async def _measure(rounds: int) -> tuple[Finding, int, int]:
    """What was found, the megabytes added at the peak, and the descriptors left open."""
    await _ask_all(1)  # buffers and threads exist afterwards
    before_mb, before = _peak_mb(anew=True), _descriptors()
    finding = await _ask_all(rounds)
    return finding, _peak_mb() - before_mb, _descriptors() - before


async def _ask_all(rounds: int) -> Finding:
    finding, names = Finding(), _Names()
    async with AsyncExitStack() as running:
        urls, ports = await _start(running)
        client = Client(read_allowed("127.0.0.0/8", ",".join(map(str, ports))), resolver=Resolver(names))
        for _ in range(rounds):
            await _round(client, urls, finding)
        await client.close()
        names.over.set()
    for _ in range(20):  # closed descriptors go on the loop's next rounds
        await asyncio.sleep(0)
    return finding


async def _start(running: AsyncExitStack) -> tuple[list[tuple[str, str, Expected]], list[int]]:
    """Name, URL and expectation of every target, and their ports."""
    urls, ports = [], []
    for name, (script, expected) in SCRIPTED.items():
        bad = await running.enter_async_context(target(script))
        urls.append((name, bad.url(), expected))
        ports.append(bad.port)
    for name, (make, scheme, expected) in PORTS.items():
        port = await running.enter_async_context(make())
        urls.append((name, f"{scheme}://127.0.0.1:{port}/", expected))
        ports.append(port)
    good = await running.enter_async_context(target(answers(OK)))
    ports.append(good.port)
    urls += [(name, f"http://{host}:{good.port}/", expected) for name, (host, expected) in _NAMES.items()]
    return urls, ports


async def _round(client: Client, urls: Sequence[tuple[str, str, Expected]], finding: Finding) -> None:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(name: str, url: str, expected: Expected) -> None:
        async with places:
            began = time.perf_counter()
            request = Outgoing("POST", url, body=b"x" * 100)
            answer = await client.send(request, connect_ms=CONNECT_MS, total_ms=TOTAL_MS)
            finding.note(name, expected, answer, time.perf_counter() - began)

    await asyncio.gather(*(one(*url) for url in urls))


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # counted, not opened


def _peak_mb(*, anew: bool = False) -> int:
    """The most memory that this process has held, since the last call with ``anew``."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) >> 10


async def _control() -> Control:
    """How many targets hold up or fill a client without limits."""
    names = ("never answers", "drips its headers", "drips its body", "endless body", "gzip bomb")
    held = []
    for name in names:
        async with target(SCRIPTED[name][0]) as bad:
            if await _is_held_up(bad.port):
                held.append(name)
    return Control("a client without limits", len(held) == len(names), {"held up or filled": len(held)})


async def _is_held_up(port: int) -> bool:
    try:
        return await asyncio.wait_for(_ask_carelessly(port), CARELESS_S) > CARELESS_BYTES
    except TimeoutError:
        return True


async def _ask_carelessly(port: int) -> int:
    """Bytes of the answer; stops where a real one would go on to fill the memory."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"Content-Length: (\d+)", head)
        left = int(found[1]) if found else CARELESS_BYTES * 2
        size, decompress = 0, zlib.decompressobj(31).decompress if b"gzip" in head else bytes
        while left > 0 and size <= CARELESS_BYTES and (piece := await reader.read(65_536)):
            left -= len(piece)
            size += len(decompress(piece))
        return size
    finally:
        writer.transport.abort()
