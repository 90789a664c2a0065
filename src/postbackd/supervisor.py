"""One program, several processes: holds the listening socket and keeps the roles running.

The socket is bound once and handed to each role process, so that a restart (SIGHUP) refuses nobody: connections wait in
the kernel's queue while the old process finishes and the new one starts.  A role that dies is started again.  When
the supervisor itself dies, the roles see the end of their lifeline pipe and stop.

A service manager hears what happens (``service_manager``); its watchdog gets a ping only while the front door answers.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from postbackd.service_manager import ServiceManager, Watch, is_answered

_BACKLOG = 4096
_STOP_TIMEOUT_S = 15.0
_QUICK_DEATH_S = 2.0
_MAX_QUICK_DEATHS = 5
_DELIVER_PAUSE_S, _LONGEST_DELIVER_PAUSE_S = 0.1, 10.0

DELIVER = signal.SIGUSR1
"""Asks the supervisor for the deliver role: the ingest process has found a rule in the catalog."""

SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, DELIVER)


class CannotListen(Exception):
    """The address cannot be listened on; says what to do."""


def listen(address: str) -> socket.socket:
    """A bound, listening socket: systemd's when it passed one, else a new one on ``host:port``.

    Raises ``CannotListen``.
    """
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS", "0") != "0":
        return socket.socket(fileno=3)
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise CannotListen(f"--listen {address}: write it as host:port, for example 127.0.0.1:8080")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, int(port)))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise CannotListen(
            f"cannot listen on {address}: {error.strerror}; stop the program that uses it or choose another --listen"
        ) from error
    return listening


class _Role:
    """One role in a process of its own: started when it is wanted, and again when it has died."""

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self.wanted = False
        self.start_again_at = 0.0
        """When to start it after it died, in the time of ``time.monotonic``."""
        self._arguments = arguments
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self.quick_deaths = 0

    def start(self, descriptors: Sequence[int]) -> None:
        """Start the process; it inherits the descriptors, in this order."""
        command = [sys.executable, "-m", "postbackd", self.name, *self._arguments]
        command += ["--inherit", ",".join(map(str, descriptors))]
        self.wanted = True
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            command, pass_fds=descriptors, stdin=subprocess.DEVNULL, env=self._environment
        )

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def note_death(self) -> None:
        """Count a death that came soon after the start."""
        if time.monotonic() - self._started > _QUICK_DEATH_S:
            self.quick_deaths = 0
        self.quick_deaths += 1

    def stop(self) -> None:
        """Tell it to finish what it has begun."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait(self) -> int:
        """Its exit status, 0 for a clean stop; what takes too long to stop is killed."""
        if self._process is None:
            return 0
        try:
            return abs(self._process.wait(_STOP_TIMEOUT_S))
        except subprocess.TimeoutExpired:
            self._process.kill()
            return abs(self._process.wait())


class Supervisor:
    """Runs the ingest role, and the deliver role when there is something to deliver, in processes of their own.

    The ingest role is what the server is for: without it the server gives up.  The deliver role may die as often as it
    likes; conversions wait in the outbox until it runs again.
    """

    def __init__(
        self,
        listening: socket.socket,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        begin: bytes = b"",
    ) -> None:
        """``arguments``: a role's options; ``environment``: added to ours; ``begin``: see ``is_answered``."""
        self._begin = begin
        self._manager = ServiceManager(os.environ)
        self._listening = listening
        inherited = {**os.environ, **environment}
        self._ingest = _Role("ingest", arguments, inherited)
        self._deliver = _Role("deliver", arguments, inherited)
        self._lifeline_read, self._lifeline_write = os.pipe()

    def run(self, ready: Callable[[], None], *, delivers: bool) -> int:
        """Start, call ``ready`` when requests are accepted, serve until told to stop.  Returns the exit status.

        ``delivers``: whether the deliver role is wanted from the beginning; ``DELIVER`` asks for it later.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        if not self._start_ingest():
            return 1
        ready()
        self._manager.tell_ready()
        if delivers:
            self._start_deliver()
        watch = Watch(
            self._manager,
            lambda limit_s: is_answered(self._listening, limit_s, self._begin),
            time.monotonic(),
        )
        while True:
            received = signal.sigtimedwait(SIGNALS, self._pause_s(watch))
            if received is None:
                watch.look(time.monotonic)
            elif received.si_signo in (signal.SIGTERM, signal.SIGINT):
                self._manager.tell_stopping()
                return self._stop()
            elif received.si_signo == DELIVER:
                self._deliver.wanted = True
            elif not self._went_on(received.si_signo):
                return 1
            if self._is_missing(self._deliver) and time.monotonic() >= self._deliver.start_again_at:
                self._start_deliver()

    def _pause_s(self, watch: Watch) -> float:
        now = time.monotonic()
        pause_s = watch.pause_s(now)
        if self._is_missing(self._deliver):
            pause_s = max(0.0, min(pause_s, self._deliver.start_again_at - now))
        return pause_s

    def _is_missing(self, role: _Role) -> bool:
        return role.wanted and not role.alive

    def _went_on(self, number: int) -> bool:
        """After SIGHUP new processes serve, and after SIGCHLD too if an old one has ended; else ``False``."""
        if self._is_missing(self._deliver) and self._deliver.start_again_at <= time.monotonic():
            self._deliver.note_death()
            pause_s = min(
                _DELIVER_PAUSE_S * 2 ** min(self._deliver.quick_deaths - 1, 10), _LONGEST_DELIVER_PAUSE_S
            )
            self._deliver.start_again_at = time.monotonic() + pause_s
        if number == signal.SIGHUP:
            self._manager.tell_reloading()
            self._deliver.stop()
            self._ingest.stop()
            self._ingest.wait()
        elif self._ingest.alive:
            return True
        else:
            self._ingest.note_death()
            if self._ingest.quick_deaths > _MAX_QUICK_DEATHS:
                sys.stderr.write("postbackd: the ingest process keeps dying; giving up\n")
                return False
            self._manager.tell_status("the ingest process has died; starting another")
        if not self._start_ingest():
            return False
        if number == signal.SIGHUP and self._deliver.wanted:
            self._deliver.wait()
            self._start_deliver()
        self._manager.tell_ready()
        return True

    def _start_ingest(self) -> bool:
        """Start the role and wait until it says that it is ready."""
        ready_read, ready_write = os.pipe()
        self._ingest.start((self._listening.fileno(), ready_write, self._lifeline_read))
        os.close(ready_write)
        with os.fdopen(ready_read, "rb") as pipe:
            if pipe.read(1):
                return True
        self._ingest.wait()
        return False

    def _start_deliver(self) -> None:
        self._deliver.start_again_at = 0.0
        self._deliver.start((self._lifeline_read,))

    def _stop(self) -> int:
        """Let the roles finish what they have begun.  Returns the exit status of the ingest role."""
        self._deliver.stop()
        if not self._ingest.alive:
            self._deliver.wait()
            return 0
        self._ingest.stop()
        status = self._ingest.wait()
        self._deliver.wait()
        return status
