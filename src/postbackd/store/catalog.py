"""The catalog half of every store: plain functions over one connection to a database.

Rules of this file: every change is one transaction that also raises the catalog generation,
so that a running server sees either none or all of it.  Rows are never deleted: a removed entry keeps its row,
its id and (a campaign) its slug, because reports still name it and old links must not lead somewhere else.
A violated constraint is recognised by what the schema calls it and becomes a ``CatalogConflict`` that says what to do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from secrets import token_bytes
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

from postbackd.core.model import (
    Campaign,
    Catalog,
    CatalogEntry,
    Network,
    Offer,
    Rule,
    SigningKey,
    Source,
    Target,
    WeightedOffer,
)
from postbackd.store.base import CatalogConflict

E = TypeVar("E", bound=CatalogEntry)


class ConstraintViolated(Exception):
    """A row contradicts a constraint of the schema."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name
        """What the schema calls the constraint."""


class Database(Protocol):
    """One connection, as far as the catalog needs it.  Its errors are the store's; only one has a name here."""

    bytes_table: str
    """The table of named values that are bytes."""

    async def rows(self, sql: str, *values: Any) -> Sequence[Sequence[Any]]:
        """Run a statement whose parameters are written ``?``; returns its rows.  Raises ``ConstraintViolated``."""
        ...

    def changing(self) -> AbstractAsyncContextManager[None]:
        """A transaction in which nobody else changes the catalog."""
        ...

    def reading(self) -> AbstractAsyncContextManager[None]:
        """A transaction whose statements all see the same."""
        ...


GENERATION = "SELECT value FROM settings WHERE name = 'catalog_generation'"
"""How often the catalog has changed."""

RAISE_GENERATION = """
INSERT INTO settings (name, value) VALUES ('catalog_generation', 1)
ON CONFLICT (name) DO UPDATE SET value = settings.value + 1
"""
"""Tell every reader that the catalog has changed."""

PRIVACY_KEY = "SELECT value FROM {table} WHERE name = 'privacy_key'"
"""The key under which personal data is hashed."""

KEEP_FIRST_PRIVACY_KEY = "INSERT INTO {table} (name, value) VALUES ('privacy_key', ?) ON CONFLICT DO NOTHING"
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
UPDATE signing_keys SET retired = 1, secret = ?
WHERE retired = 0 AND id NOT IN (SELECT id FROM signing_keys ORDER BY active_from_ms DESC, id DESC LIMIT ?)
"""
"""Retire all but the newest keys and forget their secrets: ids signed by them verify no longer."""

OFFERS_OF_NETWORK = "SELECT name FROM offers WHERE network = ? AND removed_ms IS NULL ORDER BY name"
"""Names of the offers that refer to a network."""

CAMPAIGNS_OF_SOURCE = "SELECT name FROM campaigns WHERE source = ? AND removed_ms IS NULL ORDER BY name"
"""Names of the campaigns that refer to a source."""

OFFERS_OF_CAMPAIGNS = "SELECT name, offers FROM campaigns WHERE removed_ms IS NULL ORDER BY name"
"""Names of the campaigns, and the offers that each refers to."""

RULES_OF = "SELECT name FROM rules WHERE {column} = ? AND removed_ms IS NULL ORDER BY name"
"""Names of the rules of a source or a campaign, or that tell a target."""

ANY_WAITING_DELIVERY = "SELECT 1 FROM deliveries WHERE target = ? AND state = 1 LIMIT 1"
"""Whether anything waits to be sent to a target."""

SLUG_HOLDER = "SELECT name, removed_ms FROM campaigns WHERE slug = ?"
"""The campaign, live or removed, that has a slug."""

CONFLICTS: Mapping[str, str] = {
    "network_name_once": "a network of this name exists already; choose another name or change it with `network set`",
    "network_key_once": "this endpoint key belongs to another network, or to one that was removed; choose another",
    "source_name_once": "a source of this name exists already; choose another name or change it with `source set`",
    "offer_name_once": "an offer of this name exists already; choose another name or change it with `offer set`",
    "target_name_once": "a target of this name exists already; choose another name or change it with `target set`",
    "rule_name_once": "a rule of this name exists already; choose another name or change it with `rule set`",
    "rule_of_one": "a rule is of a source or of a campaign, not of both and not of none",
    "campaign_name_once": "a campaign of this name exists already; choose another or change it with `campaign set`",
    "campaign_slug_once": "this slug belongs to another campaign, or to a removed one; choose another with --slug",
    "campaign_fits_click_id": "16,777,215 campaigns were created, more than a click id can name; start a new database",
    "network_dedup_known": "dedup must be ignore, update, add or hold",
    "network_answer_known": "answer must be json, ok or 204",
}
"""What the schema calls a constraint -> what to tell the user who violated it."""


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
        (
            *("name", "key", "preset", "currency", "dedup", "strict"),
            *("answer", "fields", "types", "statuses", "senders"),
        ),
    ),
    Source: _Table("sources", ("name", "preset", "fields")),
    Offer: _Table("offers", ("name", "network", "url", "window_min_s", "window_max_s")),
    Campaign: _Table("campaigns", ("name", "slug", "source", "offers")),
    Target: _Table("targets", ("name", "preset", "how", "secrets")),
    Rule: _Table(
        "rules",
        (
            "name",
            "source",
            "campaign",
            "target",
            "condition",
            "delay_s",
            "payout",
            "on_change",
            "on_reversal",
        ),
    ),
}
"""In the order in which they refer to each other."""

_JSON_COLUMNS = frozenset({"fields", "types", "statuses", "senders", "offers", "how", "secrets"})


# --- reading ---------------------------------------------------------------------------------------------------


async def generation(db: Database) -> int:
    """Grows with every change of the catalog; 0 for a database without one."""
    rows = await db.rows(GENERATION)
    return int(rows[0][0]) if rows else 0


async def load_catalog(db: Database, *, removed: bool = False) -> Catalog:
    """The catalog as one snapshot; with ``removed`` also the entries that were taken out of it (for their names)."""
    async with db.reading():
        offers = await _load(db, Offer, removed)
        campaigns = await _load(db, Campaign, removed)
        return Catalog(
            generation=await generation(db),
            networks=await _load(db, Network, removed),
            sources=await _load(db, Source, removed),
            offers=offers,
            removed_offers=_others(await _load(db, Offer, removed=True), offers),
            campaigns=campaigns,
            removed_campaigns=_others(await _load(db, Campaign, removed=True), campaigns),
            targets=await _load(db, Target, removed),
            rules=await _load(db, Rule, removed),
            signing_keys=await load_signing_keys(db),
            privacy_key=await _load_privacy_key(db),
        )


def _others(entries: Sequence[E], known: Sequence[E]) -> tuple[E, ...]:
    ids = {entry.id for entry in known}
    return tuple(entry for entry in entries if entry.id not in ids)


async def load_signing_keys(db: Database) -> tuple[SigningKey, ...]:
    """All signing keys, oldest first."""
    return tuple(
        SigningKey(id=id_, secret=bytes(secret), active_from_ms=active_from_ms, retired=bool(retired))
        for id_, secret, active_from_ms, retired in await db.rows(SIGNING_KEYS)
    )


async def _load_privacy_key(db: Database) -> bytes:
    rows = await db.rows(PRIVACY_KEY.format(table=db.bytes_table))
    return bytes(rows[0][0]) if rows else b""


async def _load(db: Database, kind: type[E], removed: bool) -> tuple[E, ...]:
    table = _TABLES[kind]
    columns = ("id", *table.columns)
    rows = await db.rows(table.select, removed)
    return tuple(msgspec.convert(_from_row(columns, row), kind) for row in rows)


def _from_row(columns: Sequence[str], row: Sequence[Any]) -> dict[str, Any]:
    entry = dict(zip(columns, row, strict=True))
    for column in _JSON_COLUMNS & entry.keys():
        entry[column] = msgspec.json.decode(entry[column])
    if "strict" in entry:
        entry["strict"] = bool(entry["strict"])
    return entry


# --- changing --------------------------------------------------------------------------------------------------


async def initialise(
    db: Database, *, signing_secret: bytes | None = None, privacy_key: bytes | None = None
) -> None:
    """Give a new database its first keys (16 to 64 bytes each; fresh random ones when not given).

    Does nothing where there are keys already.
    """
    if await load_signing_keys(db) and await _load_privacy_key(db):
        return
    async with _changing(db):
        await db.rows(ADD_FIRST_SIGNING_KEY, signing_secret or token_bytes(32))
        await db.rows(KEEP_FIRST_PRIVACY_KEY.format(table=db.bytes_table), privacy_key or token_bytes(32))


async def change_catalog(
    db: Database, saves: Sequence[CatalogEntry], removals: Sequence[CatalogEntry], removed_ms: int
) -> tuple[CatalogEntry, ...]:
    """Save and remove many entries, all or none; returns the saved ones with their ids.

    A new entry has the id 0, or a negative one, different for each kind and entry, by which others of the same call may
    refer to it.  What others refer to is saved before them, and removed after them and after all saves.  Raises
    ``CatalogConflict``.
    """
    order = list(_TABLES)
    try:
        async with _changing(db):
            new_ids: dict[tuple[type, int], int] = {}
            saved: dict[int, CatalogEntry] = {}
            for index, entry in sorted(enumerate(saves), key=lambda item: order.index(type(item[1]))):
                saved[index] = await _save(db, entry, new_ids)
                new_ids[type(entry), entry.id] = saved[index].id
            for entry in sorted(removals, key=lambda entry: -order.index(type(entry))):
                await _remove(db, entry, removed_ms)
    except _Contradicts as contradiction:
        raise await _conflict(db, contradiction) from contradiction.__cause__
    return tuple(saved[index] for index in range(len(saves)))


async def rotate_signing_key(
    db: Database, secret: bytes, *, now_ms: int, active_from_ms: int, keep: int
) -> tuple[SigningKey, ...]:
    """Let ``secret`` (16 to 64 bytes) sign from ``active_from_ms`` on; only the newest ``keep`` keys go on verifying.

    ``active_from_ms`` should lie a few seconds after ``now_ms``, so that every running server knows the key before it
    is used.  ``keep`` is at least 2: the key before signs until then.  Returns all keys.  Raises ``CatalogConflict``
    while another new key has not taken over yet, because the key that still signs could be retired.
    """
    if not 16 <= len(secret) <= 64 or keep < 2 or active_from_ms < now_ms:
        raise ValueError("a secret has 16 to 64 bytes, two keys at least are kept, and none signs the past")
    async with _changing(db):
        newest = max((key.active_from_ms for key in await load_signing_keys(db)), default=-1)
        if newest > now_ms:
            raise CatalogConflict(
                "a new signing key is about to take over; wait a few seconds and run it again"
            )
        await db.rows(ADD_SIGNING_KEY, secret, active_from_ms)
        await db.rows(RETIRE_SIGNING_KEYS, b"", keep)
        return await load_signing_keys(db)


class _Contradicts(Exception):
    """An entry contradicts a constraint.  What to tell of it is asked after the transaction, which is lost."""

    def __init__(self, entry: CatalogEntry, constraint: str) -> None:
        super().__init__(constraint)
        self.entry = entry
        self.constraint = constraint


async def _save(db: Database, entry: E, new_ids: Mapping[tuple[type, int], int]) -> E:
    entry = _resolve(entry, new_ids)
    await _check_references(db, entry)
    table = _TABLES[type(entry)]
    values = tuple(_to_column(column, getattr(entry, column)) for column in table.columns)
    try:
        if entry.id > 0:
            rows = await db.rows(table.update, *values, entry.id)
        else:
            rows = await db.rows(table.insert, *values)
    except ConstraintViolated as error:
        raise _Contradicts(entry, error.name) from error
    if not rows:
        raise CatalogConflict(f"{describe(entry)} was removed meanwhile; add it again instead of changing it")
    return msgspec.structs.replace(entry, id=rows[0][0])


def _resolve(entry: E, new_ids: Mapping[tuple[type, int], int]) -> E:
    """The entry with references to entries of the same change replaced by the ids that those were given."""
    if isinstance(entry, Offer):
        return msgspec.structs.replace(entry, network=new_ids.get((Network, entry.network), entry.network))
    if isinstance(entry, Campaign):
        offers = tuple(WeightedOffer(new_ids.get((Offer, o.offer), o.offer), o.weight) for o in entry.offers)
        source = new_ids.get((Source, entry.source), entry.source)
        return msgspec.structs.replace(entry, source=source, offers=offers)
    if isinstance(entry, Rule):
        return msgspec.structs.replace(
            entry,
            source=entry.source and new_ids.get((Source, entry.source), entry.source),
            campaign=entry.campaign and new_ids.get((Campaign, entry.campaign), entry.campaign),
            target=new_ids.get((Target, entry.target), entry.target),
        )
    return entry


async def _check_references(db: Database, entry: CatalogEntry) -> None:
    """Foreign keys see that a row exists; this sees that it was not removed."""
    references: list[tuple[type, int]] = []
    if isinstance(entry, Offer):
        references.append((Network, entry.network))
    elif isinstance(entry, Campaign):
        references.append((Source, entry.source))
        references.extend((Offer, weighted.offer) for weighted in entry.offers)
    elif isinstance(entry, Rule):
        references.append((Target, entry.target))
        references += [(Source, entry.source)] if entry.source is not None else []
        references += [(Campaign, entry.campaign)] if entry.campaign is not None else []
    for kind, id_ in references:
        if not await db.rows(_TABLES[kind].is_live, id_):
            word = "an offer" if kind is Offer else f"a {kind.__name__.lower()}"
            raise CatalogConflict(
                f"{describe(entry)} names {word} that does not exist or was removed; add it first"
            )


async def _remove(db: Database, entry: CatalogEntry, removed_ms: int) -> None:
    referring = await _referring(db, entry)
    if referring:
        raise CatalogConflict(f"{describe(entry)} is still used by {referring}; remove or change that first")
    if not await db.rows(_TABLES[type(entry)].remove, removed_ms, entry.id):
        raise CatalogConflict(f"{describe(entry)} is not in the catalog; nothing is left to remove")


async def _referring(db: Database, entry: CatalogEntry) -> str:
    """The names of what refers to the entry, in words; empty when nothing does."""
    if isinstance(entry, Network):
        found = [f"offer {name!r}" for (name,) in await db.rows(OFFERS_OF_NETWORK, entry.id)]
    elif isinstance(entry, Source):
        found = [f"campaign {name!r}" for (name,) in await db.rows(CAMPAIGNS_OF_SOURCE, entry.id)]
        found += [f"rule {name!r}" for (name,) in await db.rows(RULES_OF.format(column="source"), entry.id)]
    elif isinstance(entry, Offer):
        found = [
            f"campaign {name!r}"
            for name, offers in await db.rows(OFFERS_OF_CAMPAIGNS)
            if any(weighted.offer == entry.id for weighted in _OFFERS.decode(offers))
        ]
    elif isinstance(entry, Campaign):
        found = [f"rule {name!r}" for (name,) in await db.rows(RULES_OF.format(column="campaign"), entry.id)]
    elif isinstance(entry, Target):
        found = [f"rule {name!r}" for (name,) in await db.rows(RULES_OF.format(column="target"), entry.id)]
        if await db.rows(ANY_WAITING_DELIVERY, entry.id):
            found.append("deliveries that wait (postbackd delivery cancel)")
    else:
        found = []
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")


_OFFERS = msgspec.json.Decoder(tuple[WeightedOffer, ...])


async def _conflict(db: Database, contradiction: _Contradicts) -> CatalogConflict:
    entry, constraint = contradiction.entry, contradiction.constraint
    if isinstance(entry, Campaign) and constraint == "campaign_slug_once":
        for name, removed_ms in await db.rows(SLUG_HOLDER, entry.slug):
            state = "the removed campaign" if removed_ms is not None else "campaign"
            return CatalogConflict(
                f"slug {entry.slug!r} belongs to {state} {name!r}; choose another with --slug"
            )
    sentence = CONFLICTS.get(constraint)
    if sentence is None:
        return CatalogConflict(f"{describe(entry)} contradicts what is stored: {constraint}")
    return CatalogConflict(f"{describe(entry)}: {sentence}")


def describe(entry: CatalogEntry) -> str:
    """The entry in two words for messages: its kind and its name."""
    return f"{type(entry).__name__.lower()} {entry.name!r}"


def _to_column(column: str, value: Any) -> Any:
    return msgspec.json.encode(value).decode() if column in _JSON_COLUMNS else value


@asynccontextmanager
async def _changing(db: Database) -> AsyncIterator[None]:
    """One transaction that raises the catalog generation when it succeeds."""
    async with db.changing():
        await db.rows(RAISE_GENERATION)
        yield
