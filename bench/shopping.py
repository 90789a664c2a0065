"""A shop that reports conversions: ``python -m bench.shopping report|fill|drain``.

Prints what it measured as one line of JSON.  ``report`` calls while the thread sends, ``fill`` leaves conversions
in the spool of a tracker that is not there, ``drain`` is the process that finds them.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

from bench.openloop import percentile
from postbackd_client import Client

_PATIENCE_S = 120.0


def _report(client: Client, clicks: list[str], calls: int) -> dict[str, float]:
    """Call as fast as it returns, then wait for what is left."""
    took = []
    began = time.perf_counter()
    for number in range(calls):
        before = time.perf_counter()
        client.conversion(
            clicks[number % len(clicks)], "sale", "12.50", "USD", transaction_id=f"r-{number:08d}"
        )
        took.append(time.perf_counter() - before)
    seconds = time.perf_counter() - began
    waiting = client.statistics().waiting
    settled = client.flush(_PATIENCE_S)
    times = sorted(took)
    return {
        "calls_per_second": calls / seconds,
        "p50_us": percentile(times, 0.5) * 1e6,
        "p99_us": percentile(times, 0.99) * 1e6,
        "p999_us": percentile(times, 0.999) * 1e6,
        "max_ms": times[-1] * 1e3,
        "sent_meanwhile": calls - waiting,
        "settled": settled,
    }


def _fill(client: Client, clicks: list[str], calls: int) -> dict[str, float]:
    for number in range(calls):
        client.conversion(
            clicks[number % len(clicks)], "sale", "12.50", "USD", transaction_id=f"w-{number:08d}"
        )
    return {"waiting": client.statistics().waiting}


def _drain(client: Client, _clicks: list[str], calls: int) -> dict[str, float]:
    began = time.perf_counter()
    settled = client.drain(_PATIENCE_S, any_url=True)
    seconds = time.perf_counter() - began
    return {"per_second": calls / seconds, "settled": settled}


_PARTS: dict[str, Callable[[Client, list[str], int], dict[str, float]]] = {
    "report": _report,
    "fill": _fill,
    "drain": _drain,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=sorted(_PARTS))
    for name in ("url", "spool", "clicks"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--calls", type=int, required=True)
    options = parser.parse_args()
    logging.disable(logging.ERROR)
    client = Client(options.url, spool=options.spool, exit_s=0)
    clicks = Path(options.clicks).read_text("ascii").split()
    print(json.dumps(_PARTS[options.part](client, clicks, options.calls)))


if __name__ == "__main__":
    main()
