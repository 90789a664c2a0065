"""The real program over https: certificates of the operator's, reloads, port 80, and slow clients."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from postbackd.tls.pair import read_pair
from tests.commands import run_here
from tests.tls.issuer import Issuer
from tests.tls.site import Site, Visitor
from tests.trust.server import free_port, make_catalog, run_cli, wait_until

NAME = "a.example"


class Files:
    """A certificate and a key where an operator's tool puts them."""

    def __init__(self, directory: Path) -> None:
        self.issuer = Issuer()
        self.certificate, self.key = directory / "cert.pem", directory / "key.pem"
        self.trust = directory / "root.pem"
        self.trust.write_bytes(self.issuer.root)
        self.fingerprint = self.put()

    def put(self, kind: str = "ec") -> str:
        """A new pair; returns its fingerprint."""
        certificate, key = self.issuer.make(NAME, kind=kind)
        self.write(certificate, key)
        return read_pair(key + certificate).fingerprint

    def write(self, certificate: bytes, key: bytes) -> None:
        """The key first, each by a rename, as tools do."""
        for path, text in ((self.key, key), (self.certificate, certificate)):
            draft = path.with_suffix(".new")
            draft.write_bytes(text)
            draft.replace(path)

    @property
    def options(self) -> list[str]:
        return ["--cert", str(self.certificate), "--key", str(self.key)]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def site(tmp_path: Path, files: Files) -> Iterator[Site]:
    with Site(tmp_path / "data", files.options) as running:
        yield running


@pytest.fixture(scope="module")
def lasting_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """For tests that leave it as it was."""
    directory = tmp_path_factory.mktemp("site")
    with Site(directory / "data", Files(directory).options) as running:
        yield running


def test_a_postback_over_https_is_stored_and_a_client_that_verifies_is_content(
    tmp_path: Path, files: Files
) -> None:
    catalog = make_catalog(tmp_path / "data", run=run_here)
    with (
        Site(tmp_path / "data", files.options) as site,
        Visitor(site.https_port, NAME, files.trust) as visitor,
    ):
        assert visitor.version == "TLSv1.3"
        for number in range(3):
            answer = visitor.ask_json(f"/p/{catalog.key}?click_id=test&txid={number}")
            assert answer["reason"] == "test_event"
    assert '"postbacks"' in run_here(tmp_path / "data", "report", "--json").stdout


def test_a_new_pair_is_shown_to_new_connections_and_old_ones_stay(site: Site, files: Files) -> None:
    assert site.shown() == files.fingerprint
    with Visitor(site.https_port) as old:
        for kind in ("rsa", "ec"):
            newer = files.put(kind)
            assert site.wait_shown(newer) == newer
        assert old.ask() == (200, b"ok\n")


def test_a_bad_pair_leaves_the_old_one_and_is_shouted_about(site: Site, files: Files) -> None:
    certificate, _ = files.issuer.make(NAME)
    files.write(certificate, files.issuer.make(NAME)[1])
    site.wait_said("THE NEW CERTIFICATE IS NOT USED")
    assert "do not belong together" in site.errors
    assert site.shown() == files.fingerprint
    better = files.put()
    site.wait_shown(better)


def test_a_restart_over_a_bad_pair_goes_on_with_the_one_that_was_shown(site: Site, files: Files) -> None:
    """SIGHUP replaces the process; what it had in memory is on the tray of the supervisor."""
    files.certificate.write_bytes(b"half")
    (before,) = site.ingest_pids()
    os.kill(site.pid, signal.SIGHUP)
    wait_until(lambda: site.ingest_pids() not in ([], [before]), 20, "a new ingest process")
    site.wait_said("THE NEW CERTIFICATE IS NOT USED")
    assert site.wait_shown() == files.fingerprint
    os.kill(site.ingest_pids()[0], signal.SIGKILL)
    assert site.wait_shown() == files.fingerprint


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (b"", "no certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA", "no certificate"),
        (None, "cannot read"),
    ],
)
def test_files_that_cannot_be_used_end_the_start_with_one_line(
    tmp_path: Path, files: Files, certificate: bytes | None, reason: str
) -> None:
    if certificate is None:
        files.certificate.unlink()
    else:
        files.certificate.write_bytes(certificate)
    for role in ("serve", "ingest"):
        done = run_cli(tmp_path / "data", role, "--https-listen", f"127.0.0.1:{free_port()}", "--http-listen", "off",
                       "--listen", f"127.0.0.1:{free_port()}", *files.options)  # fmt: skip
        assert done.returncode == 1
        assert reason in done.stderr
        assert done.stderr.strip().count("\n") == 0


def test_the_ingest_role_alone_reads_its_files_again_on_sighup(tmp_path: Path, files: Files) -> None:
    with Site(tmp_path / "data", files.options, role="ingest") as site:
        newer = files.put()
        os.kill(site.pid, signal.SIGHUP)
        site.wait_shown(newer)
        assert site.running


def test_self_signed_is_for_tests_and_says_so_loudly(tmp_path: Path) -> None:
    with Site(tmp_path / "data", ["--tls", "self-signed"]) as site:
        assert site.shown("localhost")
        assert "UNSAFE: --tls self-signed" in site.errors


def test_the_dashboard_speaks_tls_with_the_same_certificate_and_sends_hsts_and_the_front_door_none(
    tmp_path: Path, files: Files
) -> None:
    port = free_port()
    listen = f"127.1:{port}"  # so written it is not taken for loopback, where the dashboard speaks no TLS
    with Site(tmp_path / "data", files.options, env={"POSTBACKD_ADMIN_LISTEN": listen}) as site:
        wait_until(lambda: accepts(port), 20, "the dashboard")
        with Visitor(port, NAME, files.trust) as visitor:
            assert visitor.fingerprint == files.fingerprint
            assert visitor.headers_of("/")["strict-transport-security"] == "max-age=31536000"
        with pytest.raises(ssl.SSLError), Visitor(port, NAME, version=ssl.TLSVersion.TLSv1_1):
            pass
        with Visitor(site.https_port, NAME, files.trust) as visitor:
            assert "strict-transport-security" not in visitor.headers_of("/healthz")
        newer = files.put()
        wait_until(lambda: site.shown(port=port) == newer, 20, "the new certificate")


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True


def test_restarts_over_tls_refuse_and_reset_nobody(site: Site) -> None:
    failed: list[str] = []
    asked = 0
    ending = threading.Event()

    def ask() -> None:
        nonlocal asked
        while not ending.is_set():
            try:
                with Visitor(site.https_port) as visitor:
                    if visitor.ask()[0] != 200:
                        failed.append("status")
            except OSError as error:
                failed.append(repr(error))
            asked += 1

    callers = [threading.Thread(target=ask) for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        for _ in range(3):
            (before,) = site.ingest_pids()
            seen = asked
            os.kill(site.pid, signal.SIGHUP)
            wait_until(lambda before=before: site.ingest_pids() not in ([], [before]), 20, "a new process")  # type: ignore[misc]
            wait_until(lambda seen=seen: asked > seen + 20, 20, "requests after it")  # type: ignore[misc]
    finally:
        ending.set()
        for caller in callers:
            caller.join()
    assert failed == []


# --- port 80 ------------------------------------------------------------------------------------------------------


def test_a_postback_over_plain_http_is_refused_without_repeating_its_key_and_counted(
    tmp_path: Path, files: Files
) -> None:
    catalog = make_catalog(tmp_path / "data", run=run_here)
    with Site(tmp_path / "data", files.options) as site:
        for method in ("GET", "POST"):
            status, headers, body = site.ask_plain(f"/p/{catalog.key}?click_id=test", method)
            assert status == 403
            assert "Location" not in headers
            assert b"https" in body
            assert catalog.key.encode() not in body
        wait_until(lambda: "plain_postback" in run_here(site.data_dir, "report").stdout, 20, "the count")


def test_a_click_over_plain_http_is_sent_to_https_on_our_own_name(lasting_site: Site) -> None:
    status, headers, _ = lasting_site.ask_plain("/c/spring?source_click_id=a%20b&x=1")
    assert (status, headers["Location"]) == (
        308,
        f"https://{NAME}:{lasting_site.https_port}/c/spring?source_click_id=a%20b&x=1",
    )


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /c/x HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET http://evil.example/c/x HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET //evil.example/c/x HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /c/..//evil.example HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /c/\xe4\xb8\x8d HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /c/x%0d%0aSet-Cookie:a=b HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /.well-known/acme-challenge/../../etc/passwd HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /.well-known/acme-challenge/" + b"a" * 64 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
    ],
)
def test_the_redirect_leads_nowhere_else_whatever_is_asked(lasting_site: Site, request_bytes: bytes) -> None:
    with socket.create_connection(("127.0.0.1", lasting_site.http_port), 10) as connection:
        connection.sendall(request_bytes)
        answer = connection.recv(4096).decode("latin-1")
    status, _, rest = answer.partition("\r\n")
    assert status.split()[1] in ("308", "404", "400")
    locations = [
        line.partition(": ")[2] for line in rest.split("\r\n") if line.lower().startswith("location:")
    ]
    assert all(location.startswith(f"https://{NAME}:{lasting_site.https_port}/c/") for location in locations)
    assert "\nset-cookie" not in answer.lower()


def test_clear_text_on_the_port_for_https_ends_the_connection_and_nothing_else(lasting_site: Site) -> None:
    with socket.create_connection(("127.0.0.1", lasting_site.https_port), 10) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
        assert not connection.recv(4096).startswith(b"HTTP/")
    assert lasting_site.shown()


# --- slow clients --------------------------------------------------------------------------------------------------


def seconds_until_closed(connection: socket.socket) -> float:
    connection.settimeout(20)
    began = time.monotonic()
    try:
        while connection.recv(4096):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - began


def test_a_handshake_that_stalls_is_ended_in_five_seconds_and_counted_beside_honest_traffic(
    lasting_site: Site,
) -> None:
    hello = bytes.fromhex("1603010200010001fc0303") + bytes(40)
    silent, stalled = (socket.create_connection(("127.0.0.1", lasting_site.https_port)) for _ in range(2))
    stalled.sendall(hello)
    assert lasting_site.shown()
    assert 3 < seconds_until_closed(silent) < 8
    assert seconds_until_closed(stalled) < 8
    silent.close()
    stalled.close()
    wait_until(lambda: "tls_handshake" in run_here(lasting_site.data_dir, "report").stdout, 20, "the count")


def test_a_client_that_says_nothing_after_its_handshake_is_sent_away_in_five_seconds(
    lasting_site: Site,
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", lasting_site.https_port)) as plain,
        context.wrap_socket(plain, server_hostname=NAME) as secure,
    ):
        assert 3 < seconds_until_closed(secure) < 9


def test_connections_that_ended_leave_no_memory_behind_while_another_stalls(lasting_site: Site) -> None:
    """A TLS session is 50 kB: whoever keeps those that are over runs out of memory within minutes."""

    def resident_kb() -> int:
        lines = Path(f"/proc/{lasting_site.ingest_pids()[0]}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])

    with socket.create_connection(("127.0.0.1", lasting_site.https_port)):
        for _ in range(100):
            lasting_site.shown()
        before = resident_kb()
        for _ in range(600):
            lasting_site.shown()
        assert resident_kb() - before < 10_000


def test_the_limits_of_requests_hold_over_tls(lasting_site: Site) -> None:
    for request, status in [
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"H%d: x\r\n" % number for number in range(70)) + b"\r\n", b"431"),
        (b"POST /p/x HTTP/1.1\r\nHost: h\r\nContent-Length: 2000000\r\n\r\n", b"413"),
    ]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", lasting_site.https_port), 10) as plain,
            context.wrap_socket(plain, server_hostname=NAME) as secure,
        ):
            secure.sendall(request)
            assert secure.recv(4096).split(b" ")[1] == status


def test_a_proxy_that_has_to_say_who_asks_cannot_leave_it_to_the_client_over_tls(
    tmp_path: Path, files: Files
) -> None:
    catalog = make_catalog(tmp_path / "data", run=run_here)
    run_here(tmp_path / "data", "network", "set", "Shop", "--allow-ip", "203.0.113.9", "--enforce", "ip")
    ask = f"GET /p/{catalog.key}?click_id=test HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n"
    options = [*files.options, "--trusted-proxies", "127.0.0.2"]
    for more, begins in ([], b"HTTP/1.1 200"), (["--proxy-protocol", "v1v2"], b""):
        with Site(tmp_path / "data", [*options, *more]) as site:
            assert _ask_from("127.0.0.2", site.https_port, ask.encode())[:12] == begins
            assert _ask_from("127.0.0.1", site.https_port, ask.encode())[:12] == b"HTTP/1.1 404"


def _ask_from(address: str, port: int, request: bytes) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), 20, (address, 0)) as plain:
        try:
            with context.wrap_socket(plain) as asking:
                asking.sendall(request)
                return asking.recv(4096)
        except OSError:
            return b""
