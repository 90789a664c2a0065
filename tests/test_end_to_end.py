"""The real program: started, asked, stopped, restarted and killed as its owner would."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import apsw
import pytest

from tests.commands import run_here
from tests.trust.server import Catalog, Server, clean_environment, make_catalog, run_cli, wait_until


class Program:
    """A server with a catalog that was made by the command line."""

    def __init__(self, directory: Path, env: Mapping[str, str] | None = None) -> None:
        self.data = directory / "data"
        self.catalog: Catalog = make_catalog(self.data, run=run_here)
        self.server = Server(self.data, env=env)
        self.server.start()

    def click(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        connection.request("GET", f"/c/{self.catalog.slug}?source_click_id=e2e")
        answer = connection.getresponse()
        connection.close()
        assert answer.status == 302
        return (answer.getheader("Location") or "").rpartition("=")[2]

    def postback(self, click_id: str, txid: str, **more: str) -> dict[str, Any]:
        query = "&".join(
            f"{name}={text}" for name, text in {"click_id": click_id, "txid": txid, **more}.items()
        )
        status, body = self.server.get(f"/p/{self.catalog.key}?{query}", timeout_s=20)
        assert status == 200
        document: dict[str, Any] = json.loads(body)
        return document

    def report(self) -> dict[str, Any]:
        done = run_cli(self.data, "report", "--json")
        assert done.returncode == 0, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def child(self) -> int:
        """The ingest process."""
        return wait_for_pids(self.server.ingest_pids)[0]

    def errors(self) -> str:
        """Everything on standard error."""
        return self.server.stderr_path.read_text()


def wait_for_pids(find: Callable[[], list[int]]) -> list[int]:
    """What ``find`` says once it says anything."""
    found: list[int] = []

    def ask() -> bool:
        found[:] = find()
        return bool(found)

    wait_until(ask, 20, "a process")
    return found


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    made = Program(tmp_path)
    yield made
    made.server.kill()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """For tests that leave the server as it was."""
    made = Program(tmp_path_factory.mktemp("program"))
    yield made
    made.server.kill()


def test_a_click_and_its_conversion_are_counted_reported_and_explained(shared: Program) -> None:
    before = shared.report()["conversions"]["count"]
    click_id = shared.click()
    first = shared.postback(click_id, "E-1", value="12.50", status="pending")
    again = shared.postback(click_id, "E-1", value="12.50", status="pending")
    moved = shared.postback(click_id, "E-1", status="approved")
    assert [d["verdict"] for d in (first, again, moved)] == ["accepted", "duplicate", "updated"]
    assert {d["conversion"] for d in (first, again, moved)} == {first["request"]}
    assert shared.report()["conversions"]["count"] == before + 1
    story = json.loads(run_cli(shared.data, "why", click_id, "--json").stdout)
    assert story["found"]
    (conversion,) = story["conversions"]
    assert (conversion["status"], conversion["value"]) == ("approved", "12.50")


def test_a_network_that_is_added_beside_the_server_is_served_within_a_second(shared: Program) -> None:
    seconds = []
    for name in ("Late", "Later", "Latest"):  # others run on this machine, too: the quickest counts
        added = json.loads(run_cli(shared.data, "network", "add", name, "--json").stdout)
        path = f"/p/{added['key']}?click_id=x"
        seconds.append(wait_until(lambda at=path: shared.server.status(at) == 200, 20, "the network"))  # type: ignore[misc]
        assert added["postback_url"].startswith(f"http://127.0.0.1:{shared.server.port}/p/{added['key']}?")
    assert min(seconds) < 1.0


def test_nothing_secret_and_no_stack_trace_is_on_standard_error(shared: Program) -> None:
    key = shared.catalog.key
    for path in (
        f"/p/{key}?click_id=%00&value=ann.marker@shop.example",
        f"/p/{key}x?secret=abc",
        "/p/%ff",
        "/c/%00",
    ):
        assert shared.server.get(path)[0] in (200, 404)
    errors = shared.errors()
    assert "Traceback" not in errors
    for secret in (key, "marker", "secret"):
        assert secret not in errors


def test_a_taken_port_is_one_line_that_names_the_next_step_and_exit_1(
    shared: Program, tmp_path: Path
) -> None:
    done = serve(tmp_path / "other", shared.server.port)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert f"127.0.0.1:{shared.server.port}" in done.stderr
    assert "--listen" in done.stderr


def test_a_second_server_on_the_same_data_is_refused_and_the_first_goes_on(shared: Program) -> None:
    done = serve(shared.data, 0)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "another postbackd server uses" in done.stderr
    assert shared.server.status("/readyz") == 200


def test_a_second_ingest_process_on_the_same_data_is_refused_by_its_lock(shared: Program) -> None:
    done = serve(shared.data, 0, role="ingest")
    assert done.returncode == 1
    assert "another postbackd server uses" in done.stderr
    assert "Traceback" not in done.stderr


def serve(data: Path, port: int, role: str = "serve") -> subprocess.CompletedProcess[str]:
    """A start that is expected to fail."""
    command = [sys.executable, "-m", "postbackd", role, "--data", str(data), "--listen", f"127.0.0.1:{port}"]
    return subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=30)


# --- stopping and restarting --------------------------------------------------------------------------------


def test_sigterm_stops_cleanly_and_a_restart_goes_on_with_the_same_data(program: Program) -> None:
    click_id = program.click()
    first = program.postback(click_id, "S-1")
    assert program.server.stop() == 0
    assert sorted(path.name for path in program.data.iterdir()) == [
        "postbackd.db",
        "postbackd.lock",
        "secret.key",
        "spool",
    ]
    program.server.start()
    again = program.postback(click_id, "S-1")
    assert (again["verdict"], again["conversion"]) == ("duplicate", first["conversion"])
    assert again["request"] > first["request"]
    assert "Traceback" not in program.errors()


def test_a_request_under_way_is_answered_before_a_clean_stop(program: Program) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", program.server.port, timeout=20)
    connection.putrequest("POST", f"/p/{program.catalog.key}")
    connection.putheader("Content-Length", "10")
    connection.endheaders()
    wait_until(lambda: program.server.status("/healthz") == 200, 20, "the head of the request")
    os.kill(program.server.pid, signal.SIGTERM)
    connection.send(b"click_id=x")
    answer = connection.getresponse()
    assert answer.status == 200
    assert json.loads(answer.read())["verdict"] == "unmatched"
    connection.close()
    assert program.server.stop() == 0


def test_sighup_replaces_the_ingest_process_and_refuses_no_connection(program: Program) -> None:
    click_ids = [program.click() for _ in range(4)]
    old = program.child()
    over = Event()

    def send(worker: int) -> list[str]:
        verdicts: list[str] = []
        while not over.is_set():
            verdicts.append(program.postback(click_ids[worker], f"H-{worker}-{len(verdicts)}")["verdict"])
        return verdicts

    with ThreadPoolExecutor(4) as pool:
        sending = [pool.submit(send, worker) for worker in range(4)]
        os.kill(program.server.pid, signal.SIGHUP)
        new = wait_for_pids(lambda: [pid for pid in program.server.ingest_pids() if pid != old])
        wait_until(lambda: program.server.status("/readyz") == 200, 20, "the new process")
        over.set()
        verdicts = [verdict for done in sending for verdict in done.result()]
    assert new != [old]
    assert set(verdicts) == {"accepted"}
    assert program.report()["conversions"]["count"] == len(verdicts)


def test_a_killed_ingest_process_is_started_again_and_nothing_acknowledged_is_lost(program: Program) -> None:
    click_id = program.click()
    first = program.postback(click_id, "K-1")
    old = program.child()
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: program.server.ingest_pids() not in ([], [old]), 20, "a new process")
    program.server.wait_ready()
    again = program.postback(click_id, "K-1")
    assert (again["verdict"], again["conversion"]) == ("duplicate", first["conversion"])
    assert "the ingest process has ended (killed by signal 9); another is started now" in program.errors()
    assert program.server.stop() == 0


def test_the_ingest_process_goes_when_its_supervisor_is_killed(program: Program) -> None:
    child = program.child()
    os.kill(program.server.pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{child}").exists() or is_zombie(child), 20, "the end of the child")
    program.server.restart()
    assert program.server.status("/readyz") == 200


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_restart_while_another_program_writes_does_not_end_the_server(program: Program) -> None:
    old = program.child()
    other = apsw.Connection(str(program.data / "postbackd.db"))
    other.execute("BEGIN IMMEDIATE")
    os.kill(program.server.pid, signal.SIGHUP)
    wait_until(lambda: program.server.ingest_pids() not in ([], [old]), 20, "a new process")
    wait_until(lambda: program.server.status("/healthz") == 200, 20, "an answer")
    other.execute("ROLLBACK")
    other.close()
    program.server.wait_ready()
    assert program.postback(program.click(), "W-1")["verdict"] == "accepted"
