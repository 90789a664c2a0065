"""What is measured: how each server is started, and how its rows are counted."""

from __future__ import annotations

import csv
import re
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import apsw

from bench.machine import HOST, NotRun, Server, answers, free_port, require
from bench.postgres import Postgres
from bench.results import NGINX, PEER_POSTGRES, PEER_SQLITE, POSTBACKD, POSTBACKD_POSTGRES
from bench.seed import CAMPAIGNS, NETWORK_KEY, Seeded
from postbackd.core.verdicts import Verdict

_NGINX_CONFIGURATION = """
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen {host}:{port} backlog=4096;
        location / {{ return 200; }}
    }}
}}
"""

_PEERS = Path(__file__).with_name("peers")
PEER_PYTHON = Path(__file__).parents[1] / ".venv-bench" / "bin" / "python"


@dataclass(frozen=True)
class Stored:
    """How many rows a server's database holds."""

    conversions: int
    accepted: int
    """Rows of the postback log with the verdict ``accepted``."""
    postbacks: int
    clicks: int

    def minus(self, before: Stored) -> Stored:
        return Stored(
            self.conversions - before.conversions,
            self.accepted - before.accepted,
            self.postbacks - before.postbacks,
            self.clicks - before.clicks,
        )


NO_DASHBOARD = ("--admin-listen", "off")
"""The figures are those of a server that nobody looks at; what the dashboard costs is measured apart."""


class Subject(Protocol):
    """A server that can be put under load."""

    name: str
    port: int

    def stored(self) -> Stored | None:
        """What its database holds; ``None`` when it has none."""
        ...

    def stop(self) -> None: ...


class Nginx:
    """The ceiling: parses the request and answers, nothing else."""

    name = NGINX

    def __init__(self, directory: Path) -> None:
        program = require("nginx", "nginx-light")
        self.port = free_port()
        directory.mkdir()
        configuration = directory / "nginx.conf"
        configuration.write_text(_NGINX_CONFIGURATION.format(directory=directory, host=HOST, port=self.port))
        command = [
            program,
            "-p",
            str(directory),
            "-c",
            str(configuration),
            "-e",
            str(directory / "error.log"),
        ]
        self._server = Server(command, directory / "nginx.log")
        self._server.wait_until(lambda: answers(self.port, "/"))

    def stored(self) -> Stored | None:
        return None

    def stop(self) -> None:
        self._server.stop()


class Postbackd:
    """postbackd as ``postbackd serve`` starts it, on a seeded data directory."""

    name = POSTBACKD

    def __init__(
        self, seeded: Seeded, log: Path, command: str = "serve", options: Sequence[str] = ()
    ) -> None:
        """``command``: ``serve``, or ``ingest`` alone."""
        self._seeded = seeded
        self.port = free_port()
        options = ["--data", str(seeded.data), "--listen", f"{HOST}:{self.port}", *options]
        options += NO_DASHBOARD if command == "serve" else []
        self._server = Server([*command_line(), command, *options], log)
        self.start_s = self._server.wait_until(lambda: answers(self.port, "/readyz"))

    def stored(self) -> Stored:
        return count_postbackd(self._seeded.database)

    def resident_bytes(self) -> int:
        return self._server.resident_bytes()

    def let_run_anywhere(self, role: str) -> None:
        """See ``Server.let_run_anywhere``."""
        self._server.let_run_anywhere(role)

    def stop(self) -> None:
        self._server.stop()


class PostbackdPostgres:
    """postbackd as ``postbackd serve --store`` starts it, on a database that is started and stopped elsewhere."""

    def __init__(self, postgres: Postgres, data: Path, log: Path, options: Sequence[str] = ()) -> None:
        """``data``: the directory of the node; there is none yet."""
        self._postgres = postgres
        self.name = f"{POSTBACKD_POSTGRES} {postgres.version}"
        self.port = free_port()
        self._server = start_node("serve", postgres, data, self.port, log, options)

    def stored(self) -> Stored:
        return count_on_postgres(self._postgres)

    def cpu_s(self) -> float:
        """Processor time of postbackd alone, in seconds."""
        return self._server.cpu_s()

    def let_run_anywhere(self, role: str) -> None:
        """See ``Server.let_run_anywhere``."""
        self._server.let_run_anywhere(role)

    def stop(self) -> None:
        self._server.stop()


def start_node(
    command: str, postgres: Postgres, data: Path, port: int, log: Path, options: Sequence[str] = ()
) -> Server:
    """A node on a database, ready: ``serve``, or ``ingest`` alone."""
    options = ["--store", postgres.address, "--data", str(data), "--listen", f"{HOST}:{port}", *options]
    options += NO_DASHBOARD if command == "serve" else []
    server = Server([*command_line(), command, *options], log)
    server.wait_until(lambda: answers(port, "/readyz"))
    return server


def start_deliverer(log: Path, options: Sequence[str]) -> Server:
    """The deliver role alone, ready; ``options`` say on which database.  ``log``: there is none yet."""
    server = Server([*command_line(), "deliver", *options], log)
    server.wait_until(lambda: b"postbackd delivers" in log.read_bytes())
    return server


def count_on_postgres(postgres: Postgres) -> Stored:
    """Count the rows from outside."""
    statement = (
        "SELECT (SELECT count(*) FROM conversions), (SELECT count(*) FROM postbacks WHERE verdict = {}),"
        " (SELECT count(*) FROM postbacks), (SELECT count(*) FROM clicks)"
    )
    row = postgres.psql(statement.format(int(Verdict.ACCEPTED)))
    return Stored(*(int(number) for number in row.split("|")))


def command_line() -> list[str]:
    """The console script of this environment, so that its start is measured as users see it."""
    script = Path(sys.executable).with_name("postbackd")
    if not script.exists():
        raise NotRun("postbackd is not installed beside this Python (make run installs it)")
    return [str(script)]


def count_postbackd(database: Path) -> Stored:
    """Count the rows from outside, on a connection that cannot write."""
    db = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        db.set_busy_timeout(60_000)
        statement = (
            "SELECT (SELECT count(*) FROM conversions), (SELECT count(*) FROM postbacks WHERE verdict = ?),"
            " (SELECT count(*) FROM postbacks), (SELECT count(*) FROM clicks)"
        )
        row = db.execute(statement, (int(Verdict.ACCEPTED),)).fetchone()
        return Stored(*row) if row else Stored(0, 0, 0, 0)
    finally:
        db.close()


class _Peer:
    """The FastAPI service on one database."""

    def __init__(self, name: str, url: str, log: Path) -> None:
        self.name = name
        self.port = free_port()
        command = [
            str(PEER_PYTHON),
            "-m",
            "uvicorn",
            "fastapi_app:app",
            "--host",
            HOST,
            "--port",
            str(self.port),
        ]
        command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
        command += ["--backlog", "4096"]
        environment = {"DATABASE_URL": url, "PYTHONPATH": str(_PEERS)}
        self._server = Server(command, log, environment)
        self._server.wait_until(lambda: answers(self.port, "/readyz"))

    def stop(self) -> None:
        self._server.stop()


class FastapiSqlite(_Peer):
    """The peer on SQLite: WAL, ``synchronous=FULL``."""

    def __init__(self, directory: Path, clicks: Path) -> None:
        directory.mkdir()
        self._database = directory / "peer.db"
        url = f"sqlite:///{self._database}"
        _create_schema(url)
        with sqlite3.connect(self._database) as db, clicks.open(newline="") as rows:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("INSERT INTO networks (id, name, key) VALUES (1, 'network', ?)", (NETWORK_KEY,))
            db.executemany("INSERT INTO clicks VALUES (?, ?, ?, ?)", csv.reader(rows))
        db.close()
        super().__init__(PEER_SQLITE, url, directory / "peer.log")

    def stored(self) -> Stored:
        db = sqlite3.connect(self._database)
        try:
            return Stored(*db.execute(_COUNT_PEER).fetchone())
        finally:
            db.close()


class FastapiPostgres(_Peer):
    """The peer on PostgreSQL as Debian configures it."""

    def __init__(self, directory: Path, clicks: Path) -> None:
        self._postgres = Postgres(directory)
        try:
            _create_schema(self._postgres.url)
            self._postgres.psql(
                f"INSERT INTO networks (id, name, key) VALUES (1, 'network', '{NETWORK_KEY}')"
            )
            self._postgres.psql("COPY clicks FROM STDIN (FORMAT csv)", standard_input=clicks)
            self._postgres.psql("VACUUM ANALYZE")
            name = f"{PEER_POSTGRES} {self._postgres.version}"
            super().__init__(name, self._postgres.url, directory.parent / "peer.log")
        except BaseException:
            self._postgres.stop()
            raise

    def stored(self) -> Stored:
        return Stored(*(int(number) for number in self._postgres.psql(_COUNT_PEER).split("|")))

    def stop(self) -> None:
        super().stop()
        self._postgres.stop()


_COUNT_PEER = (
    "SELECT (SELECT count(*) FROM conversions), (SELECT count(*) FROM postbacks WHERE verdict = 'accepted'),"
    " (SELECT count(*) FROM postbacks), (SELECT count(*) FROM clicks)"
)


def _create_schema(url: str) -> None:
    if not PEER_PYTHON.exists():
        raise NotRun("the peer's environment is not there (make bench installs it)")
    result = subprocess.run(
        [str(PEER_PYTHON), str(_PEERS / "fastapi_app.py")],
        env={"DATABASE_URL": url, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise NotRun(f"the peer cannot make its tables: {result.stderr.strip().splitlines()[-1]}")


def write_peer_clicks(file: Path, seeded: Seeded) -> None:
    """The recent clicks of a seeded directory as the peer's rows: id, campaign, offer, milliseconds since 1970."""
    with file.open("w") as output:
        for number in range(seeded.recent.rows):
            click_id, ms = seeded.click_id(seeded.recent, number), seeded.recent.ms(number)
            output.write(f"{click_id},{number % CAMPAIGNS + 1},1,{ms}\n")


def runtime_distributions(requirements: Path) -> list[str]:
    """The distributions that the runtime lock names."""
    return re.findall(r"^([A-Za-z0-9._-]+)==", requirements.read_text(), re.MULTILINE)
