"""The shipped units under a real systemd, with their whole sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.deploy.booted import Booted, booted, why_not
from tests.trust.server import wait_until

WATCHDOG_S = 3
UNIT = "postbackd.service"

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


@pytest.fixture(scope="module")
def systemd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    with booted(tmp_path_factory.mktemp("booted"), WATCHDOG_S) as made:
        yield made


@pytest.fixture
def service(systemd: Booted) -> Iterator[Booted]:
    """With a server that has just started."""
    systemd.run("systemctl", "start", UNIT)
    yield systemd
    systemd.run("systemctl", "stop", "postbackd.socket", UNIT)
    systemd.run("systemctl", "reset-failed")


def test_a_start_returns_when_requests_are_answered_and_a_stop_is_clean(service: Booted) -> None:
    assert service.status(8080) == 200
    assert service.show(UNIT, "StatusText") == "serving"
    service.run("systemctl", "stop", UNIT)
    assert service.show(UNIT, "Result") == "success"
    assert service.status(8080) == 0


def test_the_sandbox_is_on_and_the_program_works_in_it(service: Booted) -> None:
    status = service.run("cat", f"/proc/{service.role(UNIT)}/status")
    words = {name: value.strip() for name, _, value in (line.partition(":") for line in status.splitlines())}
    assert words["NoNewPrivs"] == "1"
    assert words["Seccomp"] == "2"
    assert int(words["CapBnd"], 16) == 0
    assert words["Uid"].split()[0] == service.run("id", "-u", "postbackd")
    assert service.run("stat", "--format=%a %U", "/var/lib/postbackd") == "700 postbackd"
    assert service.run("stat", "--format=%a", "/var/lib/postbackd/postbackd.db") == "600"


def test_a_reload_brings_another_process_and_no_restart_of_the_unit(service: Booted) -> None:
    old = service.role(UNIT)
    service.run("systemctl", "reload", UNIT)
    wait_until(lambda: service.show(UNIT, "SubState") == "running", 30, "the end of the reload")
    wait_until(lambda: service.role(UNIT) != old, 30, "another process")
    assert service.status(8080) == 200
    assert service.show(UNIT, "NRestarts") == "0"


def test_a_server_that_answers_outlives_the_patience_and_one_that_hangs_is_replaced(service: Booted) -> None:
    main = service.show(UNIT, "MainPID")
    pinged = service.show(UNIT, "WatchdogTimestampMonotonic")

    def pinged_for_longer_than_the_patience() -> bool:
        last = service.show(UNIT, "WatchdogTimestampMonotonic")
        return int(last) - int(pinged) > WATCHDOG_S * 1_000_000

    wait_until(pinged_for_longer_than_the_patience, 30, "pings")
    assert service.show(UNIT, "MainPID") == main
    service.run("kill", "-STOP", str(service.role(UNIT)))
    wait_until(lambda: service.show(UNIT, "NRestarts") == "1", 30, "the restart")
    wait_until(lambda: service.show(UNIT, "SubState") == "running", 30, "the new server")
    assert service.show(UNIT, "MainPID") != main
    assert service.status(8080) == 200


def test_a_request_starts_the_server_when_systemd_holds_its_socket(systemd: Booted) -> None:
    systemd.run("systemctl", "start", "postbackd.socket")
    try:
        assert systemd.show(UNIT, "SubState") == "dead"
        assert systemd.status(8080) == 200
        assert systemd.show(UNIT, "SubState") == "running"
    finally:
        systemd.run("systemctl", "stop", "postbackd.socket", UNIT)


def test_nodes_run_beside_each_other_each_in_a_directory_of_its_own(systemd: Booted) -> None:
    nodes = ("postbackd-ingest@8080.service", "postbackd-ingest@8081.service")
    # The embedded database: what PostgreSQL does is the business of other tests.
    systemd.run("touch", "/etc/postbackd/postbackd.env")
    systemd.run("systemctl", "start", *nodes)
    try:
        assert [systemd.status(port) for port in (8080, 8081)] == [200, 200]
        assert systemd.run("ls", "/var/lib/postbackd-ingest").split() == ["8080", "8081"]
        systemd.run("kill", "-STOP", systemd.show(nodes[0], "MainPID"))
        wait_until(lambda: systemd.show(nodes[0], "NRestarts") == "1", 30, "the restart of a hanging node")
        assert systemd.show(nodes[1], "NRestarts") == "0"
    finally:
        systemd.run("systemctl", "stop", *nodes)


_SELF_SIGNED = "POSTBACKD_TLS=self-signed"
"""An authority is the business of other tests."""


@contextmanager
def with_https(systemd: Booted, *, drop_in: bool) -> Iterator[None]:
    place = "/run/units/postbackd.service.d/https.conf"
    systemd.run("sh", "-c", f"echo {_SELF_SIGNED} > /etc/postbackd/postbackd.env")
    if drop_in:
        systemd.run("cp", str(systemd.log.with_name("postbackd-https.conf")), place)
    systemd.run("systemctl", "daemon-reload")
    try:
        yield
    finally:
        systemd.run("rm", "-f", "/etc/postbackd/postbackd.env", place)
        systemd.run("systemctl", "daemon-reload")


def test_with_the_drop_in_the_server_binds_to_the_ports_for_https_itself(systemd: Booted) -> None:
    with with_https(systemd, drop_in=True):
        systemd.run("systemctl", "start", UNIT)
        try:
            assert systemd.status(443, scheme="https") == 200
            assert systemd.status(80, "/healthz") == 200
            status = systemd.run("cat", f"/proc/{systemd.show(UNIT, 'MainPID')}/status")
            assert "CapBnd:\t0000000000000400" in status  # CAP_NET_BIND_SERVICE and nothing else
            systemd.run("systemctl", "reload", UNIT)
            wait_until(lambda: systemd.show(UNIT, "SubState") == "running", 30, "the end of the reload")
            assert systemd.status(443, scheme="https") == 200
        finally:
            systemd.run("systemctl", "stop", UNIT)


def test_without_the_drop_in_the_start_fails_and_says_which_right_is_missing(systemd: Booted) -> None:
    """The control."""
    with with_https(systemd, drop_in=False):
        systemd.run("sh", "-c", f"systemctl start {UNIT} || true")
        try:
            assert systemd.status(443, scheme="https") == 0
            assert "CAP_NET_BIND_SERVICE" in systemd.log.read_text()
        finally:
            systemd.run("systemctl", "stop", UNIT)
            systemd.run("systemctl", "reset-failed")


def test_the_socket_units_serve_https_without_any_right(systemd: Booted) -> None:
    sockets = ("postbackd-https.socket", "postbackd-http.socket")
    with with_https(systemd, drop_in=False):
        systemd.run("systemctl", "start", *sockets)
        try:
            assert systemd.show(UNIT, "SubState") == "dead"
            assert systemd.status(443, scheme="https") == 200
            assert systemd.status(80, "/healthz") == 200
            status = systemd.run("cat", f"/proc/{systemd.show(UNIT, 'MainPID')}/status")
            assert "CapBnd:\t0000000000000000" in status
        finally:
            systemd.run("systemctl", "stop", *sockets, UNIT)
