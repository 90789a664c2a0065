"""A private PostgreSQL with Debian's default settings, on a socket of its own: for postbackd and for the peer."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections.abc import Set
from pathlib import Path
from urllib.parse import quote

from bench.machine import SERVER_CORE, NotRun, Server, require

DATABASE = "bench"


class Postgres:
    """A cluster in a directory; all its processes run on one core, the server's if no other is named.

    Nothing is tuned: ``fsync`` and ``synchronous_commit`` stay on, as the package has them.
    """

    def __init__(self, directory: Path, core: int = SERVER_CORE) -> None:
        self._programs = _find_programs()
        self._user = _other_user()
        self._directory = directory
        directory.mkdir(mode=0o700)
        if self._user is not None:
            owner = pwd.getpwnam(self._user)
            os.chown(directory, owner.pw_uid, owner.pw_gid)
        self._run("initdb", "--auth", "trust", "--username", "bench", "--pgdata", str(directory / "cluster"))
        command = [str(self._programs / "postgres"), "-D", str(directory / "cluster"), "-k", str(directory)]
        # Interrupt is PostgreSQL's fast shutdown; on terminate it would wait for its clients.
        self._server = Server(
            [*command, "-c", "listen_addresses="],
            directory.parent / "postgres.log",
            user=self._user,
            stop_signal=signal.SIGINT,
            core=core,
        )
        self._server.wait_until((directory / ".s.PGSQL.5432").exists)
        self._server.wait_until(self._is_ready)
        self.psql("CREATE DATABASE " + DATABASE, database="postgres")

    @property
    def url(self) -> str:
        """For SQLAlchemy, with psycopg."""
        return f"postgresql+psycopg://bench@/{DATABASE}?host={self._directory}"

    @property
    def address(self) -> str:
        """For ``postbackd --store``."""
        return f"postgresql://bench@/{DATABASE}?host={quote(str(self._directory), safe='')}"

    @property
    def version(self) -> str:
        return self.psql("SHOW server_version").split()[0]

    def psql(self, statement: str, database: str = DATABASE, standard_input: Path | None = None) -> str:
        """Run one statement; returns what it printed."""
        command = [
            "psql",
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--host",
            str(self._directory),
        ]
        command += ["--username", "bench", "--set", "ON_ERROR_STOP=1", "--command", statement, database]
        with (standard_input or Path(os.devnull)).open("rb") as stdin:
            result = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False)
        if result.returncode:
            raise NotRun(f"PostgreSQL refused: {result.stderr.strip()}")
        return result.stdout.strip()

    def number(self, statement: str) -> int:
        """The whole number that one statement returns."""
        return int(self.psql(statement))

    def settle(self) -> None:
        """Do now what would otherwise be done during a measurement."""
        self.psql("VACUUM ANALYZE")
        self.psql("CHECKPOINT")

    def run_on(self, cores: Set[int]) -> None:
        """From now on all its processes run on these cores."""
        self._server.run_on(cores)

    def cpu_s(self) -> float:
        """Processor time of all its processes, in seconds."""
        return self._server.cpu_s()

    def stop(self) -> None:
        self._server.stop()

    def _is_ready(self) -> bool:
        command = [str(self._programs / "pg_isready"), "--quiet", "--host", str(self._directory)]
        return subprocess.run(command, check=False).returncode == 0

    def _run(self, program: str, *arguments: str) -> None:
        result = subprocess.run(
            [str(self._programs / program), *arguments],
            user=self._user,
            group=self._user,
            extra_groups=None if self._user is None else [],
            cwd=self._directory,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise NotRun(f"{program} failed: {result.stderr.strip()}")


def _find_programs() -> Path:
    """Debian keeps the server's programs out of the path; the newest version is taken."""
    require("psql", "postgresql")
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    return versions[-1].parent if versions else Path(require("initdb", "postgresql")).parent


def _other_user() -> str | None:
    """PostgreSQL refuses to run as root: then the user that its package made."""
    return "postgres" if os.geteuid() == 0 else None
