"""A PostgreSQL server that takes nothing but TLS and a password: which address gets in, what is said of the rest."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pytest

from postbackd.store.base import StoreNotReached, StoreRefused
from postbackd.store.postgres import PostgresStore
from tests.deploy.tools import make_certificate
from tests.postgres_server import VERSIONS, PostgresServer, find_programs
from tests.trust.server import free_port

pytestmark = pytest.mark.skipif(not VERSIONS, reason="no PostgreSQL 15 or newer was found")

PASSWORD = "ge:heim/?"


class Guarded(NamedTuple):
    """A server, and what it takes to get in."""

    port: int
    certificate: Path
    other: Path
    """A certificate of somebody else."""
    password: Path

    def address(self, host: str = "localhost", **options: Path | str) -> str:
        chosen = {
            "sslmode": "verify-full",
            "sslrootcert": self.certificate,
            "passfile": self.password,
            **options,
        }
        return f"postgresql://track@{host}:{self.port}/postgres?" + "&".join(
            f"{k}={v}" for k, v in chosen.items()
        )


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder, port = tmp_path_factory.mktemp("tls"), free_port()
    (folder / "other").mkdir()
    certificate, key = make_certificate(folder, ["localhost"])
    other, _ = make_certificate(folder / "other", ["localhost"])
    running = PostgresServer(
        find_programs()[VERSIONS[0]], {"listen_addresses": "127.0.0.1", "port": str(port)}
    )
    running.port = port
    for path, name in ((certificate, "server.crt"), (key, "server.key")):
        shutil.copy(path, running.cluster / name)
        owner = running.cluster.stat()
        os.chown(running.cluster / name, owner.st_uid, owner.st_gid)
        (running.cluster / name).chmod(0o600)
    (running.cluster / "pg_hba.conf").write_text(
        "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
    )
    for statement in (
        f"CREATE ROLE track LOGIN PASSWORD '{PASSWORD}'",
        "ALTER SYSTEM SET ssl = on",
        "SELECT pg_reload_conf()",
    ):
        asyncio.run(_execute(running, statement))
    password = folder / "pgpass"
    password.write_text(
        f"localhost:{port}:postgres:track:{PASSWORD}\n127.0.0.1:{port}:postgres:track:{PASSWORD}\n"
    )
    password.chmod(0o600)
    yield Guarded(port, certificate, other, password)
    running.remove()


async def _execute(running: PostgresServer, statement: str) -> None:
    db = await asyncpg.connect(f"{running.address('postgres')}&port={running.port}")
    await db.execute(statement)
    await db.close()


def said(address: str) -> str:
    """What an empty database says to who gets in, else why nobody does."""
    with pytest.raises(StoreRefused) as refused:
        asyncio.run(PostgresStore.open(address, create=False))
    assert not isinstance(refused.value, StoreNotReached), "a node would wait for it for ever"
    assert "ge:heim" not in str(refused.value)
    return str(refused.value)


def test_who_checks_the_certificate_and_brings_the_password_gets_in(guarded: Guarded) -> None:
    for address in (
        guarded.address(),
        guarded.address("127.0.0.1", sslmode="verify-ca"),
        guarded.address("127.0.0.1", sslmode="require", sslrootcert=guarded.certificate),
    ):
        assert "the database is empty" in said(address)


@pytest.mark.parametrize(
    ("host", "options", "words"),
    [
        ("127.0.0.1", {}, "is not to be trusted (IP address mismatch"),
        ("localhost", {"sslmode": "disable"}, "no pg_hba.conf entry"),
        (
            "localhost",
            {"sslmode": "bogus"},
            "must be one of: disable, allow, prefer, require, verify-ca, verify-full",
        ),
        ("localhost", {"sslrootcert": "/nowhere.crt"}, "cannot read /nowhere.crt"),
        ("localhost", {"passfile": "/nowhere"}, "which --store names as passfile"),
    ],
)
def test_an_address_that_does_not_get_in_says_what_to_mend(
    guarded: Guarded, host: str, options: dict[str, str], words: str
) -> None:
    assert words in said(guarded.address(host, **options))


def test_a_server_with_the_certificate_of_somebody_else_is_refused_and_not_waited_for(
    guarded: Guarded,
) -> None:
    line = said(guarded.address(sslrootcert=guarded.other))
    assert "is not to be trusted" in line
    assert "sslrootcert" in line


def test_a_password_file_that_others_can_read_is_refused_with_the_command_that_mends_it(
    guarded: Guarded, tmp_path: Path
) -> None:
    open_to_all = tmp_path / "pgpass"
    shutil.copy(guarded.password, open_to_all)
    open_to_all.chmod(0o644)
    assert f"chmod 600 {open_to_all}" in said(guarded.address(passfile=open_to_all))


def test_a_port_that_is_none_is_a_sentence_too() -> None:
    assert "postgresql://user@host:port/database" in said("postgresql://track:x@127.0.0.1:99999/track")
