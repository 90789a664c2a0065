"""Measures an endpoint from here: each phase over so many tries, its certificate, how it answers.

Nothing that counts is sent unless it is asked for: the click id is a test word, and each try has a transaction id of
its own.  Tries are made one after the other, at a bounded rate.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from secrets import token_hex
from time import perf_counter
from urllib.parse import parse_qsl, quote

import msgspec
from msgspec import Struct

from postbackd.core.diagnosis import TEST_CLICK_ID
from postbackd.core.endpoint import judge_tls
from postbackd.core.exchange import CONNECT, DNS, PHASES, TIMEOUT, Exchange
from postbackd.core.finding import Finding
from postbackd.core.manners import Checked, judge_repeat, judge_unknown
from postbackd.core.params import POSTBACK_NAMES
from postbackd.core.percentiles import Spread, spread_of
from postbackd.core.replies import excerpt
from postbackd.delivery.request import read_place
from postbackd.delivery.resolver import NameNotFound, Resolver
from postbackd.exchanges.postback import Endpoint, Postback, has_macros, mark_as_test, write_postback
from postbackd.exchanges.timed import Family, Timer
from postbackd.tls.probe import look_at_tls, offers_http2

FAMILIES: tuple[Family, ...] = ("IPv4", "IPv6")


class Wanted(Struct, frozen=True, kw_only=True):
    """What to measure."""

    tries: int = 20
    """Of each series."""
    rate: float = 10.0
    """Requests a second at most."""
    timeout_ms: int = 10_000
    as_is: bool = False
    """Ask for the URL exactly as it is written: it may count."""
    click_id: str = ""
    """An id of the endpoint's own, to try duplicates with: one conversion is counted."""
    unknown: bool = False
    """Also send an id that nobody issued."""
    authorities: str | None = None


class Series(Struct, frozen=True, kw_only=True):
    """Tries of one kind."""

    name: str
    """``cold``: each over a new connection; ``kept``: all over one."""
    family: str
    address: str = ""
    tries: int = 0
    answered: int = 0
    statuses: Mapping[str, int] = {}
    errors: Mapping[str, int] = {}
    """By kind."""
    example: str = ""
    """What an error said."""
    reconnected: int = 0
    """Of ``kept``: how often the endpoint had closed the connection."""
    phases: Mapping[str, Spread] = {}


class Probed(Struct, frozen=True, kw_only=True):
    """What was found of one endpoint from one place."""

    url: str
    """As it may be shown."""
    print: str
    """Equal for the same URL, so that results of several places can be put together without the key in it."""
    addresses: Mapping[str, Sequence[str]] = {}
    dns_error: str = ""
    series: Sequence[Series] = ()
    certificate: Sequence[Finding] = ()
    tls: str = ""
    http: Sequence[str] = ()
    answer_bytes: int = 0
    compressed: str = ""
    """How a compressed answer came, if one was asked for."""
    checks: Sequence[Checked] = ()
    counts: bool = False
    """Whether something was sent that may count."""


class OddProbe(ValueError):
    """The URL cannot be probed as it stands; the message says what to change."""


def mark_url(url: str) -> str:
    """The URL with places for a click id and a transaction id, so that a test can be put into it.

    Raises ``OddProbe`` where it cannot be seen which parameter holds the click id: the URL might count something.
    """
    if has_macros(url):
        if "{click_id}" not in url:
            raise OddProbe("the URL has no {click_id}; write it where the click id goes")
        return url
    head, _, query = url.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    if not pairs:
        return url
    clicks, transactions = POSTBACK_NAMES["click_id"], POSTBACK_NAMES["transaction_id"]
    if not any(name.lower() in clicks for name, _ in pairs):
        raise OddProbe(
            f"which parameter holds the click id is not known ({', '.join(name for name, _ in pairs)[:80]}); "
            "write {click_id} where it goes, or --as-is to ask for the URL as it is, which may count something"
        )
    marked = []
    for name, value in pairs:
        lower = name.lower()
        shown = (
            "{click_id}" if lower in clicks else "{txid}" if lower in transactions else quote(value, safe="")
        )
        marked.append(f"{quote(name, safe='')}={shown}")
    if not any(name.lower() in transactions for name, _ in pairs):
        marked.append("txid={txid}")
    return f"{head}?{'&'.join(marked)}"


class Prober:
    """Looks at one endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        wanted: Wanted,
        tls: ssl.SSLContext,
        now_ms: Callable[[], int],
    ) -> None:
        """Raises ``OddProbe`` and ``delivery.request.OddRequest``."""
        self._given = endpoint
        marked = endpoint.url if wanted.as_is else mark_url(endpoint.url)
        self._endpoint = msgspec.structs.replace(endpoint, url=marked)
        self._wanted = wanted
        self._tls = tls
        self._now_ms = now_ms
        self.step: Callable[[int], None] = lambda done: None
        """Hears of every try."""
        self._next = 0.0
        self._place = read_place(endpoint.url)

    async def look(self) -> Probed:
        """All of it."""
        found = Probed(
            url=self._given.shown,
            print=sha256(self._given.url.encode()).hexdigest()[:16],
            counts=self._wanted.as_is or bool(self._wanted.click_id),
        )
        try:
            addresses = await self._find_addresses()
        except NameNotFound as error:
            return msgspec.structs.replace(found, dns_error=str(error))
        series, last = await self._measure(addresses)
        certificate: Sequence[Finding] = ()
        http = ["HTTP/1.1"] if last.status else []
        if self._place.tls and _is_there(series):
            certificate = await self._look_at_certificate()
            if await asyncio.to_thread(offers_http2, self._place.host, self._place.port):
                http.append("HTTP/2")
        if "h3" in last.headers.get("alt-svc", ""):
            http.append("HTTP/3 (announced)")
        compressed, checks = "", tuple[Checked, ...]()
        if last.status:
            compressed = await self._ask_compressed()
            checks = await self._check()
        return msgspec.structs.replace(
            found,
            addresses=addresses,
            series=series,
            certificate=certificate,
            tls=last.tls,
            http=http,
            answer_bytes=last.wire_bytes,
            compressed=compressed,
            checks=checks,
        )

    async def _find_addresses(self) -> dict[str, list[str]]:
        """Raises ``NameNotFound``."""
        host = self._place.host
        found = [host] if self._place.literal else await Resolver().addresses(host)
        return {family: [one for one in found if (":" in one) == (family == "IPv6")] for family in FAMILIES}

    async def _look_at_certificate(self) -> Sequence[Finding]:
        place, authorities = self._place, self._wanted.authorities
        seen = await asyncio.to_thread(look_at_tls, place.host, place.port, self._now_ms(), authorities)
        return judge_tls(seen)

    # --- tries -----------------------------------------------------------------------------------------------

    async def _measure(self, addresses: Mapping[str, Sequence[str]]) -> tuple[list[Series], Exchange]:
        """The series, and the last try that was answered."""
        series, last = [], Exchange()
        for family in FAMILIES:
            if not addresses[family]:
                continue
            cold = await self._try(family, kept=False)
            series.append(_sum_up("cold", family, cold))
            answered = [one for one in cold if one.status]
            if not answered:
                continue
            last = answered[-1]
            kept = await self._try(family, kept=True)
            series.append(_sum_up("kept", family, kept))
        return series, last

    async def _try(self, family: Family, *, kept: bool) -> list[Exchange]:
        """``kept``: all over one connection, of which the first try, which opens it, is left out."""
        timer = self._make_timer()
        made = []
        try:
            for number in range(self._wanted.tries + kept):
                one = await self._ask(timer, family=family, keep=kept)
                if number or not kept:
                    made.append(one)
                    self.step(1)
        finally:
            timer.close()
        return made

    def _make_timer(self) -> Timer:
        limit = self._wanted.timeout_ms
        # A look-up is good for no time at all: each try asks for the name.
        return Timer(self._tls, connect_ms=limit, total_ms=limit, resolver=Resolver(fresh_s=0))

    async def _ask(
        self,
        timer: Timer,
        postback: Postback | None = None,
        *,
        family: Family = "",
        keep: bool = False,
        encoding: str = "identity",
    ) -> Exchange:
        await self._pace()
        said = postback or (Postback() if self._wanted.as_is else mark_as_test(Postback()))
        request = write_postback(self._endpoint, said, self._now_ms())
        return await timer.exchange(request, family=family, keep=keep, encoding=encoding)

    async def _pace(self) -> None:
        now = perf_counter()
        at = max(self._next, now)
        self._next = at + 1 / self._wanted.rate
        await asyncio.sleep(at - now)

    # --- how it answers --------------------------------------------------------------------------------------

    async def _ask_compressed(self) -> str:
        timer = self._make_timer()
        try:
            made = await self._ask(timer, encoding="gzip")
        finally:
            timer.close()
        encoding = made.headers.get("content-encoding", "")
        return f"{excerpt(encoding, 20)}, {made.wire_bytes} bytes" if encoding else ""

    async def _check(self) -> tuple[Checked, ...]:
        if self._wanted.as_is and not self._wanted.click_id:
            return ()
        timer = self._make_timer()
        try:
            transaction = f"probe-{token_hex(6)}"
            click_id = self._wanted.click_id or TEST_CLICK_ID
            postback = Postback(click_id=click_id, transaction_id=transaction)
            checks = [judge_repeat([await self._ask(timer, postback) for _ in range(2)])]
            if self._wanted.unknown:
                postback = Postback(click_id=f"nobody{token_hex(7)}", transaction_id=f"probe-{token_hex(6)}")
                checks.append(judge_unknown(await self._ask(timer, postback)))
        finally:
            timer.close()
        return tuple(checks)


def _is_there(series: Sequence[Series]) -> bool:
    """Whether there is anything to look at more closely; every look at what is silent takes seconds."""
    return any(one.answered or set(one.errors) - {DNS, CONNECT, TIMEOUT} for one in series)


def _sum_up(name: str, family: str, made: Sequence[Exchange]) -> Series:
    whole = [one for one in made if not one.error]
    timed = [one for one in whole if one.reused] if name == "kept" else whole
    failed = [one for one in made if one.error]
    times = {phase: [t for one in timed if (t := one.phase_ms(phase)) is not None] for phase in PHASES}
    return Series(
        name=name,
        family=family,
        address=next((one.address for one in made if one.address), ""),
        tries=len(made),
        answered=len(whole),
        statuses=dict(Counter(str(one.status) for one in whole)),
        errors=dict(Counter(one.kind for one in failed)),
        example=failed[0].error if failed else "",
        reconnected=sum(not one.reused for one in whole) if name == "kept" else 0,
        phases={phase: spread_of(found) for phase, found in times.items() if found},
    )
