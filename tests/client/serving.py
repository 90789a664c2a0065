"""A shop's real server with several worker processes, and a tracker that can be away."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.trust.server import descendants, free_port, is_alive, wait_until

_REPOSITORY = Path(__file__).parents[2]
EXAMPLES = _REPOSITORY / "clients" / "python" / "examples"
_CLIENT = _REPOSITORY / "clients" / "python" / "src"
_DEADLINE_S = 20.0


def _is_worker(pid: int) -> bool:
    with suppress(OSError):  # it has just ended
        return is_alive(pid) and b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


class Valve:
    """A port in front of a tracker: connections are refused until it is opened."""

    def __init__(self, behind: int) -> None:
        self.port = free_port()
        self._behind = behind
        self._server: socket.socket | None = None
        self._open: list[socket.socket] = []

    def open(self) -> None:
        self._server = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()

    def close(self) -> None:
        for one in (self._server, *self._open):
            if one is not None:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()

    def _accept(self, server: socket.socket) -> None:
        with suppress(OSError):  # it was closed
            while True:
                near, _ = server.accept()
                far = socket.create_connection(("127.0.0.1", self._behind))
                self._open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65_536):
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)


class Serving:
    """One of the examples under a server; ``command`` gets the port appended."""

    def __init__(self, command: Sequence[str], directory: Path, environment: Mapping[str, str]) -> None:
        self.port = free_port()
        self._log = directory / "server.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *(word.replace("PORT", str(self.port)) for word in command)],
                cwd=directory,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self, workers: int) -> None:
        """Until it answers and has that many workers."""

        def ready() -> bool:
            assert self._process.poll() is None, self.log
            with suppress(OSError, http.client.HTTPException):
                return self.visit("GET", "/")[0] == 200 and len(self.workers()) == workers
            return False

        wait_until(ready, _DEADLINE_S, "the shop")

    def workers(self) -> list[int]:
        """Process ids; of the helpers that `multiprocessing` starts beside them, none."""
        return sorted(filter(_is_worker, descendants(self._process.pid)))

    @contextmanager
    def only(self, worker: int) -> Iterator[None]:
        """All other workers stand still meanwhile, so that this one answers."""
        others = [pid for pid in self.workers() if pid != worker]
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)

    def visit(
        self, method: str, target: str, cookies: Mapping[str, str] | None = None, body: str | None = None
    ) -> tuple[int, str, dict[str, str]]:
        """Status, body, and the cookies that were brought or set."""
        jar = dict(cookies or {})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in jar.items())} if jar else {}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            for cookie in answer.headers.get_all("Set-Cookie") or ():
                name, _, value = cookie.partition(";")[0].partition("=")
                jar[name] = value
            return answer.status, text, jar
        finally:
            connection.close()

    def stop(self) -> None:
        """As a service manager would; what does not stop is killed."""
        self._process.terminate()
        try:
            self._process.wait(_DEADLINE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            raise

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")


@contextmanager
def serving(command: Sequence[str], directory: Path, postback_url: str) -> Iterator[Serving]:
    """An example that reports to ``postback_url`` and has its spool in the directory."""
    environment = {
        "POSTBACK_URL": postback_url,
        "SPOOL": str(directory / "spool"),
        "SHOP_SECRET": "a secret of a shop that exists in tests alone",  # several workers, one secret
        "PYTHONPATH": ":".join(map(str, [EXAMPLES, EXAMPLES / "django_shop", _CLIENT, _REPOSITORY])),
    }
    shop = Serving(command, directory, environment)
    try:
        yield shop
    finally:
        shop.stop()
