"""The deliver role beside the front door: started, killed, stopped and restarted as its owner would."""

from __future__ import annotations

import http.client
import http.server
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from postbackd.locks import is_held
from postbackd.runtime import DELIVER_LOCK_NAME
from tests.commands import run_here
from tests.test_end_to_end import Program, is_zombie, wait_for_pids
from tests.trust.server import clean_environment, wait_until


class Source:
    """A traffic source on this machine that notes the paths it is asked for."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.traces: list[str | None] = []
        noted, traces = self.paths, self.traces

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                noted.append(self.path)
                traces.append(self.headers.get("traceparent"))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"OK")

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def heard_of(self, transaction: str) -> None:
        """Wait until it was told of a conversion."""
        wait_until(lambda: any(transaction in path for path in self.paths), 20, f"news of {transaction}")


@pytest.fixture
def source() -> Iterator[Source]:
    made = Source()
    yield made
    made.close()


@pytest.fixture
def program(tmp_path: Path, source: Source) -> Iterator[Program]:
    """A server that may deliver to the source; there is no rule yet."""
    made = Program(tmp_path, settings(source))
    yield made
    made.server.kill()


def settings(source: Source) -> dict[str, str]:
    return {"POSTBACKD_DELIVER_RANGES": "127.0.0.0/8", "POSTBACKD_DELIVER_PORTS": str(source.port)}


def tell(program: Program, source: Source) -> int:
    """Let the source of the campaign be told; returns the process that does so, when there is one."""
    url = f"http://127.0.0.1:{source.port}/?id={{source_click_id}}&tx={{transaction_id}}"
    for arguments in (
        ("target", "add", "ads", "--url", url),
        ("rule", "add", "ads", "--source", "Ads", "--target", "ads"),
    ):
        done = run_here(program.data, *arguments)
        assert done.returncode == 0, done.stderr
    pid = deliverer_of(program, 0)
    wait_until(lambda: is_held(program.data / DELIVER_LOCK_NAME), 20, "the lock of the deliver role")
    return pid


def deliverer_of(program: Program, other_than: int) -> int:
    """The process of the deliver role, once there is one other than an old one."""
    return wait_for_pids(lambda: [pid for pid in program.server.role_pids("deliver") if pid != other_than])[0]


def test_the_first_rule_starts_the_deliver_role_and_the_source_is_told(
    program: Program, source: Source
) -> None:
    assert program.server.role_pids("deliver") == []
    tell(program, source)
    program.postback(program.click(), "D-1")
    source.heard_of("D-1")
    assert source.paths == ["/?id=e2e&tx=D-1"]
    assert program.server.stop() == 0
    assert len(source.paths) == 1


def test_the_trace_that_a_postback_names_reaches_the_source(program: Program, source: Source) -> None:
    tell(program, source)
    trace_id, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    for number, header in enumerate((f"00-{trace_id}-{span}-01", f"00-{trace_id.upper()}-{span}-01", None)):
        headers = {} if header is None else {"Traceparent": header}
        path = f"/p/{program.catalog.key}?click_id={program.click()}&txid=T-{number}"
        connection = http.client.HTTPConnection("127.0.0.1", program.server.port, timeout=20)
        connection.request("GET", path, headers=headers)
        assert connection.getresponse().status == 200
        connection.close()
        source.heard_of(f"T-{number}")
    carried, *others = source.traces
    assert re.fullmatch(f"00-{trace_id}-[0-9a-f]{{16}}-01", carried or "")
    assert span not in (carried or "")
    assert others == [None, None]


def test_a_deliverer_that_is_killed_is_replaced_and_nothing_is_lost(program: Program, source: Source) -> None:
    old = tell(program, source)
    os.kill(old, signal.SIGSTOP)
    for number in range(20):
        program.postback(program.click(), f"K-{number:03}")
    os.kill(old, signal.SIGKILL)
    deliverer_of(program, old)
    for number in range(20):
        source.heard_of(f"K-{number:03}")
    assert program.server.status("/readyz") == 200
    assert "the deliver process has ended (killed by signal 9); another is started in" in program.errors()


def test_a_restart_goes_on_delivering(program: Program, source: Source) -> None:
    old = tell(program, source)
    os.kill(program.server.pid, signal.SIGHUP)
    deliverer_of(program, old)
    program.server.wait_ready()
    program.postback(program.click(), "R-1")
    source.heard_of("R-1")


def test_the_deliver_role_goes_when_its_supervisor_is_killed(program: Program, source: Source) -> None:
    child = tell(program, source)
    os.kill(program.server.pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{child}").exists() or is_zombie(child), 20, "the end of the child")


def test_only_one_process_delivers_from_an_embedded_database(program: Program, source: Source) -> None:
    tell(program, source)
    second = subprocess.run(
        [sys.executable, "-m", "postbackd", "deliver", "--data", str(program.data)],
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert second.returncode == 1
    assert "another process delivers from" in second.stderr


def test_a_deliver_role_alone_tells_what_a_front_door_alone_has_counted(
    program: Program, source: Source
) -> None:
    tell(program, source)
    assert program.server.stop() == 0
    program.server.start()
    beside = deliverer_of(program, 0)
    os.kill(beside, signal.SIGSTOP)
    program.postback(program.click(), "A-1")
    program.server.kill()
    alone = subprocess.Popen(
        [sys.executable, "-m", "postbackd", "deliver", "--data", str(program.data)],
        env=clean_environment(settings(source)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        source.heard_of("A-1")
        alone.send_signal(signal.SIGTERM)
        output, _ = alone.communicate(timeout=20)
        assert alone.returncode == 0
        assert "postbackd delivers" in output
    finally:
        alone.kill()
        alone.wait()
