"""What a trust test is: a function from (size, seed, directory) to a result with figures.

A test says by ``Skip`` that this machine cannot run it (no root, no strace).  A result without a control that failed
as it must is no pass: a harness that cannot make the guard-less program fail proves nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol, TypeVar

Figure = int | float | str
T = TypeVar("T")


class Size(Enum):
    """How long a run may take: minutes, an hour, as long as the README's figures need."""

    CI = "ci"
    NIGHTLY = "nightly"
    RELEASE = "release"

    def pick(self, ci: T, nightly: T, release: T) -> T:
        return {Size.CI: ci, Size.NIGHTLY: nightly, Size.RELEASE: release}[self]


class Skip(Exception):
    """This machine lacks what the test needs; the text says what and how to get it."""


@dataclass(frozen=True)
class Control:
    """What the same harness said of a program with its guard switched off."""

    name: str
    failed: bool
    """True when the harness noticed.  A control that passes makes the whole test fail."""
    figures: Mapping[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What one test found.

    ``figures`` holds at least ``n`` (what was tried: acknowledged requests, states, cases); where the oracle ran also
    ``lost``, ``double``, ``phantom`` and ``wrong``.  Any other key is printed below the table.
    """

    passed: bool
    figures: Mapping[str, Figure]
    controls: tuple[Control, ...] = ()
    note: str = ""

    @property
    def ok(self) -> bool:
        """Passed, and every control failed."""
        return self.passed and all(control.failed for control in self.controls)


class Run(Protocol):
    def __call__(self, size: Size, seed: int, work_dir: Path) -> Result: ...


@dataclass(frozen=True)
class TrustTest:
    test_id: str
    title: str
    run: Run
    alone: bool
    """It measures time: nothing else may run beside it."""

    @property
    def number(self) -> int:
        return int("".join(filter(str.isdigit, self.test_id)))


TESTS: dict[str, TrustTest] = {}
"""Every registered test by its id; filled when ``__main__`` imports the test modules."""


def trust_test(test_id: str, title: str, *, alone: bool = False) -> Callable[[Run], Run]:
    """Register ``run(size, seed, work_dir) -> Result`` under an id such as ``T3``, or ``T3PG`` on PostgreSQL.

    ``work_dir`` is empty, belongs to this test alone and is removed afterwards unless the test failed.
    ``alone``: see ``TrustTest``.
    """

    def register(run: Run) -> Run:
        if test_id in TESTS:
            raise ValueError(f"{test_id} is registered twice")
        TESTS[test_id] = TrustTest(test_id, title, run, alone)
        return run

    return register


def need_root(why: str) -> None:
    if os.geteuid() != 0:
        raise Skip(f"needs root ({why})")


_PACKAGES = {
    "losetup": "mount",
    "mkfs.ext4": "e2fsprogs",
    "nginx": "nginx-light",
    "pebble-challtestsrv": "pebble",
    "umount": "mount",
}
"""Debian's package of a program, where it has another name."""


def need_tools(*names: str) -> None:
    """Every program must be on the path (``/usr/sbin`` included)."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [name for name in names if shutil.which(name, path=path) is None]
    if missing:
        packages = " ".join(dict.fromkeys(_PACKAGES.get(name, name) for name in missing))
        raise Skip(f"needs {', '.join(missing)} (apt-get install {packages})")
