"""People and programs that may use the dashboard and the API: who they are, what they may do, for how long.

Secrets are never in these records: of a code, a session or a token only the SHA-256 is kept, and because each holds 256
random bits that is as good as the secret is long.  Passwords are another matter; see ``admin.passwords``.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS = 1000, 60_000, 3_600_000, 86_400_000

WELCOME_MS = HOUR_MS
"""The link of the first owner: it stands in a terminal or in the log of a service."""

INVITE_MS = 3 * DAY_MS
"""Other links: they are sent to somebody who may be away for a weekend."""

IDLE_MS = 12 * HOUR_MS
"""A session that nobody uses ends: a working day, so that nobody signs in twice a day, and not the night."""

SESSION_MS = 7 * DAY_MS
"""A session ends, used or not."""

SEEN_EVERY_MS = MINUTE_MS
"""How exactly it is known when a session or a token was last used; a write each."""

AUDIT_MS = 400 * DAY_MS
"""The audit log is kept for a year and what an auditor may be late."""

TOKEN_BEGIN = "pba_"  # noqa: S105 - how a token begins
"""So that a scanner of source code knows a lost token when it sees one."""

SECRET_BYTES = 32
"""Random bytes of a code, a session or a token."""

MIN_PASSWORD, MAX_PASSWORD = 12, 256
"""Characters.  Length is what makes a password good (NIST SP 800-63B 3.1.1); the upper bound limits the work."""

KNOWN_PREFIXES = 8


class Role(StrEnum):
    """What a person may do."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    OWNER = "owner"

    @property
    def scopes(self) -> tuple[str, ...]:
        """In the words of ``admin.endpoints.Scope``."""
        return _SCOPES[self]


TOKEN_SCOPES = ("read", "catalog", "operate")
"""What a token may have: it never manages people."""

_SCOPES = {
    Role.VIEWER: TOKEN_SCOPES[:1],
    Role.OPERATOR: TOKEN_SCOPES,
    Role.OWNER: (*TOKEN_SCOPES, "own"),
}


class Purpose(StrEnum):
    """What a one-time link is for."""

    WELCOME = "welcome"
    """The first owner."""
    INVITE = "invite"
    """Another user."""
    RESET = "reset"
    """A user who has forgotten the password, or lost what makes the codes."""


class User(Struct, frozen=True, kw_only=True):
    """A person."""

    id: int
    name: str
    role: Role
    password: str
    totp: str = ""
    """The seed, sealed; empty: none."""
    totp_on: bool = False
    """Otherwise it was set up and not confirmed."""
    totp_step: int = 0
    recovery: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    """Networks from which they signed in, the newest last."""
    made_ms: int = 0


class Session(Struct, frozen=True, kw_only=True):
    """A browser that somebody signed in with."""

    hash: str
    user: User
    made_ms: int
    seen_ms: int

    def is_over(self, now_ms: int) -> bool:
        return now_ms - self.seen_ms > IDLE_MS or now_ms - self.made_ms > SESSION_MS


class Code(Struct, frozen=True, kw_only=True):
    """A one-time link."""

    hash: str
    purpose: Purpose
    name: str = ""
    """Whose; empty: whoever follows it chooses."""
    role: Role
    made_by: str
    made_ms: int
    expires_ms: int


class Token(Struct, frozen=True, kw_only=True):
    """What a program shows instead of a session."""

    id: int = 0
    name: str
    hash: str
    scopes: tuple[str, ...]
    user_id: int | None = None
    """Who made it; ``None``: the command line."""
    user_name: str = ""
    user_role: Role | None = None
    made_ms: int
    expires_ms: int | None = None
    used_ms: int | None = None

    @property
    def allowed(self) -> tuple[str, ...]:
        """Its scopes, but never more than whoever made it has today."""
        if self.user_role is None:
            return self.scopes
        return tuple(scope for scope in self.scopes if scope in self.user_role.scopes)


class AuditEntry(Struct, frozen=True, kw_only=True):
    """Something that was changed, or was tried to be.  No secret and no value is in it."""

    id: int = 0
    at_ms: int
    who: str
    kind: str
    """``session``, ``token``, ``command line`` or ``nobody``."""
    action: str
    object: str = ""
    fields: tuple[str, ...] = ()
    status: int = 200
    prefix: str = ""


def hash_secret(secret: str) -> str:
    """What is stored of a code, a session or a token."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def code_of(secret: str, purpose: Purpose, role: Role, name: str, made_by: str, now_ms: int) -> Code:
    """What is kept of a one-time link that begins to live now."""
    lives_ms = WELCOME_MS if purpose is Purpose.WELCOME else INVITE_MS
    return Code(
        hash=hash_secret(secret), purpose=purpose, name=name, role=role,
        made_by=made_by, made_ms=now_ms, expires_ms=now_ms + lives_ms,
    )  # fmt: skip


def welcome_link(url: str, secret: str) -> str:
    """What somebody opens in a browser.  Behind the ``#``: browsers send that to no server, and no log has it."""
    return f"{url}/#/welcome?code={secret}"


def csrf_token(session: str) -> str:
    """What a page proves with that it can read answers of ours: bound to the session, of no use for finding it."""
    return hmac.digest(session.encode("utf-8", "surrogatepass"), b"postbackd: csrf", "sha256").hex()


def read_name(text: str) -> str:
    """A user's name as it is stored.  Raises ``ValueError``."""
    name = text.strip().lower()
    if not re.fullmatch(r"[a-z0-9][a-z0-9._@+-]{0,63}", name):
        raise ValueError(
            "a user's name is 1 to 64 letters, digits or any of . _ @ + -, and begins with a letter or a digit"
        )
    return name


def check_password(password: str, name: str) -> None:
    """Raises ``ValueError`` when it may not be chosen."""
    if len(password) < MIN_PASSWORD:
        raise ValueError(
            f"the password has fewer than {MIN_PASSWORD} characters; three or four words do well"
        )
    if len(password) > MAX_PASSWORD:
        raise ValueError(f"the password has more than {MAX_PASSWORD} characters")
    plain = password.lower()
    if len(set(plain)) < 5 or plain in _COMMON or (len(name) > 3 and plain.replace(name, "") == ""):
        raise ValueError(
            "this password is among the first that anybody would try; three or four words do well"
        )


_COMMON = frozenset({
    "passwordpassword",
    "password1234",
    "password12345",
    "password123456",
    "123456789012",
    "1234567890123",
    "12345678901234",
    "qwertyuiopasdf",
    "qwertyuiop12",
    "qwertyuiop123",
    "1q2w3e4r5t6y",
    "1qaz2wsx3edc",
    "administrator",
    "administrator1",
    "adminadminadmin",
    "adminadmin123",
    "iloveyou1234",
    "letmeinletmein",
    "welcome12345",
    "welcome123456",
    "changemechangeme",
    "changeme1234",
    "postbackd1234",
    "postbackdpostbackd",
    "abcdefghijkl",
    "abc123abc123",
    "qwerty123456",
    "p@ssw0rd1234",
    "passw0rd1234",
})  # fmt: skip
"""Of at least twelve characters; shorter ones are refused already."""


def read_scopes(texts: Sequence[str]) -> tuple[str, ...]:
    """The scopes of a token, in their order.  Raises ``ValueError``."""
    for text in texts:
        if text not in TOKEN_SCOPES:
            raise ValueError(f"there is no scope {text!r} for tokens; write any of {', '.join(TOKEN_SCOPES)}")
    if not texts:
        raise ValueError(f"a token needs a scope; write any of {', '.join(TOKEN_SCOPES)}")
    return tuple(scope for scope in TOKEN_SCOPES if scope in texts)


def remember_prefix(known: Sequence[str], prefix: str) -> tuple[str, ...]:
    """The networks with another one, which is the newest."""
    return (*(one for one in known if one != prefix), prefix)[-KNOWN_PREFIXES:]
