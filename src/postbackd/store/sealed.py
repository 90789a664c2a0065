"""What is stored sealed: every place of it once, so that a rotation of the key finds them all.

A column that is to hold sealed values is one row of ``PLACES``.  Some are sealed and opened by the command that knows
the secret (account values of targets); those ``in_store`` by the store itself, whose callers never see them sealed.
The latter are in clear in a database until ``seal_all`` has sealed them, once and for all.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import Any, NamedTuple

import msgspec

from postbackd.store.base import SealedValue, StoreRefused
from postbackd.store.database import Database, Seals, changing
from postbackd.store.failpoints import pass_failpoint

TARGET = "target"
"""Purposes: a value that was sealed for one is not opened for another."""
ENDPOINT_KEY = "endpoint key"
SIGNING_KEY = "signing key"
PRIVACY_KEY = "privacy key"
SENDER_SECRET = "signing secret"  # noqa: S105 - a purpose
CERTIFICATE = "certificate"
TOTP_SEED = "seed of codes"

_LONGEST_CLEAR = 64
"""Bytes of a key in clear; a sealed one is longer."""


class Shape(Enum):
    """What a column holds."""

    TEXT = auto()
    BYTES = auto()
    """Keys, as text when they are sealed; empty: forgotten."""
    NAMES = auto()
    """A JSON object, name -> sealed value."""
    SENDERS = auto()
    """``core.senders.Senders``: signing secrets, and former endpoint keys, which the store itself seals."""


class Place(NamedTuple):
    """One column."""

    table: str
    column: str
    purpose: str
    shape: Shape
    in_store: bool
    key: str = "id"
    owner: str = "name"
    """What it belongs to, in words for people."""
    where: str = ""
    on_server: bool = False
    """The embedded database has no such table."""

    def in_database(self, db: Database) -> Place:
        """The place, its table as this database calls it."""
        return self._replace(table=self.table.format(bytes_table=db.bytes_table))

    @property
    def select(self) -> str:
        """All values: what they belong to, its name and the value."""
        return f"SELECT {self.key}, {self.owner}, {self.column} FROM {self.table} {self.where}ORDER BY {self.key}"

    @property
    def update(self) -> str:
        """Replace one value."""
        return f"UPDATE {self.table} SET {self.column} = ? WHERE {self.key} = ?"


PLACES = (
    Place("targets", "secrets", TARGET, Shape.NAMES, in_store=False),
    Place("networks", "key", ENDPOINT_KEY, Shape.TEXT, in_store=True),
    Place("networks", "senders", SENDER_SECRET, Shape.SENDERS, in_store=False),
    Place("signing_keys", "secret", SIGNING_KEY, Shape.BYTES, in_store=True, owner="id"),
    Place(
        "{bytes_table}", "value", PRIVACY_KEY, Shape.BYTES, in_store=True, key="name",
        owner="''", where="WHERE name = 'privacy_key' ",
    ),
    Place(
        "certificate_documents", "sealed", CERTIFICATE, Shape.TEXT, in_store=False, key="name", on_server=True
    ),
    Place("users", "totp", TOTP_SEED, Shape.TEXT, in_store=False, where="WHERE totp <> '' "),
)  # fmt: skip
"""Every column that holds sealed values."""

MARKED = "SELECT 1 FROM settings WHERE name = 'sealed'"
"""Whether what the store seals itself is sealed in this database."""

MARK = "INSERT INTO settings (name, value) VALUES ('sealed', 1) ON CONFLICT DO NOTHING"
"""From now on it is."""


async def is_marked(db: Database) -> bool:
    """Whether keys are stored sealed in this database."""
    return bool(await db.rows(MARKED))


# --- one value ---------------------------------------------------------------------------------------------------


def is_sealed(text: str) -> bool:
    """Whether a text was sealed: no key in clear has a point in it."""
    return text[:1].isdigit() and text[1:2] == "."


def open_row(db: Database, table: str, row: dict[str, Any]) -> dict[str, Any]:
    """A row of the catalog with what the store has sealed in it opened."""
    for place in _in_store(table):
        if is_sealed(row[place.column]):
            row[place.column] = _need(db).open(row[place.column], place.purpose)
    for former in row.get("senders", {}).get("former_keys", ()):
        if is_sealed(former["key"]):
            former["key"] = _need(db).open(former["key"], ENDPOINT_KEY)
    return row


async def seal_row(db: Database, table: str, row: dict[str, Any]) -> dict[str, Any]:
    """A row of the catalog as it is stored, in the transaction that stores it."""
    _renew(db, table, row)
    places = list(_in_store(table))
    if places and await is_marked(db):
        row |= {place.column: _need(db).seal(row[place.column], place.purpose) for place in places}
        senders = msgspec.json.decode(row.get("senders", "{}"))
        if former_keys := senders.get("former_keys"):
            for former in former_keys:
                former["key"] = _need(db).seal(former["key"], ENDPOINT_KEY)
            row["senders"] = msgspec.json.encode(senders).decode()
    return row


def _renew(db: Database, table: str, row: dict[str, Any]) -> None:
    """Seal anew what a command sealed or read: the key may have been changed since, and the old one be gone soon.

    What does not open is kept as it is; the doctor names it.
    """
    for place in PLACES:
        if db.seals is None or place.table != table or place.in_store:
            continue
        content = msgspec.json.decode(row[place.column])
        sealed = (
            [(secret, "sealed") for secret in content.get("secrets", ())]
            if place.shape is Shape.SENDERS
            else [(content, name) for name in content]
        )
        for holder, name in sealed:
            with suppress(StoreRefused):
                holder[name] = db.seals.reseal(holder[name], place.purpose)
        row[place.column] = msgspec.json.encode(content).decode()


def open_bytes(db: Database, stored: bytes, purpose: str) -> bytes:
    """A key, however it is stored."""
    if len(stored) <= _LONGEST_CLEAR:
        return stored
    return base64.b64decode(_need(db).open(stored.decode("ascii"), purpose))


async def seal_bytes(db: Database, key: bytes, purpose: str) -> bytes:
    """A key as it is stored."""
    return _seal_bytes(_need(db), key, purpose) if await is_marked(db) else key


def _seal_bytes(seals: Seals, key: bytes, purpose: str) -> bytes:
    return seals.seal(base64.b64encode(key).decode(), purpose).encode()


def _in_store(table: str) -> Iterator[Place]:
    return (
        place for place in PLACES if place.table == table and place.in_store and place.shape is Shape.TEXT
    )


def _need(db: Database) -> Seals:
    if db.seals is None:
        raise StoreRefused(
            "the keys in the database are sealed, and this program was given no key to open them"
        )
    return db.seals


# --- all of them -------------------------------------------------------------------------------------------------


async def list_values(db: Database) -> tuple[SealedValue, ...]:
    """Every value that is sealed, or that would be."""
    found: list[SealedValue] = []
    async with db.reading():
        for place in _places(db):
            here = place.in_database(db)
            for _, owner, stored in await db.rows(here.select):
                found += _values(place, str(owner), stored)
    return tuple(found)


def _places(db: Database) -> Iterator[Place]:
    return (place for place in PLACES if db.on_server or not place.on_server)


def _values(place: Place, owner: str, stored: Any) -> Iterator[SealedValue]:
    if place.shape is Shape.SENDERS:
        yield from _values_of_senders(owner, msgspec.json.decode(stored))
        return
    if place.shape is Shape.NAMES:
        for name, text in msgspec.json.decode(stored, type=dict[str, str]).items():
            yield SealedValue(place.purpose, owner, name, text)
    elif place.shape is Shape.TEXT:
        yield SealedValue(place.purpose, owner, "", stored if is_sealed(stored) else None)
    elif stored:
        yield SealedValue(
            place.purpose, owner, "", bytes(stored).decode("ascii") if len(stored) > _LONGEST_CLEAR else None
        )


def _values_of_senders(owner: str, senders: Mapping[str, Any]) -> Iterator[SealedValue]:
    for secret in senders.get("secrets", ()):
        name = "the former one" if secret.get("until_ms") else ""
        yield SealedValue(SENDER_SECRET, owner, name, secret["sealed"])
    for former in senders.get("former_keys", ()):
        key = former["key"]
        yield SealedValue(ENDPOINT_KEY, owner, "the former one", key if is_sealed(key) else None)


async def seal_all(db: Database) -> int:
    """Seal every value with the newest key, also what was in clear, in one transaction; returns how many."""
    seals = _need(db)
    seals.begin()
    count = 0
    async with changing(db):
        for place in _places(db):
            here = place.in_database(db)
            for key, _, stored in await db.rows(here.select):
                new, number = _seal_anew(seals, place, stored)
                if number:
                    await db.rows(here.update, new, key)
                count += number
            pass_failpoint("mid_sealing")
        await db.rows(MARK)
    return count


def _seal_anew(seals: Seals, place: Place, stored: Any) -> tuple[Any, int]:
    """What to store instead, and how many values are in it."""
    purpose = place.purpose
    if place.shape is Shape.NAMES:
        names: Mapping[str, str] = msgspec.json.decode(stored, type=dict[str, str])
        new = {name: seals.reseal(text, purpose) for name, text in names.items()}
        return msgspec.json.encode(new).decode(), len(new)
    if place.shape is Shape.SENDERS:
        return _seal_senders_anew(seals, stored)
    if place.shape is Shape.TEXT:
        return _seal_text_anew(seals, stored, purpose), 1
    if not stored:
        return stored, 0
    if len(stored) > _LONGEST_CLEAR:
        return seals.reseal(bytes(stored).decode("ascii"), purpose).encode(), 1
    return _seal_bytes(seals, bytes(stored), purpose), 1


def _seal_text_anew(seals: Seals, stored: str, purpose: str) -> str:
    return (seals.reseal if is_sealed(stored) else seals.seal)(stored, purpose)


def _seal_senders_anew(seals: Seals, stored: str) -> tuple[str, int]:
    senders = msgspec.json.decode(stored)
    secrets, former_keys = senders.get("secrets", ()), senders.get("former_keys", ())
    for secret in secrets:
        secret["sealed"] = seals.reseal(secret["sealed"], SENDER_SECRET)
    for former in former_keys:
        former["key"] = _seal_text_anew(seals, former["key"], ENDPOINT_KEY)
    return msgspec.json.encode(senders).decode(), len(secrets) + len(former_keys)


def places_of(table: str) -> Sequence[str]:
    """The columns of a table that hold sealed values."""
    return [place.column for place in PLACES if place.table == table]
