"""T17: slow clients are cut off in time, and honest ones beside them do not notice.

Silent sockets, dripped headers, dripped bodies and slow readers, with honest traffic beside.  Control: a plain server
without time limits, which the same detector must report.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
from collections import Counter
from contextlib import suppress
from pathlib import Path

from tests.trust.corpus import wire
from tests.trust.corpus.flow import HonestSender, Timed
from tests.trust.corpus.naive import naive_server
from tests.trust.corpus.slow import Held, hold_all
from tests.trust.corpus.stage import Stage, stage
from tests.trust.registry import Control, Figure, Result, Size, trust_test
from tests.trust.server import run_cli, wait_until

HONEST_A_SECOND = 200
QUIET_S = 4.0
SLACK_S = 2.0
"""Beside the limit: the server looks at its connections four times a second, and this machine is busy."""
SLOW_READERS = 6
PATIENCE_S = 17.0
FLOOR_MS = 25.0
"""Twice a p99 of 2 ms is within the noise of a shared machine; so much more is allowed anyway."""


@trust_test("T17", "slow connections: silent, dripped headers, dripped bodies, slow readers", alone=True)
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """Every slow client cut off within its limit; honest errors 0; p99 under twice the quiet one."""
    sockets = size.pick(ci=1_000, nightly=4_000, release=10_000)
    _raise_file_limit()
    kinds = _kinds(sockets, seed)
    with stage(work_dir) as server:
        honest = _honest(server)
        question = wire.get(f"/c/{_long_campaign(server)}")
        quiet = honest.measure(QUIET_S)
        honest.start()
        held, uncut = asyncio.run(_hold_with_control(server, kinds, question))
        beside = honest.stop()
        stored = server.rows("SELECT count(*) FROM conversions")[0][0]
        tracebacks = server.tracebacks
    answered = len(quiet.seconds) + len(beside.seconds)
    figures = _figures(held, quiet, beside) | {"tracebacks": tracebacks}
    figures |= {"lost": max(0, answered - stored), "double": 0, "phantom": 0, "wrong": 0}
    calm = beside.p99_ms < max(2 * quiet.p99_ms, quiet.p99_ms + FLOOR_MS)
    errors = quiet.errors + beside.errors
    passed = calm and not errors and not figures["too late"] and not figures["lost"] and not tracebacks
    control = Control("a server without time limits", uncut > 0, {"left open": uncut})
    return Result(passed, figures, (control,), "; ".join(errors[:3]))


def _kinds(sockets: int, seed: int) -> list[str]:
    """Mostly silent ones and drips; slow readers ask much before they stop reading, so there are few."""
    kinds = ["slow read"] * SLOW_READERS + ["slow 404"]
    kinds += [("silent", "header drip", "body drip")[number % 3] for number in range(sockets - len(kinds))]
    random.Random(seed).shuffle(kinds)
    return kinds


def _honest(server: Stage) -> HonestSender:
    click_id = server.click()

    def write_request(number: int) -> bytes:
        word = "".join(chr(97 + int(digit)) for digit in str(number))
        return wire.get(f"{server.endpoint}?click_id={click_id}&txid=honest-{word}&value=1.00")

    return HonestSender(server.address, write_request, HONEST_A_SECOND)


def _long_campaign(server: Stage) -> str:
    """The slug of a campaign whose visitors are sent to an address of 4 kB; returns when the server knows it."""
    url = "https://shop.example/?sub1={click_id}&padding=" + "a" * 4_000
    directory = server.server.data_dir
    run_cli(directory, "offer", "add", "Long", "--network", "Shop", "--url", url)
    added = run_cli(directory, "campaign", "add", "Long", "--source", "Ads", "--offer", "Long", "--json")
    slug = str(json.loads(added.stdout)["slug"])
    wait_until(lambda: server.server.status(f"/c/{slug}") == 302, 30, "the server knowing the new campaign")
    return slug


async def _hold_with_control(server: Stage, kinds: list[str], question: bytes) -> tuple[list[Held], int]:
    """The slow clients, and beside them a few at a server without limits; returns how many of those stayed open."""
    async with naive_server() as (_, careless):
        control = hold_all(careless, ["silent", "header drip", "body drip"] * 5, PATIENCE_S)
        held, uncut = await asyncio.gather(hold_all(server.address, kinds, PATIENCE_S, question), control)
    return held, sum(client.over(SLACK_S) for client in uncut)


def _figures(held: list[Held], quiet: Timed, beside: Timed) -> dict[str, Figure]:
    late = Counter(client.kind for client in held if client.over(SLACK_S))
    worst: dict[str, float] = {}
    for client in held:
        worst[client.kind] = max(worst.get(client.kind, 0.0), client.seconds or PATIENCE_S)
    return {
        "n": len(held),
        "too late": sum(late.values()),
        "longest s": ", ".join(f"{kind} {seconds:.1f}" for kind, seconds in sorted(worst.items())),
        "honest": len(beside.seconds),
        "honest errors": len(quiet.errors) + len(beside.errors),
        "quiet p99 ms": quiet.p99_ms,
        "p99 ms": beside.p99_ms,
    }


def _raise_file_limit() -> None:
    """Ten thousand sockets need as many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
