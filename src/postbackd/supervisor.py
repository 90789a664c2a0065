"""One program, several processes: holds the listening sockets and keeps the roles running.

The sockets are bound once and handed to each ingest process, so that a restart (SIGHUP) refuses nobody: connections
wait in the kernel's queue while the old process finishes and the new one starts.  A role that dies is started again.
When the supervisor itself dies, the roles see the end of their lifeline pipe and stop.

A service manager hears what happens (``service_manager``); its watchdog gets a ping only while the front door answers.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from postbackd.service_manager import ServiceManager, Watch, is_answered

log = logging.getLogger("postbackd.supervisor")

_BACKLOG = 4096
_STOP_TIMEOUT_S = 15.0
_QUICK_DEATH_S = 2.0
_MAX_QUICK_DEATHS = 5
_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 10.0

BESIDE = ("deliver", "certificates", "admin")
"""Roles that may run beside the ingest role; one that listens has the socket of its own name."""

DELIVER = signal.SIGUSR1
"""Asks the supervisor for the deliver role: the ingest process has found a rule in the catalog."""

SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, DELIVER)


class CannotListen(Exception):
    """An address cannot be listened on; says what to do."""


def listen_on(addresses: Mapping[str, str]) -> dict[str, socket.socket]:
    """A bound, listening socket for each address: systemd's when it passed one of that name, else a new one.

    ``addresses``: what it is for (``listen``, ``https``, ``http``) -> ``host:port``; no host means every address.
    A socket of systemd with another name is ``listen``.  Raises ``CannotListen``.
    """
    sockets = {name: socket.socket(fileno=number) for name, number in _passed().items() if name in addresses}
    try:
        for name, address in addresses.items():
            if name not in sockets:
                sockets[name] = _listen(address, _OPTIONS[name])
    except CannotListen:
        for listening in sockets.values():
            listening.close()
        raise
    return sockets


_OPTIONS = {
    "listen": "--listen",
    "https": "--https-listen",
    "http": "--http-listen",
    "admin": "--admin-listen",
}


def _passed() -> dict[str, int]:
    """Name -> descriptor of the sockets that systemd passed to us, sd_listen_fds(3)."""
    count = os.environ.get("LISTEN_FDS", "0")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdigit():
        return {}
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    passed: dict[str, int] = {}
    for number in range(int(count)):
        name = names[number] if number < len(names) else ""
        passed.setdefault(name if name in _OPTIONS else "listen", 3 + number)
    return passed


def _listen(address: str, option: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not port.isdigit() or int(port) > 65_535:
        raise CannotListen(f"{option} {address}: write it as host:port, for example 127.0.0.1:8080")
    try:
        return _bind_everywhere(int(port)) if not host else _bind(host, int(port))
    except OSError as error:
        raise CannotListen(
            f"cannot listen on {address}: {error.strerror}; {_say_why_not(error, int(port), option)}"
        ) from error


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == "::":
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _bind_everywhere(port: int) -> socket.socket:
    """On every address of both families; of IPv4 alone where the machine has no other."""
    try:
        return _bind("::", port)
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
        return _bind("0.0.0.0", port)  # noqa: S104 - what was asked for


def _say_why_not(error: OSError, port: int, option: str) -> str:
    if error.errno == errno.EACCES and port < 1024:
        return (
            "ports below 1024 need a right: AmbientCapabilities=CAP_NET_BIND_SERVICE in a unit of systemd "
            f"(deploy/systemd), or choose another {option} and forward the port to it"
        )
    return f"stop the program that uses it or choose another {option}"


def _cause_of(status: int) -> str:
    """Why a process ended, from its exit status as ``subprocess`` tells it."""
    return f"exit status {status}" if status >= 0 else f"killed by signal {-status}"


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

    def start(self, descriptors: Mapping[str, int]) -> None:
        """Start the process; it inherits the descriptors, and is told what each is for."""
        command = [sys.executable, "-m", "postbackd", self.name, *self._arguments]
        command += ["--inherit", ",".join(f"{name}={number}" for name, number in descriptors.items())]
        self.wanted = True
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            command, pass_fds=tuple(descriptors.values()), stdin=subprocess.DEVNULL, env=self._environment
        )

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def missing(self) -> bool:
        return self.wanted and not self.alive

    def note_death(self) -> None:
        """Count a death that came soon after the start."""
        if time.monotonic() - self._started > _QUICK_DEATH_S:
            self.quick_deaths = 0
        self.quick_deaths += 1

    def put_off(self) -> None:
        """After a death that has just been seen: start it again after a pause that grows."""
        if self.missing and self.start_again_at <= time.monotonic():
            self.note_death()
            pause_s = min(_PAUSE_S * 2 ** min(self.quick_deaths - 1, 10), _LONGEST_PAUSE_S)
            self.start_again_at = time.monotonic() + pause_s
            self.tell_death(f"in {pause_s:g} s")

    def tell_death(self, when: str) -> None:
        """Say that it has ended without being told to, and when another takes its place."""
        if self._process is not None:
            log.warning(
                "the %s process has ended (%s); another is started %s",
                self.name,
                _cause_of(self._process.returncode),
                when,
            )

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
    """Runs the ingest role, and the roles beside it that are wanted, in processes of their own.

    The ingest role is what the server is for: without it the server gives up.  The others may die as often as they
    like: conversions wait in the outbox, and a certificate is good for weeks.
    """

    def __init__(
        self,
        sockets: Mapping[str, socket.socket],
        arguments: Sequence[str],
        environment: Mapping[str, str],
        begin: bytes = b"",
    ) -> None:
        """``sockets``: see ``listen_on``; ``arguments``: a role's options; ``environment``: added to ours;
        ``begin``: see ``is_answered``.
        """
        self._begin = begin
        self._manager = ServiceManager(os.environ)
        self._sockets = sockets
        inherited = {**os.environ, **environment}
        self._ingest = _Role("ingest", arguments, inherited)
        self._beside = {name: _Role(name, arguments, inherited) for name in BESIDE}
        self._lifeline_read, self._lifeline_write = os.pipe()
        self._tray = os.memfd_create("tray", os.MFD_CLOEXEC)
        """Where an ingest process lays what its successor may need."""

    def run(self, ready: Callable[[], None], *, beside: Collection[str]) -> int:
        """Start, call ``ready`` when requests are accepted, serve until told to stop.  Returns the exit status.

        ``beside``: the other roles (``BESIDE``) that are wanted from the beginning; ``DELIVER`` asks for one later.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        if not self._start_ingest():
            return 1
        ready()
        self._manager.tell_ready()
        for name in beside:
            self._start_beside(self._beside[name])
        listening, begin = self._sockets["listen"], self._begin
        watch = Watch(self._manager, lambda limit_s: is_answered(listening, limit_s, begin), time.monotonic())
        while True:
            received = signal.sigtimedwait(SIGNALS, self._pause_s(watch))
            if received is None:
                watch.look(time.monotonic)
            elif received.si_signo in (signal.SIGTERM, signal.SIGINT):
                self._manager.tell_stopping()
                return self._stop()
            elif received.si_signo == DELIVER:
                self._beside["deliver"].wanted = True
            elif not self._went_on(received.si_signo):
                return 1
            for role in self._beside.values():
                if role.missing and time.monotonic() >= role.start_again_at:
                    self._start_beside(role)

    def _pause_s(self, watch: Watch) -> float:
        now = time.monotonic()
        due_s = [role.start_again_at - now for role in self._beside.values() if role.missing]
        return max(0.0, min([watch.pause_s(now), *due_s]))

    def _went_on(self, number: int) -> bool:
        """After SIGHUP new processes serve, and after SIGCHLD too if an old one has ended; else ``False``."""
        for role in self._beside.values():
            role.put_off()
        if number == signal.SIGHUP:
            self._manager.tell_reloading()
            for role in self._beside.values():
                role.stop()
            self._ingest.stop()
            self._ingest.wait()
        elif self._ingest.alive:
            return True
        else:
            self._ingest.note_death()
            if self._ingest.quick_deaths > _MAX_QUICK_DEATHS:
                log.error("the ingest process keeps dying; giving up")
                return False
            self._ingest.tell_death("now")
            self._manager.tell_status("the ingest process has died; starting another")
        if not self._start_ingest():
            return False
        if number == signal.SIGHUP:
            for role in self._beside.values():
                if role.wanted:
                    role.wait()
                    self._start_beside(role)
        self._manager.tell_ready()
        return True

    def _start_ingest(self) -> bool:
        """Start the role and wait until it says that it is ready."""
        ready_read, ready_write = os.pipe()
        sockets = {
            name: listening.fileno() for name, listening in self._sockets.items() if name not in BESIDE
        }
        ends = {"tray": self._tray, "ready": ready_write, "lifeline": self._lifeline_read}
        self._ingest.start({**sockets, **ends})
        os.close(ready_write)
        with os.fdopen(ready_read, "rb") as pipe:
            if pipe.read(1):
                return True
        self._ingest.wait()
        return False

    def _start_beside(self, role: _Role) -> None:
        role.start_again_at = 0.0
        own = {role.name: self._sockets[role.name].fileno()} if role.name in self._sockets else {}
        role.start({**own, "lifeline": self._lifeline_read})

    def _stop(self) -> int:
        """Let the roles finish what they have begun.  Returns the exit status of the ingest role."""
        for role in self._beside.values():
            role.stop()
        status = 0
        if self._ingest.alive:
            self._ingest.stop()
            status = self._ingest.wait()
        for role in self._beside.values():
            role.wait()
        return status


def read_inherited(text: str) -> dict[str, int]:
    """What a role was told about the descriptors that it inherited."""
    return {name: int(number) for name, _, number in (part.partition("=") for part in text.split(","))}
