"""The catalog half of every store: plain functions over one connection to a database.

Rules of this file: every change is one transaction that also raises the catalog generation,
so that a running server sees either none or all of it.  Rows are never deleted: a removed entry keeps its row,
its id and (a campaign) its slug, because reports still name it and old links must not lead somewhere else.
A violated constraint is recognised by what the schema calls it and becomes a ``CatalogConflict`` that says what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from postbackd.core.model import (
    Campaign,
    Catalog,
    CatalogEntry,
    Network,
    Offer,
    Rule,
    Source,
    Target,
    WeightedOffer,
)
from postbackd.store.base import CatalogConflict, CatalogMoved
from postbackd.store.database import ConstraintViolated, Database, changing, generation
from postbackd.store.keys import load_privacy_key, load_signing_keys
from postbackd.store.sealed import open_row, seal_row

E = TypeVar("E", bound=CatalogEntry)


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
    "network_personal_data_known": "personal_data must be replace, drop or refuse",
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


def _table(name: str, columns: str) -> _Table:
    return _Table(name, tuple(columns.split()))


_TABLES: Mapping[type, _Table] = {
    Network: _table(
        "networks", "name key preset currency dedup strict answer fields types statuses senders personal_data"
    ),
    Source: _Table("sources", ("name", "preset", "fields")),
    Offer: _Table("offers", ("name", "network", "url", "window_min_s", "window_max_s")),
    Campaign: _Table("campaigns", ("name", "slug", "source", "offers")),
    Target: _Table("targets", ("name", "preset", "how", "secrets")),
    Rule: _table("rules", "name source campaign target condition delay_s payout on_change on_reversal"),
}
"""In the order in which they refer to each other."""

_JSON_COLUMNS = frozenset({"fields", "types", "statuses", "senders", "offers", "how", "secrets"})


# --- reading ---------------------------------------------------------------------------------------------------


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
            privacy_key=await load_privacy_key(db),
        )


def _others(entries: Sequence[E], known: Sequence[E]) -> tuple[E, ...]:
    ids = {entry.id for entry in known}
    return tuple(entry for entry in entries if entry.id not in ids)


async def _load(db: Database, kind: type[E], removed: bool) -> tuple[E, ...]:
    table = _TABLES[kind]
    columns = ("id", *table.columns)
    rows = await db.rows(table.select, removed)
    opened = (open_row(db, table.name, _from_row(columns, row)) for row in rows)
    return tuple(msgspec.convert(row, kind) for row in opened)


def _from_row(columns: Sequence[str], row: Sequence[Any]) -> dict[str, Any]:
    entry = dict(zip(columns, row, strict=True))
    for column in _JSON_COLUMNS & entry.keys():
        entry[column] = msgspec.json.decode(entry[column])
    if "strict" in entry:
        entry["strict"] = bool(entry["strict"])
    return entry


# --- changing --------------------------------------------------------------------------------------------------


async def change_catalog(
    db: Database,
    saves: Sequence[CatalogEntry],
    removals: Sequence[CatalogEntry],
    removed_ms: int,
    if_generation: int | None = None,
) -> tuple[CatalogEntry, ...]:
    """Save and remove many entries, all or none; returns the saved ones with their ids.

    A new entry has the id 0, or a negative one, different for each kind and entry, by which others of the same call may
    refer to it.  What others refer to is saved before them, and removed after them and after all saves.  Raises
    ``CatalogConflict``.
    """
    order = list(_TABLES)
    try:
        async with changing(db):
            # Inside the transaction, which has raised it by one: whoever comes second sees that.
            if if_generation is not None and await generation(db) != if_generation + 1:
                raise CatalogMoved("the catalog has changed since; look at it again, then change it")
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
    row = {column: _to_column(column, getattr(entry, column)) for column in table.columns}
    row = await seal_row(db, table.name, row)
    try:
        if entry.id > 0:
            rows = await db.rows(table.update, *row.values(), entry.id)
        else:
            rows = await db.rows(table.insert, *row.values())
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
