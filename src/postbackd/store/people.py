"""People, their sessions, one-time links, tokens and the audit log: the same for every store.

Whatever may happen once only (a link is followed, a code is taken, the last owner goes) is decided by one statement or
inside one transaction that nobody else is in, never by a look and a write after it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from postbackd.core.people import (
    AUDIT_MS,
    IDLE_MS,
    SESSION_MS,
    AuditEntry,
    Code,
    Purpose,
    Role,
    Session,
    Token,
    User,
    remember_prefix,
)
from postbackd.store.base import CatalogConflict, StoreRefused
from postbackd.store.database import ConstraintViolated, Database
from postbackd.store.people_queries import (
    ADD_CODE,
    ADD_SESSION,
    ADD_TO_TOKENS,
    ADD_USER,
    ANY_USER,
    AUDIT,
    CODE,
    END_SESSION,
    END_SESSIONS,
    FORGET_CODES,
    FORGET_CODES_BY,
    FORGET_CODES_OF,
    NOTE,
    OTHER_OWNER,
    RECOVERY,
    REMOVE_TOKEN,
    REMOVE_USER,
    SEE_SESSION,
    SESSION,
    SET_KNOWN,
    SET_PASSWORD,
    SET_RECOVERY,
    SET_ROLE,
    SET_TOTP,
    TAKE_CODE,
    TAKE_STEP,
    TIDY,
    TOKEN_BY_HASH,
    TOKENS,
    TURN_TOTP_ON,
    USE_TOKEN,
    USER_BY_ID,
    USER_BY_NAME,
    USERS,
)
from postbackd.store.sealed import TOTP_SEED
from postbackd.store.views import Views

_T = TypeVar("_T")
Work = Callable[[Database], Coroutine[Any, Any, _T]]


class Asking(Protocol):
    """Runs work on a connection.  Raises ``StoreUnavailable``."""

    def __call__(self, work: Work[_T], /) -> Awaitable[_T]: ...


class CodeSpent(Exception):
    """There is no such one-time link, or it was used, or its time is over."""


class People:
    """The verbs.  Each raises ``StoreUnavailable`` when the database does not answer."""

    def __init__(self, read: Asking, change: Asking) -> None:
        self._read = read
        self._change = change
        self.views = Views(read, change)

    # --- users -----------------------------------------------------------------------------------------------

    async def has_users(self) -> bool:
        """Whether anybody can sign in."""
        return bool(await self._read(lambda db: db.rows(ANY_USER)))

    async def list_users(self) -> Sequence[User]:
        """By name."""
        return await self._users(USERS)

    async def find_user(self, name: str) -> User | None:
        """By name, as ``core.people.read_name`` gives it."""
        return _first(await self._users(USER_BY_NAME, name))

    async def load_user(self, id_: int) -> User | None:
        return _first(await self._users(USER_BY_ID, id_))

    async def _users(self, sql: str, *values: Any) -> Sequence[User]:
        async def work(db: Database) -> Sequence[User]:
            return [_user(row) for row in await db.rows(sql, *values)]

        return await self._read(work)

    async def set_role(self, user: User, role: Role) -> None:
        """Their sessions end, and links that they made as an owner.

        Raises ``CatalogConflict`` when no owner would be left.
        """

        async def work(db: Database) -> None:
            async with db.changing():
                await _keep_an_owner(db, user, role)
                await db.rows(SET_ROLE, role.value, user.id)
                await db.rows(END_SESSIONS, user.id, "")
                if role is not Role.OWNER:
                    await db.rows(FORGET_CODES_BY, user.name)

        await self._change(work)

    async def remove_user(self, user: User) -> None:
        """With sessions, tokens, views and links.  Raises ``CatalogConflict`` when no owner would be left."""

        async def work(db: Database) -> None:
            async with db.changing():
                await _keep_an_owner(db, user, None)
                await db.rows(REMOVE_USER, user.id)
                await db.rows(FORGET_CODES_OF, user.name)
                await db.rows(FORGET_CODES_BY, user.name)

        await self._change(work)

    async def set_password(self, user: User, password: str, *, but: str | None) -> None:
        """Every session of theirs ends ``but`` this one, and every link that would choose another password.

        ``None``: none does, the password is the same.
        """

        async def work(db: Database) -> None:
            async with db.changing():
                await db.rows(SET_PASSWORD, password, user.id)
                if but is not None:
                    await db.rows(END_SESSIONS, user.id, but)
                    await db.rows(FORGET_CODES, Purpose.RESET.value, user.name)

        await self._change(work)

    async def set_totp(self, user: User, seed: str, recovery: Sequence[str], *, on: bool) -> None:
        """Another seed and the hashes of its recovery codes; an empty one: from now on the password is enough."""

        async def work(db: Database) -> None:
            sealed = ""
            if seed:
                seals = _need(db)
                seals.begin()
                sealed = seals.seal(seed, TOTP_SEED)
            await db.rows(SET_TOTP, sealed, int(on), msgspec.json.encode(recovery).decode(), user.id)

        await self._change(work)

    async def confirm_totp(self, user: User, step: int) -> bool:
        """From now on a code is asked for; ``False``: another seed has been set up meanwhile."""

        return bool(await self._change(lambda db: db.rows(TURN_TOTP_ON, step, user.id, user.totp)))

    async def seed_of(self, user: User) -> str:
        """The seed of their codes; empty: none.  Raises ``StoreRefused`` when it cannot be opened."""

        async def work(db: Database) -> str:
            return _need(db).open(user.totp, TOTP_SEED) if user.totp else ""

        return await self._read(work)

    async def take_step(self, user: User, step: int) -> bool:
        """Whether the code of this step was not taken before, nor any later one."""
        return bool(await self._change(lambda db: db.rows(TAKE_STEP, step, user.id, step)))

    async def take_recovery(self, user: User, hash_: str) -> bool:
        """Whether this was one of the recovery codes; it is none any more."""

        async def work(db: Database) -> bool:
            async with db.changing():
                rows = await db.rows(RECOVERY, user.id)
                left = msgspec.json.decode(rows[0][0], type=list[str]) if rows else []
                if hash_ not in left:
                    return False
                left.remove(hash_)
                await db.rows(SET_RECOVERY, msgspec.json.encode(left).decode(), user.id)
                return True

        return await self._change(work)

    # --- sessions --------------------------------------------------------------------------------------------

    async def open_session(
        self, user: User, hash_: str, prefix: str, now_ms: int, *, instead_of: str
    ) -> None:
        """Somebody has signed in; ``instead_of``: the session that their browser had before, if any, ends."""
        known = msgspec.json.encode(remember_prefix(user.known, prefix)).decode()

        async def work(db: Database) -> None:
            async with db.changing():
                await db.rows(END_SESSION, instead_of)
                await db.rows(ADD_SESSION, hash_, user.id, now_ms, now_ms, prefix)
                await db.rows(SET_KNOWN, known, user.id)

        await self._change(work)

    async def find_session(self, hash_: str) -> Session | None:
        """It may be over."""

        async def work(db: Database) -> Session | None:
            rows = await db.rows(SESSION, hash_)
            if not rows:
                return None
            made_ms, seen_ms, *user = rows[0]
            return Session(hash=hash_, user=_user(user), made_ms=made_ms, seen_ms=seen_ms)

        return await self._read(work)

    async def see_session(self, hash_: str, now_ms: int) -> None:
        await self._change(lambda db: db.rows(SEE_SESSION, now_ms, hash_))

    async def end_session(self, hash_: str) -> None:
        await self._change(lambda db: db.rows(END_SESSION, hash_))

    async def end_sessions(self, user: User, *, but: str = "") -> int:
        """All of a user; returns how many those were."""
        return len(await self._change(lambda db: db.rows(END_SESSIONS, user.id, but)))

    # --- one-time links --------------------------------------------------------------------------------------

    async def add_code(self, code: Code) -> None:
        """Others for the same end."""

        async def work(db: Database) -> None:
            async with db.changing():
                if code.purpose is Purpose.WELCOME or code.name:
                    await db.rows(FORGET_CODES, code.purpose.value, code.name)
                await db.rows(
                    ADD_CODE, code.hash, code.purpose.value, code.name, code.role.value,
                    code.made_by, code.made_ms, code.expires_ms,
                )  # fmt: skip

        await self._change(work)

    async def find_code(self, hash_: str, now_ms: int) -> Code | None:
        """One that can still be used."""
        rows = await self._read(lambda db: db.rows(CODE, hash_, now_ms))
        return _code(rows[0]) if rows else None

    async def follow_code(self, hash_: str, name: str, password: str, now_ms: int) -> User:
        """Use a link up: make its user, or give the user it names another password.  All or nothing.

        Raises ``CodeSpent``, and ``CatalogConflict`` when the name is taken; then the link can still be used.
        """

        async def work(db: Database) -> User:
            async with db.changing():
                rows = await db.rows(TAKE_CODE, hash_, now_ms)
                if not rows:
                    raise CodeSpent
                code = _code(rows[0])
                if code.purpose is Purpose.WELCOME and await db.rows(ANY_USER):
                    raise CodeSpent  # somebody was faster, and invites others now
                if code.purpose is Purpose.RESET:
                    return await _reset(db, code.name, password)
                (added,) = await db.rows(ADD_USER, code.name or name, code.role.value, password, now_ms)
                (row,) = await db.rows(USER_BY_ID, added[0])
                return _user(row)

        try:
            return await self._change(work)
        except ConstraintViolated as error:
            raise CatalogConflict(f"there is a user {name!r} already; choose another name") from error

    # --- tokens ----------------------------------------------------------------------------------------------

    async def list_tokens(self) -> Sequence[Token]:
        """By name, also those that are over."""
        return [_token(row) for row in await self._read(lambda db: db.rows(TOKENS))]

    async def find_token(self, hash_: str) -> Token | None:
        rows = await self._read(lambda db: db.rows(TOKEN_BY_HASH, hash_))
        return _token(rows[0]) if rows else None

    async def add_token(self, token: Token) -> int:
        """Returns its number.  Raises ``CatalogConflict`` when the name is taken."""
        values = (
            token.name,
            token.hash,
            " ".join(token.scopes),
            token.user_id,
            token.made_ms,
            token.expires_ms,
        )
        try:
            rows = await self._change(lambda db: db.rows(ADD_TO_TOKENS, *values))
        except ConstraintViolated as error:
            raise CatalogConflict(f"there is a token {token.name!r} already; choose another name") from error
        return int(rows[0][0])

    async def use_token(self, id_: int, now_ms: int) -> None:
        await self._change(lambda db: db.rows(USE_TOKEN, now_ms, id_))

    async def remove_token(self, id_: int) -> str | None:
        """Returns its name; ``None``: there was none."""
        rows = await self._change(lambda db: db.rows(REMOVE_TOKEN, id_))
        return rows[0][0] if rows else None

    # --- the audit log ---------------------------------------------------------------------------------------

    async def note(self, *entries: AuditEntry) -> None:
        """Keep these lines, all or none."""

        async def write(db: Database) -> None:
            for one in entries:
                fields = msgspec.json.encode(one.fields).decode()
                await db.rows(
                    NOTE, one.at_ms, one.who, one.kind, one.action, one.object, fields, one.status, one.prefix
                )

        async def work(db: Database) -> None:
            async with db.changing():
                await write(db)

        if entries:  # one line is a transaction of its own
            await self._change(work if len(entries) > 1 else write)

    async def list_audit(self, before: int, limit: int, who: str = "") -> Sequence[AuditEntry]:
        """Newest first, older than number ``before``; ``who``: of one only."""
        rows = await self._read(lambda db: db.rows(AUDIT, before, who, who, limit))
        names = AuditEntry.__struct_fields__
        return [
            msgspec.convert(
                dict(zip(names, row, strict=True)) | {"fields": msgspec.json.decode(row[6])}, AuditEntry
            )
            for row in rows
        ]

    async def tidy(self, now_ms: int) -> None:
        """Forget what is over."""
        sessions, codes, audit = TIDY

        async def work(db: Database) -> None:
            await db.rows(sessions, now_ms - IDLE_MS, now_ms - SESSION_MS)
            await db.rows(codes, now_ms)
            await db.rows(audit, now_ms - AUDIT_MS)

        await self._change(work)


def _first(users: Sequence[User]) -> User | None:
    return users[0] if users else None


def _need(db: Database) -> Any:
    if db.seals is None:
        raise StoreRefused("the seeds of codes are sealed, and this program was given no key; see secret_key")
    return db.seals


def _user(row: Sequence[Any]) -> User:
    id_, name, role, password, totp, totp_on, totp_step, recovery, known, made_ms = row
    return User(
        id=id_, name=name, role=Role(role), password=password, totp=totp, totp_on=bool(totp_on),
        totp_step=totp_step, recovery=msgspec.json.decode(recovery, type=tuple[str, ...]),
        known=msgspec.json.decode(known, type=tuple[str, ...]), made_ms=made_ms,
    )  # fmt: skip


def _code(row: Sequence[Any]) -> Code:
    return msgspec.convert(dict(zip(Code.__struct_fields__, row, strict=True)), Code)


def _token(row: Sequence[Any]) -> Token:
    entry = dict(zip(Token.__struct_fields__, row, strict=True))
    entry |= {"scopes": entry["scopes"].split(), "user_name": entry["user_name"] or ""}
    return msgspec.convert(entry, Token)


async def _keep_an_owner(db: Database, user: User, role: Role | None) -> None:
    """In a transaction that changes people: nobody else does meanwhile."""
    if user.role is Role.OWNER and role is not Role.OWNER and not await db.rows(OTHER_OWNER, user.id):
        raise CatalogConflict(
            f"{user.name} is the only owner; make somebody else one first ('postbackd user role NAME owner')"
        )


async def _reset(db: Database, name: str, password: str) -> User:
    """Another password, and no codes: whoever was given the link may have lost what makes them."""
    rows = await db.rows(USER_BY_NAME, name)
    if not rows:
        raise CodeSpent
    id_ = rows[0][0]
    await db.rows(SET_PASSWORD, password, id_)
    await db.rows(SET_TOTP, "", 0, "[]", id_)
    await db.rows(END_SESSIONS, id_, "")
    (row,) = await db.rows(USER_BY_ID, id_)
    return _user(row)
