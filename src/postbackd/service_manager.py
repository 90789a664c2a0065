"""What a service manager such as systemd is told: that we are ready, reload, stop, and still serve.

The protocol is sd_notify(3): a datagram of ``NAME=value`` lines to the socket that ``NOTIFY_SOCKET`` names.  Nobody who
started us otherwise has to know: without that variable nothing is sent.

A ping of the watchdog has to prove something, or it keeps a server alive that serves nobody.  So it follows a look at
the work itself: the supervisor asks the front door for ``/healthz``; a role that runs alone pings out of its event
loop, because a loop that turns is what answers requests.  A store that cannot be written is no reason to withhold it:
``/readyz`` tells that, and a restart would mend nothing.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, MutableMapping, Sequence

SEND_TIMEOUT_S = 1.0
"""A service manager that reads nothing must not stop us from serving."""

LONGEST_LOOK_S = 5.0
"""What ``/healthz`` may take before it counts as no answer; signals wait meanwhile."""

NO_WATCHDOG_S = 3600.0

_ASK = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_ANSWER = b"HTTP/1.1 200 "


class ServiceManager:
    """Who started us, if it wants to hear of us.  A message that cannot be sent is noted on standard error."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Takes its variables out of ``environment``: no process that we start shall speak in our name."""
        self._address = environment.pop("NOTIFY_SOCKET", "")
        self.watchdog_s = _read_watchdog(environment) if self._address else None
        """What the manager waits for a ping before it restarts us; ``None``: it waits for none."""

    def tell_ready(self) -> None:
        """Requests are accepted, for the first time or again after ``tell_reloading``."""
        self._tell("READY=1", "STATUS=serving")

    def tell_reloading(self) -> None:
        """A new process takes over; ``tell_ready`` follows.  The time is for ``Type=notify-reload`` (systemd 253)."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={microseconds}", "STATUS=replacing the ingest process")

    def tell_stopping(self) -> None:
        self._tell("STOPPING=1", "STATUS=answering what was asked")

    def tell_status(self, words: str) -> None:
        """One line for people, shown by ``systemctl status``."""
        self._tell(f"STATUS={words}")

    def ping(self) -> None:
        """We still serve.  Call it only when that was seen."""
        self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        # A first "@" stands for the zero byte of a name in the abstract namespace, unix(7).
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
            sending.settimeout(SEND_TIMEOUT_S)
            try:
                sending.sendto("\n".join(lines).encode(), address)
            except OSError as error:
                sys.stderr.write(f"postbackd: the service manager was not told {lines[0]}: {error}\n")


def _read_watchdog(environment: MutableMapping[str, str]) -> float | None:
    """Seconds, or ``None`` when no watchdog waits for this process, sd_watchdog_enabled(3)."""
    microseconds, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
    if not microseconds.isdigit() or int(microseconds) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(microseconds) / 1_000_000


class Watch:
    """When to look whether requests are answered, and what to tell about it.

    A good look is followed by the next after half of the manager's patience, a bad one by another soon: one slow answer
    ends nothing, and a server that stays silent has been asked three times before it is restarted.
    """

    def __init__(self, manager: ServiceManager, look: Callable[[float], bool], now_s: float) -> None:
        """``look(limit_s)`` says whether requests are answered.  Times are those of one steady clock."""
        self._manager = manager
        self._look = look
        self._patience_s = manager.watchdog_s
        self._due_s = now_s

    def pause_s(self, now_s: float) -> float:
        """How long nothing has to be done."""
        return NO_WATCHDOG_S if self._patience_s is None else max(0.0, self._due_s - now_s)

    def look(self, clock: Callable[[], float]) -> None:
        """Look if it is time to, and tell the manager what was seen."""
        if self._patience_s is None or clock() < self._due_s:
            return
        if self._look(min(LONGEST_LOOK_S, self._patience_s / 4)):
            self._manager.ping()
            self._due_s = clock() + self._patience_s / 2
        else:
            self._manager.tell_status("the ingest process does not answer /healthz")
            self._due_s = clock() + self._patience_s / 8


def is_answered(listening: socket.socket, limit_s: float, begin: bytes = b"") -> bool:
    """Whether whoever accepts on a TCP socket answers ``/healthz`` with 200 in time.

    ``begin``: what a connection from this machine has to begin with.
    """
    deadline_s = time.monotonic() + limit_s
    received = b""
    try:
        with socket.create_connection(reach(listening.getsockname()), limit_s) as asking:
            asking.sendall(begin + _ASK)
            while len(received) < len(_ANSWER):
                asking.settimeout(max(0.001, deadline_s - time.monotonic()))
                some = asking.recv(4096)
                if not some:
                    return False
                received += some
    except OSError:
        return False
    return received.startswith(_ANSWER)


def reach(address: Sequence[object]) -> tuple[str, int]:
    """Where a socket can be reached from this machine; one that listens on every address, on loopback."""
    host, port = str(address[0]), address[1]
    assert isinstance(port, int)
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104 - asked, not bound


def tell_while_serving(
    manager: ServiceManager, call_later: Callable[[float, Callable[[], None]], object]
) -> None:
    """For a role that runs alone, in its event loop, once it accepts requests: ready now, then pings while it turns.

    ``call_later(seconds, callback)`` is that of the loop.
    """
    manager.tell_ready()
    patience_s = manager.watchdog_s
    if patience_s is None:
        return

    def ping() -> None:
        manager.ping()
        call_later(patience_s / 2, ping)

    ping()
