"""Saved views: questions that a person keeps, the same for every store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from postbackd.store.base import CatalogConflict
from postbackd.store.database import ConstraintViolated, Database

_T = TypeVar("_T")
Work = Callable[[Database], Coroutine[Any, Any, _T]]

OF_USER = "SELECT id, name, page, query FROM views WHERE user_id = ? ORDER BY page, name, id"
"""All of one person."""

SAVE_VIEW = """
INSERT INTO views (user_id, name, page, query) VALUES (?, ?, ?, ?)
ON CONFLICT (user_id, page, name) DO UPDATE SET query = excluded.query RETURNING id
"""
"""A new one, or the one of this name with another question."""

REMOVE_VIEW = "DELETE FROM views WHERE id = ? AND user_id = ? RETURNING id"
"""One of this person."""


class View(Struct, frozen=True):
    """A question under a name."""

    id: int
    name: str
    page: str
    query: str


class Asking(Protocol):
    """Runs work on a connection.  Raises ``StoreUnavailable``."""

    def __call__(self, work: Work[_T], /) -> Awaitable[_T]: ...


class Views:
    """The verbs.  Each raises ``StoreUnavailable`` when the database does not answer."""

    def __init__(self, read: Asking, change: Asking) -> None:
        self._read = read
        self._change = change

    async def of(self, user: int) -> Sequence[View]:
        """By page and name."""
        return [View(*row) for row in await self._read(lambda db: db.rows(OF_USER, user))]

    async def save(self, user: int, view: View) -> View:
        """One of the same page and name is replaced.  Raises ``CatalogConflict`` when the person is gone."""
        values = (user, view.name, view.page, view.query)
        try:
            rows = await self._change(lambda db: db.rows(SAVE_VIEW, *values))
        except ConstraintViolated as error:
            raise CatalogConflict("whoever saves this view was removed meanwhile") from error
        return View(rows[0][0], view.name, view.page, view.query)

    async def remove(self, user: int, id_: int) -> bool:
        """Whether this person had it."""
        return bool(await self._change(lambda db: db.rows(REMOVE_VIEW, id_, user)))
