"""Who sends a request: a token, or a session whose page proves that it is ours.

A browser sends the cookie of a session with every request to us, whoever made the page that asks for it.  So a request
that may change something has to show that a page of ours asked: by a header that only a page which can read our answers
can fill in (bound to the session), and by what the browser itself says of where the page came from.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from postbackd.admin.endpoints import NOBODY, SAFE_METHODS, Endpoint, Principal, Scope
from postbackd.admin.problems import Problem
from postbackd.admin.reception import Reception
from postbackd.core.people import SEEN_EVERY_MS, SESSION_MS, AuditEntry, csrf_token, hash_secret
from postbackd.core.rate import limit_prefix

COOKIE = "__Host-postbackd"
"""Browsers take a cookie of such a name only with ``Secure``, for ``/`` and without a domain: no other host or
subdomain, and nobody on an unencrypted way, can set one."""

CSRF_HEADER = "postbackd-csrf"

_LONGEST_SECRET = 128

_NOTED_OF_NOBODY = frozenset({200, 401, 409})
"""Signed in, or a wrong password: ``core.guessing`` bounds these.  What anybody can send as often as they like (429,
400, and everything where they would have to be somebody) must not fill the log."""

_LONGEST_OBJECT = 200

_SITES = ("same-origin", "none")
"""``Sec-Fetch-Site`` of a page of ours, and of somebody who types an address."""


class PeopleDoorkeeper:
    """``admin.identity.Doorkeeper`` for the people and tokens in the database."""

    def __init__(self, reception: Reception, now_ms: Callable[[], int]) -> None:
        self._reception = reception
        self._people = reception.people
        self._now_ms = now_ms

    async def identify(self, request: Request) -> Principal:
        """See ``admin.identity.Doorkeeper``."""
        authorization = request.headers.get("authorization")
        if authorization is not None:
            return await self._identify_token(authorization)
        if request.method not in SAFE_METHODS:
            self._check_origin(request)
        secret = session_secret(request)
        if not secret:
            return NOBODY
        return await self._identify_session(request, secret)

    async def _identify_token(self, authorization: str) -> Principal:
        kind, _, secret = authorization.partition(" ")
        now = self._now_ms()
        token = None
        if kind.lower() == "bearer" and len(secret) <= _LONGEST_SECRET:
            token = await self._people.find_token(hash_secret(secret.strip()))
        if token is None or (token.expires_ms is not None and token.expires_ms <= now):
            raise Problem(
                401,
                "this token is none of ours, or its time is over; 'postbackd token add' makes one",
                headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
            )
        if token.used_ms is None or now - token.used_ms > SEEN_EVERY_MS:
            await self._people.use_token(token.id, now)
        return Principal(token.name, frozenset(map(Scope, token.allowed)), "token", token.id)

    async def _identify_session(self, request: Request, secret: str) -> Principal:
        hash_ = hash_secret(secret)
        now = self._now_ms()
        session = await self._people.find_session(hash_)
        if session is None or session.is_over(now):
            return NOBODY
        if request.method not in SAFE_METHODS:
            given = request.headers.get(CSRF_HEADER, "")
            if not hmac.compare_digest(given.encode("utf-8", "replace"), csrf_token(secret).encode()):
                raise Problem(403, f"send the header {CSRF_HEADER} with what GET /api/v1/session says")
        if now - session.seen_ms > SEEN_EVERY_MS:
            await self._people.see_session(hash_, now)
        user = session.user
        return Principal(user.name, frozenset(map(Scope, user.role.scopes)), "session", user.id)

    def _check_origin(self, request: Request) -> None:
        """Raises ``Problem`` when a page of somebody else asks; a client that is no browser says nothing of pages."""
        site = request.headers.get("sec-fetch-site")
        if site is not None and site not in _SITES:
            raise Problem(403, "a page of another site asked for this; only pages of this server may")
        origin = request.headers.get("origin")
        if origin is not None and not self._is_ours(origin, request.headers.get("host", "")):
            raise Problem(403, "a page of another origin asked for this; only pages of this server may")

    def _is_ours(self, origin: str, host: str) -> bool:
        """Whoever asks has been let through by ``admin.hosts``, so that ``Host`` is a name of ours."""
        return origin == self._reception.url or (
            urlsplit(origin).netloc.lower() == host.lower() and origin.startswith(("http://", "https://"))
        )

    async def note(self, who: Principal, endpoint: Endpoint, request: Request, response: Response) -> None:
        """See ``admin.identity.Doorkeeper``."""
        if who.kind == "nobody" and (
            endpoint.scope is not None or response.status_code not in _NOTED_OF_NOBODY
        ):
            return
        fields: Sequence[str] = getattr(request.state, "fields", ())
        named: str = getattr(request.state, "who", "") or who.name
        entry = AuditEntry(
            at_ms=self._now_ms(), who=named, kind=who.kind, action=f"{endpoint.method} {endpoint.path}",
            object=request.url.path[:_LONGEST_OBJECT], fields=tuple(fields), status=response.status_code,
            prefix=prefix_of(request, self._reception),
        )  # fmt: skip
        await self._people.note(entry)


def session_secret(request: Request) -> str:
    """What the browser shows; empty: nothing."""
    secret = request.cookies.get(COOKIE, "")
    return secret if len(secret) <= _LONGEST_SECRET else ""


def prefix_of(request: Request, reception: Reception) -> str:
    """The network that a request comes from."""
    peer = request.client.host.removeprefix("::ffff:") if request.client else ""
    headers = {name.lower(): value for name, value in request.headers.raw}
    return limit_prefix(reception.client_of(peer, headers))


def set_session(response: Response, secret: str) -> None:
    """Give the browser its session.

    ``Strict``: the dashboard is one page whose files need no session, and every request of the API comes from it; so a
    link from elsewhere still opens it, and no request that another site starts ever carries the cookie.
    """
    response.set_cookie(
        COOKIE, secret, max_age=SESSION_MS // 1000, path="/", secure=True, httponly=True, samesite="strict"
    )


def forget_session(response: Response) -> None:
    """Take it away."""
    response.set_cookie(COOKIE, "", max_age=0, path="/", secure=True, httponly=True, samesite="strict")
