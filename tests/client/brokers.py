"""The real servers of queues, as children of a test, each with a directory of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
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

    def end(self) -> None:
        """The same: nothing stays behind."""
        self.kill()


@contextmanager
def redis_server(directory: Path) -> Iterator[RedisServer]:
    server = RedisServer(directory)
    try:
        server.start()
        yield server
    finally:
        server.kill()


class RabbitServer:
    """``rabbitmq-server`` as a node of its own: its own directories, ports, cookie and ``epmd``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self._ports = [free_port(), free_port()]
        self._server: subprocess.Popen[bytes] | None = None
        self._names: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"

    def start(self) -> None:
        (self.directory / "plugins").write_text("[].")
        environment = self._environment()
        with (self.directory / "rabbit.log").open("ab") as log:
            if self._names is None:
                self._names = subprocess.Popen(["epmd"], env=environment, stdout=log, stderr=log)
            self._server = subprocess.Popen(
                ["/usr/lib/rabbitmq/bin/rabbitmq-server"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._answers, 60, "rabbitmq-server")

    def _environment(self) -> dict[str, str]:
        place = str(self.directory)
        distribution, names = self._ports
        return {
            "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
            "HOME": place,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(names),
            "RABBITMQ_CONFIG_FILE": f"{place}/none",
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{place}/plugins",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_LOG_BASE": f"{place}/log",
            "RABBITMQ_MNESIA_BASE": f"{place}/mnesia",
            "RABBITMQ_NODENAME": f"t{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_PID_FILE": f"{place}/pid",
            # No spinning while it waits: the machine has other work.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def _answers(self) -> bool:
        assert self._server is not None
        assert self._server.poll() is None, (self.directory / "rabbit.log").read_text()[-2000:]
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """``kill -9`` of the node; the names of nodes stay known."""
        if self._server is not None:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait(20)
            self._server = None

    def end(self) -> None:
        """The node and its ``epmd``."""
        self.kill()
        if self._names is not None:
            self._names.kill()
            self._names.wait(20)
            self._names = None
