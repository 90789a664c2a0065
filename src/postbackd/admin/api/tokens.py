"""Tokens of programs, and the audit log."""

from __future__ import annotations

from secrets import token_urlsafe
from typing import Annotated

from msgspec import Meta, Struct

from postbackd.admin.api.people import is_id, reception_of
from postbackd.admin.endpoints import Asked, Endpoint, Scope
from postbackd.admin.pages import MAX_ITEMS, Page, read_cursor, write_cursor
from postbackd.admin.problems import Problem, not_found
from postbackd.core.moments import write_moment
from postbackd.core.people import DAY_MS, SECRET_BYTES, TOKEN_BEGIN, Token, hash_secret, read_scopes


class NewToken(Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1, max_length=64, description="What it is for.")]
    scopes: Annotated[
        list[str], Meta(min_length=1, max_length=8, description="Any of read, catalog, operate.")
    ]
    expires_days: (
        Annotated[int, Meta(ge=1, le=3650, description="Days until its time is over; null: never.")] | None
    ) = 365


class TokenRow(Struct, frozen=True):
    """A token, without its secret."""

    id: int
    name: str
    scopes: tuple[str, ...]
    made_by: str
    """Empty: the command line."""
    made: str
    expires: str | None
    used: str | None
    """When it was last used, to the minute."""


class MadeToken(Struct, frozen=True):
    """A new token; it is shown this once."""

    token: str
    id: int
    name: str
    scopes: tuple[str, ...]
    expires: str | None


class AuditQuery(Struct, frozen=True, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=MAX_ITEMS)] = 100
    cursor: str | None = None
    who: Annotated[str, Meta(max_length=64, description="Of one user or token only.")] = ""


class AuditRow(Struct, frozen=True):
    """Something that was changed, or was tried to be."""

    id: int
    at: str
    who: str
    kind: str
    """``session``, ``token``, ``command line`` or ``nobody``."""
    action: str
    object: str
    fields: tuple[str, ...]
    """What was given, by name; no value is kept."""
    status: int
    prefix: str
    """The network it came from."""


def _moment(at_ms: int | None) -> str | None:
    return None if at_ms is None else write_moment(at_ms)


def _row(token: Token) -> TokenRow:
    return TokenRow(
        token.id, token.name, token.allowed, token.user_name,
        write_moment(token.made_ms), _moment(token.expires_ms), _moment(token.used_ms),
    )  # fmt: skip


async def list_tokens(asked: Asked[None, None]) -> list[TokenRow]:
    """Without their secrets, which nobody has but those they were given to."""
    return [_row(token) for token in await reception_of(asked).people.list_tokens()]


async def add_token(asked: Asked[None, NewToken]) -> MadeToken:
    """The secret is shown this once; only its hash is kept."""
    body, now = asked.body, asked.desk.now_ms()
    try:
        scopes = read_scopes(body.scopes)
    except ValueError as error:
        raise Problem(400, str(error), field="scopes") from error
    name = body.name.strip()
    if not name or not name.isprintable():
        raise Problem(400, "the name of a token is printable text", field="name")
    secret = TOKEN_BEGIN + token_urlsafe(SECRET_BYTES)
    expires_ms = None if body.expires_days is None else now + body.expires_days * DAY_MS
    user_id = asked.who.id if asked.who.kind == "session" else None
    token = Token(
        name=name,
        hash=hash_secret(secret),
        scopes=scopes,
        user_id=user_id,
        made_ms=now,
        expires_ms=expires_ms,
    )
    id_ = await reception_of(asked).people.add_token(token)
    return MadeToken(secret, id_, name, scopes, _moment(expires_ms))


async def remove_token(asked: Asked[None, None]) -> None:
    """From now on it opens nothing."""
    id_ = asked.path["id"]
    if not is_id(id_) or await reception_of(asked).people.remove_token(int(id_)) is None:
        raise not_found("token", id_)


async def list_audit(asked: Asked[AuditQuery, None]) -> Page[AuditRow]:
    """Newest first."""
    query = asked.query
    before = read_cursor(query.cursor, tuple[int])[0] if query.cursor else (1 << 62)
    entries = await reception_of(asked).people.list_audit(before, query.limit + 1, query.who)
    rows = [
        AuditRow(one.id, write_moment(one.at_ms), one.who, one.kind, one.action, one.object, one.fields,
                 one.status, one.prefix)
        for one in entries[: query.limit]
    ]  # fmt: skip
    more = len(entries) > query.limit
    return Page(rows, write_cursor(rows[-1].id) if more else None)


ENDPOINTS = (
    Endpoint(
        "GET", "/tokens", Scope.OWN, "Tokens", "List the tokens.", list_tokens,
        answer=list[TokenRow], own_data_only=True,
    ),
    Endpoint(
        "POST", "/tokens", Scope.OWN, "Tokens", "Make a token.", add_token,
        body=NewToken, answer=MadeToken, status=201, problems=(409,), own_data_only=True,
    ),
    Endpoint(
        "DELETE", "/tokens/{id}", Scope.OWN, "Tokens", "Remove a token.", remove_token, own_data_only=True
    ),
    Endpoint(
        "GET", "/audit", Scope.OWN, "Audit log", "Who changed what, newest first.", list_audit,
        query=AuditQuery, answer=Page[AuditRow], own_data_only=True,
    ),
)  # fmt: skip
