"""The machine: which core does what, and the servers as groups of processes.

Everything that is started here is stopped by its process id; nothing is ever looked up by name.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

SERVER_CORE, LOAD_CORE = (*sorted(os.sched_getaffinity(0)), -1, -1)[:2]
"""The server and everything it needs (its database too) run on the first core, the load generator on the second."""

HOST = "127.0.0.1"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0


class NotRun(Exception):
    """A row of the table cannot be measured here; the sentence says why and what to install."""


def require(tool: str, package: str) -> str:
    """The path of a program.  Raises ``NotRun`` when it is not installed."""
    places = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    path = shutil.which(tool, path=places)
    if path is None:
        raise NotRun(f"{tool} is not installed (apt install {package})")
    return path


def require_two_cores() -> None:
    """Raises ``NotRun``: on one core the load generator would be measured too."""
    if LOAD_CORE < 0:
        raise NotRun("the benchmark needs two cores: one for the server, one for the load generator")


@contextmanager
def pinned_to(core: int) -> Iterator[None]:
    """Processes started inside run on this core only, and so do their children."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """A TCP port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A running server: one process and its descendants, pinned to a core."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        core: int = SERVER_CORE,
    ) -> None:
        self._stop_signal = stop_signal
        self.log = log
        self.began = time.monotonic()
        with pinned_to(core), log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environment or {})},
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )

    def wait_until(self, ready: Callable[[], bool], timeout_s: float = START_TIMEOUT_S) -> float:
        """Ask until ``ready`` says yes; returns the seconds since the process was started.

        Raises ``NotRun`` with the last line of the log when the server ends or is not ready in time.
        """
        deadline = self.began + timeout_s
        while time.monotonic() < deadline:
            if ready():
                return time.monotonic() - self.began
            if self._process.poll() is not None:
                raise NotRun(f"the server ended at its start: {self._last_line()}")
            time.sleep(0.002)
        self.stop()
        raise NotRun(f"the server was not ready after {timeout_s:.0f} s: {self._last_line()}")

    @property
    def family(self) -> list[int]:
        """Its process and the living descendants."""
        return _family(self._process.pid)

    def run_on(self, cores: Set[int]) -> None:
        """From now on all its processes run on these cores, and those that they start."""
        # The second time for those that were started meanwhile by one whose turn had not come.
        for _round in range(2):
            for pid in self.family:
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(pid, cores)

    def make_way(self) -> None:
        """As ``postbackd serve`` has its deliver role: it runs where there is room, and others come first."""
        self.run_on({SERVER_CORE, LOAD_CORE})
        for pid in self.family:
            os.setpriority(os.PRIO_PROCESS, pid, 15)

    def let_run_anywhere(self, role: str) -> None:
        """A role of it goes where there is room, once it runs.  Raises ``NotRun`` when it does not."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            for pid in self.family:
                with suppress(OSError):
                    if role.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                        os.sched_setaffinity(pid, {SERVER_CORE, LOAD_CORE})
                        return
            time.sleep(0.01)
        raise NotRun(f"the role {role} has not been started")

    def cpu_s(self) -> float:
        """Processor time, in seconds, of all its processes, of those too that have ended."""
        return sum(_cpu_s(pid) for pid in self.family)

    def resident_bytes(self) -> int:
        """Resident memory of all processes of the server together; pages that they share count for each."""
        return sum(_resident_bytes(pid) for pid in self.family)

    def peak_resident_bytes(self) -> int:
        """The most that each of its processes ever had, together."""
        return sum(_peak_resident_bytes(pid) for pid in self.family)

    def stop(self) -> None:
        """Stop it cleanly; when that takes too long, kill it with all its descendants."""
        family = self.family
        if self._process.poll() is None:
            self._process.send_signal(self._stop_signal)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            for pid in family:
                os.kill(pid, signal.SIGKILL)
            self._process.wait()

    def _last_line(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def answers(port: int, path: str) -> bool:
    """Whether the server answers 200 to this path."""
    connection = HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _family(root: int) -> list[int]:
    """A process and its living descendants, the root first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            parent = _parent(entry)
            if parent is not None:
                children.setdefault(parent, []).append(int(entry.name))
    family = [root]
    for pid in family:
        family.extend(children.get(pid, ()))
    return family


def _parent(process: Path) -> int | None:
    try:
        # The second field, the name, may hold spaces and brackets: read behind its last bracket.
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None  # ended while we looked


def _cpu_s(pid: int) -> float:
    """Of a process, and of its children that have ended and been waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0  # ended while we looked
    # utime, stime, cutime, cstime: fields 14 to 17 of the line, which here begins with the third.
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def idle_s(core: int) -> float:
    """For how many seconds since the start of the machine a core had nothing to do."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            return sum(map(int, ticks[3:5])) / os.sysconf("SC_CLK_TCK")  # idle, and waiting for the disk
    raise NotRun(f"/proc/stat does not know core {core}")


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0  # ended while we looked


def _peak_resident_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0  # ended while we looked
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def syncs_per_second(directory: Path, seconds: float = 1.0) -> float:
    """How often the disk under a directory syncs a page that was just written."""
    path = directory / "sync.probe"
    page = b"x" * 4096
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        began, count = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            os.pwrite(file, page, count % 256 * 4096)
            os.fdatasync(file)
            count += 1
        return count / (time.monotonic() - began)
    finally:
        os.close(file)
        path.unlink()


def freeing_ms(directory: Path, mebibytes: int = 256) -> float:
    """Milliseconds until the blocks of a file of that size are given back: what dropping a table waits for."""
    path = directory / "free.probe"
    with path.open("wb") as file:
        for _ in range(mebibytes):
            file.write(os.urandom(1 << 20))
        file.flush()
        os.fsync(file.fileno())
    began = time.monotonic()
    path.unlink()
    return (time.monotonic() - began) * 1e3


def describe(directory: Path) -> dict[str, str | int | float]:
    """What was measured on: processor, cores, kernel, Python, disk, and how busy it was before."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "memory_mb": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1_000_000,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "file_system": _file_system(directory),
        "syncs_per_second": round(syncs_per_second(directory)),
        "freeing_256_mb_ms": round(freeing_ms(directory)),
        "load_average_before": os.getloadavg()[0],
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(directory: Path) -> str:
    """The type of the file system that holds a directory, and what makes deleting large files slow there."""
    best, device, kind, options = "", "", "unknown", ""
    for line in Path("/proc/mounts").read_text().splitlines():
        device_, mount, type_, options_, *_rest = line.split()
        inside = directory.resolve().is_relative_to(mount)
        if inside and len(mount) >= len(best):
            best, device, kind, options = mount, device_, type_, options_
    notes = ["discard"] if "discard" in options.split(",") else []
    if kind == "ext4" and not list(Path("/proc/fs/jbd2").glob(f"{Path(device).name}-*")):
        notes.append("no journal")
    return f"{kind} ({', '.join(notes)})" if notes else kind
