"""The real servers of queues, as children of a test, each with a directory of its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from tests.deploy.tools import miss
from tests.trust.server import free_port, wait_until


def need_redis() -> str:
    """The path of the server: skips without it, or fails where everything has to be there."""
    return shutil.which("redis-server") or miss("redis-server is not installed (apt install redis-server)")


class RedisServer:
    """``redis-server`` that writes every command to its log before it answers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        """A connection for looking around, with texts instead of bytes."""
        return redis.Redis.from_url(self.url, decode_responses=True, protocol=2)

    def start(self) -> None:
        program = shutil.which("redis-server")
        assert program
        options = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(self.directory), "save": ""}
        options |= {"appendonly": "yes", "appendfsync": "everysec"}
        command = [program, *(word for name, text in options.items() for word in (f"--{name}", text))]
        with (self.directory / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self._answers, 20, "redis-server")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.directory / "redis.log").read_text()
        with self.client() as asked:
            try:
                return bool(asked.ping())
            except redis.RedisError:
                return False

    def kill(self) -> None:
        """``kill -9``."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None


@contextmanager
def redis_server(directory: Path) -> Iterator[RedisServer]:
    server = RedisServer(directory)
    try:
        server.start()
        yield server
    finally:
        server.kill()
