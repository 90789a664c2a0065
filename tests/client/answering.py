"""A tracker that answers by the transaction id that it is sent, and remembers what it counted."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs


class Answering:
    """What is told to it, and what it has seen.

    Transaction ids that begin with ``busy`` get 503 while ``busy`` is set, ``refused`` 404 while ``refusing`` is,
    ``unmatched`` and ``rejected`` that verdict, and ``slow`` an answer when ``go_on`` is set; all others are accepted
    once.
    """

    def __init__(self) -> None:
        self.url = ""
        self.busy = True
        self.refusing = True
        self.give_way_after = 1_000_000
        """After so many requests with one id that begins with ``busy`` it is taken."""
        self.go_on = threading.Event()
        self.asked: Counter[str] = Counter()
        """Transaction id -> how often it was sent."""
        self._lock = threading.Lock()

    def answer(self, transaction_id: str) -> tuple[int, dict[str, str]]:
        """Status and headers."""
        with self._lock:
            self.asked[transaction_id] += 1
            again = self.asked[transaction_id] > 1
        kind = transaction_id.partition("-")[0]
        if kind == "busy" and self.busy and self.asked[transaction_id] <= self.give_way_after:
            return 503, {}
        if kind == "refused" and self.refusing:
            return 404, {}
        if kind in ("unmatched", "rejected"):
            return 200, {"Postbackd-Verdict": kind, "Postbackd-Reason": "macro_literal", "X-Request-Id": "r1"}
        if kind == "slow":
            self.go_on.wait(20)
        return 200, {"Postbackd-Verdict": "duplicate" if again and kind != "busy" else "accepted"}


@contextmanager
def answering() -> Iterator[Answering]:
    """The tracker on a loopback port."""
    tracker = Answering()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            fields = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            (transaction_id,) = fields.get("txid") or fields["transaction_id"]
            status, headers = tracker.answer(transaction_id)
            self.send_response(status)
            for name, text in {**headers, "Content-Length": "0"}.items():
                self.send_header(name, text)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Nothing on standard error."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Nothing on standard error: a client that was killed is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    tracker.url = f"http://127.0.0.1:{server.server_port}/p/k"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield tracker
    finally:
        tracker.go_on.set()
        server.shutdown()
        thread.join()
        server.server_close()
