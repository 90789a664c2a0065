"""A server of its own: which address gets in where it wants TLS and a password, and which server is refused."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pytest

from postbackd.store import postgres_connection
from postbackd.store.base import StoreNotReached, StoreRefused
from postbackd.store.postgres import PostgresStore
from tests.deploy.tools import make_certificate
from tests.postgres_server import VERSIONS, PostgresServer, find_programs
from tests.trust.server import free_port, wait_until

pytestmark = pytest.mark.skipif(not VERSIONS, reason="no PostgreSQL 15 or newer was found")

PASSWORD = "ge:heim/?"


class Guarded(NamedTuple):
    """A server, and what it takes to get in."""

    port: int
    certificate: Path
    other: Path
    """A certificate of somebody else."""
    password: Path
    server: PostgresServer

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
    yield Guarded(port, certificate, other, password, running)
    running.remove()


async def _execute(running: PostgresServer, statement: str) -> str:
    db = await asyncpg.connect(f"{running.address('postgres')}&port={running.port}")
    try:
        return str(await db.fetchval(statement))
    finally:
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


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_can_lose_what_it_acknowledged_is_refused_until_it_is_mended(
    guarded: Guarded, setting: str
) -> None:
    def change(statement: str, wanted: str) -> None:
        for one in (statement, "SELECT pg_reload_conf()"):
            asyncio.run(_execute(guarded.server, one))
        wait_until(lambda: asyncio.run(_execute(guarded.server, f"SHOW {setting}")) == wanted, 20, setting)

    change(f"ALTER SYSTEM SET {setting} = off", "off")
    assert f"the server runs with {setting}=off, which loses what was acknowledged; switch it on" in said(
        guarded.address()
    )
    change(f"ALTER SYSTEM RESET {setting}", "on")
    assert "the database is empty" in said(guarded.address())


def test_a_server_of_a_version_that_is_too_old_is_refused(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_connection, "OLDEST_SERVER", 990_000)
    assert "is too old; use version 15 or newer" in said(guarded.address())
