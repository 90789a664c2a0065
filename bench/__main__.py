"""``python -m bench``: run the benchmark and print what it found.

Exit status 0 when the run is sound, 1 when a database does not agree with its answers (or, with ``--strict``, a line to
pass is missed), 2 when nothing could be measured.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from bench.machine import NotRun, describe, require_two_cores
from bench.parts import PARTS
from bench.results import Results, judge, write_markdown
from bench.run import Run, Sizes

_FULL = Sizes(
    seconds=8.0,
    clicks=1_000_000,
    levels=(1_000_000, 10_000_000),
    postgres_level=5_000_000,
    purged_rows=5_000_000,
    drop_seconds=60.0,
    told_seconds=30.0,
    steady=40_000,
    backlog=200_000,
)
_QUICK = Sizes(
    seconds=3.0,
    clicks=200_000,
    levels=(1_000_000,),
    postgres_level=1_000_000,
    purged_rows=1_000_000,
    drop_seconds=10.0,
    told_seconds=10.0,
    steady=20_000,
    backlog=100_000,
)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure postbackd beside its peers."
    )
    parser.add_argument("--json", type=Path, help="write the results to this file as JSON")
    parser.add_argument(
        "--quick", action="store_true", help="shorter loads, smaller databases, one million stored"
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a line to pass is missed")
    parser.add_argument("--only", default="", help=f"comma-separated parts: {', '.join(PARTS)}")
    parser.add_argument("--seconds", type=float, help="how long each load lasts")
    parser.add_argument(
        "--hundred-million", action="store_true", help="100 million stored conversions too (40 GB)"
    )
    parser.add_argument(
        "--fifty-million", action="store_true", help="50 million stored conversions on PostgreSQL (30 GB)"
    )
    parser.add_argument(
        "--million-deliveries", action="store_true", help="a million queued deliveries (eight minutes more)"
    )
    parser.add_argument("--seed", type=int, default=2026, help="every random choice follows from it")
    parser.add_argument(
        "--work-dir", type=Path, default=Path("/var/tmp"), help="on the disk to measure (default: /var/tmp)"
    )
    return parser.parse_args()


def _sizes(given: argparse.Namespace) -> Sizes:
    sizes = _QUICK if given.quick else _FULL
    if given.seconds:
        sizes = replace(sizes, seconds=given.seconds)
    if given.hundred_million:
        sizes = replace(sizes, levels=(*_FULL.levels, 100_000_000))
    if given.fifty_million:
        sizes = replace(sizes, postgres_level=50_000_000, purged_rows=_FULL.purged_rows)
    if given.million_deliveries:
        sizes = replace(sizes, backlog=1_000_000)
    return sizes


def _choose(only: str) -> list[str]:
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    unknown = set(wanted) - PARTS.keys()
    if unknown:
        sys.exit(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return [name for name in PARTS if not wanted or name in wanted]


def _measure(run: Run, parts: list[str]) -> None:
    for part in parts:
        try:
            PARTS[part](run)
        except NotRun as reason:
            run.results.not_run[part] = str(reason)
            run.say(f"{part}: not run: {reason}")


def main() -> int:
    given = _parse()
    parts = _choose(given.only)
    try:
        require_two_cores()
    except NotRun as reason:
        print(reason, file=sys.stderr)
        return 2
    # Stopped from outside: the servers are stopped and the directory is removed all the same.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    began = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="postbackd-bench-", dir=given.work_dir))
    # The database's own user has to reach its directory below.
    directory.chmod(0o755)
    try:
        sizes = _sizes(given)
        results = Results(machine=describe(directory), seconds=sizes.seconds, random_seed=given.seed)
        run = Run(directory, sizes, results)
        _measure(run, parts)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(write_markdown(results))
    print(f"\nthe whole run took {time.monotonic() - began:.0f} s")
    if given.json:
        given.json.write_text(json.dumps(results.as_json(), indent=2) + "\n")
    failed = any(line.passed is False for line in judge(results))
    differs = any(row.verified is False for row in results.rows)
    return 1 if differs or (failed and given.strict) else 0


if __name__ == "__main__":
    sys.exit(main())
