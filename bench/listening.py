"""Listens to the live log as the admin role does: ``python -m bench.listening --data DIR --seconds S``.

Prints how long after its stamp (when its request was read) each shown row was in the hands of a listener, what was
shown and counted, and what that cost, as one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path

from bench.openloop import percentile
from postbackd.core.click_id import read_stamp, stamp_ms
from postbackd.core.verdicts import Verdict
from postbackd.reports.live import Feed, Filter, Kind
from postbackd.runtime import open_store
from postbackd.settings import Settings


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class _Heard:
    def __init__(self) -> None:
        self.late_ms: list[float] = []
        self.shown = self.matched = self.lost = 0


async def _listen(feed: Feed, wanted: Filter, ends: float, heard: _Heard) -> None:
    async with feed.listen(Kind.POSTBACKS, wanted) as listener:
        while time.monotonic() < ends:
            for event in await listener.take(0.2):
                if event.word == "postback":
                    heard.late_ms.append(_now_ms() - stamp_ms(read_stamp(event.id) or 0))
                elif event.word == "rate":
                    heard.shown += event.document["shown"]
                    heard.matched += event.document["matched"]
                elif event.word == "lost":
                    heard.lost += event.document["count"]


async def _run(data: Path, seconds: float, listeners: int) -> dict[str, float]:
    store = await open_store(Settings(data=str(data)), create=False)
    feed, all_rows, others = Feed(store, _now_ms), _Heard(), _Heard()
    ends, began = time.monotonic() + seconds, time.process_time()
    wanted = [Filter(), *(Filter(verdict=Verdict.ACCEPTED) for _ in range(listeners - 1))]
    await asyncio.gather(
        *(_listen(feed, one, ends, others if number else all_rows) for number, one in enumerate(wanted))
    )
    cpu_s = time.process_time() - began
    await feed.rest()
    await store.close()
    late = sorted(all_rows.late_ms + others.late_ms)
    return {
        "p50_ms": percentile(late, 0.5),
        "p99_ms": percentile(late, 0.99),
        "max_ms": percentile(late, 1),
        "rows": len(late),
        "shown": all_rows.shown,
        "matched": all_rows.matched,
        "lost": all_rows.lost + others.lost,
        "cpu_share": cpu_s / seconds,
    }


def main() -> None:
    """Listen, and print what was heard."""
    parser = argparse.ArgumentParser(prog="python -m bench.listening")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--listeners", type=int, default=5)
    given = parser.parse_args()
    print(json.dumps(asyncio.run(_run(given.data, given.seconds, given.listeners))))


if __name__ == "__main__":
    main()
