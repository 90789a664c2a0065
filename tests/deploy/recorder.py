"""A server behind a front end that notes what reaches it: requests with their headers, and on which connection."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Address = tuple[str, int]


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    connection: object
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    """As they arrived, the names in lower case."""
    body_bytes: int

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for known, value in self.headers if known == name.lower()]


class Recorder:
    """What was seen, and what to answer."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.status = 200
        self.ready = True
        """What ``/readyz`` says."""
        self._seen: list[Seen] = []
        self._lock = threading.Lock()

    def note(self, seen: Seen) -> None:
        with self._lock:
            self._seen.append(seen)

    def take(self) -> list[Seen]:
        """What was seen since the last time, the checks of a front end left out."""
        with self._lock:
            seen, self._seen = self._seen, []
        return [one for one in seen if one.target != "/readyz"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        recorder: Recorder = self.server.recorder  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = tuple((name.lower(), value) for name, value in self.headers.items())
        recorder.note(Seen(self.connection, self.command, self.path, headers, len(body)))
        status = (200 if recorder.ready else 503) if self.path == "/readyz" else recorder.status
        self.send_response(status)
        if status == 503:
            self.send_header("Retry-After", "1")
        self.send_header("X-Request-Id", "0saqm9y780000")
        self.send_header("Postbackd-Verdict", "accepted")
        self.send_header("Content-Length", "2")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"ok")

    do_GET = do_HEAD = do_POST = _answer  # noqa: N815 - the names that http.server looks for

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Nothing on standard error."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing on standard error: a front end may end a check as soon as it knows the status."""


@contextmanager
def recorder() -> Iterator[Recorder]:
    """A running recorder on a loopback port."""
    server = _Server(("127.0.0.1", 0), _Handler)
    made = Recorder(("127.0.0.1", server.server_port))
    server.recorder = made  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
