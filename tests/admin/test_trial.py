"""The dashboard's test postback says what answered at the public address, and shows the key to nobody."""

from __future__ import annotations

from collections.abc import Iterator
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import ClassVar

import pytest

from postbackd.settings import Settings
from tests.admin.site import Site

OURS = (
    b"HTTP/1.1 200 OK\r\nPostbackd-Verdict: rejected\r\nPostbackd-Reason: test_event\r\n"
    b"X-Request-Id: 0sbm29r8m0000\r\nContent-Length: 2\r\n\r\nOK"
)
OTHERS = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
REFUSED = b"HTTP/1.1 302 Found\r\nLocation: https://login.example/\r\nContent-Length: 0\r\n\r\n"


class Front(StreamRequestHandler):
    """Whatever answers at the public address."""

    answer: ClassVar[bytes] = b""
    asked: ClassVar[bytes] = b""

    def handle(self) -> None:
        Front.asked = self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # the other lines of the head
        self.wfile.write(Front.answer)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with ThreadingTCPServer(("127.0.0.1", 0), Front) as front:
        Thread(target=front.serve_forever, args=(0.02,), daemon=True).start()
        settings = Settings(public_url=f"http://127.0.0.1:{front.server_address[1]}")
        with Site(tmp_path_factory.mktemp("trial") / "data", settings=settings) as running:
            assert running.ask("POST", "/api/v1/networks", {"name": "Shop"}).status == 201
            yield running
        front.shutdown()


@pytest.mark.parametrize(
    ("answer", "arrived", "says"),
    [
        (OURS, True, "It arrived and was answered in "),
        (OTHERS, False, "Something answered 200 that is not our front door"),
        (REFUSED, False, "Something answered 302 that is not our front door"),
        (b"", False, "the connection was closed without an answer"),
        (b"SSH-2.0-x\r\n", False, "not HTTP"),
    ],
)
def test_what_answers_at_the_public_address_is_told_in_a_sentence(
    site: Site, answer: bytes, arrived: bool, says: str
) -> None:
    Front.answer = answer
    key = site.get("/api/v1/networks/Shop").json["key"]
    tried = site.ask("POST", "/api/v1/networks/Shop/test")
    assert tried.status == 200
    assert tried.json["arrived"] is arrived
    assert says in tried.json["says"]
    assert key.encode() in Front.asked
    assert key not in str(tried.json)


def test_a_test_that_arrived_names_its_row_in_the_log(site: Site) -> None:
    Front.answer = OURS
    tried = site.ask("POST", "/api/v1/networks/Shop/test").json
    assert (tried["verdict"], tried["request"], tried["body"]) == ("rejected", "0sbm29r8m0000", "OK")
