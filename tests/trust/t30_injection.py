"""T30: line ends and foreign addresses in everything a visitor or a network can send.

No answer may have a header line that the server did not write by itself, and no redirect may lead to another host
than the offer's, as a browser reads it.  Control: a server that writes a parameter into ``Location`` as it came.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote_to_bytes

from tests.trust.corpus.stage import Stage, stage
from tests.trust.corpus.wire import Address, get, post, say
from tests.trust.registry import Control, Result, Size, trust_test
from tests.trust.server import Catalog, run_cli, wait_until

OFFER_HOST = "shop.example"
QUIET_S, LIMIT_S = 0.15, 5.0
AT_ONCE = 32

_OFFERS = {
    "query": f"https://{OFFER_HOST}/?a={{sub1}}&b={{source_click_id}}",
    "path": f"https://{OFFER_HOST}/go/{{sub1}}/{{sub2}}",
    "start": f"https://{OFFER_HOST}/{{sub1}}",
    "fragment": f"https://{OFFER_HOST}/x#{{sub1}}",
}
"""Where an offer's URL may hold what a visitor brought."""

_HEADERS = frozenset(
    {
        b"cache-control", b"location", b"content-length", b"content-type", b"connection", b"allow", b"retry-after",
        b"postbackd-verdict", b"postbackd-reason", b"x-request-id",
    }
)  # fmt: skip
"""What the server writes by itself."""

_LINE_ENDS = (
    "%0d%0a", "%0D%0A", "%0a", "%0d", "%0d%0a%0d%0a", "%250d%250a", "%25%30%64%25%30%61", "%e5%98%8a%e5%98%8d",
    "%E2%80%A8", "%E2%80%A9", "%C2%85", "%c0%8a", "%u000a", "%0b", "%0c", "%1c", "%00%0d%0a", "\\r\\n", "%5cr%5cn",
    "%0d%20%0a", "%09%0d%0a", "%EF%BF%BD%0a", "%ff%0d%0a",
)  # fmt: skip
_INJECTED = (
    "X-Injected:%20yes", "Set-Cookie:%20a=b", "Location:%20https://evil.example/", "Content-Length:%200",
    "%3Cscript%3E", "HTTP/1.1%20200%20OK", "Refresh:%200;url=https://evil.example/",
)  # fmt: skip
_FOREIGN = (
    "//evil.example", "/%2Fevil.example", "%2F%2Fevil.example", "https://evil.example", "https:evil.example",
    "%5C%5Cevil.example", "/%5Cevil.example", "%5Cevil.example", "@evil.example", "%40evil.example",
    ".evil.example", "%2Eevil.example", ":443@evil.example", "%00//evil.example", "%09//evil.example",
    "%0a//evil.example", "javascript:alert(1)", "data:text/html,x", "..//evil.example", "..%2F..%2F%2Fevil.example",
    "?//evil.example", "%23@evil.example", "%3F@evil.example", "%E3%80%82evil.example", "%EF%BC%8Fevil.example",
    "///evil.example", "%2e%2e//evil.example", ";@evil.example", "%EF%BC%A0evil.example", "%E2%81%84evil.example",
)  # fmt: skip
_BEFORE = ("", "a", "%20", "%09", ".", "%2F")
"""What may stand before a foreign address."""


@dataclass
class Finding:
    """What one server made of the payloads."""

    cases: int = 0
    injected: list[str] = field(default_factory=list)
    led_away: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.injected or self.led_away or self.broken)


def payloads() -> list[str]:
    """Texts as they stand in a URL: line ends with what would come behind them, and foreign addresses."""
    ends = [
        f"{before}{end}{injected}" for before in ("", "x") for end in _LINE_ENDS for injected in _INJECTED
    ]
    foreign = [f"{before}{address}" for before in _BEFORE for address in _FOREIGN]
    return [*ends, *foreign]


@trust_test("T30", "header injection and open redirects: none through the real server")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """Every payload in every place: no foreign header line, no foreign host, no 5xx."""
    rounds = size.pick(ci=1, nightly=5, release=20)
    finding = Finding()
    with stage(work_dir) as server:
        slugs = _make_campaigns(server)
        for _ in range(rounds):
            cases = list(_requests(server.catalog, slugs, server.click()))
            asyncio.run(_judge(server.address, cases, finding))
        tracebacks = server.tracebacks
    figures = {
        "n": finding.cases,
        "payloads": len(payloads()),
        "header lines injected": len(finding.injected),
        "led to another host": len(finding.led_away),
        "5xx": len(finding.broken),
        "tracebacks": tracebacks,
    }
    note = "; ".join((*finding.injected[:5], *finding.led_away[:5], *finding.broken[:5]))
    return Result(finding.clean and not tracebacks, figures, (_control(),), note)


def _make_campaigns(server: Stage) -> list[str]:
    data, slugs = server.server.data_dir, []
    for name, url in _OFFERS.items():
        for arguments in (
            ("offer", "add", name, "--network", "Shop", "--url", url),
            ("campaign", "add", f"in-{name}", "--source", "Ads", "--offer", name),
        ):
            done = run_cli(data, *arguments)
            assert done.returncode == 0, done.stderr
        slugs.append(f"in-{name}")
    wait_until(lambda: server.server.status(f"/c/{slugs[-1]}") == 302, 20, "the campaigns")
    return slugs


def _requests(catalog: Catalog, slugs: Sequence[str], click: str) -> Iterator[bytes]:
    for payload in payloads():
        for slug in slugs:
            yield get(f"/c/{slug}?sub1={payload}&sub2={payload}&source_click_id={payload}")
        yield get(f"/c/{slugs[0]}{payload}")
        yield get(f"/{payload}")
        yield get(f"/p/{catalog.key}?click_id={payload}&txid={payload}&status={payload}&currency={payload}")
        yield get(f"/p/{catalog.key}/pixel.gif?click_id={click}&txid={payload}")
        yield get(f"/p/{payload}?click_id={click}")
        text = unquote_to_bytes(payload).decode("utf-8", "replace")
        registration = json.dumps(
            {"sub1": text, "sub2": text, "source_click_id": text, "click_id": text[:100]}
        )
        yield post(f"/c/{slugs[1]}", "application/json", registration.encode())
        forged = b"GET /c/%b?sub1=x HTTP/1.1\r\nHost: postbackd.example\r\nX-Forwarded-Host: evil.example\r\n"
        forged += b"X-Original-URL: //evil.example\r\nReferer: https://evil.example/%b\r\n\r\n"
        yield forged % (slugs[0].encode(), payload.encode())


async def _judge(address: Address, requests: Sequence[bytes], finding: Finding) -> None:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(raw: bytes) -> None:
        async with places:
            heard = await say(
                address, raw.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1), QUIET_S, LIMIT_S
            )
        _look(raw, heard.received, finding)

    await asyncio.gather(*map(one, requests))


def _look(raw: bytes, received: bytes, finding: Finding) -> None:
    finding.cases += 1
    name = raw.split(b"\r\n")[0].decode("latin-1")[:120]
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = re.split(rb"\r\n|\r|\n", head)
    names = {line.partition(b":")[0].strip().lower() for line in lines}
    doubled = len(names) != len(lines)
    if not names <= _HEADERS or doubled or body.startswith(b"HTTP/1."):
        finding.injected.append(name)
    if status[9:10] == b"5" or not status:
        finding.broken.append(name)
    for line in lines:
        if line.lower().startswith(b"location:") and browser_host(line[9:].decode("latin-1")) != OFFER_HOST:
            finding.led_away.append(name)
    if status.startswith(b"HTTP/1.1 201") and browser_host(json.loads(body)["url"]) != OFFER_HOST:
        finding.led_away.append(name)


def browser_host(url: str) -> str:
    """The host that a browser would go to (WHATWG URL): tabs and line ends vanish, a backslash is a slash."""
    text = re.sub(r"[\t\r\n]", "", url).strip("".join(map(chr, range(33))))
    found = re.match(r"https?:[/\\]*([^/\\?#]*)", text, re.IGNORECASE)
    if found is None:
        return ""
    return found[1].rpartition("@")[2].partition(":")[0].lower()


def _control() -> Control:
    """The same payloads for a server that trusts what it is given."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        text = unquote_to_bytes(line.split(b" ")[1].partition(b"sub1=")[2].partition(b"&")[0])
        where = b"https://shop.example" + text
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % where)
        await writer.drain()
        writer.close()

    async def attack() -> Finding:
        finding = Finding()
        naive = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with naive:
            address: Address = naive.sockets[0].getsockname()[:2]
            requests = [get(f"/c/x?sub1={payload}&a=b") for payload in payloads()]
            await _judge(address, requests, finding)
        return finding

    finding = asyncio.run(attack())
    figures = {"header lines injected": len(finding.injected), "led to another host": len(finding.led_away)}
    noticed = bool(finding.injected and finding.led_away)
    return Control("a server that writes a parameter into Location as it came", noticed, figures)
