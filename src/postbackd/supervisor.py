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

SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


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


class Supervisor:
    """Runs the ingest role in a process of its own."""

    def __init__(
        self, listening: socket.socket, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        """``arguments``: the role's command line after ``python -m postbackd``; ``environment``: added to ours."""
        self._manager = ServiceManager(os.environ)
        self._environment = {**os.environ, **environment}
        self._listening = listening
        self._arguments = arguments
        self._role: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._quick_deaths = 0
        self._lifeline_read, self._lifeline_write = os.pipe()

    def run(self, ready: Callable[[], None]) -> int:
        """Start, call ``ready`` when requests are accepted, serve until told to stop.  Returns the exit status."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        if not self._start():
            return 1
        ready()
        self._manager.tell_ready()
        watch = Watch(self._manager, lambda limit_s: is_answered(self._listening, limit_s), time.monotonic())
        while True:
            received = signal.sigtimedwait(SIGNALS, watch.pause_s(time.monotonic()))
            if received is None:
                watch.look(time.monotonic)
            elif received.si_signo in (signal.SIGTERM, signal.SIGINT):
                self._manager.tell_stopping()
                return self._stop()
            elif not self._went_on(received.si_signo):
                return 1

    def _went_on(self, number: int) -> bool:
        """After SIGHUP a new role process serves, and after SIGCHLD too if the old one has ended; else ``False``."""
        if number == signal.SIGHUP:
            self._manager.tell_reloading()
            self._stop()
        elif self._alive():
            return True
        elif self._dies_too_often():
            sys.stderr.write("postbackd: the ingest process keeps dying; giving up\n")
            return False
        else:
            self._manager.tell_status("the ingest process has died; starting another")
        if not self._start():
            return False
        self._manager.tell_ready()
        return True

    def _start(self) -> bool:
        """Start the role and wait until it says that it is ready."""
        ready_read, ready_write = os.pipe()
        listening = self._listening.fileno()
        descriptors = (listening, ready_write, self._lifeline_read)
        command = [sys.executable, "-m", "postbackd", *self._arguments]
        command += ["--inherit", ",".join(map(str, descriptors))]
        self._started = time.monotonic()
        self._role = subprocess.Popen(
            command, pass_fds=descriptors, stdin=subprocess.DEVNULL, env=self._environment
        )
        os.close(ready_write)
        with os.fdopen(ready_read, "rb") as pipe:
            if pipe.read(1):
                return True
        self._role.wait()
        return False

    def _alive(self) -> bool:
        return self._role is not None and self._role.poll() is None

    def _dies_too_often(self) -> bool:
        if time.monotonic() - self._started > _QUICK_DEATH_S:
            self._quick_deaths = 0
        self._quick_deaths += 1
        return self._quick_deaths > _MAX_QUICK_DEATHS

    def _stop(self) -> int:
        """Let the role finish what it has begun.  Returns its exit status, 0 for a clean stop."""
        role = self._role
        if role is None or role.poll() is not None:
            return 0
        role.terminate()
        try:
            return abs(role.wait(_STOP_TIMEOUT_S))
        except subprocess.TimeoutExpired:
            role.kill()
            return abs(role.wait())
