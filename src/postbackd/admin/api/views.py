"""Saved views: questions that a person keeps, each of one page of the dashboard."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from postbackd.admin.api.people import is_id, reception_of
from postbackd.admin.endpoints import Asked, Endpoint, Scope
from postbackd.admin.problems import Problem, not_found
from postbackd.store.views import View, Views

MOST = 200
"""Of one person."""


class NewView(Struct, frozen=True, forbid_unknown_fields=True):
    """A view that is to be saved; one of the same name on the same page is replaced."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    page: Annotated[str, Meta(pattern="^[a-z][a-z-]{0,31}$", description="Of the dashboard.")]
    query: Annotated[str, Meta(max_length=2000, description="What stands behind the question mark.")]


class ShownView(Struct, frozen=True):
    """A saved view."""

    id: int
    name: str
    page: str
    query: str


class ViewQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which views."""

    page: Annotated[str, Meta(max_length=32)] | None = None


def _show(view: View) -> ShownView:
    return ShownView(view.id, view.name, view.page, view.query)


def _views(asked: Asked[Any, Any]) -> tuple[Views, int]:
    """Whoever asks is a person: a token has no views."""
    if asked.who.kind != "session":
        raise Problem(403, "saved views are of people; sign in")
    return reception_of(asked).people.views, asked.who.id


async def list_views(asked: Asked[ViewQuery, None]) -> list[ShownView]:
    """Those of whoever asks, by name."""
    views, user = _views(asked)
    found = await views.of(user)
    return [_show(view) for view in found if asked.query.page in (None, view.page)]


async def save_view(asked: Asked[None, NewView]) -> ShownView:
    """For whoever asks."""
    views, user = _views(asked)
    body = asked.body
    name = body.name.strip()
    if not name or not name.isprintable():
        raise Problem(422, "the name of a view is printable text", field="name")
    kept = await views.of(user)
    if len(kept) >= MOST and not any((one.page, one.name) == (body.page, name) for one in kept):
        raise Problem(409, f"there are {MOST} views; remove one first")
    return _show(await views.save(user, View(0, name, body.page, body.query)))


async def remove_view(asked: Asked[None, None]) -> None:
    """Of whoever asks."""
    views, user = _views(asked)
    id_ = asked.path["id"]
    if not is_id(id_) or not await views.remove(user, int(id_)):
        raise not_found("view", id_)


ENDPOINTS = (
    Endpoint(
        "GET", "/views", Scope.READ, "Views", "List saved views.", list_views, query=ViewQuery,
        answer=list[ShownView], own_data_only=True,
    ),
    Endpoint(
        "POST", "/views", Scope.READ, "Views", "Save a view.", save_view, body=NewView, answer=ShownView, status=201,
        problems=(409, 422), own_data_only=True,
        example={"name": "Germany by day", "page": "reports", "query": "by=day&country=DE"},
    ),
    Endpoint(
        "DELETE", "/views/{id}", Scope.READ, "Views", "Remove a saved view.", remove_view, problems=(404,),
        own_data_only=True,
    ),
)  # fmt: skip
