"""What an endpoint of the API is: one record holds the route, the description for OpenAPI, the rights, and the work.

To add endpoints, write a module in ``admin/api`` with a tuple ``ENDPOINTS`` and name it in ``admin/api/__init__.py``:

    class Asked_(Struct, frozen=True, forbid_unknown_fields=True): ...   # query parameters, each with a default or not
    class Answer(Struct, frozen=True): ...                               # becomes a schema under its own name

    async def show(asked: Asked[Query, None]) -> Answer: ...

    ENDPOINTS = (
        Endpoint("GET", "/things/{name}", Scope.READ, "Things", "Show one thing.", show, query=Query, answer=Thing),
    )

Errors are raised as ``Problem``; those of ``catalog.errors`` and of the store are answered as problems, too.  A list
answers a ``Page[Thing]``.  What is no JSON (CSV, events) is answered as a response of Starlette, with ``gives`` naming
its media type; a body that is no JSON is taken with ``takes``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Any, Generic, TypeVar

from msgspec import Struct
from starlette.requests import Request

from postbackd.admin.desk import Desk

PREFIX = "/api/v1"

SAFE_METHODS = frozenset({"GET", "HEAD"})
"""They change nothing."""


class Scope(StrEnum):
    """What a token may do; a person's role is a set of these."""

    READ = "read"
    """Look at everything but secrets."""
    CATALOG = "catalog"
    """Change networks, sources, offers, campaigns, targets and rules."""
    OPERATE = "operate"
    """Replay, resend, import, quiet alarms, erase, back up."""
    OWN = "own"
    """Manage users and tokens.  Of people only: no token has it."""


class Principal(Struct, frozen=True):
    """Who asks."""

    name: str
    scopes: frozenset[Scope]
    kind: str = "token"
    """``token``, ``session``, or ``nobody``."""
    id: int = 0
    """Of the user or the token."""


NOBODY = Principal("nobody", frozenset(), "nobody")

Q_co = TypeVar("Q_co", covariant=True)
B_co = TypeVar("B_co", covariant=True)


class Asked(Generic[Q_co, B_co]):
    """A request whose query and body are decoded and whose sender may ask it."""

    def __init__(
        self, request: Request, desk: Desk, who: Principal, path: Mapping[str, str], query: Q_co, body: B_co
    ) -> None:
        self.request = request
        self.desk = desk
        self.who = who
        self.path = path
        self.query = query
        self.body = body


class Answered(Struct, frozen=True):
    """An answer with headers or a status of its own; an endpoint may return it instead of the bare answer."""

    value: Any
    headers: Mapping[str, str] = {}
    status: int | None = None


class Endpoint(Struct, frozen=True):
    """One method of one path."""

    method: str
    path: str
    """Below ``PREFIX``; ``{name}`` is one segment."""
    scope: Scope | None
    """What the sender must be allowed; ``None``: anybody may ask."""
    topic: str
    does: str
    """One sentence for the documentation."""
    run: Callable[[Any], Awaitable[Any]]
    query: type | None = None
    """A ``Struct`` of the query parameters, with ``forbid_unknown_fields``."""
    body: Any = None
    """The type of the JSON body; ``bytes`` for one that is no JSON."""
    answer: Any = None
    """The type of the JSON answer; ``None``: 204 without a body, or ``gives``."""
    status: int = 200
    takes: str = "application/json"
    """Media type of the body."""
    gives: str = "application/json"
    """Media type of the answer."""
    streams: bool = False
    """Whether the work reads the body itself, as it comes, and keeps to ``max_body_bytes``."""
    max_body_bytes: int = 1_000_000
    problems: tuple[int, ...] = ()
    """Statuses of the problems it may answer beside 400, 401, 403 and 503."""
    conditional: bool = False
    """Takes ``If-Match`` with the ``ETag`` of an earlier answer, so that nobody's change is lost: 412."""
    example: Mapping[str, Any] | None = None
    """Of the body, for the documentation."""
    noted: bool = True
    """Whether the audit log keeps that it was asked; what is asked at every keystroke and changes nothing is not."""
    own_data_only: bool = False
    """Of this installation, whichever data set is looked at: users, settings."""
