"""The real client's address reaches the list of a network through the real programs, and a claimed one does not."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.commands import run_here
from tests.deploy.fronts import ALL_MAKERS, POSTBACK
from tests.deploy.recorder import Address
from tests.deploy.tools import need
from tests.trust.server import Server, free_port, make_catalog, wait_until

SENDER, STRANGER = "127.0.0.2", "127.0.0.3"
"""Loopback is a whole network: a client may be any of its addresses, and the programs connect from 127.0.0.1."""

CLAIMS = ("X_Forwarded_For", "X_Real_IP", "Forwarded", "True_Client_IP")


@contextmanager
def guarded(directory: Path, environment: Mapping[str, str]) -> Iterator[tuple[Server, str]]:
    """A server whose only network sends from ``SENDER`` alone, and the path of its postbacks."""
    data = directory / "data"
    options = ("--allow-ip", SENDER, "--enforce", "ip")
    catalog = make_catalog(data, network_options=options, run=run_here)
    with Server(data, env={"POSTBACKD_TRUSTED_PROXIES": "127.0.0.1", **environment}) as server:
        yield server, f"/p/{catalog.key}?click_id=x"


def claim(header: str) -> dict[str, str]:
    return {header: f"for={SENDER}" if header == "Forwarded" else SENDER}


@pytest.mark.parametrize("name", sorted(ALL_MAKERS))
def test_through_a_front_end_only_the_real_sender_gets_in(name: str, tmp_path: Path) -> None:
    with (
        guarded(tmp_path, {}) as (server, path),
        ALL_MAKERS[name](tmp_path, [(server.host, server.port)]) as front,
    ):
        wait_until(lambda: front.ask_from(SENDER, POSTBACK, path).status == 200, 20, "the way through")
        assert front.ask_from(STRANGER, POSTBACK, path).status == 404
        for header in CLAIMS:
            assert front.ask_from(STRANGER, POSTBACK, path, **claim(header)).status == 404
            assert front.ask_from(SENDER, POSTBACK, path, **{header: STRANGER}).status == 200
        rows = json.loads(
            run_here(server.data_dir, "log", "--reason", "sender_ip_not_allowed", "--json").stdout
        )
        assert len(rows) == 1 + len(CLAIMS)
        assert {row["sender"] for row in rows} == {"127.0.0.0/24"}


@pytest.mark.parametrize("name", sorted(ALL_MAKERS))
def test_without_trust_nobody_gets_in_because_all_come_from_the_front_end(name: str, tmp_path: Path) -> None:
    """The control: it is the trusted header that lets the sender in."""
    with (
        guarded(tmp_path, {"POSTBACKD_TRUSTED_PROXIES": "192.0.2.1"}) as (server, path),
        ALL_MAKERS[name](tmp_path, [(server.host, server.port)]) as front,
    ):
        wait_until(lambda: front.ask_from(SENDER, POSTBACK, path).status == 404, 20, "the way through")


def test_a_front_end_that_passes_claims_on_lets_strangers_in(tmp_path: Path) -> None:
    """The control of the claims: what counts them can be deceived where the shipped line is missing."""

    def believe(text: str) -> str:
        return text.replace(
            "proxy_set_header X-Forwarded-For $remote_addr;",
            "proxy_set_header X-Forwarded-For $http_x_forwarded_for;",
        )

    with (
        guarded(tmp_path, {}) as (server, path),
        ALL_MAKERS["nginx"](tmp_path, [(server.host, server.port)], "", believe) as front,
    ):
        wait_until(
            lambda: front.ask_from(STRANGER, POSTBACK, path, **claim("X_Forwarded_For")).status == 200,
            20,
            "the stranger getting in",
        )


# --- bytes passed on, with a PROXY header -------------------------------------------------------------------

_PASSING = """
global
    log stdout format raw local0
defaults
    mode tcp
    timeout connect 5s
    timeout client 15s
    timeout server 15s
listen door
    bind 127.0.0.1:{port}
    server app {backend} {how}
"""


@contextmanager
def passing(directory: Path, backend: Address, how: str) -> Iterator[Address]:
    """HAProxy that passes bytes on and reads none of them."""
    address = ("127.0.0.1", free_port())
    config = directory / "passing.cfg"
    config.write_text(_PASSING.format(port=address[1], backend=f"{backend[0]}:{backend[1]}", how=how))
    with (directory / "passing.log").open("wb") as log:
        process = subprocess.Popen(
            [need("haproxy"), "-db", "-f", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:

        def accepts() -> bool:
            try:
                socket.create_connection(address, timeout=1).close()
            except OSError:
                return False
            return True

        wait_until(accepts, 20, "the start of haproxy")
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


def ask(address: Address, source: str, path: str, headers: Mapping[str, str] | None = None) -> int:
    """The status of a GET, 0 when the connection is closed without an answer."""
    connection = http.client.HTTPConnection(*address, timeout=20, source_address=(source, 0))
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


@pytest.mark.parametrize("how", ["send-proxy", "send-proxy-v2"])
def test_through_a_program_that_passes_bytes_on_only_the_real_sender_gets_in(
    how: str, tmp_path: Path
) -> None:
    # The server says itself whether it serves only to those who begin with a header: it is asked through HAProxy.
    with (
        guarded_behind_proxy(tmp_path) as (server, path),
        passing(tmp_path, server_address(server), how) as door,
    ):
        wait_until(lambda: ask(door, SENDER, "/readyz") == 200, 20, "the way through")
        assert ask(door, SENDER, path) == 200
        assert ask(door, STRANGER, path) == 404
        assert ask(door, STRANGER, path, {"X-Forwarded-For": SENDER}) == 404


def test_without_a_header_a_connection_of_that_program_is_closed(tmp_path: Path) -> None:
    with (
        guarded_behind_proxy(tmp_path) as (server, path),
        passing(tmp_path, server_address(server), "") as door,
    ):
        assert ask(door, SENDER, path) == 0
        wait_until(
            lambda: "proxy_header" in run_here(server.data_dir, "report", "--json").stdout, 20, "its count"
        )


def server_address(server: Server) -> Address:
    return (server.host, server.port)


@contextmanager
def guarded_behind_proxy(directory: Path) -> Iterator[tuple[Server, str]]:
    """As ``guarded``; the server is not asked whether it is ready, because we are no proxy."""
    data = directory / "data"
    catalog = make_catalog(data, network_options=("--allow-ip", SENDER, "--enforce", "ip"), run=run_here)
    environment = {"POSTBACKD_TRUSTED_PROXIES": "127.0.0.1", "POSTBACKD_PROXY_PROTOCOL": "v1v2"}
    server = Server(data, env=environment)
    server.launch()
    try:
        wait_until(
            lambda: ask(server_address(server), SENDER, "/readyz") == 200, 20, "a server that is ready"
        )
        yield server, f"/p/{catalog.key}?click_id=x"
    finally:
        server.kill()
