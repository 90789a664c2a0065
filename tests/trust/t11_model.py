"""T11: what the store does, step by step, is what a model made of dicts does.

Controls: three models with a deliberate mistake each, and the product's own rule about repeats switched off.
Each must diverge, or the machine would prove nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.trust.registry import Control, Result, Size, Skip, trust_test

STEPS_A_RUN = 50


@trust_test("T11", "model: clicks, postbacks, late arrivals and purges against a dict")
def run(size: Size, seed: int, work_dir: Path) -> Result:
    """Random histories on the SQLite store: 0 divergences."""
    try:
        from tests.trust.corpus import model_machine as machines
    except ModuleNotFoundError as error:
        if error.name != "hypothesis":
            raise
        raise Skip("needs hypothesis (make test installs it)") from error
    with temporary_files_in(work_dir), unsynced():
        return compare(machines.open_sqlite, size.pick(ci=400, nightly=6_000, release=25_000), seed)


_MISTAKES: dict[str, dict[str, Any]] = {
    "a model that compares transaction ids without case": {"fold_transaction_ids": True},
    "a model that forgets postbacks that came before their click": {"forget_waiting": True},
    "a model in which an old value replaces a newer one": {"believe_old_values": True},
}
SOON_FOUND = tuple(_MISTAKES)[:2]
"""Mistakes that a few steps show, for a store that takes longer for each."""


def compare(make_store: Any, runs: int, seed: int, mistakes: Iterable[str] = tuple(_MISTAKES)) -> Result:
    """Run the machine on one kind of store (a ``model_machine.StoreMaker``), and its controls."""
    from tests.trust.corpus import model_machine as machines

    tally = machines.Tally()
    diverged = _diverges(machines.machine_for(make_store, tally), runs, seed)
    figures = {"n": tally.steps, "postbacks": tally.postbacks, "divergences": int(bool(diverged))}
    return Result(not diverged, figures, tuple(_controls(make_store, seed, mistakes)), note=diverged)


def _controls(make_store: Any, seed: int, mistakes: Iterable[str]) -> Iterator[Control]:
    from tests.trust.corpus import model_machine as machines
    from tests.trust.corpus.dict_model import DictModel

    for name in mistakes:
        tally = machines.Tally()
        machine = machines.machine_for(make_store, tally, partial(DictModel, **_MISTAKES[name]))
        yield Control(name, bool(_diverges(machine, 200, seed, shrink=False)), {"n": tally.steps})
    tally = machines.Tally()
    with patch("postbackd.store.write.repeat", _never_changes):
        machine = machines.machine_for(make_store, tally)
        failed = bool(_diverges(machine, 200, seed, shrink=False))
    yield Control("a store whose repeats never change a conversion", failed, {"n": tally.steps})


def _never_changes(current: Any, event: Any, channel: int, dedup: Any) -> Any:
    from postbackd.core.rules import Repeat
    from postbackd.core.verdicts import Verdict

    return Repeat(Verdict.DUPLICATE, current)


def _diverges(machine: Any, runs: int, seed: int, shrink: bool = True) -> str:
    """Empty, or how a run diverged: the steps that Hypothesis found."""
    import hypothesis
    from hypothesis.stateful import run_state_machine_as_test

    phases = [hypothesis.Phase.generate, *([hypothesis.Phase.shrink] if shrink else [])]
    settings = hypothesis.settings(
        max_examples=runs,
        stateful_step_count=STEPS_A_RUN,
        deadline=None,
        database=None,
        phases=phases,
        report_multiple_bugs=False,
        suppress_health_check=list(hypothesis.HealthCheck),
        print_blob=False,
    )
    try:
        run_state_machine_as_test(hypothesis.seed(seed)(machine), settings=settings)
    except Exception as error:  # whatever a store raises in a step is a divergence
        return _describe(error)
    return ""


def _describe(error: Exception) -> str:
    notes = getattr(error, "__notes__", [])
    return "\n".join([f"{type(error).__name__}: {error}", *notes])[:6_000]


@contextmanager
def unsynced() -> Iterator[None]:
    """This test is about what is decided, not about the disk: syncs would only make it slower."""
    with patch.dict(os.environ, {"POSTBACKD_UNSAFE_SYNC": "off"}):
        yield


@contextmanager
def temporary_files_in(directory: Path) -> Iterator[None]:
    with patch("tempfile.tempdir", str(directory)):
        yield
