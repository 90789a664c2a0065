"""Real pgbouncer between a node and PostgreSQL, handing sessions out by the transaction."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.trust.postgres import NAME, USER, Database
from tests.trust.registry import need_tools
from tests.trust.server import wait_until

_PORT = 6432

_CONFIG = """
[databases]
{name} = host={server} port={port} dbname={name} user={user}

[pgbouncer]
listen_port = {listen_port}
unix_socket_dir = {directory}
auth_type = any
pool_mode = transaction
{more}
"""

_SETTINGS = "SELECT name FROM pg_settings WHERE context IN ('user', 'superuser') ORDER BY 1"


@contextmanager
def pgbouncer(database: Database, *, tolerant: bool) -> Iterator[str]:
    """The address of a database behind the pooler.

    ``tolerant``: it swallows settings of a session that it cannot keep, as its administrator may have told it; else it
    refuses whoever asks for them.
    """
    need_tools("pgbouncer")
    program = str(shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin"))
    directory = Path(tempfile.mkdtemp(prefix="pb-pool-", dir="/tmp"))
    settings = [name for (name,) in database.rows(_SETTINGS)]
    config = directory / "pgbouncer.ini"
    config.write_text(
        _CONFIG.format(
            name=NAME,
            user=USER,
            server=database.server.directory,
            port=database.server.port,
            listen_port=_PORT,
            directory=directory,
            more=f"ignore_startup_parameters = {', '.join(settings)}" if tolerant else "",
        )
    )
    owner: dict[str, Any] = database.server.as_owner()
    if owner:
        os.chown(directory, owner["user"], owner["group"])
    with (directory / "log").open("wb") as output:
        process = subprocess.Popen(
            [program, str(config)], cwd=directory, stdout=output, stderr=subprocess.STDOUT, **owner
        )
    socket = directory / f".s.PGSQL.{_PORT}"
    try:
        wait_until(lambda: process.poll() is not None or socket.exists(), 30, "the start of pgbouncer")
        if process.poll() is not None:
            raise RuntimeError(f"pgbouncer ended: {(directory / 'log').read_text()[-500:]}")
        yield f"postgresql://{USER}@/{NAME}?host={quote(str(directory), safe='')}&port={_PORT}"
    finally:
        process.kill()
        process.wait(timeout=20)
        shutil.rmtree(directory, ignore_errors=True)
