"""Servers and commands on a PostgreSQL database: several nodes, a database that goes away, and the way into it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from postbackd.store.postgres_schema import migrations
from tests.cli.conftest import Run
from tests.cli.test_serve import DEADLINE_S, Server
from tests.postgres_server import VERSIONS, PostgresServer, find_programs, new_database
from tests.trust.server import wait_until

pytestmark = pytest.mark.skipif(not VERSIONS, reason="no PostgreSQL 15 or newer was found")


@pytest.fixture
def address() -> str:
    return new_database(VERSIONS[0])


class Node(Server):
    """``postbackd ingest``: one front door of several."""

    def __init__(self, data: Path, store: str, words: str) -> None:
        """``words``: what the server said that made the database."""
        self.data = data
        self.words = words
        self.environ = {
            **os.environ,
            "POSTBACKD_DATA": str(data),
            "POSTBACKD_STORE": store,
            "PYTHONUNBUFFERED": "1",
        }
        command = [sys.executable, "-m", "postbackd", "ingest", "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            command, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def wait(self) -> None:
        found = re.search(r"listens on http://127\.0\.0\.1:(\d+)", self._read_until("listens on"))
        assert found
        self.port = int(found[1])

    def stop(self) -> int:
        assert self.process.stderr is not None
        self.process.stderr.close()
        return super().stop()


Start = Callable[[Path, str, str], Node]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a node; all are stopped at the end."""
    nodes: list[Node] = []

    def starting(data: Path, store: str, words: str) -> Node:
        nodes.append(Node(data, store, words))
        return nodes[-1]

    yield starting
    for node in nodes:
        if node.process.poll() is None:
            node.stop()


Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts ``postbackd serve``; all that still run are stopped at the end."""
    servers: list[Server] = []

    def starting(data: Path, store: str | None = None) -> Server:
        servers.append(Server(data, store))
        return servers[-1]

    yield starting
    for server in servers:
        if server.process.poll() is None:
            server.stop()


def until(condition: Callable[[], bool]) -> None:
    """Ask until it is so; a watchdog ends the test run's patience."""
    over = threading.Event()
    watchdog = threading.Timer(DEADLINE_S, over.set)
    watchdog.start()
    try:
        while not condition():
            assert not over.is_set(), "it did not happen in time"
    finally:
        watchdog.cancel()


def test_two_nodes_on_one_database_count_once_and_mint_different_ids(
    tmp_path: Path, address: str, start: Start, serve: Serve
) -> None:
    first = serve(tmp_path / "first", address)
    second = start(tmp_path / "second", address, first.words)
    second.wait()
    click_id = first.click()
    said = [
        node.postback(f"click_id={click_id}&txid=T&value=5")["verdict"] for node in (first, second, first)
    ]
    assert said == ["accepted", "duplicate", "duplicate"]
    assert second.postback(f"click_id={second.click()}&txid=T")["verdict"] == "accepted"
    network = json.loads(first.command("network", "add", "New", "--json"))
    until(lambda: second.get(f"/p/{network['key']}?click_id={click_id}&txid=N")[0] == 200)
    assert first.stop() == 0


def test_one_data_directory_serves_one_node(tmp_path: Path, address: str, start: Start, serve: Serve) -> None:
    first = serve(tmp_path / "data", address)
    second = start(tmp_path / "data", address, first.words)
    _, errors = second.process.communicate(timeout=DEADLINE_S)
    assert second.process.returncode == 1
    assert "another postbackd server uses" in errors
    first.stop()


def test_the_password_is_in_no_command_line(tmp_path: Path, serve: Serve) -> None:
    store = new_database(VERSIONS[0]).replace("postbackd@", "postbackd:geheim@")
    server = serve(tmp_path / "data", store)
    until(
        lambda: len(_command_lines(server.process.pid)) == 3
    )  # the last role starts when the first one serves
    lines = [path.read_bytes() for path in _command_lines(server.process.pid)]
    assert not any(b"geheim" in line for line in lines)
    assert "geheim" not in server.words
    server.stop()


def _command_lines(pid: int) -> list[Path]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [Path(f"/proc/{process}/cmdline") for process in (pid, *children)]


def test_while_the_database_is_away_requests_are_queued_and_counted_when_it_is_back(
    tmp_path: Path, serve: Serve
) -> None:
    postgres = PostgresServer(find_programs()[VERSIONS[0]])
    try:
        postgres.execute("CREATE DATABASE track")
        server = serve(tmp_path / "data", postgres.address("track"))
        before = server.click()
        postgres.stop(signal.SIGKILL)
        queued = server.postback(f"click_id={before}&txid=A&value=5")
        assert (queued["verdict"], set(queued)) == ("queued", {"verdict", "request"})
        meanwhile = server.click()
        assert server.postback(f"click_id={meanwhile}&txid=B&value=7")["verdict"] == "queued"
        assert server.get("/readyz")[0] == 200
        postgres.start()
        until(lambda: server.postback(f"click_id={before}&txid=A&value=5")["verdict"] == "duplicate")
        assert server.postback(f"click_id={meanwhile}&txid=B&value=7")["verdict"] == "duplicate"
        story = json.loads(server.command("why", queued["request"], "--json"))
        assert story["conversions"][0]["value"] == "5.00"
        assert not list((tmp_path / "data" / "spool").glob("*.spool"))
        assert server.stop() == 0
    finally:
        postgres.remove()


def test_a_node_waits_for_its_database_at_the_start(tmp_path: Path, start: Start, serve: Serve) -> None:
    postgres = PostgresServer(find_programs()[VERSIONS[0]])
    try:
        postgres.execute("CREATE DATABASE track")
        first = serve(tmp_path / "first", postgres.address("track"))
        first.stop()
        postgres.stop()
        node = start(tmp_path / "second", postgres.address("track"), first.words)
        assert node.process.stderr is not None
        assert "cannot reach" in node.process.stderr.readline()
        postgres.start()
        node.wait()
        assert node.postback(f"click_id={node.click()}&txid=T")["verdict"] == "accepted"
        assert node.stop() == 0
    finally:
        postgres.remove()


def test_a_server_whose_database_cannot_be_reached_says_so_in_one_line(run: Run) -> None:
    address = "postgresql://postbackd@127.0.0.1:1/track"
    ran = run("serve", "--store", address, "--listen", "127.0.0.1:0", code=1)
    assert ran.err.count("\n") == 1
    assert "cannot reach postgresql://postbackd@127.0.0.1:1/track" in ran.err


def test_an_address_that_is_none_is_a_usage_error_and_is_not_repeated(run: Run) -> None:
    ran = run("network", "list", "--store", "mysql://user:geheim@host/db", code=2)
    assert "postgresql://user@host/database" in ran.err
    assert "geheim" not in ran.err


def test_without_the_driver_the_error_says_how_to_install_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(("asyncpg", "postbackd.store.postgres"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    ran = run("network", "list", "--store", "postgresql://postbackd@127.0.0.1:1/track", code=1)
    assert "pip install -r requirements-postgres.txt" in ran.err


# --- db ------------------------------------------------------------------------------------------------------------


def test_the_schema_is_shown_applied_and_shown_again(run: Run, address: str) -> None:
    ran = run("db", "status", "--store", address, code=1)
    assert "pending  0001 first" in ran.out
    ran = run("db", "migrate", "--dry-run", "--store", address)
    assert "CREATE TABLE conversions" in ran.out
    assert "pending" in run("db", "status", "--store", address, code=1).out
    applied = "".join(f"applied  {step.number:04} {step.name}\n" for step in migrations())
    assert run("db", "migrate", "--store", address).out == applied
    assert run("db", "migrate", "--store", address).out == "nothing is pending\n"
    status = run("db", "status", "--store", address, "--json").json
    numbered = [{"number": step.number, "name": step.name} for step in migrations()]
    assert status == {"applied": numbered, "pending": []}


def test_the_doctor_needs_no_data_directory_beside_a_database_server(run: Run, address: str) -> None:
    run("db", "migrate", "--store", address)
    found = {f["check"]: f for f in run("doctor", "--store", address, "--json", code=1).json}
    assert found["data directory"]["ok"]
    assert found["server version"]["ok"]
    assert found["schema"]["detail"] == f"{migrations()[-1].number}"
    assert [name for name, finding in found.items() if not finding["ok"]] == ["catalog"]


def test_the_embedded_database_has_no_db_commands(run: Run) -> None:
    assert "--store" in run("db", "status", code=2).err


def test_distributing_without_citus_says_what_to_do(run: Run, address: str) -> None:
    run("db", "migrate", "--store", address)
    assert "CREATE EXTENSION citus" in run("db", "distribute", "--store", address, code=1).err


def count_rows(data: Path, table: str) -> int:
    db = apsw.Connection(str(data / "postbackd.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return int(db.execute(f"SELECT count(*) FROM {table}").get)
    finally:
        db.close()


def test_a_database_is_copied_and_goes_on_there(tmp_path: Path, run: Run, address: str, serve: Serve) -> None:
    server = serve(tmp_path / "data")
    click_id = server.click()
    first = server.postback(f"click_id={click_id}&txid=A&value=12.50")
    # The front door writes down how long it took a moment later; in the middle of a copy that is a difference.
    wait_until(lambda: count_rows(tmp_path / "data", "response_times") == 1, 20, "the time of the answer")
    copied = run("db", "copy", "--from", str(tmp_path / "data"), "--to", address)
    assert "1 conversions, 12.50 USD" in copied.out
    second = server.postback(f"click_id={click_id}&txid=B&value=7.50")
    assert second["verdict"] == "accepted"
    server.stop()
    result = run("db", "copy", "--from", str(tmp_path / "data"), "--to", address, "--json").json
    assert result["differences"] == []
    assert result["money"] == [{"currency": "USD", "value": "20.00", "conversions": 2}]
    with apsw.Connection(str(tmp_path / "data" / "postbackd.db")) as db:
        stored = [row[0] for row in db.execute("SELECT key FROM networks")]
    assert all(key.startswith("3.") for key in stored)
    assert "need the key of what is sealed in it" in copied.err
    keyless = run("network", "list", "--store", address, "--data", str(tmp_path / "moved"), code=1)
    assert "there is no" in keyless.err
    assert "secret.key" in keyless.err
    (tmp_path / "moved").mkdir()
    shutil.copy(tmp_path / "data" / "secret.key", tmp_path / "moved")
    moved = serve(tmp_path / "moved", address)
    again = moved.postback(f"click_id={click_id}&txid=A&value=12.50")
    assert (again["verdict"], again["conversion"]) == ("duplicate", first["conversion"])
    moved.stop()


def test_copying_from_nothing_and_to_nowhere_is_refused(
    tmp_path: Path, run: Run, address: str, serve: Serve
) -> None:
    assert "no database in" in run("db", "copy", "--from", str(tmp_path / "no"), "--to", address, code=1).err
    server = serve(tmp_path / "data")
    server.stop()
    nowhere = "postgresql://postbackd@127.0.0.1:1/track"
    assert "cannot reach" in run("db", "copy", "--from", str(tmp_path / "data"), "--to", nowhere, code=1).err


def test_the_key_file_of_several_machines_is_changed_in_two_steps(
    tmp_path: Path, run: Run, address: str
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    at_home, elsewhere = ("--store", address, "--data", str(here)), ("--store", address, "--data", str(there))
    run("network", "add", "N", *at_home)
    assert not (here / "secret.key").exists()
    add = ("target", "add", "T", "--url", "https://a.example/?t={account.T}", "--account", "T=s3cr3t")
    assert "copy it to every machine" in " ".join(run(*add, *at_home).err.split())
    there.mkdir()
    shutil.copy(here / "secret.key", there)
    first = run("secrets", "rotate", *at_home)
    assert "Copy it to every machine that has the key, then run this again" in first.out
    assert len((here / "secret.key").read_text().split()) == 2
    shutil.copy(here / "secret.key", there)
    assert "secrets are sealed with a new key" in run("secrets", "rotate", *at_home).out
    states = {row["state"] for row in run("secrets", "check", "--json", *elsewhere).json}
    assert states == {"opens"}
    run("secrets", "rotate", "--now", *at_home)
    assert {row["state"] for row in run("secrets", "check", "--json", *at_home).json} == {"opens"}
    assert run("secrets", "check", *elsewhere, code=1).err.count("\n") == 1


def test_a_database_in_clear_is_sealed_when_it_is_asked_for_and_every_process_has_the_key(
    tmp_path: Path, run: Run, address: str, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(tmp_path / "data", address)
    click_id = server.click()
    at = ("--store", address)
    assert "are in clear" in run("doctor", *at, code=0).out
    assert (
        "give every process on this database the same POSTBACKD_SECRET_KEY"
        in run("secrets", "seal", *at, code=2).err
    )
    server.stop()
    monkeypatch.setenv("POSTBACKD_SECRET_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
    with_key = serve(tmp_path / "data", address)
    assert {row["state"] for row in run("secrets", "check", "--json", *at).json} == {"in clear"}
    assert "secrets are sealed" in run("secrets", "seal", *at).out
    assert {row["state"] for row in run("secrets", "check", "--json", *at).json} == {"opens"}
    assert with_key.postback(f"click_id={click_id}&txid=A&value=1")["verdict"] == "accepted"
    with_key.stop()
    monkeypatch.delenv("POSTBACKD_SECRET_KEY")
    assert "the key of the secrets is not here" in run("network", "list", *at, code=1).err
