"""The keys that a database holds: those that sign click ids, and the one under which personal data is hashed."""

from __future__ import annotations

from secrets import token_bytes

from postbackd.core.model import SigningKey
from postbackd.store.base import CatalogConflict
from postbackd.store.database import Database, changing
from postbackd.store.sealed import MARK, is_marked, open_bytes, seal_all, seal_bytes
from postbackd.store.sealed import PRIVACY_KEY as HASHES
from postbackd.store.sealed import SIGNING_KEY as SIGNS

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


async def load_signing_keys(db: Database) -> tuple[SigningKey, ...]:
    """All signing keys, oldest first."""
    return tuple(
        SigningKey(
            id=id_,
            secret=open_bytes(db, bytes(secret), SIGNS),
            active_from_ms=active_from_ms,
            retired=bool(retired),
        )
        for id_, secret, active_from_ms, retired in await db.rows(SIGNING_KEYS)
    )


async def load_privacy_key(db: Database) -> bytes:
    """The key under which personal data is hashed; empty in a database without one."""
    rows = await db.rows(PRIVACY_KEY.format(table=db.bytes_table))
    return open_bytes(db, bytes(rows[0][0]), HASHES) if rows else b""


async def initialise(
    db: Database, *, signing_secret: bytes | None = None, privacy_key: bytes | None = None
) -> bool:
    """Give a new database its first keys (16 to 64 bytes each; fresh random ones when not given).

    Does nothing where there are keys already, but for sealing those of an old database where that can be done.  Returns
    whether it did: what was in clear before may still lie in the files.
    """
    if not await db.rows(SIGNING_KEYS) or not await db.rows(PRIVACY_KEY.format(table=db.bytes_table)):
        await _add_first(db, signing_secret or token_bytes(32), privacy_key or token_bytes(32))
    elif db.seals is not None and db.seals.seals_old and not await is_marked(db):
        await seal_all(db)
        return True
    return False


async def _add_first(db: Database, signing_secret: bytes, privacy_key: bytes) -> None:
    async with changing(db):
        if db.seals is not None and db.seals.seals_new and not await db.rows(SIGNING_KEYS):
            db.seals.begin()
            await db.rows(MARK)
        await db.rows(ADD_FIRST_SIGNING_KEY, await seal_bytes(db, signing_secret, SIGNS))
        sealed = await seal_bytes(db, privacy_key, HASHES)
        await db.rows(KEEP_FIRST_PRIVACY_KEY.format(table=db.bytes_table), sealed)


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
    async with changing(db):
        newest = max((key.active_from_ms for key in await load_signing_keys(db)), default=-1)
        if newest > now_ms:
            raise CatalogConflict(
                "a new signing key is about to take over; wait a few seconds and run it again"
            )
        await db.rows(ADD_SIGNING_KEY, await seal_bytes(db, secret, SIGNS), active_from_ms)
        await db.rows(RETIRE_SIGNING_KEYS, b"", keep)
        return await load_signing_keys(db)
