"""Sign in and out, one's own account, and the other users."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from starlette.responses import Response

from postbackd.admin.doorkeeper import forget_session, prefix_of, session_secret, set_session
from postbackd.admin.endpoints import Asked, Endpoint, Principal, Scope
from postbackd.admin.problems import Problem, not_found
from postbackd.admin.reception import Opened, Reception
from postbackd.core.moments import write_moment
from postbackd.core.people import MAX_PASSWORD, SESSION_MS, Code, Purpose, Role, User, csrf_token, hash_secret
from postbackd.core.totp import write_uri

Password = Annotated[str, Meta(max_length=MAX_PASSWORD)]
Name = Annotated[str, Meta(max_length=200)]
Secret = Annotated[str, Meta(max_length=128)]


CODE_HEADER = "postbackd-code"
"""Carries the code of a one-time link that is only looked at."""


class SignIn(Struct, frozen=True, forbid_unknown_fields=True):
    name: Name
    password: Password
    code: Annotated[str, Meta(max_length=64, description="Of the authenticator, or a recovery code.")] = ""


class Me(Struct, frozen=True):
    """Who is signed in."""

    name: str
    role: Role
    scopes: tuple[str, ...]
    csrf: str
    """Send it as ``Postbackd-CSRF`` with every request that changes something."""
    totp: bool
    """Whether a code is asked for at sign-in."""
    recovery_left: int
    """Recovery codes that were not used."""
    until: str
    """When the session ends, used or not."""


class Welcome(Struct, frozen=True, forbid_unknown_fields=True):
    code: Secret
    password: Password
    name: Name = ""


class OneTimeLink(Struct, frozen=True):
    """What a one-time link is for."""

    purpose: Purpose
    role: Role
    name: str
    """Whose; empty: whoever follows it chooses."""
    until: str


class Person(Struct, frozen=True):
    """A user."""

    id: int
    name: str
    role: Role
    totp: bool
    made: str
    is_you: bool


class Invite(Struct, frozen=True, forbid_unknown_fields=True):
    role: Role
    name: Annotated[str, Meta(max_length=64, description="Empty: whoever is invited chooses.")] = ""


class Invitation(Struct, frozen=True):
    """A link that lets somebody in once; it is shown this once."""

    link: str
    role: Role
    name: str
    until: str


class RoleChange(Struct, frozen=True, forbid_unknown_fields=True):
    role: Role


class PasswordChange(Struct, frozen=True, forbid_unknown_fields=True):
    old: Password
    new: Password


class PasswordProof(Struct, frozen=True, forbid_unknown_fields=True):
    password: Password


class CodeProof(Struct, frozen=True, forbid_unknown_fields=True):
    code: Annotated[str, Meta(max_length=64)]


class TotpSeed(Struct, frozen=True):
    """What an authenticator needs; shown this once."""

    seed: str
    uri: str
    """For a QR code."""
    recovery: list[str]
    """Codes for the day on which the telephone is lost; each opens once."""


class EndedSessions(Struct, frozen=True):
    """Sessions that are over."""

    ended: int


# --- sign in and out ---------------------------------------------------------------------------------------------


def reception_of(asked: Asked[Any, Any]) -> Reception:
    """Raises ``Problem``."""
    reception = asked.desk.reception
    if reception is None:
        raise Problem(503, "nobody can sign in here")
    return reception


def _me(user: User, secret: str, made_ms: int) -> Me:
    until = write_moment(made_ms + SESSION_MS)
    recovery = len(user.recovery) if user.totp_on else 0
    return Me(user.name, user.role, user.role.scopes, csrf_token(secret), user.totp_on, recovery, until)


def _answer(opened: Opened, now_ms: int) -> Response:
    me = _me(opened.user, opened.secret, now_ms)
    response = Response(msgspec.json.encode(me), media_type="application/json")
    set_session(response, opened.secret)
    return response


async def sign_in(asked: Asked[None, SignIn]) -> Response:
    """Begin a session; the cookie that is set is of no use without ``csrf``."""
    reception, body = reception_of(asked), asked.body
    user = await reception.people.find_user(body.name.strip().lower())
    asked.request.state.who = "" if user is None else user.name  # what was typed may be a password
    prefix = prefix_of(asked.request, reception)
    old = session_secret(asked.request)
    opened = await reception.sign_in(body.name, body.password, body.code, prefix, instead_of=old)
    return _answer(opened, asked.desk.now_ms())


async def show_session(asked: Asked[None, None]) -> Me | None:
    """Who is signed in, and what has to be sent with changes; ``null`` when nobody is, which is no error."""
    secret = session_secret(asked.request)
    session = await reception_of(asked).people.find_session(hash_secret(secret)) if secret else None
    if session is None or asked.who.kind != "session":
        return None
    return _me(session.user, secret, session.made_ms)


async def sign_out(asked: Asked[None, None]) -> Response:
    """End the session, if there is one."""
    secret = session_secret(asked.request)
    if secret:
        await reception_of(asked).people.end_session(hash_secret(secret))
    response = Response(status_code=204, headers={"Clear-Site-Data": '"cache", "storage"'})
    forget_session(response)
    return response


async def show_link(asked: Asked[None, None]) -> OneTimeLink:
    """What a one-time link is for, before it is used.

    Its code is sent in the header ``Postbackd-Code``: a proxy writes addresses into its log, and it still opens.
    """
    code = await reception_of(asked).look_at(asked.request.headers.get(CODE_HEADER, ""))
    return _link(code)


def _link(code: Code) -> OneTimeLink:
    return OneTimeLink(code.purpose, code.role, code.name, write_moment(code.expires_ms))


async def welcome(asked: Asked[None, Welcome]) -> Response:
    """Follow a one-time link: choose a password, and a name where it names nobody.  Begins a session."""
    reception, body = reception_of(asked), asked.body
    prefix = prefix_of(asked.request, reception)
    old = session_secret(asked.request)
    opened = await reception.follow(body.code, body.name, body.password, prefix, instead_of=old)
    asked.request.state.who = opened.user.name
    return _answer(opened, asked.desk.now_ms())


# --- one's own account -------------------------------------------------------------------------------------------


async def _self(asked: Asked[Any, Any]) -> User:
    user = await reception_of(asked).people.load_user(asked.who.id) if asked.who.kind == "session" else None
    if user is None:
        raise Problem(403, "this is for people; sign in")
    return user


async def change_password(asked: Asked[None, PasswordChange]) -> Response:
    """Choose another password; every session ends, and a new one begins here."""
    reception, user, body = reception_of(asked), await _self(asked), asked.body
    prefix = prefix_of(asked.request, reception)
    await reception.prove(user, body.old, prefix)
    reception.check_password(body.new, user.name)
    await reception.people.set_password(user, await reception.passwords.hash(body.new), but="")
    opened = await reception.open(user, prefix, instead_of=session_secret(asked.request))
    return _answer(opened, asked.desk.now_ms())


async def end_sessions(asked: Asked[None, None]) -> EndedSessions:
    """Sign out everywhere but here."""
    user, here = await _self(asked), hash_secret(session_secret(asked.request))
    return EndedSessions(await reception_of(asked).people.end_sessions(user, but=here))


async def begin_totp(asked: Asked[None, PasswordProof]) -> TotpSeed:
    """Set up an authenticator; a code is asked for as soon as one was confirmed."""
    reception, user = reception_of(asked), await _self(asked)
    await reception.prove(user, asked.body.password, prefix_of(asked.request, reception))
    if user.totp_on:
        raise Problem(409, "codes are asked for already; switch them off first")
    seed, recovery = await reception.begin_totp(user)
    return TotpSeed(seed, write_uri(seed, user.name, "postbackd"), recovery)


async def confirm_totp(asked: Asked[None, CodeProof]) -> None:
    """Show that the authenticator works: from now on its codes are asked for."""
    reception, user = reception_of(asked), await _self(asked)
    reception.slow(user.name, prefix_of(asked.request, reception), is_known=True)
    await reception.confirm_totp(user, asked.body.code)


async def end_totp(asked: Asked[None, PasswordProof]) -> None:
    """From now on the password is enough."""
    reception, user = reception_of(asked), await _self(asked)
    await reception.prove(user, asked.body.password, prefix_of(asked.request, reception))
    await reception.people.set_totp(user, "", (), on=False)


# --- other users -------------------------------------------------------------------------------------------------


def _person(user: User, who: Principal) -> Person:
    is_you = who.kind == "session" and who.id == user.id
    return Person(user.id, user.name, user.role, user.totp_on, write_moment(user.made_ms), is_you)


async def list_users(asked: Asked[None, None]) -> list[Person]:
    """Everybody who can sign in."""
    return [_person(user, asked.who) for user in await reception_of(asked).people.list_users()]


async def _found(asked: Asked[Any, Any]) -> User:
    id_ = asked.path["id"]
    user = await reception_of(asked).people.load_user(int(id_)) if is_id(id_) else None
    if user is None:
        raise not_found("user", id_)
    return user


def is_id(text: str) -> bool:
    """Whether a segment of a path can be the number of a row."""
    return text.isascii() and text.isdigit() and len(text) <= 18


async def invite(asked: Asked[None, Invite]) -> Invitation:
    """Make a link that lets somebody choose a password; send it to them by a way that nobody else reads."""
    reception, body = reception_of(asked), asked.body
    name = reception.read_name(body.name) if body.name else ""
    if name and await reception.people.find_user(name) is not None:
        raise Problem(409, f"there is a user {name!r} already; change the role instead", field="name")
    secret, code = await reception.invite(Purpose.INVITE, body.role, name, asked.who.name)
    return _invitation(reception, secret, code)


def _invitation(reception: Reception, secret: str, code: Code) -> Invitation:
    return Invitation(reception.link(secret), code.role, code.name, write_moment(code.expires_ms))


async def reset(asked: Asked[None, None]) -> Invitation:
    """Make a link for somebody who has forgotten the password or lost the authenticator.

    Nothing of theirs changes before it is followed; then their sessions end, and codes are no longer asked for.
    """
    reception, user = reception_of(asked), await _found(asked)
    secret, code = await reception.invite(Purpose.RESET, user.role, user.name, asked.who.name)
    return _invitation(reception, secret, code)


async def change_role(asked: Asked[None, RoleChange]) -> Person:
    """Let somebody do more or less; they have to sign in again."""
    people, user = reception_of(asked).people, await _found(asked)
    await people.set_role(user, asked.body.role)
    return _person(msgspec.structs.replace(user, role=asked.body.role), asked.who)


async def remove_user(asked: Asked[None, None]) -> None:
    """With sessions, tokens and saved views."""
    await reception_of(asked).people.remove_user(await _found(asked))


_T = "People"

ENDPOINTS = (
    Endpoint(
        "POST", "/session", None, _T, "Sign in.", sign_in,
        body=SignIn, answer=Me, max_body_bytes=4000, problems=(401, 403, 429), own_data_only=True,
    ),
    Endpoint(
        "GET", "/session", None, _T, "Say who is signed in.", show_session,
        answer=Me | None, own_data_only=True,
    ),
    Endpoint("DELETE", "/session", None, _T, "Sign out.", sign_out, problems=(403,), own_data_only=True),
    Endpoint(
        "GET", "/welcome", None, _T, "Say what a one-time link is for.", show_link,
        answer=OneTimeLink, problems=(410,), own_data_only=True,
    ),
    Endpoint(
        "POST", "/welcome", None, _T, "Follow a one-time link.", welcome,
        body=Welcome, answer=Me, max_body_bytes=4000, problems=(403, 409, 410, 429), own_data_only=True,
    ),
    Endpoint(
        "POST", "/me/password", Scope.READ, _T, "Choose another password.", change_password,
        body=PasswordChange, answer=Me, max_body_bytes=4000, problems=(429,), own_data_only=True,
    ),
    Endpoint(
        "DELETE", "/me/sessions", Scope.READ, _T, "Sign out everywhere else.", end_sessions,
        answer=EndedSessions, own_data_only=True,
    ),
    Endpoint(
        "POST", "/me/totp", Scope.READ, _T, "Set up an authenticator.", begin_totp,
        body=PasswordProof, answer=TotpSeed, max_body_bytes=4000, problems=(409, 429), own_data_only=True,
    ),
    Endpoint(
        "PUT", "/me/totp", Scope.READ, _T, "Confirm the authenticator by a code.", confirm_totp,
        body=CodeProof, max_body_bytes=4000, problems=(409, 429), own_data_only=True,
    ),
    Endpoint(
        "POST", "/me/totp/off", Scope.READ, _T, "Ask for no codes any more.", end_totp,
        body=PasswordProof, max_body_bytes=4000, problems=(429,), own_data_only=True,
    ),
    Endpoint(
        "GET", "/users", Scope.OWN, _T, "List the users.", list_users, answer=list[Person], own_data_only=True
    ),
    Endpoint(
        "POST", "/users/invite", Scope.OWN, _T, "Invite somebody.", invite,
        body=Invite, answer=Invitation, status=201, max_body_bytes=4000, problems=(409,), own_data_only=True,
    ),
    Endpoint(
        "POST", "/users/{id}/reset", Scope.OWN, _T, "Let a user choose another password.", reset,
        answer=Invitation, status=201, own_data_only=True,
    ),
    Endpoint(
        "PATCH", "/users/{id}", Scope.OWN, _T, "Change a user's role.", change_role,
        body=RoleChange, answer=Person, max_body_bytes=4000, problems=(409,), own_data_only=True,
    ),
    Endpoint(
        "DELETE", "/users/{id}", Scope.OWN, _T, "Remove a user.", remove_user,
        problems=(409,), own_data_only=True,
    ),
)  # fmt: skip
