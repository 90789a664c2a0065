"""Fixed shares of a core, by the kernel's bandwidth control (control groups), to imitate machines of a fixed speed.

A group of processes may run for so long in each period and is then not scheduled until the next one.  The periods are
short, so that a group looks like a slow core and not like a fast one that stops now and then.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.machine import NotRun

_PERIOD_US = 10_000
_LEAST_QUOTA_US = 1_000
"""The kernel accepts no less."""


@contextmanager
def share_of_core(name: str, share: float, pids: Iterable[int]) -> Iterator[None]:
    """Hold processes, and those that they start, to a share of one core until the end; 0.25 is a quarter.

    Raises ``NotRun`` when the kernel does not let us: it needs root, and the processor controller of either version.
    """
    folder = _parent() / f"postbackd-bench-{os.getpid()}-{name}"
    quota = max(_LEAST_QUOTA_US, round(share * _PERIOD_US))
    try:
        folder.mkdir()
    except OSError as error:
        raise NotRun(f"no control group can be made ({error.strerror}); run it as root") from error
    try:
        try:
            _limit(folder, quota)
            for pid in pids:
                (folder / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            raise NotRun(f"a control group cannot be limited ({error.strerror}: {error.filename})") from error
        yield
    finally:
        _remove(folder)


def _limit(folder: Path, quota_us: int) -> None:
    if (folder / "cpu.cfs_quota_us").exists():
        (folder / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
        (folder / "cpu.cfs_quota_us").write_text(str(quota_us))
    else:
        (folder / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")


def _remove(folder: Path) -> None:
    """A group can be removed when it is empty: what still runs in it goes back to where it came from."""
    with suppress(OSError):
        for pid in (folder / "cgroup.procs").read_text().split():
            (folder.parent / "cgroup.procs").write_text(pid)
    with suppress(OSError):
        folder.rmdir()


def _parent() -> Path:
    """The group below which ours are made: with version 1 the one that we are in, with version 2 the root.

    (A group of version 2 that holds processes cannot have limited children, the root can.)
    """
    for line in Path("/proc/mounts").read_text().splitlines():
        _device, mount, kind, options, *_rest = line.split()
        if kind == "cgroup" and "cpu" in options.split(","):
            return Path(mount + _own_group())
        if kind == "cgroup2" and "cpu" in _read(Path(mount) / "cgroup.subtree_control").split():
            return Path(mount)
    raise NotRun("this kernel has no control groups for processor time here")


def _own_group() -> str:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _number, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(","):
            return path
    return "/"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
