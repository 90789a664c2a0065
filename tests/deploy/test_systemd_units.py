"""What can be said of the units without a running systemd, and that the program can do without what they forbid."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.tools import DEPLOY, need, run, shipped
from tests.tls.site import Visitor
from tests.trust.server import Server, clean_environment, wait_until

UNITS = DEPLOY / "systemd"
SERVICES = ("postbackd.service", "postbackd-ingest@.service", "postbackd-deliver.service")
MOST_EXPOSED = 1.5
"""Of 10; what ``systemd-analyze security`` calls OK ends at 4.9.  What is left is the network, which is the purpose."""


def lay(directory: Path) -> Path:
    """The units as they are installed, with a program that exists here."""
    program = directory / "postbackd"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for path in sorted(UNITS.iterdir()):
        text = path.read_text().replace("/opt/postbackd/.venv/bin/postbackd", str(program))
        (directory / path.name).write_text(text)
    return directory


def settings(unit: str) -> dict[str, list[str]]:
    """Every setting of a unit, in its order."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / unit).read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize(
    "names",
    [
        ("postbackd.service",),
        ("postbackd.service", "postbackd.socket"),
        ("postbackd.service", "postbackd-https.socket", "postbackd-http.socket"),
        ("postbackd-ingest@8080.service",),
        ("postbackd-deliver.service",),
    ],
    ids=lambda names: names[-1],
)
def test_systemd_finds_nothing_to_complain_of_in_the_units(names: tuple[str, ...], tmp_path: Path) -> None:
    directory = lay(tmp_path)
    done = run(need("systemd-analyze"), "verify", *(str(directory / name) for name in names))
    assert (done.returncode, done.stdout) == (0, "")


def test_systemd_would_have_complained_of_a_setting_that_it_does_not_know(tmp_path: Path) -> None:
    """The control of the test above."""
    directory = lay(tmp_path)
    unit = directory / "postbackd.service"
    unit.write_text(unit.read_text().replace("ProtectSystem=strict", "ProtectSystems=strict"))
    done = run(need("systemd-analyze"), "verify", str(unit))
    assert "ProtectSystems" in done.stdout


@pytest.mark.parametrize(
    "name", ["postbackd.service", "postbackd-ingest@8080.service", "postbackd-deliver.service"]
)
def test_systemd_accepts_the_credentials_beside_every_unit(name: str, tmp_path: Path) -> None:
    directory = lay(tmp_path)
    drop_in = directory / f"{name}.d"
    drop_in.mkdir()
    (directory / "credentials.conf").rename(drop_in / "credentials.conf")
    done = run(need("systemd-analyze"), "verify", str(directory / name))
    assert (done.returncode, done.stdout) == (0, "")
    text = (drop_in / "credentials.conf").read_text()
    (drop_in / "credentials.conf").write_text(text.replace("LoadCredential=store", "LoadCredentials=store"))
    assert "LoadCredentials" in run(need("systemd-analyze"), "verify", str(directory / name)).stdout


def test_the_files_that_the_credentials_become_are_enough_to_start_the_program(tmp_path: Path) -> None:
    """As systemd lays them: one file a credential, readable by the unit alone."""
    lines = [
        line
        for line in (UNITS / "credentials.conf").read_text().splitlines()
        if line.startswith("Environment=")
    ]
    named = dict(re.findall(r"(POSTBACKD_\w+_FILE)=%d/([\w-]+)", lines[0]))
    assert set(named) == {"POSTBACKD_STORE_FILE", "POSTBACKD_SECRET_KEY_FILE"}
    credentials = re.findall(
        r"^LoadCredential=([\w-]+):", (UNITS / "credentials.conf").read_text(), re.MULTILINE
    )
    assert sorted(credentials) == sorted(named.values())
    path = tmp_path / named["POSTBACKD_SECRET_KEY_FILE"]
    path.write_text("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n")
    path.chmod(0o400)
    data = tmp_path / "data"
    with Server(data, env={"POSTBACKD_SECRET_KEY_FILE": str(path)}) as server:
        for pid in (server.pid, *server.ingest_pids()):
            assert b"MDEyMzQ1" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert not (data / "secret.key").exists()
    assert (data / "postbackd.db").exists()


@pytest.mark.parametrize("name", SERVICES)
def test_the_services_are_hardly_exposed(name: str, tmp_path: Path) -> None:
    unit = lay(tmp_path) / name.replace("@.", "@8080.")
    if not unit.exists():
        unit.write_text((tmp_path / name).read_text())
    done = run(
        need("systemd-analyze"), "security", "--offline=yes", f"--threshold={int(MOST_EXPOSED * 10)}", str(unit)
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    (level,) = re.findall(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert float(level) <= MOST_EXPOSED


def test_the_user_of_the_units_is_made_by_the_shipped_file(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    done = run(need("systemd-sysusers"), f"--root={tmp_path}", str(UNITS / "sysusers.conf"))
    assert done.returncode == 0, done.stdout
    (line,) = [
        line for line in (tmp_path / "etc/passwd").read_text().splitlines() if line.startswith("postbackd:")
    ]
    assert line.endswith(":/var/lib/postbackd:/usr/sbin/nologin")
    for name in SERVICES:
        assert settings(name)["User"] == ["postbackd"]


def test_a_start_is_awaited_a_silence_ends_and_a_crash_is_mended() -> None:
    for name in SERVICES:
        unit = settings(name)
        assert unit["Type"] == ["notify"]
        assert int(unit["WatchdogSec"][0]) == 60
        assert unit["Restart"] == ["always"]
        assert unit["StartLimitIntervalSec"] == ["0"]
        assert int(unit["TimeoutStopSec"][0]) > 15


def test_nothing_secret_stands_in_a_unit_and_the_example_is_no_usable_secret() -> None:
    for path in sorted(UNITS.iterdir()):
        for address in re.findall(r"postgresql://\S+", path.read_text()):
            assert ":CHANGE-ME@" in address, path.name
    example = (UNITS / "postbackd.env.example").read_text()
    assert "-m 600" in example
    assert [line for line in example.splitlines() if line and not line.startswith("#")] == []


def test_the_settings_that_the_files_name_exist() -> None:
    from postbackd.settings import list_settings

    known = {setting.variable for setting in list_settings()}
    known |= {setting.file_variable for setting in list_settings() if setting.secret}
    for path in shipped():
        assert set(re.findall(r"\bPOSTBACKD_[A-Z_]+\b", path.read_text())) <= known, path.name


def test_the_environment_file_is_enough_to_start_the_program(tmp_path: Path) -> None:
    """``ExecStart`` names no setting: the two of the unit come from its environment."""
    assert settings("postbackd.service")["ExecStart"][0].endswith("/postbackd serve")
    assert settings("postbackd-ingest@.service")["ExecStart"][0].endswith("/postbackd ingest")
    assert settings("postbackd-deliver.service")["ExecStart"][0].endswith("/postbackd deliver")
    data, address = re.findall(
        r"POSTBACKD_(?:DATA|LISTEN)=(\S+)", settings("postbackd.service")["Environment"][0]
    )
    assert (data, address) == ("%S/postbackd", "127.0.0.1:8080")


# --- the socket unit ----------------------------------------------------------------------------------------


def test_a_socket_that_systemd_holds_is_served_and_survives_the_server(tmp_path: Path) -> None:
    """As with postbackd.socket: a connection made while no server runs is answered by the next one."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        server = start_on(held, tmp_path)
        try:
            assert ask(held) == b"HTTP/1.1 200 OK"
        finally:
            server.terminate()
            assert server.wait(30) == 0
        with socket.create_connection(held.getsockname(), timeout=30) as waiting:
            waiting.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            server = start_on(held, tmp_path)
            try:
                assert waiting.recv(15) == b"HTTP/1.1 200 OK"
            finally:
                server.terminate()
                assert server.wait(30) == 0


def start_on(held: socket.socket, directory: Path) -> subprocess.Popen[bytes]:
    """Start the server as systemd does with the one socket of postbackd.socket."""
    return start_on_all({"postbackd.socket": held}, directory)


def start_on_all(held: dict[str, socket.socket], directory: Path, *options: str) -> subprocess.Popen[bytes]:
    """The sockets are descriptors from 3 on, and the variables name them and the process itself."""
    program = (
        "import os, sys; held = [os.dup(int(number)) for number in sys.argv.pop(1).split(',')];"
        "high = [os.dup2(number, 100 + number) for number in held];"
        "[os.dup2(number, 3 + place, inheritable=True) for place, number in enumerate(high)];"
        "os.environ.update(LISTEN_FDS=str(len(held)), LISTEN_FDNAMES=sys.argv.pop(1), LISTEN_PID=str(os.getpid()));"
        "os.execv(sys.executable, [sys.executable, '-m', 'postbackd', *sys.argv[1:]])"
    )
    numbers = [each.fileno() for each in held.values()]
    command = [sys.executable, "-c", program, ",".join(map(str, numbers)), ":".join(held)]
    command += ["serve", "--data", str(directory / "data"), *options]
    return subprocess.Popen(command, pass_fds=numbers, env=clean_environment(), stdout=subprocess.DEVNULL)


def test_sockets_for_https_and_http_are_found_by_their_names_whatever_their_order(tmp_path: Path) -> None:
    names = ("https", "postbackd.socket", "http")
    held = {name: socket.create_server(("127.0.0.1", 0)) for name in names}
    server = start_on_all(held, tmp_path, "--tls", "self-signed")
    try:
        assert ask(held["postbackd.socket"]) == b"HTTP/1.1 200 OK"
        assert ask(held["http"], "/p/x") == b"HTTP/1.1 403 Fo"
        with Visitor(held["https"].getsockname()[1], "localhost") as visitor:
            assert visitor.ask() == (200, b"ok\n")
    finally:
        server.terminate()
        assert server.wait(30) == 0
        for each in held.values():
            each.close()


def test_https_needs_one_right_and_the_socket_units_none(tmp_path: Path) -> None:
    """With the drop-in the service may bind to low ports, and nothing else is opened up."""
    unit = lay(tmp_path) / "postbackd.service"
    (tmp_path / "postbackd.service.d").mkdir()
    drop_in = (tmp_path / "postbackd-https.conf").rename(tmp_path / "postbackd.service.d" / "https.conf")
    lines = [line for line in drop_in.read_text().splitlines() if line and not line.startswith(("#", "["))]
    assert lines == [
        "AmbientCapabilities=CAP_NET_BIND_SERVICE", "CapabilityBoundingSet=CAP_NET_BIND_SERVICE", "PrivateUsers=no",
    ]  # fmt: skip
    assert run(need("systemd-analyze"), "verify", str(unit)).returncode == 0
    for name in ("https", "http"):
        assert settings(f"postbackd-{name}.socket")["FileDescriptorName"] == [name]


def ask(held: socket.socket, path: str = "/healthz") -> bytes:
    with socket.create_connection(held.getsockname(), timeout=30) as asking:
        asking.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return asking.recv(15)


# --- what the sandbox forbids -------------------------------------------------------------------------------


def test_the_program_writes_nothing_outside_its_data_directory(tmp_path: Path) -> None:
    """``ProtectSystem=strict`` and ``ProtectHome``: what it holds open for writing lies in its own directory."""
    with Server(tmp_path / "data") as server:
        for pid in (server.pid, *server.ingest_pids()):
            for path in opened_for_writing(pid):
                assert path.is_relative_to(tmp_path), path


def opened_for_writing(pid: int) -> list[Path]:
    """The files, not the pipes, sockets and devices."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            flags = int(Path(f"/proc/{pid}/fdinfo/{link.name}").read_text().split()[3], 8)
            path = link.readlink()
        except FileNotFoundError:  # closed since it was listed
            continue
        if flags & (os.O_WRONLY | os.O_RDWR) and path.is_file():
            found.append(path)
    return found


def test_the_program_maps_no_memory_that_can_be_written_and_executed(tmp_path: Path) -> None:
    """``MemoryDenyWriteExecute``."""
    with Server(tmp_path / "data") as server:
        wait_until(server.ingest_pids, 20, "the ingest process")
        for pid in (server.pid, *server.ingest_pids()):
            assert [
                line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if " rwx" in line
            ] == []


def test_every_shipped_file_has_its_row_in_the_readme() -> None:
    text = (DEPLOY / "README.md").read_text()
    for path in shipped():
        assert re.search(rf"^\|.*`{re.escape(str(path.relative_to(DEPLOY)))}`", text, re.MULTILINE), path.name
