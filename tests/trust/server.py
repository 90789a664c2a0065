"""Starts, watches and kills the real program; waits are polls with a deadline, never a fixed sleep."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_REPOSITORY = Path(__file__).resolve().parents[2]
_POLL_S = 0.003
_PORTS = range(20_000, 32_000)
"""Below the ephemeral range: a client that dials a dead server must not be given the server's port as its own."""


class ServerDied(Exception):
    """The server ended when it should have been running; the text is the end of its standard error."""


def wait_until(condition: Callable[[], object], deadline_s: float, what: str) -> float:
    """Poll until the condition holds; returns the seconds that took.  Raises ``TimeoutError`` naming ``what``."""
    began = time.monotonic()
    never = threading.Event()
    while not condition():
        if time.monotonic() - began > deadline_s:
            raise TimeoutError(f"{what} did not happen within {deadline_s} s")
        never.wait(_POLL_S)
    return time.monotonic() - began


def free_port() -> int:
    """A loopback port that nobody listens on, and that no other process of the tests is given while this one lives."""
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                _reserve(port)
            except OSError:
                continue
            return port
    raise OSError("no free port")


def _reserve(port: int) -> None:
    """Until this process ends: between the choice of a port and the moment when a server binds it, it looks free.

    Raises ``OSError`` when another process, or this one, has reserved it.
    """
    token = socket.socket(socket.AF_UNIX)
    try:
        token.bind(f"\0postbackd-test-port-{port}")
    except OSError:
        token.close()
        raise
    token.detach()  # the kernel lets go of it at the end


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for the program under test: no setting of the machine leaks in."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTBACKD_")}
    environment["POSTBACKD_ADMIN_LISTEN"] = "off"  # its port is one; tests of the dashboard ask for it
    source = str(_REPOSITORY / "src")
    environment["PYTHONPATH"] = (
        f"{source}:{environment['PYTHONPATH']}" if "PYTHONPATH" in environment else source
    )
    return environment | dict(extra or {})


def run_cli(
    data_dir: Path, *arguments: str, env: Mapping[str, str] | None = None, timeout_s: float = 30
) -> subprocess.CompletedProcess[str]:
    """``postbackd ARGUMENTS --data DIR``; the exit status is the caller's business."""
    command = [sys.executable, "-m", "postbackd", *arguments, "--data", str(data_dir)]
    return subprocess.run(
        command, env=clean_environment(env), capture_output=True, text=True, timeout=timeout_s
    )


@dataclass(frozen=True)
class Catalog:
    """What a load needs to know of the catalog."""

    key: str
    slug: str


def make_catalog(
    data_dir: Path,
    *,
    env: Mapping[str, str] | None = None,
    network_options: Sequence[str] = (),
    run: Callable[..., subprocess.CompletedProcess[str]] = run_cli,
) -> Catalog:
    """A network, a source, an offer and a campaign, made by the command line (works with or without a server).

    ``run``: what runs a command, called as ``run_cli`` is.
    """

    def add(*arguments: str) -> Any:
        done = run(data_dir, *arguments, "--json", env=env)
        if done.returncode:
            words = " ".join(arguments)
            raise ServerDied(f"postbackd {words}: exit {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    network = add("network", "add", "Shop", *network_options)
    add("source", "add", "Ads")
    url = "https://shop.example/?sub1={click_id}"
    add("offer", "add", "Shoes", "--network", "Shop", "--url", url)
    campaign = add("campaign", "add", "Spring", "--source", "Ads", "--offer", "Shoes")
    return Catalog(network["key"], campaign["slug"])


class Server:
    """One role (``postbackd serve``) on a data directory, in a session of its own so that all of it can be killed."""

    def __init__(
        self,
        data_dir: Path,
        *,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        port: int | None = None,
        stderr_path: Path | None = None,
        role: str = "serve",
    ) -> None:
        """``prefix``: words before the command, such as ``strace -f …``; ``role``: ``serve`` or ``ingest``."""
        self.data_dir = data_dir
        self.host = "127.0.0.1"
        self.port = port or free_port()
        self.env = dict(env or {})
        self.prefix = list(prefix)
        self.role = role
        self.stderr_path = stderr_path or data_dir.with_name(f"{data_dir.name}.stderr")
        self.stdout_path = Path(os.devnull)
        self._process: subprocess.Popen[bytes] | None = None

    # --- starting ---------------------------------------------------------------------------------------------

    @property
    def addresses(self) -> list[str]:
        """The options that say where it listens."""
        return ["--listen", f"{self.host}:{self.port}"]

    def launch(self) -> None:
        """Start the processes; does not wait until they accept."""
        command = [*self.prefix, sys.executable, "-m", "postbackd", self.role]
        command += ["--data", str(self.data_dir), *self.addresses]
        with self.stderr_path.open("ab") as errors, self.stdout_path.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                env=clean_environment(self.env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )

    def start(self, deadline_s: float = 60) -> float:
        """Start and wait until ``/readyz`` says 200; returns the seconds that took."""
        began = time.monotonic()
        self.launch()
        self.wait_ready(deadline_s)
        return time.monotonic() - began

    def wait_ready(self, deadline_s: float = 60) -> float:
        """Wait until the store is writable; returns the seconds.  Raises ``ServerDied`` when the program ended."""

        def ready() -> bool:
            if not self.running:
                raise ServerDied(self.stderr_tail())
            return self.status("/readyz") == 200

        return wait_until(ready, deadline_s, "GET /readyz answering 200")

    def wait_drained(self, deadline_s: float = 60) -> float:
        """Wait until nothing is left in its spool; returns the seconds."""
        return wait_until(lambda: not self.spooled, deadline_s, f"an empty spool in {self.data_dir}")

    @property
    def spooled(self) -> list[Path]:
        """The files of its spool."""
        return list(self.data_dir.glob("spool/*.spool"))

    # --- asking -----------------------------------------------------------------------------------------------

    def get(self, path: str, timeout_s: float = 5) -> tuple[int, bytes]:
        """Status and body of one GET on a connection of its own."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def status(self, path: str) -> int:
        """The status of one GET, 0 when there was no answer."""
        try:
            return self.get(path)[0]
        except (OSError, http.client.HTTPException):
            return 0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        return self._process.poll() if self._process else None

    @property
    def pid(self) -> int:
        """Of the process that was started: the supervisor, or the first word of the prefix."""
        if self._process is None:
            raise ServerDied("not started")
        return self._process.pid

    def ingest_pids(self) -> list[int]:
        """The role processes: those that were started with the inherited socket, or the one that was started alone."""
        if self.role == "ingest":
            return [self.pid]
        return self.role_pids("ingest")

    def role_pids(self, role: str) -> list[int]:
        """The processes of one role that the supervisor started."""
        found = []
        for pid in descendants(self.pid):
            words = _command_line(pid).split(b"\0")
            if b"--inherit" in words and role.encode() in words:
                found.append(pid)
        return found

    def stderr_tail(self, lines: int = 12) -> str:
        text = self.stderr_path.read_text(errors="replace") if self.stderr_path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    # --- ending -----------------------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Stop all its processes where they are: from here on it answers nothing."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGSTOP)

    def kill(self) -> None:
        """``kill -9`` of everything at once."""
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has ended by itself
        self._process.wait(timeout=30)
        wait_until(lambda: not _group_alive(self.pid), 30, "the end of the killed processes")

    def stop(self, deadline_s: float = 60) -> int:
        """SIGTERM and wait; returns the exit status.  Kills what does not stop, and says so by ``TimeoutError``."""
        process = self._process
        if process is None:
            return 0
        if process.poll() is None:
            # A tracer passes no signal on: the program itself is asked.
            inside = descendants(process.pid)
            os.kill(inside[0] if self.prefix and inside else process.pid, signal.SIGTERM)
        try:
            return process.wait(timeout=deadline_s)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise TimeoutError(f"no clean stop within {deadline_s} s") from error

    def restart(self, deadline_s: float = 60) -> float:
        """Kill what is left, start again on the same port; returns the seconds until ready."""
        self.kill()
        return self.start(deadline_s)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def descendants(pid: int) -> list[int]:
    """Children, their children and so on, oldest generation first."""
    try:
        text = "".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    except OSError:
        return []
    children = sorted(int(word) for word in text.split())
    return children + [below for child in children for below in descendants(child)]


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped does not.

    A thread in a sync may outlive the first one, and holds what the process has open and locked.
    """
    return any(_state(stat)[0] not in "ZX" for stat in Path(f"/proc/{pid}/task").glob("*/stat"))


def _state(stat: Path) -> tuple[str, int]:
    """The state of a thread, ``X`` when there is none, and its process group."""
    try:
        state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return "X", 0
    return state, int(group)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _group_alive(group: int) -> bool:
    """Whether a process of the group still runs."""
    return any(
        is_alive(int(stat.parent.name))
        for stat in Path("/proc").glob("[0-9]*/stat")
        if _state(stat)[1] == group
    )
