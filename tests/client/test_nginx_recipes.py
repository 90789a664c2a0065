"""A thank-you page that fires the postback: both recipes in the real nginx, as they are except for addresses."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.client.https_tracker import NAME, Tracker, tracker
from tests.client.recipes import RECIPES
from tests.deploy.fronts import replace
from tests.deploy.tools import need
from tests.tls.issuer import Issuer
from tests.trust.server import free_port, wait_until

_MAIN = """
{user}
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
{recipe}
}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracker]:
    need("nginx")
    with tracker(tmp_path_factory.mktemp("tracker")) as running:
        yield running


class Shop:
    """nginx with a recipe in front of a shop's page."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.status = 200
        self.postback = ""
        """What the page answers in ``X-Postback``; empty: no header."""

    def open(self, target: str) -> tuple[int, dict[str, str], bytes]:
        """What a buyer gets who opens a page."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request("GET", target, headers={"Cookie": "session=private"})
        answer = connection.getresponse()
        found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        connection.close()
        return found


def lay(directory: Path, name: str, place: Tracker, port: int, page: int, trust: Path) -> Path:
    """Write a recipe with the addresses of this run.  Returns the main configuration."""
    text = (RECIPES / name).read_text("utf-8")
    text = replace(text, r"^    listen 80;", f"    listen 127.0.0.1:{port};")
    text = replace(text, r"127\.0\.0\.1:3000", f"127.0.0.1:{page}")
    text = replace(text, r"server track\.example\.com:443", f"server 127.0.0.1:{place.site.https_port}")
    text = replace(text, r"\btrack\.example\.com\b", NAME)
    text = replace(text, r"/p/KEY\b", f"/p/{place.url.rpartition('/')[2]}")
    text = replace(text, r"/etc/ssl/certs/ca-certificates\.crt", str(trust))
    user = "user root;" if os.geteuid() == 0 else ""
    main = directory / "nginx.conf"
    main.write_text(_MAIN.format(user=user, directory=directory, recipe=text))
    return main


@contextmanager
def shop(directory: Path, name: str, place: Tracker, trust: Path | None = None) -> Iterator[Shop]:
    """The recipe in a running nginx, with a page behind it."""
    made = Shop(free_port())

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(made.status)
            if made.postback:
                self.send_header("X-Postback", made.postback)
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write(b"thanks")

        def log_message(self, *args: Any) -> None:
            """Nothing on standard error."""

    page = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=page.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    main = lay(directory, name, place, made.port, page.server_port, trust or place.trust)
    errors = (directory / "start.log").open("wb")
    process = subprocess.Popen([need("nginx"), "-p", str(directory), "-c", str(main)], stderr=errors)
    try:
        wait_until(lambda: _answers(made, process), 20, "nginx")
        yield made
    finally:
        process.terminate()
        process.wait(20)
        errors.close()
        page.shutdown()
        thread.join()
        page.server_close()


def _answers(made: Shop, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None
    try:
        return made.open("/")[0] == 404
    except OSError:
        return False


def wait_logged(place: Tracker, click_id: str, count: int) -> list[str]:
    """The verdicts of a click's requests, once there are that many."""
    found: list[str] = []

    def enough() -> bool:
        found[:] = place.logged(click_id)
        return len(found) >= count

    wait_until(enough, 20, f"{count} requests in the log")
    return found


def test_after_the_page_nginx_sends_what_the_page_said_and_a_reload_is_a_duplicate(
    place: Tracker, tmp_path: Path
) -> None:
    click_id = place.click()
    with shop(tmp_path, "nginx-post_action.conf", place) as site:
        site.postback = f"click_id={click_id}&txid=A%2F1&value=12.50&currency=EUR"
        for _ in range(2):
            status, headers, body = site.open("/thank-you?order=1")
            assert (status, body, headers["connection"]) == (200, b"thanks", "close")
            assert "x-postback" not in headers
        assert wait_logged(place, click_id, 2) == ["accepted", "duplicate"]


def test_after_a_page_without_the_header_nginx_sends_nothing(place: Tracker, tmp_path: Path) -> None:
    made_up, real = place.click(), place.click()
    with shop(tmp_path, "nginx-post_action.conf", place) as site:
        assert site.open(f"/thank-you?click_id={made_up}&txid=1&value=999")[0] == 200
        site.status = 500
        assert site.open(f"/thank-you?click_id={made_up}&txid=1&value=999")[0] == 500
        site.status, site.postback = 200, f"click_id={real}&txid=2"
        assert site.open("/thank-you")[0] == 200
        assert wait_logged(place, real, 1) == ["accepted"]
    assert place.logged(made_up) == []


def test_nginx_sends_nothing_to_a_server_whose_certificate_is_not_trusted(
    place: Tracker, tmp_path: Path
) -> None:
    click_id = place.click()
    stranger = tmp_path / "stranger.pem"
    stranger.write_bytes(Issuer().root)
    with shop(tmp_path, "nginx-post_action.conf", place, trust=stranger) as site:
        site.postback = f"click_id={click_id}&txid=1"
        assert site.open("/thank-you")[0] == 200
        log = tmp_path / "error.log"
        wait_until(lambda: "certificate verify error" in log.read_text(), 20, "a word about the certificate")
    assert place.logged(click_id) == []


def test_beside_the_page_nginx_sends_a_signed_address_and_refuses_one_that_was_made_up(
    place: Tracker, tmp_path: Path
) -> None:
    click_id = place.click()
    digest = hashlib.md5(f"{click_id}|A%2F1|12.50 SHOP-SECRET".encode()).digest()
    signature = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    with shop(tmp_path, "nginx-mirror.conf", place) as site:
        address = f"/thank-you?click_id={click_id}&txid=A%2F1&value={{}}&sign={signature}"
        assert site.open(address.format("99.00"))[0] == 403
        status, _, body = site.open(address.format("12.50"))
        assert (status, body) == (200, b"thanks")
        assert wait_logged(place, click_id, 1) == ["accepted"]
        # What the page answers is not looked at: the price of mirror, and the reason for the other recipe.
        site.status = 500
        assert site.open(address.format("12.50"))[0] == 500
        assert wait_logged(place, click_id, 2) == ["accepted", "duplicate"]
