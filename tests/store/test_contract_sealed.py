"""What every store promises of the keys in it: sealed where it has the key, and nobody but the database can tell."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from msgspec.structs import replace

from postbackd.core.model import Network, Target
from postbackd.core.senders import FormerKey, Secret, Senders
from postbackd.sealing import KEY_NAME, KeptSealer, SealError, make_key, read_key_file, replace_key_file
from postbackd.store.base import CatalogConflict, Store, StoreRefused
from postbackd.store.postgres import PostgresStore
from postbackd.store.sealed import SENDER_SECRET
from postbackd.store.sqlite import SqliteStore
from tests.postgres_server import VERSIONS, emptied_database

T = TypeVar("T")
Open = Callable[[KeptSealer | None], Store]

STORES = ["sqlite", *(f"postgres{version}" for version in VERSIONS)]


class Box:
    """A database that is opened with one key or another, and the file of a key."""

    def __init__(self, store: str, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self._version = int(store.removeprefix("postgres")) if store != "sqlite" else 0
        self._address = emptied_database(self._version) if self._version else ""
        self._loop = asyncio.new_event_loop()
        self._stores: list[Store] = []

    def run(self, verb: Awaitable[T]) -> T:
        return self._loop.run_until_complete(verb)

    def sealer(self, *, new: bool = True, old: bool = True) -> KeptSealer:
        return KeptSealer(None, self.directory, seals_new=new, seals_old=old)

    def open(self, sealer: KeptSealer | None) -> Store:
        store: Store
        if self._version:
            store = self.run(PostgresStore.open(self._address, create=True, write_timeout_s=10, seals=sealer))
        else:
            store = self.run(SqliteStore.open(self.directory, create=True, seals=sealer))
        self._stores.append(store)
        return store

    def stored(self, store: Store) -> list[bytes]:
        """Endpoint keys, and the keys of the database, as they lie in it."""
        table = "secrets" if self._version else "settings"
        questions = (
            "SELECT key FROM networks",
            "SELECT secret FROM signing_keys ORDER BY id",
            f"SELECT value FROM {table} WHERE name = 'privacy_key'",
        )
        return [self._bytes(row) for question in questions for row in self._ask(store, question)]

    def stored_senders(self, store: Store) -> list[str]:
        """Who may send, as it lies in the database."""
        return [str(value) for value in self._ask(store, "SELECT senders FROM networks")]

    def _ask(self, store: Any, sql: str) -> list[Any]:
        if self._version:
            return [row[0] for row in self.run(self.run(store.connection()).fetch(sql))]
        return [row[0] for row in store.connection.execute(sql)]

    def _bytes(self, value: Any) -> bytes:
        return value.encode() if isinstance(value, str) else bytes(value)

    def close(self) -> None:
        for store in self._stores:
            self.run(store.close())
        self._loop.close()


@pytest.fixture(params=STORES)
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Box]:
    made = Box(request.param, tmp_path / "data")
    yield made
    made.close()


def network(name: str, key: str) -> Network:
    return Network(id=0, name=name, key=key)


def test_a_new_database_is_sealed_from_its_beginning_and_reads_as_if_it_were_not(box: Box) -> None:
    store = box.open(box.sealer())
    saved = box.run(store.save(network("N", "k" * 26)))
    assert isinstance(saved, Network)
    assert saved.key == "k" * 26
    catalog = box.run(store.load_catalog())
    assert [one.key for one in catalog.networks] == ["k" * 26]
    assert [len(key.secret) for key in catalog.signing_keys] == [32]
    assert len(catalog.privacy_key) == 32
    stored = box.stored(store)
    assert [value[:2] for value in stored] == [b"3.", b"2.", b"2."]
    for secret in (b"k" * 26, catalog.signing_keys[0].secret, catalog.privacy_key):
        assert not any(secret in value or base64.b64encode(secret) in value for value in stored)
    box.run(store.save(Network(id=saved.id, name="Other", key=saved.key)))
    assert box.run(box.open(box.sealer()).load_catalog()).networks[0] == Network(
        id=saved.id, name="Other", key="k" * 26
    )


def test_an_endpoint_key_stays_unique_although_it_is_sealed(box: Box) -> None:
    store = box.open(box.sealer())
    box.run(store.save(network("N", "k" * 26)))
    with pytest.raises(CatalogConflict, match="endpoint key belongs to another network"):
        box.run(store.save(network("M", "k" * 26)))


def test_a_signing_key_that_is_added_is_sealed_and_one_that_is_retired_is_forgotten(box: Box) -> None:
    store = box.open(box.sealer())
    for number in (1, 2):
        keys = box.run(
            store.rotate_signing_key(
                bytes([number]) * 32, now_ms=number * 10, active_from_ms=number * 10, keep=2
            )
        )
    assert [key.secret for key in keys] == [b"", bytes([1]) * 32, bytes([2]) * 32]
    assert [value[:2] for value in box.stored(store)] == [b"", b"2.", b"2.", b"2."]
    assert [value.owner for value in box.run(store.list_sealed()) if value.purpose == "signing key"] == [
        "2",
        "3",
    ]


def test_a_database_that_was_in_clear_is_sealed_when_nobody_else_uses_it_and_otherwise_when_it_is_asked_for(
    box: Box,
) -> None:
    store = box.open(None)
    box.run(store.save(network("N", "k" * 26)))
    before = box.run(store.load_catalog())
    shared = box.open(box.sealer(old=False))
    assert {value.sealed for value in box.run(shared.list_sealed())} == {None}
    assert not (box.directory / KEY_NAME).exists()
    assert box.run(shared.seal_all()) == 3
    assert all(value.sealed for value in box.run(shared.list_sealed()))
    after = box.run(shared.load_catalog())
    assert after.generation > before.generation
    assert (after.networks, after.signing_keys, after.privacy_key) == (
        before.networks, before.signing_keys, before.privacy_key,
    )  # fmt: skip


def test_an_old_database_is_sealed_when_it_is_opened(box: Box) -> None:
    store = box.open(None)
    box.run(store.save(network("N", "k" * 26)))
    before = box.run(store.load_catalog())
    opened = box.open(box.sealer())
    assert all(value.sealed for value in box.run(opened.list_sealed()))
    assert box.run(opened.load_catalog()).privacy_key == before.privacy_key


def test_without_a_key_a_sealed_database_is_refused_with_the_next_step(box: Box, tmp_path: Path) -> None:
    store = box.open(box.sealer())
    box.run(store.save(network("N", "k" * 26)))
    with pytest.raises(StoreRefused, match="was given no key"):
        box.run(box.open(None).load_catalog())
    elsewhere = KeptSealer(None, tmp_path / "elsewhere", seals_new=True, seals_old=True)
    keyless = box.open(elsewhere)
    with pytest.raises(SealError, match="there is no"):
        box.run(keyless.load_catalog())
    with pytest.raises(SealError, match="there is no"):
        box.run(keyless.save(network("M", "m" * 26)))
    assert not (tmp_path / "elsewhere").exists()
    assert len(box.run(store.load_catalog()).networks) == 1


def test_every_secret_is_sealed_anew_with_the_newest_key(box: Box) -> None:
    sealer = box.sealer()
    store = box.open(sealer)
    box.run(store.save(network("N", "k" * 26)))
    target = box.run(
        store.save(Target(id=0, name="T", secrets={"A": sealer.seal("a"), "B": sealer.seal("b")}))
    )
    assert isinstance(target, Target)
    gone = box.run(store.save(Target(id=0, name="Gone", secrets={"C": sealer.seal("c")})))
    box.run(store.change_catalog([], [gone], 1))
    new = make_key()
    replace_key_file(box.directory / KEY_NAME, [new, *read_key_file(box.directory / KEY_NAME, create=False)])
    assert box.run(store.seal_all()) == 6
    replace_key_file(box.directory / KEY_NAME, [new])
    fresh = box.sealer()
    values = {(one.purpose, one.owner, one.name): one.sealed or "" for one in box.run(store.list_sealed())}
    assert {key for key in values if key[0] == "target"} == {
        ("target", "T", "A"), ("target", "T", "B"), ("target", "Gone", "C"),
    }  # fmt: skip
    assert fresh.open(values["target", "T", "B"]) == "b"
    assert fresh.open(values["target", "Gone", "C"]) == "c"
    assert fresh.open(values["endpoint key", "N", ""], "endpoint key") == "k" * 26
    assert box.run(box.open(fresh).load_catalog()).networks[0].key == "k" * 26


def test_what_a_network_is_told_apart_by_is_sealed_too_and_changes_its_key_with_the_rest(box: Box) -> None:
    sealer = box.sealer()
    store = box.open(sealer)
    senders = Senders(
        former_keys=(FormerKey("f" * 26, 1_900_000_000_000),),
        secrets=(Secret(sealer.seal("new", SENDER_SECRET)), Secret(sealer.seal("old", SENDER_SECRET), 1)),
    )
    box.run(store.save(replace(network("N", "k" * 26), senders=senders)))
    (kept,) = box.stored_senders(store)
    assert "f" * 26 not in kept
    assert box.run(store.load_catalog()).networks[0].senders == senders
    new = make_key()
    replace_key_file(box.directory / KEY_NAME, [new, *read_key_file(box.directory / KEY_NAME, create=False)])
    assert box.run(store.seal_all()) == 6
    replace_key_file(box.directory / KEY_NAME, [new])
    fresh = box.sealer()
    (found,) = box.run(box.open(fresh).load_catalog()).networks
    assert found.senders.former_keys == senders.former_keys
    assert [fresh.open(secret.sealed, SENDER_SECRET) for secret in found.senders.secrets] == ["new", "old"]
    assert {one.purpose for one in box.run(store.list_sealed()) if one.sealed is None} == set()


def test_what_does_not_open_leaves_everything_as_it_was(box: Box) -> None:
    sealer = box.sealer()
    store = box.open(sealer)
    box.run(store.save(network("N", "k" * 26)))
    box.run(store.save(Target(id=0, name="T", secrets={"A": "2.AAAA"})))
    before = box.run(store.list_sealed())
    with pytest.raises(SealError, match="another key"):
        box.run(store.seal_all())
    assert box.run(store.list_sealed()) == before
