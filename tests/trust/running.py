"""Runs trust tests, one after the other or several at a time."""

from __future__ import annotations

import importlib
import pkgutil
import shutil
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import tests.trust
from tests.trust.registry import TESTS, Result, Size, Skip, TrustTest


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


def load_tests() -> None:
    for module in pkgutil.iter_modules(tests.trust.__path__):
        if module.name[:1] == "t" and module.name[1:3].isdigit():
            importlib.import_module(f"tests.trust.{module.name}")


def run_all(tests: Sequence[TrustTest], size: Size, seed: int, base: Path, jobs: int) -> Iterator[Outcome]:
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
    load_tests()
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
