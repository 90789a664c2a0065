"""What systemd hears from the real program: over a real socket, without systemd."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from postbackd.service_manager import ServiceManager, Watch, is_answered, tell_while_serving
from tests.trust.server import Server, clean_environment, free_port, wait_until

DEADLINE_S = 20.0
WATCHDOG_S = 0.8
"""The manager's patience in these tests; a minute in the shipped units."""

SILENT = "STATUS=the ingest process does not answer /healthz"


class Manager:
    """The side of systemd: a datagram socket, and the messages that came."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address[0] == "@" else address)
        self._socket.settimeout(DEADLINE_S)

    def environment(self, watchdog_s: float | None = WATCHDOG_S) -> dict[str, str]:
        """What systemd would set."""
        watchdog = {} if watchdog_s is None else {"WATCHDOG_USEC": str(int(watchdog_s * 1_000_000))}
        return {"NOTIFY_SOCKET": self.address, **watchdog}

    def hear(self) -> list[str]:
        """The lines of the next message.  Raises ``TimeoutError``."""
        return self._socket.recv(4096).decode().split("\n")

    def hear_until(self, line: str) -> list[list[str]]:
        """The messages up to and with the one that holds this line."""
        heard = [self.hear()]
        while line not in heard[-1]:
            heard.append(self.hear())
        return heard

    def forget(self) -> int:
        """Throw away what has come so far; returns how many messages that were."""
        count = 0
        self._socket.setblocking(False)
        try:
            while self._socket.recv(4096):
                count += 1
        except BlockingIOError:
            self._socket.settimeout(DEADLINE_S)
        return count

    def hears_nothing_for(self, limit_s: float) -> bool:
        self._socket.settimeout(limit_s)
        try:
            self.hear()
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(DEADLINE_S)
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify"))
    yield made
    made.close()


@pytest.fixture
def server(tmp_path: Path, manager: Manager) -> Iterator[Server]:
    """The supervisor and its ingest process, started by the manager; ready."""
    made = Server(tmp_path / "data", env=manager.environment())
    made.launch()
    yield made
    made.kill()


# --- the supervisor -----------------------------------------------------------------------------------------


def test_ready_is_told_when_requests_are_answered_and_not_before(server: Server, manager: Manager) -> None:
    first = manager.hear()
    assert first == ["READY=1", "STATUS=serving"]
    assert server.status("/readyz") == 200


def test_a_server_that_answers_pings_at_least_at_half_of_the_patience(
    server: Server, manager: Manager
) -> None:
    manager.hear_until("READY=1")
    manager.hear_until("WATCHDOG=1")
    seconds = wait_until(lambda: manager.hear() == ["WATCHDOG=1"], DEADLINE_S, "the next ping")
    assert seconds < WATCHDOG_S


def test_a_stopped_ingest_process_gets_no_ping_and_a_continued_one_does(
    server: Server, manager: Manager
) -> None:
    manager.hear_until("WATCHDOG=1")
    (child,) = server.ingest_pids()
    os.kill(child, signal.SIGSTOP)
    heard = manager.hear_until(SILENT)
    # From the first bad look on: as many as fit into more than twice the patience of the manager.
    heard = [manager.hear() for _ in range(8)]
    assert heard == [[SILENT]] * 8
    os.kill(child, signal.SIGCONT)
    assert manager.hear_until("WATCHDOG=1")[-1] == ["WATCHDOG=1"]


def test_a_killed_ingest_process_is_replaced_and_the_pings_go_on(server: Server, manager: Manager) -> None:
    manager.hear_until("WATCHDOG=1")
    (child,) = server.ingest_pids()
    os.kill(child, signal.SIGKILL)
    heard = manager.hear_until("READY=1")
    assert ["STATUS=the ingest process has died; starting another"] in heard
    manager.hear_until("WATCHDOG=1")


def test_a_reload_is_told_with_its_time_and_ends_with_ready(server: Server, manager: Manager) -> None:
    manager.hear_until("READY=1")
    (old,) = server.ingest_pids()
    os.kill(server.pid, signal.SIGHUP)
    heard = manager.hear_until("RELOADING=1")[-1]
    assert [line.partition("=")[0] for line in heard] == ["RELOADING", "MONOTONIC_USEC", "STATUS"]
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    assert abs(int(heard[1].partition("=")[2]) / 1_000_000 - uptime_s) < DEADLINE_S
    manager.hear_until("READY=1")
    assert server.ingest_pids() != [old]
    assert server.status("/readyz") == 200


def test_stopping_is_told_before_the_last_answers_and_nothing_after_it(
    server: Server, manager: Manager
) -> None:
    manager.hear_until("READY=1")
    assert server.stop() == 0
    manager.hear_until("STOPPING=1")
    assert manager.forget() == 0


def test_the_ingest_process_cannot_speak_for_its_supervisor(server: Server, manager: Manager) -> None:
    manager.hear_until("READY=1")
    (child,) = server.ingest_pids()
    environment = Path(f"/proc/{child}/environ").read_bytes()
    assert b"NOTIFY_SOCKET" not in environment
    assert b"WATCHDOG_USEC" not in environment


def test_without_a_watchdog_nothing_is_looked_at_and_nothing_pinged(tmp_path: Path, manager: Manager) -> None:
    server = Server(tmp_path / "data", env=manager.environment(watchdog_s=None))
    server.start()
    server.stop()
    heard = manager.hear_until("STOPPING=1")
    assert [message[0] for message in heard] == ["READY=1", "STOPPING=1"]


def test_without_a_manager_the_server_runs_as_ever(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        assert server.stop() == 0
        assert "service manager" not in server.stderr_tail()


def test_a_manager_that_has_gone_does_not_stop_the_server(tmp_path: Path) -> None:
    env = {"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "200000"}
    with Server(tmp_path / "data", env=env) as server:
        wait_until(
            lambda: "was not told WATCHDOG=1" in server.stderr_tail(), DEADLINE_S, "a ping that nobody hears"
        )
        assert server.status("/readyz") == 200


# --- a role that runs alone ---------------------------------------------------------------------------------


def test_an_ingest_node_alone_tells_that_it_is_ready_and_pings_out_of_its_loop(
    tmp_path: Path, manager: Manager
) -> None:
    command = [sys.executable, "-m", "postbackd", "ingest", "--data", str(tmp_path / "data")]
    command += ["--listen", f"127.0.0.1:{free_port()}"]
    node = subprocess.Popen(command, env=clean_environment(manager.environment()), stdout=subprocess.DEVNULL)
    try:
        assert manager.hear() == ["READY=1", "STATUS=serving"]
        assert [manager.hear() for _ in range(3)] == [["WATCHDOG=1"]] * 3
        os.kill(node.pid, signal.SIGSTOP)
        wait_until(lambda: is_stopped(node.pid), DEADLINE_S, "the stop")
        manager.forget()
        assert manager.hears_nothing_for(WATCHDOG_S * 2)
        os.kill(node.pid, signal.SIGCONT)
        manager.hear_until("WATCHDOG=1")
    finally:
        os.kill(node.pid, signal.SIGCONT)
        node.terminate()
        assert node.wait(DEADLINE_S) == 0


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_what_a_loop_does_later_is_the_next_ping(manager: Manager) -> None:
    later: list[tuple[float, object]] = []
    tell_while_serving(ServiceManager(manager.environment(60.0)), lambda *call: later.append(call))
    assert [manager.hear()[0], manager.hear()[0]] == ["READY=1", "WATCHDOG=1"]
    ((seconds, ping),) = later
    assert seconds == 30.0
    assert callable(ping)
    ping()
    assert manager.hear() == ["WATCHDOG=1"]


# --- decisions, by a clock of ours --------------------------------------------------------------------------


def test_a_bad_look_is_repeated_often_enough_to_be_no_accident_before_the_patience_ends(
    manager: Manager,
) -> None:
    now = [0.0]
    looks: list[float] = []

    def look(limit_s: float) -> bool:
        now[0] += limit_s
        looks.append(now[0])
        return len(looks) == 1

    watch = Watch(ServiceManager(manager.environment(60.0)), look, 0.0)
    for _ in range(5):
        now[0] += watch.pause_s(now[0])
        watch.look(lambda: now[0])
    assert manager.hear() == ["WATCHDOG=1"]
    last_ping_s = looks[0]
    assert [round(at - last_ping_s, 1) for at in looks[1:4]] == [35.0, 47.5, 60.0]
    assert [manager.hear() for _ in range(4)] == [[SILENT]] * 4


def test_signals_in_between_make_no_look_come_earlier(manager: Manager) -> None:
    limits: list[float] = []

    def look(limit_s: float) -> bool:
        limits.append(limit_s)
        return True

    watch = Watch(ServiceManager(manager.environment(60.0)), look, 0.0)
    for now_s in (0.0, 1.0, 29.0, 30.0, 31.0):
        watch.look(lambda now_s=now_s: now_s)  # type: ignore[misc]
    assert limits == [5.0, 5.0]
    assert watch.pause_s(31.0) == 29.0


@pytest.mark.parametrize(
    ("variables", "watchdog_s"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_a_watchdog_counts_only_when_it_waits_for_this_process(
    manager: Manager, variables: dict[str, str], watchdog_s: float | None
) -> None:
    environment = {"NOTIFY_SOCKET": manager.address, **variables}
    assert ServiceManager(environment).watchdog_s == watchdog_s
    assert environment == {}


def test_a_name_in_the_abstract_namespace_is_understood() -> None:
    manager = Manager(f"@postbackd-test-{os.getpid()}")
    ServiceManager(manager.environment()).ping()
    assert manager.hear() == ["WATCHDOG=1"]
    manager.close()


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 500 Oops\r\n\r\n", b"HTTP/1.1", b"SSH-2.0-OpenSSH_9.2\r\n"]
)
def test_another_answer_than_200_is_no_answer(answer: bytes) -> None:
    def reply() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        replying = threading.Thread(target=reply)
        replying.start()
        assert not is_answered(listening, 5.0)
        replying.join()


def test_nobody_who_accepts_is_no_answer_after_the_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert not is_answered(listening, 0.05)


def test_a_server_whose_proxies_are_on_this_machine_answers_its_own_supervisor(
    tmp_path: Path, manager: Manager
) -> None:
    proxied = {"POSTBACKD_TRUSTED_PROXIES": "127.0.0.0/8", "POSTBACKD_PROXY_PROTOCOL": "v1v2"}
    server = Server(tmp_path / "data", env=manager.environment() | proxied)
    server.launch()
    try:
        heard = [line for message in manager.hear_until("WATCHDOG=1") for line in message]
        heard += [line for message in manager.hear_until("WATCHDOG=1") for line in message]
        assert SILENT not in heard
    finally:
        server.kill()
