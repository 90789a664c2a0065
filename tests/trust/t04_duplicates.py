"""T4: a thousand conversions, each sent many times at once in every spelling, are counted a thousand times.

Sent in parallel and pipelined, as query, form, JSON, array and NDJSON, and again after a restart.  Every answer about
a conversion must name the same one.  Control: the same storm on a database without the unique key.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.trust.corpus.copies import KEYS_A_CLICK, Key, make_keys, storm, write_copy
from tests.trust.corpus.stage import Stage, stage
from tests.trust.corpus.wire import Answer, Connection
from tests.trust.registry import Control, Result, Size, trust_test

CONNECTIONS = 16
LONGEST_PIPELINE = 16
COUNTED = ("accepted", "duplicate")


@dataclass
class Told:
    """What the senders were told."""

    answers: int = 0
    wrong: int = 0
    """Answers that are neither ``accepted`` nor ``duplicate``."""
    examples: list[str] = field(default_factory=list)
    accepted: dict[int, int] = field(default_factory=dict)
    named: dict[int, set[str]] = field(default_factory=dict)

    def note(self, key: Key, answer: Answer) -> None:
        self.answers += 1
        verdict, conversion = _read(answer)
        if verdict not in COUNTED:
            self.wrong += 1
            self.examples.append(f"{answer.status} {answer.body[:200]!r}")
            return
        self.named.setdefault(key.number, set()).add(conversion)
        if verdict == "accepted":
            self.accepted[key.number] = self.accepted.get(key.number, 0) + 1


def _read(answer: Answer) -> tuple[str, str]:
    """Verdict and conversion of an answer about one postback, in whatever form it came."""
    try:
        document = json.loads(answer.body)
    except ValueError:
        return "", ""
    if isinstance(document, list):
        document = document[0]
    return document.get("verdict", ""), document.get("conversion", "")


@trust_test("T4", "duplicate storm: many copies at once, in every spelling, and again after a restart")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """Exactly one conversion a key, one conversion id in every answer about it."""
    clicks = 200
    copies = size.pick(ci=30, nightly=1_000, release=10_000)
    told = Told()
    with stage(work_dir) as server:
        keys = make_keys(server.clicks(clicks))
        send([server], keys, copies, seed, told)
        server.server.stop()
        server.server.start()
        send([server], keys, max(3, copies // 10), seed + 1, told)
        stored = server.rows("SELECT count(*) FROM conversions")[0][0]
        tracebacks = server.tracebacks
    return judge(keys, stored, told, tracebacks, _control(seed, work_dir))


def judge(keys: Sequence[Key], stored: int, told: Told, tracebacks: int, control: Control) -> Result:
    """What was told and what is stored, against one conversion a key."""
    double = stored - len(keys) + sum(count - 1 for count in told.accepted.values())
    torn = sum(len(names) > 1 for names in told.named.values())
    figures = {
        "n": told.answers,
        "keys": len(keys),
        "conversions": stored,
        "double": max(0, double),
        "lost": max(0, len(keys) - stored),
        "phantom": 0,
        "wrong": told.wrong + torn,
        "tracebacks": tracebacks,
    }
    passed = stored == len(keys) == len(told.named) and not (double or torn or told.wrong or tracebacks)
    return Result(passed, figures, (control,), "; ".join(told.examples[:3]))


def send(servers: Sequence[Stage], keys: Sequence[Key], copies: int, seed: int, told: Told) -> None:
    """Every key ``copies`` times, over all connections at once; these are spread over the servers."""
    draw = random.Random(seed)
    bursts = _bursts(storm(keys, copies, draw), draw)
    asyncio.run(_send_all(servers, bursts, draw, told))


def _bursts(copies: Iterable[Key], draw: random.Random) -> Iterator[list[Key]]:
    burst: list[Key] = []
    length = 1
    for key in copies:
        burst.append(key)
        if len(burst) >= length:
            yield burst
            burst, length = [], draw.randrange(1, LONGEST_PIPELINE + 1)
    if burst:
        yield burst


async def _send_all(
    servers: Sequence[Stage], bursts: Iterator[list[Key]], draw: random.Random, told: Told
) -> None:
    async def work(server: Stage) -> None:
        connection = await Connection.open(server.address)
        for burst in bursts:  # shared: each connection takes the next one
            answers = await connection.ask([write_copy(key, server.endpoint, draw) for key in burst])
            for key, answer in zip(burst, answers, strict=True):
                told.note(key, answer)
        connection.close()

    await asyncio.gather(*(work(servers[number % len(servers)]) for number in range(CONNECTIONS)))


def _control(seed: int, work_dir: Path) -> Control:
    env = {"POSTBACKD_UNSAFE_NO_UNIQUE": "1"}
    with stage(work_dir, "control", env=env) as server:
        keys = make_keys(server.clicks(40))
        send([server], keys, 10, seed, Told())
        stored = server.rows("SELECT count(*) FROM conversions")[0][0]
    figures = {"keys": 40 * KEYS_A_CLICK, "conversions": stored}
    return Control("no unique key", stored > len(keys), figures)
