"""The contract of the shelf, on files and on every PostgreSQL server that is there."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from postbackd.sealing import Sealer, SealError
from postbackd.store import postgres_shelf
from postbackd.store.base import StoreUnavailable
from postbackd.store.postgres import PostgresStore
from postbackd.store.postgres_shelf import PostgresShelf
from postbackd.store.shelf import FileShelf, NotHeld, Shelf
from tests.postgres_server import VERSIONS, new_database

Make = Callable[[], Shelf]
KEY = bytes(range(32))


class Seal:
    """What ``https`` gives to the shelf, with a key of its own."""

    def __init__(self, key: bytes = KEY) -> None:
        self._sealer = Sealer(key)

    def seal(self, secret: str) -> str:
        return self._sealer.seal(secret)

    def open(self, sealed: str) -> str:
        try:
            return self._sealer.open(sealed)
        except SealError as error:
            raise ValueError(str(error)) from error


def new_tables() -> str:
    address = new_database(max(VERSIONS))

    async def make() -> None:
        store = await PostgresStore.open(address, create=True)
        await store.close()

    asyncio.run(make())
    return address


@pytest.fixture(params=["files", "postgres"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    if request.param == "files":
        yield lambda: FileShelf(tmp_path / "tls")
        return
    if not VERSIONS:
        pytest.skip("no PostgreSQL 15 or newer was found (apt install postgresql)")
    address = new_tables()
    yield lambda: PostgresShelf(address, Seal())


def run(make: Make, work: Callable[[Shelf, Shelf], Awaitable[None]]) -> None:
    """Do the work with two shelves on one place, as two nodes have them."""

    async def both() -> None:
        one, two = make(), make()
        try:
            await work(one, two)
        finally:
            await one.close()
            await two.close()

    asyncio.run(both())


def test_what_the_holder_saves_everybody_loads(make: Make) -> None:
    async def work(one: Shelf, two: Shelf) -> None:
        assert await two.load("order.json") is None
        assert await one.hold()
        await one.save("order.json", b'{"a":1}')
        await one.save("order.json", b'{"a":2}')
        assert await two.load("order.json") == b'{"a":2}'
        await one.remove("order.json")
        await one.remove("order.json")
        assert await two.load("order.json") is None

    run(make, work)


def test_one_holds_it_at_a_time_and_only_the_holder_changes_anything(make: Make) -> None:
    async def work(one: Shelf, two: Shelf) -> None:
        assert await one.hold()
        assert await one.hold()
        assert not await two.hold()
        for change in (two.save("order.json", b"x"), two.remove("order.json")):
            with pytest.raises(NotHeld):
                await change
        await one.let_go()
        with pytest.raises(NotHeld):
            await one.save("order.json", b"x")
        assert await two.hold()

    run(make, work)


def test_a_name_that_would_lead_elsewhere_is_refused(make: Make) -> None:
    async def work(one: Shelf, two: Shelf) -> None:
        await one.hold()
        for name in ("../x.json", "a/b.json", "x", "X.json", ""):
            with pytest.raises(ValueError, match="no name"):
                await one.save(name, b"x")

    run(make, work)


def test_many_who_want_to_hold_it_are_given_it_one_at_a_time(make: Make) -> None:
    async def work(one: Shelf, two: Shelf) -> None:
        shelves = [make() for _ in range(8)]
        held = await asyncio.gather(*(shelf.hold() for shelf in shelves))
        assert sum(held) == 1
        for shelf in shelves:
            await shelf.close()

    run(make, work)


# --- files --------------------------------------------------------------------------------------------------------


def test_files_are_read_by_their_owner_only_whatever_the_umask_is(tmp_path: Path) -> None:
    async def work() -> None:
        shelf = FileShelf(tmp_path / "tls")
        await shelf.hold()
        await shelf.save("certificate.pem", b"key")
        await shelf.close()

    before = os.umask(0)
    try:
        asyncio.run(work())
    finally:
        os.umask(before)
    assert (tmp_path / "tls" / "certificate.pem").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("point", "left"), [("before", b"old"), ("after", b"new")])
def test_a_document_is_old_or_new_when_its_writer_is_killed(tmp_path: Path, point: str, left: bytes) -> None:
    code = (
        "import asyncio, sys; from pathlib import Path; from postbackd.store.shelf import FileShelf\n"
        "async def main():\n"
        "    shelf = FileShelf(Path(sys.argv[1])); await shelf.hold()\n"
        "    await shelf.save('order.json', b'old'); await shelf.save('order.json', b'new')\n"
        "asyncio.run(main())"
    )
    directory = tmp_path / "tls"
    environment = {**os.environ, "POSTBACKD_FAILPOINT": f"shelf_{point}_order.json:2"}
    done = subprocess.run([sys.executable, "-c", code, directory], env=environment)
    assert done.returncode == -signal.SIGKILL
    assert (directory / "order.json").read_bytes() == left
    assert asyncio.run(FileShelf(directory).hold())  # its lock went with it


def test_a_place_that_cannot_be_written_is_the_stores_own_error(tmp_path: Path) -> None:
    (tmp_path / "tls").write_text("a file")
    with pytest.raises(StoreUnavailable, match="cannot use"):
        asyncio.run(FileShelf(tmp_path / "tls").hold())


# --- PostgreSQL -----------------------------------------------------------------------------------------------------


@pytest.fixture
def address() -> str:
    if not VERSIONS:
        pytest.skip("no PostgreSQL 15 or newer was found (apt install postgresql)")
    return new_tables()


def test_what_is_in_the_database_is_sealed(address: str) -> None:
    async def work() -> None:
        import asyncpg

        shelf, other = PostgresShelf(address, Seal()), PostgresShelf(address, Seal(bytes(32)))
        await shelf.hold()
        await shelf.save("certificate.pem", b"-----BEGIN PRIVATE KEY-----")
        db = await asyncpg.connect(address)
        (sealed,) = [row[0] for row in await db.fetch("SELECT sealed FROM certificate_documents")]
        await db.close()
        assert "PRIVATE" not in sealed
        with pytest.raises(StoreUnavailable, match="the same POSTBACKD_SECRET_KEY"):
            await other.load("certificate.pem")
        for each in (shelf, other):
            await each.close()

    asyncio.run(work())


def test_a_holder_whose_lease_is_over_changes_nothing_any_more(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_shelf, "LEASE_S", -1)

    async def work() -> None:
        one, two = PostgresShelf(address, Seal()), PostgresShelf(address, Seal())
        assert await one.hold()
        monkeypatch.setattr(postgres_shelf, "LEASE_S", 60)
        assert await two.hold()
        with pytest.raises(NotHeld):
            await one.save("order.json", b"x")
        assert not await one.hold()
        await two.save("order.json", b"y")
        assert await one.load("order.json") == b"y"
        for each in (one, two):
            await each.close()

    asyncio.run(work())


def test_a_database_that_is_away_is_the_stores_own_error() -> None:
    shelf = PostgresShelf("postgresql://nobody@127.0.0.1:1/nothing", Seal())
    with pytest.raises(StoreUnavailable):
        asyncio.run(shelf.load("order.json"))
