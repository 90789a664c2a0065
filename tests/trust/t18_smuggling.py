"""T18: malformed and ambiguous requests, each hiding a second one, direct and through nginx, haproxy and Caddy.

Smuggled is an inner request that the server executed although nobody in front of it took it for a request.
Control: a server that believes ``Content-Length`` beside ``Transfer-Encoding``; the same corpus must smuggle there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.trust.corpus import proxies
from tests.trust.corpus.naive import naive_server
from tests.trust.corpus.proxies import Proxy
from tests.trust.corpus.smuggling import Malformed, Target, corpus
from tests.trust.corpus.stage import Stage, stage
from tests.trust.corpus.wire import Address, Heard, say
from tests.trust.registry import Control, Result, Size, need_tools, trust_test

AT_ONCE = 48
QUIET_S = 0.4
LIMIT_S = 3.0
"""A refused connection must be closed by then; the smallest time limit of the front door is 5 s."""

ProxyMaker = Callable[[Path, Address], AbstractContextManager[Proxy]]

PROXIES: dict[str, ProxyMaker] = {
    "nginx": proxies.nginx,
    "haproxy": proxies.haproxy,
    "caddy": proxies.caddy,
    "lenient": partial(proxies.haproxy, lenient=True),
}


@dataclass
class Finding:
    """What one route made of the corpus."""

    cases: int = 0
    smuggled: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """Answered with a 5xx by the server itself."""
    accepted: list[str] = field(default_factory=list)
    """Carried out although it had to be refused."""
    open: list[str] = field(default_factory=list)
    """Connections that had to be closed and were not."""

    @property
    def clean(self) -> bool:
        return not (self.smuggled or self.broken or self.accepted or self.open)

    @property
    def note(self) -> str:
        kinds = {"smuggled": self.smuggled, "5xx": self.broken, "accepted": self.accepted, "open": self.open}
        return "; ".join(f"{kind}: {', '.join(names[:12])}" for kind, names in kinds.items() if names)


@trust_test("T18", "smuggling: malformed requests with a second one inside, direct and through proxies")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """The corpus on every route: 0 inner requests executed, 0 answers 5xx, ambiguous connections closed."""
    need_tools("nginx", "haproxy", "caddy")
    rounds = size.pick(ci=1, nightly=5, release=20)
    with stage(work_dir) as server, _proxies(work_dir, server) as routes:
        found = {"direct": Finding()} | {name: Finding() for name in routes}
        for number in range(rounds):
            _direct(server, found["direct"], _word(number))
            for name, proxy in routes.items():
                _through(server, proxy, found[name], f"{name}{_word(number)}")
        tracebacks = server.tracebacks
    figures = _figures(found) | {"tracebacks": tracebacks}
    passed = not tracebacks and all(finding.clean for finding in found.values())
    note = "; ".join(f"{name}: {finding.note}" for name, finding in found.items() if finding.note)
    return Result(passed, figures, (_control(),), note)


def _word(number: int) -> str:
    """A number in letters."""
    return chr(97 + number // 26) + chr(97 + number % 26)


def _figures(found: dict[str, Finding]) -> dict[str, int | float | str]:
    return {
        "n": sum(finding.cases for finding in found.values()),
        "smuggled": sum(len(finding.smuggled) for finding in found.values()),
        "5xx": sum(len(finding.broken) for finding in found.values()),
        "accepted": len(found["direct"].accepted),
        "left open": len(found["direct"].open),
        "routes": ", ".join(found),
    }


@contextmanager
def _proxies(work_dir: Path, server: Stage) -> Iterator[dict[str, Proxy]]:
    with ExitStack() as running:
        yield {
            name: running.enter_context(make(work_dir / name, server.address))
            for name, make in PROXIES.items()
        }


def _direct(server: Stage, finding: Finding, prefix: str) -> None:
    cases = corpus(Target(server.catalog.key, server.click(), f"direct{prefix}"))
    heard = asyncio.run(say_all(server.address, cases))
    executed = server.transaction_ids()
    for case, answer in zip(cases, heard, strict=True):
        finding.cases += 1
        if case.inner in executed:
            finding.smuggled.append(case.name)
        if any(status >= 500 for status in answer.statuses):
            finding.broken.append(case.name)
        if case.refuse and case.outer in executed:
            finding.accepted.append(case.name)
        if case.closes and not answer.closed:
            finding.open.append(case.name)


def _through(server: Stage, proxy: Proxy, finding: Finding, prefix: str) -> None:
    """A proxy may mend a request, refuse it, or see two where we see one; only its log tells what it saw."""
    cases = corpus(Target(server.catalog.key, server.click(), prefix))
    heard = asyncio.run(say_all(proxy.address, cases))
    executed, seen = server.transaction_ids(), proxy.seen()
    for case, answer in zip(cases, heard, strict=True):
        finding.cases += 1
        if case.inner in executed and case.inner not in seen:
            finding.smuggled.append(case.name)
        statuses = [a.header("X-Backend-Status") for a in answer.answers]
        if any(status and status.startswith("5") and status != "502" for status in statuses):
            finding.broken.append(case.name)


async def say_all(address: Address, cases: Sequence[Malformed]) -> list[Heard]:
    """What came back for each case, each on a connection of its own."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(case: Malformed) -> Heard:
        async with places:
            return await say(address, case.raw, QUIET_S, LIMIT_S)

    return list(await asyncio.gather(*map(one, cases)))


def _control() -> Control:
    async def smuggle() -> tuple[int, int]:
        async with naive_server() as (naive, address):
            cases = corpus(Target("key", "click"))
            heard = await say_all(address, cases)
            inner = {case.inner for case in cases} & set(naive.executed)
            left = sum(case.closes and not answer.closed for case, answer in zip(cases, heard, strict=True))
            return len(inner), left

    smuggled, left_open = asyncio.run(smuggle())
    figures = {"smuggled": smuggled, "left open": left_open}
    return Control("a server that believes Content-Length beside Transfer-Encoding", smuggled > 0, figures)
