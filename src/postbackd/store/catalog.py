"""The catalog half of the SQLite store: plain functions over one open connection.

Rules of this file: every change is one ``BEGIN IMMEDIATE`` transaction that also raises the catalog generation,
so that a running server sees either none or all of it.  Rows are never deleted: a removed entry keeps its row,
its id and (a campaign) its slug, because reports still name it and old links must not lead somewhere else.
A violated constraint is recognised by what the schema calls it and becomes a ``CatalogConflict`` that says what to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from secrets import token_bytes
from typing import Any, NamedTuple, TypeVar

import apsw
import msgspec

from postbackd.core.model import (
    Campaign,
    Catalog,
    CatalogEntry,
    Network,
    Offer,
    SigningKey,
    Source,
    WeightedOffer,
)
from postbackd.store.base import CatalogConflict

E = TypeVar("E", bound=CatalogEntry)

GENERATION = "SELECT value FROM settings WHERE name = 'catalog_generation'"
"""How often the catalog has changed."""

RAISE_GENERATION = """
INSERT INTO settings (name, value) VALUES ('catalog_generation', 1)
ON CONFLICT (name) DO UPDATE SET value = value + 1
"""
"""Tell every reader that the catalog has changed."""

PRIVACY_KEY = "SELECT value FROM settings WHERE name = 'privacy_key'"
"""The key under which personal data is hashed."""

KEEP_FIRST_PRIVACY_KEY = "INSERT INTO settings (name, value) VALUES ('privacy_key', ?) ON CONFLICT DO NOTHING"
"""Store the privacy key of a new database; one that is there stays."""

SIGNING_KEYS = "SELECT id, secret, active_from_ms, retired FROM signing_keys ORDER BY active_from_ms, id"
"""All signing keys, oldest first."""

ADD_FIRST_SIGNING_KEY = """
INSERT INTO signing_keys (secret, active_from_ms, retired)
SELECT ?, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM signing_keys)
"""
"""Store the signing key of a new database, active from the beginning of time; one that is there stays."""

ADD_SIGNING_KEY = "INSERT INTO signing_keys (secret, active_from_ms, retired) VALUES (?, ?, 0)"
"""Store a newer signing key."""

RETIRE_SIGNING_KEYS = """
UPDATE signing_keys SET retired = 1, secret = x''
WHERE retired = 0 AND id NOT IN (SELECT id FROM signing_keys ORDER BY active_from_ms DESC, id DESC LIMIT ?)
"""
"""Retire all but the newest keys and forget their secrets: ids signed by them verify no longer."""

OFFERS_OF_NETWORK = "SELECT name FROM offers WHERE network = ? AND removed_ms IS NULL ORDER BY name"
"""Names of the offers that refer to a network."""

CAMPAIGNS_OF_SOURCE = "SELECT name FROM campaigns WHERE source = ? AND removed_ms IS NULL ORDER BY name"
"""Names of the campaigns that refer to a source."""

CAMPAIGNS_OF_OFFER = """
SELECT name FROM campaigns
WHERE removed_ms IS NULL AND EXISTS (SELECT 1 FROM json_each(offers) WHERE json_extract(value, '$[0]') = ?)
ORDER BY name
"""
"""Names of the campaigns that refer to an offer."""

SLUG_HOLDER = "SELECT name, removed_ms FROM campaigns WHERE slug = ?"
"""The campaign, live or removed, that has a slug."""

CONFLICTS: Mapping[str, str] = {
    "networks.name": "a network of this name exists already; choose another name or change it with `network set`",
    "networks.key": "this endpoint key belongs to another network, or to one that was removed; choose another",
    "sources.name": "a source of this name exists already; choose another name or change it with `source set`",
    "offers.name": "an offer of this name exists already; choose another name or change it with `offer set`",
    "campaigns.name": "a campaign of this name exists already; choose another name or change it with `campaign set`",
    "campaigns.slug": "this slug belongs to another campaign, or to one that was removed; choose another with --slug",
    "campaign_fits_click_id": "16,777,215 campaigns were created, more than a click id can name; start a new database",
    "network_dedup_known": "dedup must be ignore, update, add or hold",
    "network_answer_known": "answer must be json, ok or 204",
}
"""What SQLite calls a violated constraint (columns of a unique key, name of a check) -> what to tell the user."""


class _Table(NamedTuple):
    name: str
    columns: tuple[str, ...]

    @property
    def select(self) -> str:
        """All entries, oldest first; the parameter says whether removed ones too."""
        return (
            f"SELECT id, {', '.join(self.columns)} FROM {self.name} WHERE removed_ms IS NULL OR ? ORDER BY id"
        )

    @property
    def insert(self) -> str:
        """Add an entry under an id that was never used."""
        marks = ", ".join("?" * len(self.columns))
        return f"INSERT INTO {self.name} ({', '.join(self.columns)}) VALUES ({marks}) RETURNING id"

    @property
    def update(self) -> str:
        """Replace an entry that was not removed."""
        sets = ", ".join(f"{column} = ?" for column in self.columns)
        return f"UPDATE {self.name} SET {sets} WHERE id = ? AND removed_ms IS NULL RETURNING id"

    @property
    def remove(self) -> str:
        """Take an entry out of the catalog; its row stays."""
        return f"UPDATE {self.name} SET removed_ms = ? WHERE id = ? AND removed_ms IS NULL RETURNING id"

    @property
    def is_live(self) -> str:
        """Whether an entry exists and was not removed."""
        return f"SELECT 1 FROM {self.name} WHERE id = ? AND removed_ms IS NULL"


_TABLES: Mapping[type, _Table] = {
    Network: _Table(
        "networks",
        ("name", "key", "preset", "currency", "dedup", "strict", "answer", "fields", "types", "statuses"),
    ),
    Source: _Table("sources", ("name", "preset", "fields")),
    Offer: _Table("offers", ("name", "network", "url", "window_min_s", "window_max_s")),
    Campaign: _Table("campaigns", ("name", "slug", "source", "offers")),
}

_JSON_COLUMNS = frozenset({"fields", "types", "statuses", "offers"})


# --- reading ---------------------------------------------------------------------------------------------------


def generation(db: apsw.Connection) -> int:
    """Grows with every change of the catalog; 0 for a database without one."""
    row = db.execute(GENERATION).fetchone()
    return int(row[0]) if row else 0


def load_catalog(db: apsw.Connection, *, node: int = 0, removed: bool = False) -> Catalog:
    """The catalog as one snapshot; with ``removed`` also the entries that were taken out of it (for their names)."""
    with _reading(db):
        privacy_key = db.execute(PRIVACY_KEY).fetchone()
        offers = _load(db, Offer, removed)
        live = {offer.id for offer in offers}
        return Catalog(
            generation=generation(db),
            networks=_load(db, Network, removed),
            sources=_load(db, Source, removed),
            offers=offers,
            removed_offers=tuple(o for o in _load(db, Offer, removed=True) if o.id not in live),
            campaigns=_load(db, Campaign, removed),
            signing_keys=load_signing_keys(db),
            privacy_key=bytes(privacy_key[0]) if privacy_key else b"",
            node=node,
        )


def load_signing_keys(db: apsw.Connection) -> tuple[SigningKey, ...]:
    """All signing keys, oldest first."""
    return tuple(
        SigningKey(id=id_, secret=bytes(secret), active_from_ms=active_from_ms, retired=bool(retired))
        for id_, secret, active_from_ms, retired in db.execute(SIGNING_KEYS)
    )


def _load(db: apsw.Connection, kind: type[E], removed: bool) -> tuple[E, ...]:
    table = _TABLES[kind]
    columns = ("id", *table.columns)
    rows = db.execute(table.select, (removed,))
    return tuple(msgspec.convert(_from_row(columns, row), kind) for row in rows)


def _from_row(columns: Sequence[str], row: Sequence[Any]) -> dict[str, Any]:
    entry = dict(zip(columns, row, strict=True))
    for column in _JSON_COLUMNS & entry.keys():
        entry[column] = msgspec.json.decode(entry[column])
    if "strict" in entry:
        entry["strict"] = bool(entry["strict"])
    return entry


# --- changing --------------------------------------------------------------------------------------------------


def initialise(
    db: apsw.Connection, *, signing_secret: bytes | None = None, privacy_key: bytes | None = None
) -> None:
    """Give a new database its first keys (16 to 64 bytes each; fresh random ones when not given).

    Does nothing where there are keys already.
    """
    if load_signing_keys(db) and db.execute(PRIVACY_KEY).fetchone():
        return
    with _changing(db):
        db.execute(ADD_FIRST_SIGNING_KEY, (signing_secret or token_bytes(32),))
        db.execute(KEEP_FIRST_PRIVACY_KEY, (privacy_key or token_bytes(32),))


def save_entry(db: apsw.Connection, entry: E) -> E:
    """Insert (``id`` 0) or replace an entry; returns it with its id.  Raises ``CatalogConflict``."""
    with _changing(db):
        return _save(db, entry, {})


def remove_entry(db: apsw.Connection, entry: CatalogEntry, removed_ms: int) -> None:
    """Take an entry out of the catalog.  Raises ``CatalogConflict`` naming what still refers to it."""
    with _changing(db):
        _remove(db, entry, removed_ms)


def change_catalog(
    db: apsw.Connection, saves: Sequence[CatalogEntry], removals: Sequence[CatalogEntry], removed_ms: int
) -> tuple[CatalogEntry, ...]:
    """Save and remove many entries, all or none; returns the saved ones with their ids.

    A new entry has a negative id, different for each kind and entry, by which others of the same call may
    refer to it.  Networks and sources are saved before offers, offers before campaigns, and removed the other way
    round after all saves.  Raises ``CatalogConflict``.
    """
    order = list(_TABLES)
    with _changing(db):
        new_ids: dict[tuple[type, int], int] = {}
        saved: dict[int, CatalogEntry] = {}
        for index, entry in sorted(enumerate(saves), key=lambda item: order.index(type(item[1]))):
            saved[index] = _save(db, entry, new_ids)
            new_ids[type(entry), entry.id] = saved[index].id
        for entry in sorted(removals, key=lambda entry: -order.index(type(entry))):
            _remove(db, entry, removed_ms)
    return tuple(saved[index] for index in range(len(saves)))


def rotate_signing_key(
    db: apsw.Connection, secret: bytes, *, now_ms: int, active_from_ms: int, keep: int
) -> tuple[SigningKey, ...]:
    """Let ``secret`` (16 to 64 bytes) sign from ``active_from_ms`` on; only the newest ``keep`` keys go on verifying.

    ``active_from_ms`` should lie a few seconds after ``now_ms``, so that every running server knows the key before it
    is used.  ``keep`` is at least 2: the key before signs until then.  Returns all keys.  Raises ``CatalogConflict``
    while another new key has not taken over yet, because the key that still signs could be retired.
    """
    if not 16 <= len(secret) <= 64 or keep < 2 or active_from_ms < now_ms:
        raise ValueError("a secret has 16 to 64 bytes, two keys at least are kept, and none signs the past")
    with _changing(db):
        newest = max((key.active_from_ms for key in load_signing_keys(db)), default=-1)
        if newest > now_ms:
            raise CatalogConflict(
                "a new signing key is about to take over; wait a few seconds and run it again"
            )
        db.execute(ADD_SIGNING_KEY, (secret, active_from_ms))
        db.execute(RETIRE_SIGNING_KEYS, (keep,))
        return load_signing_keys(db)


def _save(db: apsw.Connection, entry: E, new_ids: Mapping[tuple[type, int], int]) -> E:
    entry = _resolve(entry, new_ids)
    _check_references(db, entry)
    table = _TABLES[type(entry)]
    values = tuple(_to_column(column, getattr(entry, column)) for column in table.columns)
    try:
        if entry.id > 0:
            row = db.execute(table.update, (*values, entry.id)).fetchone()
        else:
            row = db.execute(table.insert, values).fetchone()
    except apsw.ConstraintError as error:
        raise _conflict(db, entry, error) from error
    if row is None:
        raise CatalogConflict(f"{describe(entry)} was removed meanwhile; add it again instead of changing it")
    return msgspec.structs.replace(entry, id=row[0])


def _resolve(entry: E, new_ids: Mapping[tuple[type, int], int]) -> E:
    """The entry with references to entries of the same change replaced by the ids that those were given."""
    if isinstance(entry, Offer):
        return msgspec.structs.replace(entry, network=new_ids.get((Network, entry.network), entry.network))
    if isinstance(entry, Campaign):
        offers = tuple(WeightedOffer(new_ids.get((Offer, o.offer), o.offer), o.weight) for o in entry.offers)
        source = new_ids.get((Source, entry.source), entry.source)
        return msgspec.structs.replace(entry, source=source, offers=offers)
    return entry


def _check_references(db: apsw.Connection, entry: CatalogEntry) -> None:
    """Foreign keys see that a row exists; this sees that it was not removed."""
    references: list[tuple[type, int]] = []
    if isinstance(entry, Offer):
        references.append((Network, entry.network))
    elif isinstance(entry, Campaign):
        references.append((Source, entry.source))
        references.extend((Offer, weighted.offer) for weighted in entry.offers)
    for kind, id_ in references:
        if db.execute(_TABLES[kind].is_live, (id_,)).fetchone() is None:
            word = "an offer" if kind is Offer else f"a {kind.__name__.lower()}"
            raise CatalogConflict(
                f"{describe(entry)} names {word} that does not exist or was removed; add it first"
            )


def _remove(db: apsw.Connection, entry: CatalogEntry, removed_ms: int) -> None:
    referring = _referring(db, entry)
    if referring:
        raise CatalogConflict(f"{describe(entry)} is still used by {referring}; remove or change that first")
    if db.execute(_TABLES[type(entry)].remove, (removed_ms, entry.id)).fetchone() is None:
        raise CatalogConflict(f"{describe(entry)} is not in the catalog; nothing is left to remove")


def _referring(db: apsw.Connection, entry: CatalogEntry) -> str:
    """The names of what refers to the entry, in words; empty when nothing does."""
    questions = {
        Network: [("offer", OFFERS_OF_NETWORK)],
        Source: [("campaign", CAMPAIGNS_OF_SOURCE)],
        Offer: [("campaign", CAMPAIGNS_OF_OFFER)],
        Campaign: [],
    }
    found = [
        f"{word} {name!r}" for word, sql in questions[type(entry)] for (name,) in db.execute(sql, (entry.id,))
    ]
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")


def _conflict(db: apsw.Connection, entry: CatalogEntry, error: apsw.ConstraintError) -> CatalogConflict:
    text = str(error)
    if isinstance(entry, Campaign) and "campaigns.slug" in text:
        holder = db.execute(SLUG_HOLDER, (entry.slug,)).fetchone()
        if holder is not None:
            state = "the removed campaign" if holder[1] is not None else "campaign"
            return CatalogConflict(
                f"slug {entry.slug!r} belongs to {state} {holder[0]!r}; choose another with --slug"
            )
    for name, sentence in CONFLICTS.items():
        if name in text:
            return CatalogConflict(f"{describe(entry)}: {sentence}")
    return CatalogConflict(f"{describe(entry)} contradicts what is stored: {text}")


def describe(entry: CatalogEntry) -> str:
    """The entry in two words for messages: its kind and its name."""
    return f"{type(entry).__name__.lower()} {entry.name!r}"


def _to_column(column: str, value: Any) -> Any:
    return msgspec.json.encode(value).decode() if column in _JSON_COLUMNS else value


# --- transactions ----------------------------------------------------------------------------------------------


@contextmanager
def _changing(db: apsw.Connection) -> Iterator[None]:
    """One write transaction that raises the catalog generation when it succeeds."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute(RAISE_GENERATION)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


@contextmanager
def _reading(db: apsw.Connection) -> Iterator[None]:
    """One read transaction, so that the parts of a snapshot belong together."""
    if db.in_transaction:
        yield
        return
    db.execute("BEGIN")
    try:
        yield
    finally:
        db.execute("COMMIT")
