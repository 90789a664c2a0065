"""The two load generators: ``wrk`` for throughput, ``bench.openloop`` for latency at a fixed rate."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from bench.machine import HOST, LOAD_CORE, NotRun, pinned_to, require

_PLAYER = Path(__file__).with_name("play.lua")


@dataclass(frozen=True)
class Segment:
    """Part of a file of request lines: ``count`` lines from the line ``first`` on."""

    file: Path
    first: int
    count: int


@dataclass(frozen=True)
class Load:
    """What a load generator saw."""

    requests: int
    """Answers with a 2xx or 3xx."""
    seconds: float
    failed: int
    """Connections that broke, timed out, or answers with another status."""
    p50_ms: float
    p99_ms: float
    max_ms: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def closed_loop(port: int, segment: Segment, connections: int, seconds: float) -> Load:
    """As many requests as the server takes: every connection sends the next one when it has its answer."""
    wrk = require("wrk", "wrk")
    command = [wrk, "--threads", "1", "--connections", str(connections), "--duration", f"{round(seconds)}s"]
    command += ["--timeout", "30s", "--script", str(_PLAYER), f"http://{HOST}:{port}/", "--"]
    command += [str(segment.file), str(segment.first), str(segment.count)]
    seen = _run(command, seconds)
    return Load(
        requests=seen["requests"] - seen["not_ok"],
        seconds=seen["micros"] / 1e6,
        failed=seen["failed"] + seen["not_ok"],
        p50_ms=seen["p50_us"] / 1e3,
        p99_ms=seen["p99_us"] / 1e3,
        max_ms=seen["max_us"] / 1e3,
    )


@dataclass(frozen=True)
class Paced:
    """What the open loop saw; latencies count from the moment at which a request was due."""

    rate: float
    load: Load
    sent: int
    late_p99_ms: float
    """How late the generator itself was, when it had a free connection."""


def open_loop(
    port: int, segment: Segment, rate: float, connections: int, seconds: float, timeline: Path | None = None
) -> Paced:
    """Requests at a fixed rate, whether the server keeps up or not.

    ``timeline``: where to leave what ``Timeline`` reads.
    """
    command = [sys.executable, "-m", "bench.openloop", "--port", str(port), "--file", str(segment.file)]
    command += ["--first", str(segment.first), "--rate", str(rate), "--connections", str(connections)]
    command += ["--seconds", str(seconds)]
    if timeline:
        command += ["--timeline", str(timeline)]
    seen = _run(command, seconds)
    load = Load(
        requests=seen["ok"],
        seconds=seen["seconds"],
        failed=seen["sent"] - seen["ok"],
        p50_ms=seen["p50_ms"],
        p99_ms=seen["p99_ms"],
        max_ms=seen["max_ms"],
    )
    return Paced(rate=rate, load=load, sent=seen["sent"], late_p99_ms=seen["late_p99_ms"])


class Timeline:
    """When each request of an open loop was due, by ``time.monotonic``, how long it took, in seconds, and its line."""

    def __init__(self, file: Path) -> None:
        """Read what ``open_loop`` left."""
        answers = (line.split() for line in file.read_text().splitlines())
        self._requests = [(float(due), float(latency), int(line)) for due, latency, line in answers]

    def between(self, begin: float, end: float) -> list[float]:
        """The latencies, in order of size, of the requests that were due between two moments."""
        return sorted(latency for due, latency, _line in self._requests if begin <= due <= end)

    def after(self, seconds: float) -> list[float]:
        """The latencies, in order of size, of the requests that were due later than so long after the first."""
        return self.between(self._begin + seconds, inf)

    def answered(self, seconds: float) -> dict[int, float]:
        """Line of the file -> when its answer was there; of those that were due later than so long after the first."""
        begin = self._begin + seconds
        return {line: due + latency for due, latency, line in self._requests if due >= begin}

    @property
    def _begin(self) -> float:
        return min(due for due, _latency, _line in self._requests)


def _run(command: list[str], seconds: float) -> dict[str, Any]:
    """Run a generator on its core and read the JSON on the last line of its output."""
    with pinned_to(LOAD_CORE):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        output, complaint = process.communicate(timeout=seconds + 120)
    except BaseException:
        process.kill()
        process.wait()
        raise
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if process.returncode or not lines:
        last = (complaint.strip() or output.strip() or "no output").splitlines()[-1]
        raise NotRun(f"the load generator failed: {last}")
    seen: dict[str, Any] = json.loads(lines[-1])
    return seen
