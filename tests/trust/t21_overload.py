"""T21: ten times as many callers as bring the server to its peak, then ordinary traffic again.

First callers that do as they are told (503 with ``Retry-After: 1`` means a second of silence): goodput must stay near
the peak.  Then callers that send again at once whatever they are told: what then is left is a figure, not a line,
because the generator shares the machine, and refusing costs something too; but nothing may be lost, answered
otherwise or closed, and afterwards answers must be as quick as before within 5 s.  Control: a queue without an end,
where nobody is refused and everybody waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from tests.trust.corpus import wire
from tests.trust.corpus.flow import Flooded, HonestSender, flood, percentile
from tests.trust.corpus.stage import Stage, stage
from tests.trust.registry import Control, Figure, Result, Size, trust_test

PEAK = (64, 16)
OVER = (640, 16)
"""(connections, requests under way on each)"""

QUEUE = {"POSTBACKD_QUEUE_LIMIT": "2000"}
"""Small enough that ten times the peak's requests do not fit; a server's default would swallow them."""

RETRY_AFTER_S = 1.0
SETTLED_S = 5.0
FLOOR_MS = 25.0
PROBE_A_SECOND = 100


@trust_test("T21", "overload: ten times the load of the peak, then ordinary traffic", alone=True)
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """Goodput held, the rest 503 with Retry-After, and back to normal within 5 s."""
    seconds = size.pick(ci=4.0, nightly=30.0, release=120.0)
    least = size.pick(
        ci=0.6, nightly=0.8, release=0.9
    )  # the shorter the run, the more one disturbance weighs
    with stage(work_dir, env=QUEUE) as server:
        probe = _probe(server)
        before = probe.measure(2.0)
        peak = _flood(server, PEAK, seconds)
        over = _flood(server, OVER, seconds, RETRY_AFTER_S)
        hostile = _flood(server, OVER, seconds)
        settled_s = _settle(probe, before.p99_ms)
        lost = _lost(server, len(before.seconds) + peak.good + over.good + hostile.good)
        tracebacks = server.tracebacks
    share = over.good_a_second / max(1, peak.good_a_second)
    floods = (peak, over, hostile)
    busy = sum(flooded.busy for flooded in floods)
    told = hostile.busy > 0 and sum(flooded.busy_with_retry for flooded in floods) == busy
    figures: dict[str, Figure] = {
        "n": sum(flooded.good for flooded in floods) + busy,
        "lost": lost,
        "double": 0,
        "phantom": 0,
        "wrong": 0,
        "peak/s": peak.good_a_second,
        "overloaded/s": over.good_a_second,
        "goodput share": round(share, 2),
        "hostile/s": hostile.good_a_second,
        "503": busy,
        "503 in ms (p99 of a burst)": round(percentile(hostile.waits, 0.99) * 1000),
        "other answers": sum(flooded.other for flooded in floods),
        "closed by server": sum(flooded.broken for flooded in floods),
        "normal again s": settled_s,
        "tracebacks": tracebacks,
    }
    unharmed = not any(flooded.other or flooded.broken for flooded in floods)
    calm = settled_s < SETTLED_S and unharmed and not (tracebacks or lost)
    return Result(share >= least and told and calm, figures, (_control(work_dir),))


def _writer(server: Stage, length: int) -> Callable[[], bytes]:
    """Bursts of conversions that nobody has sent before."""
    head = f"GET {server.endpoint}?click_id={server.click()}&value=1.50&txid=".encode()
    numbers = count()
    table = bytes.maketrans(b"0123456789", b"abcdefghij")  # digits could be taken for a phone number

    def write_burst() -> bytes:
        number = b"%d" % next(numbers)
        start = head + number.translate(table) + b"-"
        return b"".join(start + bytes((97 + k,)) + b" HTTP/1.1\r\nHost: a\r\n\r\n" for k in range(length))

    return write_burst


def _flood(server: Stage, shape: tuple[int, int], seconds: float, patient_s: float = 0.0) -> Flooded:
    connections, length = shape
    return asyncio.run(
        flood(server.address, _writer(server, length), connections, length, seconds, patient_s)
    )


def _lost(server: Stage, acknowledged: int) -> int:
    """Acknowledged conversions that are not stored; more than acknowledged is fine, the flood hangs up."""
    return max(0, acknowledged - int(server.rows("SELECT count(*) FROM conversions")[0][0]))


def _probe(server: Stage) -> HonestSender:
    click_id = server.click()
    numbers = count()

    def write_request(_: int) -> bytes:
        word = "".join(chr(97 + int(digit)) for digit in str(next(numbers)))
        return wire.get(f"{server.endpoint}?click_id={click_id}&txid=probe-{word}")

    return HonestSender(server.address, write_request, PROBE_A_SECOND)


def _settle(probe: HonestSender, before_ms: float) -> float:
    """Seconds until a second of ordinary traffic is as quick as before the flood, twice ``SETTLED_S`` at most."""
    began = time.monotonic()
    while time.monotonic() - began < 2 * SETTLED_S:
        timed = probe.measure(1.0)
        if not timed.errors and timed.p99_ms < max(2 * before_ms, before_ms + FLOOR_MS):
            break
    return round(time.monotonic() - began, 1)


def _control(work_dir: Path) -> Control:
    """Nobody is refused when the queue has no end, and then callers wait: the detector of 503 must see none."""
    with stage(work_dir, "control", env={"POSTBACKD_QUEUE_LIMIT": "1000000"}) as server:
        unbounded = _flood(server, OVER, 2.0)
    figures: dict[str, Figure] = {
        "503": unbounded.busy,
        "burst p99 ms": round(percentile(unbounded.waits, 0.99) * 1000),
    }
    return Control("a queue without an end", unbounded.busy == 0, figures)
