"""``postbackd doctor`` looks at a real server from outside, and at things in between that are not ours."""

from __future__ import annotations

import http.client
import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.commands import run_here
from tests.tls.issuer import Issuer
from tests.tls.site import Site
from tests.trust.server import make_catalog

NAME = "localhost"


class Place:
    """A server with a certificate for localhost, by an authority that the doctor trusts."""

    def __init__(self, directory: Path) -> None:
        self.issuer = Issuer()
        self.trust = directory / "root.pem"
        self.trust.write_bytes(self.issuer.root)
        certificate, key = self.issuer.make(NAME)
        self.pair = directory / "pair.pem"
        self.pair.write_bytes(key + certificate)
        self.data = directory / "data"
        self.catalog = make_catalog(self.data, run=run_here)

    def examine(
        self, port: int, data: Path | None = None, *, trusting: bool = True
    ) -> dict[str, dict[str, Any]]:
        env = {"SSL_CERT_FILE": str(self.trust)} if trusting else {}
        done = run_here(
            data or self.data, "doctor", "--json", "--endpoint", f"https://{NAME}:{port}", env=env
        )
        found = {finding["check"]: finding for finding in json.loads(done.stdout)}
        assert done.returncode == (0 if all(finding["ok"] for finding in found.values()) else 1)
        return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_server_of_ours_passes_and_the_test_postback_is_in_the_log_and_counted_nowhere(
    place: Place,
) -> None:
    with Site(place.data, ["--cert", str(place.pair)]) as site:
        found = place.examine(site.https_port)
    assert [name for name, finding in found.items() if not finding["ok"]] == []
    assert found["endpoint protocols"]["detail"] == "TLSv1.2, TLSv1.3"
    assert "not counted, and in the log" in found["endpoint test postback"]["detail"]
    report = json.loads(run_here(place.data, "report", "--json").stdout)
    assert report["postbacks"]["by_reason"] == {"test_event": 1}


def test_an_endpoint_key_is_not_sent_to_a_server_that_is_not_trusted(place: Place) -> None:
    with Site(place.data, ["--cert", str(place.pair)]) as site:
        found = place.examine(site.https_port, trusting=False)
        assert not found["endpoint chain"]["ok"]
        assert "endpoint test postback" not in found
        assert run_here(place.data, "log").stdout.count("test_event") == 0


def test_an_endpoint_key_is_not_sent_to_a_server_with_another_name(place: Place) -> None:
    certificate, key = place.issuer.make("other.example")
    place.pair.write_bytes(key + certificate)
    with Site(place.data, ["--cert", str(place.pair)]) as site:
        found = place.examine(site.https_port)
    assert "Name localhost with --domain" in found["endpoint name"]["fix"]
    assert "endpoint test postback" not in found


def test_a_chain_without_its_intermediate_is_found(place: Place) -> None:
    text = place.pair.read_text()
    place.pair.write_text("-----BEGIN CERTIFICATE-----".join(text.split("-----BEGIN CERTIFICATE-----")[:2]))
    with Site(place.data, ["--cert", str(place.pair)]) as site:
        found = place.examine(site.https_port)
    assert "incomplete" in found["endpoint chain"]["fix"]


@contextmanager
def in_between(pair: Path, upstream: int | None, change: str) -> Iterator[int]:
    """A proxy that does something to requests or answers; without ``upstream`` it answers itself."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = (
                403,
                {"Server": "cloudflare", "CF-Ray": "1"},
                b"<title>Just a moment... challenge",
            )
            if upstream is not None:
                target = self.path.replace("%20", "+").replace("%2B", " ") if change == "query" else self.path
                connection = http.client.HTTPConnection("127.0.0.1", upstream, timeout=10)
                connection.request("GET", target.replace(" ", "%20"))
                answer = connection.getresponse()
                status, body = answer.status, answer.read()
                headers = {"Via": "1.1 proxy"}
                headers |= {
                    k: v for k, v in answer.getheaders() if k.lower().startswith(("postbackd", "x-request"))
                }
                connection.close()
            self.send_response_only(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_firewall_that_answers_in_our_place_is_found(place: Place) -> None:
    with in_between(place.pair, None, "") as port:
        found = place.examine(port)
    assert "bot check" in found["endpoint answer"]["fix"]
    assert "Cloudflare" in found["endpoint in between"]["detail"]
    assert not found["endpoint test postback"]["ok"]


@pytest.mark.parametrize(("change", "ok"), [("", True), ("query", False)])
def test_a_proxy_that_changes_the_query_is_found_and_one_that_does_not_is_named(
    place: Place, change: str, ok: bool
) -> None:
    with (
        Site(place.data, ["--tls", "self-signed"]) as site,
        in_between(place.pair, site.port, change) as port,
    ):
        found = place.examine(port)
    assert found["endpoint test postback"]["ok"] is ok
    assert "a proxy" in found["endpoint in between"]["detail"]


def test_another_installation_behind_the_name_is_found(place: Place, tmp_path: Path) -> None:
    other = tmp_path / "other"
    make_catalog(other, run=run_here)
    with Site(place.data, ["--cert", str(place.pair)]) as site:
        found = place.examine(site.https_port, other)
    assert not found["endpoint test postback"]["ok"]


@pytest.mark.parametrize("endpoint", ["http://a.example", "https://", "ftp://x", "https://a.example:99999"])
def test_an_endpoint_that_is_no_https_address_is_a_usage_error(tmp_path: Path, endpoint: str) -> None:
    done = run_here(tmp_path / "data", "doctor", "--endpoint", endpoint)
    assert done.returncode == 2
    assert "write it like https://track.example.com" in done.stderr


def test_a_name_that_does_not_exist_is_one_line_and_needs_no_installation_here(tmp_path: Path) -> None:
    done = run_here(tmp_path / "none", "doctor", "--endpoint", "https://nothing.invalid")
    assert done.returncode == 1
    assert "FAILED  endpoint DNS" in done.stdout
    assert "data directory" not in done.stdout
