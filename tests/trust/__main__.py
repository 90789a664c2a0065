"""Run the trust campaign: ``python -m tests.trust --size ci [--only T3,T5] [--seed N] [--json FILE]``.

Exit status 1 when a test failed, when a control did not fail as it must, or when a test was skipped although
``POSTBACKD_TEST_REQUIRE_TOOLS=1`` says that everything it needs has to be there.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import tests.trust
from tests.trust.machine import describe
from tests.trust.registry import TESTS, Result, Size, Skip, TrustTest

_TABLE = "{:<6} {:>11} {:>21} {:>9}  {:<34} {:>6}  {}"
_ORACLE = ("lost", "double", "phantom", "wrong")


@dataclass(frozen=True)
class Outcome:
    """One row of the table."""

    test_id: str
    title: str
    seconds: float
    state: str
    """``passed``, ``failed`` or ``skipped``."""
    reason: str = ""
    result: Result | None = None


def main() -> int:
    options = _parse()
    _load_tests()
    chosen = _choose(options.only)
    base = Path(options.work_dir) if options.work_dir else Path(tempfile.mkdtemp(prefix="postbackd-trust-"))
    base.mkdir(parents=True, exist_ok=True)
    machine = describe(base)
    print(f"trust campaign: size {options.size}, seed {options.seed}, {len(chosen)} tests", flush=True)
    print("  ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
    print(_TABLE.format("test", "N", "lost/dbl/phantom/wrong", "bound 3/N", "control", "s", ""), flush=True)
    outcomes = []
    for outcome in _run_all(chosen, Size(options.size), options.seed, base, options.jobs):
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


def _load_tests() -> None:
    for module in pkgutil.iter_modules(tests.trust.__path__):
        if module.name[:1] == "t" and module.name[1:3].isdigit():
            importlib.import_module(f"tests.trust.{module.name}")


def _choose(only: str) -> list[TrustTest]:
    ordered = sorted(TESTS.values(), key=lambda test: (test.number, test.test_id))
    wanted = {name.strip().upper() for name in only.split(",") if name.strip()}
    unknown = wanted - TESTS.keys()
    if unknown:
        sys.exit(
            f"no such test: {', '.join(sorted(unknown))}; there are {', '.join(t.test_id for t in ordered)}"
        )
    return [test for test in ordered if not wanted or test.test_id in wanted]


def _run_all(tests: Sequence[TrustTest], size: Size, seed: int, base: Path, jobs: int) -> Iterator[Outcome]:
    """The outcomes as they come: first those that stand company, then the others one after the other."""
    beside = [test.test_id for test in tests if jobs > 1 and not test.alone]
    with ProcessPoolExecutor(jobs, get_context("spawn"), max_tasks_per_child=1) as pool:
        running = [pool.submit(_run_apart, id_, size, seed, base / id_) for id_ in beside]
        for one in as_completed(running):
            yield one.result()
    for test in tests:
        if test.test_id not in beside:
            yield _run(test, size, seed, base / test.test_id)


def _run_apart(test_id: str, size: Size, seed: int, work_dir: Path) -> Outcome:
    """In a process of its own, which knows no test yet."""
    _load_tests()
    return _run(TESTS[test_id], size, seed, work_dir)


def _run(test: TrustTest, size: Size, seed: int, work_dir: Path) -> Outcome:
    """Run one test; whatever it raises is its failure, not the end of the campaign."""
    shutil.rmtree(work_dir, ignore_errors=True)
    work_dir.mkdir(parents=True)
    began = time.monotonic()
    try:
        result = test.run(size=size, seed=seed, work_dir=work_dir)
    except Skip as skip:
        shutil.rmtree(work_dir, ignore_errors=True)
        return Outcome(test.test_id, test.title, time.monotonic() - began, "skipped", str(skip))
    except Exception:
        return Outcome(test.test_id, test.title, time.monotonic() - began, "failed", traceback.format_exc())
    state = "passed" if result.ok else "failed"
    if result.ok:
        shutil.rmtree(work_dir, ignore_errors=True)
    return Outcome(test.test_id, test.title, time.monotonic() - began, state, _why(result), result)


def _why(result: Result) -> str:
    reasons = [] if result.passed else [result.note or "failed"]
    reasons += [f"the control '{c.name}' did not fail" for c in result.controls if not c.failed]
    return "; ".join(reasons)


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
    failed = sum(outcome.state == "failed" for outcome in outcomes) + (len(skipped) if strict else 0)
    passed = sum(outcome.state == "passed" for outcome in outcomes)
    tail = f", {len(skipped)} skipped" if skipped and not strict else ""
    print(f"{passed} passed, {failed} failed{tail}")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
