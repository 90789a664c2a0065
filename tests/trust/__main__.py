"""Run the trust campaign: ``python -m tests.trust --size ci [--only T3,T5] [--seed N] [--json FILE]``.

Exit status 1 when a test failed, when a control did not fail as it must, or when a test was skipped although
``POSTBACKD_TEST_REQUIRE_TOOLS=1`` says that everything it needs has to be there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.trust.machine import describe
from tests.trust.registry import TESTS, Size, TrustTest
from tests.trust.running import Outcome, load_tests, run_all

_TABLE = "{:<6} {:>11} {:>21} {:>9}  {:<34} {:>6}  {}"
_ORACLE = ("lost", "double", "phantom", "wrong")


def main() -> int:
    # In the background of a shell it would be ignored, here and in all that is started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    options = _parse()
    load_tests()
    chosen = _choose(options.only)
    base = Path(options.work_dir) if options.work_dir else Path(tempfile.mkdtemp(prefix="postbackd-trust-"))
    base.mkdir(parents=True, exist_ok=True)
    machine = describe(base)
    print(f"trust campaign: size {options.size}, seed {options.seed}, {len(chosen)} tests", flush=True)
    print("  ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
    print(_TABLE.format("test", "N", "lost/dbl/phantom/wrong", "bound 3/N", "control", "s", ""), flush=True)
    outcomes = []
    for outcome in run_all(chosen, Size(options.size), options.seed, base, options.jobs):
        outcomes.append(outcome)
        print(_row(outcome), flush=True)
    _remove_if_empty(base)
    if options.json:
        report = {"size": options.size, "seed": options.seed, "machine": machine}
        _write_json(Path(options.json), report, outcomes)
    return _summarise(outcomes)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.trust", description="Try to break the promises.")
    parser.add_argument("--size", choices=[size.value for size in Size], default="ci")
    parser.add_argument("--only", default="", help="comma-separated test ids, for example T3,T5")
    parser.add_argument("--seed", type=int, default=20260, help="every random choice follows from it")
    parser.add_argument(
        "--jobs", type=int, default=1, help="so many at a time, but for those that measure time"
    )
    parser.add_argument("--json", default="", help="write the figures to this file")
    parser.add_argument(
        "--work-dir", default="", help="where the servers' data go (default: a temporary directory)"
    )
    return parser.parse_args()


def _choose(only: str) -> list[TrustTest]:
    ordered = sorted(TESTS.values(), key=lambda test: (test.number, test.test_id))
    wanted = {name.strip().upper() for name in only.split(",") if name.strip()}
    unknown = wanted - TESTS.keys()
    if unknown:
        sys.exit(
            f"no such test: {', '.join(sorted(unknown))}; there are {', '.join(t.test_id for t in ordered)}"
        )
    return [test for test in ordered if not wanted or test.test_id in wanted]


def _row(outcome: Outcome) -> str:
    result = outcome.result
    figures = result.figures if result else {}
    n = figures.get("n", "-")
    judged = "/".join(str(figures[key]) for key in _ORACLE) if "lost" in figures else "-"
    clean = isinstance(n, int) and n > 0 and all(not figures.get(key) for key in _ORACLE)
    bound = f"{3 / n:.1e}" if clean and isinstance(n, int) else "-"
    controls = result.controls if result else ()
    failed = sum(control.failed for control in controls)
    control = f"{failed} of {len(controls)} failed as they must" if controls else "-"
    row = _TABLE.format(
        outcome.test_id,
        n,
        judged,
        bound,
        control,
        f"{outcome.seconds:.0f}",
        f"{outcome.state}: {outcome.title}",
    )
    return row + _details(outcome)


def _details(outcome: Outcome) -> str:
    lines = []
    if outcome.result:
        rest = {k: v for k, v in outcome.result.figures.items() if k not in (*_ORACLE, "n")}
        if rest:
            lines.append("  ".join(f"{name} {value}" for name, value in rest.items()))
        for control in outcome.result.controls:
            figures = "  ".join(f"{name} {value}" for name, value in control.figures.items())
            lines.append(
                f"control {control.name}: {'failed as it must' if control.failed else 'PASSED'}  {figures}"
            )
        if outcome.result.note:
            lines.append(outcome.result.note)
    elif outcome.reason:
        lines += outcome.reason.rstrip().splitlines()
    return "".join(f"\n        {line}" for line in lines)


def _remove_if_empty(base: Path) -> None:
    """The work directories of failed tests stay, to be looked at."""
    left = sorted(path.name for path in base.iterdir())
    if left:
        print(f"kept for a look: {base} ({', '.join(left)})")
    else:
        base.rmdir()


def _write_json(path: Path, head: dict[str, Any], outcomes: list[Outcome]) -> None:
    report = head | {"tests": [asdict(outcome) for outcome in outcomes]}
    path.write_text(json.dumps(report, indent=2, default=str) + "\n")


def _summarise(outcomes: list[Outcome]) -> int:
    strict = os.environ.get("POSTBACKD_TEST_REQUIRE_TOOLS") == "1"
    skipped = [outcome for outcome in outcomes if outcome.state == "skipped"]
    for outcome in skipped:
        print(f"skipped {outcome.test_id}: {outcome.reason}")
    if skipped and strict:
        print("POSTBACKD_TEST_REQUIRE_TOOLS=1: a skip counts as a failure")
    broken = [outcome for outcome in outcomes if outcome.state == "failed"]
    for outcome in broken:
        # Once more, where whoever reads the end of a long output finds it.
        print(_row(outcome))
    failed = len(broken) + (len(skipped) if strict else 0)
    passed = sum(outcome.state == "passed" for outcome in outcomes)
    tail = f", {len(skipped)} skipped" if skipped and not strict else ""
    print(f"{passed} passed, {failed} failed{tail}")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
