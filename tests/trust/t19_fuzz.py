"""T19: raw bytes on the socket, bad fields in every request, and atheris on what decides.

Whatever arrives, the answer is a verdict or a 4xx: never a 5xx, never a stack trace on standard error, and every
request that was given an id has its row in the log.  Controls: a mistake planted in a fuzz target, which atheris must
find, and a server that answers 200 without an id, which the detector must report.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.trust.corpus import wire
from tests.trust.corpus.bad_fields import Bad, bad_requests
from tests.trust.corpus.naive import naive_server
from tests.trust.corpus.stage import Stage, stage
from tests.trust.corpus.wire import Address, Heard, say
from tests.trust.oracle import read_stamp
from tests.trust.registry import Control, Figure, Result, Size, Skip, trust_test
from tests.trust.server import clean_environment

AT_ONCE = 48
WITHOUT_ATHERIS = "atheris is not installed, so the decisions were not fuzzed (pip install atheris)"
TARGETS = ("query", "body", "macros", "click id", "forged id", "money and time", "personal data")


@dataclass
class Judged:
    """What became of a set of requests."""

    requests: int = 0
    answered: int = 0
    five_hundreds: list[str] = field(default_factory=list)
    unlogged: list[str] = field(default_factory=list)
    """Answered 200 to a postback without an id, or with one that has no row."""
    silent: list[str] = field(default_factory=list)
    """Complete requests without an answer."""
    hung_up: list[str] = field(default_factory=list)
    """Complete requests whose connection ended, or was reset, before an answer could be read."""

    @property
    def clean(self) -> bool:
        return not (self.five_hundreds or self.unlogged or self.silent)

    @property
    def note(self) -> str:
        kinds = {
            "5xx": self.five_hundreds,
            "unlogged": self.unlogged,
            "silent": self.silent,
            "hung up": self.hung_up,
        }
        return "; ".join(f"{kind}: {', '.join(names[:8])}" for kind, names in kinds.items() if names)


@trust_test("T19", "fuzz: raw bytes, bad fields of every kind, atheris on the decisions")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """0 answers 5xx, 0 requests without a row, 0 stack traces, 0 uncaught exceptions."""
    with_atheris = importlib.util.find_spec("atheris") is not None
    if not with_atheris and os.environ.get("POSTBACKD_TEST_REQUIRE_TOOLS") == "1":
        raise Skip(WITHOUT_ATHERIS)
    raw = size.pick(ci=1_500, nightly=100_000, release=500_000)
    with stage(work_dir) as server:
        bad = list(bad_requests(server.endpoint, f"/c/{server.catalog.slug}", server.click()))
        fields = Judged()
        asyncio.run(judge(server.address, bad, fields, complete=True))
        bytes_ = Judged()
        for part in _parts(_mutants(bad, raw, random.Random(seed)), 5_000):
            asyncio.run(judge(server.address, part, bytes_, complete=False))
        _check_rows(server, fields, bytes_)
        alive = server.server.status("/readyz") == 200
        tracebacks = server.tracebacks
    crashed, executions = _fuzz_all(size, seed, work_dir) if with_atheris else ({}, 0)
    figures: dict[str, Figure] = {
        "n": fields.requests + bytes_.requests + executions,
        "bad fields": fields.requests,
        "raw": bytes_.requests,
        "raw answered": bytes_.answered,
        "atheris runs": executions,
        "5xx": len(fields.five_hundreds) + len(bytes_.five_hundreds),
        "unlogged": len(fields.unlogged) + len(bytes_.unlogged),
        "silent": len(fields.silent),
        "hung up": len(fields.hung_up),
        "uncaught": len(crashed),
        "tracebacks": tracebacks,
    }
    passed = fields.clean and bytes_.clean and alive and not tracebacks and not crashed
    notes = [fields.note, bytes_.note, *crashed.values(), "" if with_atheris else WITHOUT_ATHERIS]
    controls = [_unlogged_control(bad), *([_planted_control(seed, work_dir)] if with_atheris else [])]
    return Result(passed, figures, tuple(controls), "; ".join(filter(None, notes)))


# --- through the socket -------------------------------------------------------------------------------


async def judge(address: Address, requests: Sequence[Bad], judged: Judged, *, complete: bool) -> None:
    """Send each request on a connection of its own and look at what comes back."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(bad: Bad) -> None:
        async with places:
            heard = await say(address, bad.raw, 0.05 if complete else 0.02, 10.0 if complete else 0.3)
        _judge_one(bad, heard, judged, complete)

    await asyncio.gather(*map(one, requests))


def _judge_one(bad: Bad, heard: Heard, judged: Judged, complete: bool) -> None:
    judged.requests += 1
    judged.answered += bool(heard.statuses)
    if any(status >= 500 for status in heard.statuses):
        judged.five_hundreds.append(bad.name)
    if complete and not heard.statuses:
        (judged.hung_up if heard.closed else judged.silent).append(bad.name)
    for answer in heard.answers:
        if answer.status in (200, 422) and b" /p/" in bad.raw[:8]:
            judged.unlogged += [f"{bad.name}|{request}" for request in _request_ids(answer)]


def _request_ids(answer: wire.Answer) -> list[str]:
    """The ids that an answer names; one empty id when it names none."""
    ids = [answer.header("X-Request-Id") or ""]
    if answer.body[:1] in (b"[", b"{"):
        lines = [answer.body] if answer.body[:1] == b"[" else answer.body.splitlines()
        documents = [document for line in lines for document in _as_list(json.loads(line))]
        ids += [document.get("request", "") for document in documents]
    return ids


def _as_list(document: object) -> list[dict[str, str]]:
    return document if isinstance(document, list) else [document]  # type: ignore[list-item]


def _check_rows(server: Stage, *all_judged: Judged) -> None:
    """Keep as unlogged only the ids that have no row."""
    rows = {row[0] for row in server.rows("SELECT request_id FROM postbacks")}
    for judged in all_judged:
        judged.unlogged = [entry for entry in judged.unlogged if not _is_logged(entry, rows)]


def _is_logged(entry: str, rows: set[int]) -> bool:
    request = entry.rpartition("|")[2]
    return bool(request) and read_stamp(request) in rows


def _parts(requests: Iterable[Bad], size: int) -> Iterator[list[Bad]]:
    part: list[Bad] = []
    for request in requests:
        part.append(request)
        if len(part) == size:
            yield part
            part = []
    yield part


def _mutants(seeds: Sequence[Bad], count: int, draw: random.Random) -> Iterator[Bad]:
    """Requests with bytes flipped, cut, doubled, inserted and spliced."""
    short = [seed for seed in seeds if len(seed.raw) < 4_000]
    for number in range(count):
        raw = bytearray(draw.choice(short).raw)
        for _ in range(draw.choice((1, 1, 2, 4, 16, 64))):
            _mutate(raw, draw, short)
        yield Bad(f"raw {number}", bytes(raw))


_INTERESTING = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\x00",
    b" ",
    b":",
    b"%",
    b"\xff",
    b"\r\n\r\n",
    b"Host: a\r\n",
    b"HTTP/1.1",
    b"9" * 30,
)


def _mutate(raw: bytearray, draw: random.Random, seeds: Sequence[Bad]) -> None:
    place = draw.randrange(len(raw) + 1)
    kind = draw.randrange(6)
    if kind == 0 and place < len(raw):
        raw[place] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del raw[place : place + draw.randrange(1, 20)]
    elif kind == 2:
        raw[place:place] = draw.choice(_INTERESTING)
    elif kind == 3:
        raw[place:place] = raw[place : place + draw.randrange(1, 50)]
    elif kind == 4:
        raw[place:place] = draw.randbytes(draw.randrange(1, 20))
    else:
        raw[place:] = draw.choice(seeds).raw[-draw.randrange(1, 200) :]


# --- atheris ------------------------------------------------------------------------------------------

_MOST_MEMORY_MB = 512
"""That one allocation of a target may take."""

_UNITS = re.compile(r"stat::number_of_executed_units:\s*([0-9]+)")


def _fuzz_all(size: Size, seed: int, work_dir: Path) -> tuple[dict[str, str], int]:
    """Every target for a while, two at a time; returns what crashed, and how many inputs were tried."""
    seconds = size.pick(ci=3, nightly=100, release=3_600)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda target: fuzz(target, seconds, seed, work_dir), TARGETS))
    crashed = {
        target: f"{target}: {report}" for target, (report, _) in zip(TARGETS, done, strict=True) if report
    }
    return crashed, sum(executions for _, executions in done)


def fuzz(target: str, seconds: int, seed: int, work_dir: Path) -> tuple[str, int]:
    """Run one target; returns the end of its report when it crashed, and how many inputs were tried."""
    directory = work_dir / f"fuzz-{target.replace(' ', '-')}"
    directory.mkdir()
    command = [sys.executable, "-m", "tests.trust.corpus.fuzz_targets", target]
    command += [f"-max_total_time={seconds}", f"-seed={seed % 2**31 or 1}", "-print_final_stats=1"]
    # Its own limit would count the peak of this process, which a child inherits.
    command += ["-rss_limit_mb=0", f"-malloc_limit_mb={_MOST_MEMORY_MB}"]
    environment = clean_environment()
    repository = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join((environment["PYTHONPATH"], repository))
    done = subprocess.run(
        command,
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds + 120,
        errors="replace",
    )
    units = _UNITS.search(done.stderr)
    executions = int(units[1]) if units else 0
    report = "" if done.returncode == 0 else f"exit {done.returncode}: {(done.stdout + done.stderr)[-6_000:]}"
    return report, executions


# --- controls -----------------------------------------------------------------------------------------


def _planted_control(seed: int, work_dir: Path) -> Control:
    report, executions = fuzz("planted", 30, seed, work_dir)
    return Control("a mistake planted in a target", "planted" in report, {"n": executions})


def _unlogged_control(bad: Sequence[Bad]) -> Control:
    async def careless() -> Judged:
        judged = Judged()
        async with naive_server() as (_, address):
            await judge(address, [b for b in bad if b" /p/" in b.raw[:8]][:200], judged, complete=True)
        return judged

    judged = asyncio.run(careless())
    return Control("a server that logs nothing", bool(judged.unlogged), {"unlogged": len(judged.unlogged)})
