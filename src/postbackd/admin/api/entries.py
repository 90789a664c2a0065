"""What the kinds of catalog entries share: looking them up, pages of them, and changes that lose nobody's work.

A path names an entry by its name, a campaign also by its slug, any of them as ``id:17`` (for a name with a slash).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from postbackd.admin.desk import Desk
from postbackd.admin.endpoints import Answered, Asked, Endpoint, Scope
from postbackd.admin.pages import MAX_ITEMS, Page, read_cursor, write_cursor
from postbackd.admin.problems import Problem
from postbackd.catalog.accounts import Seal
from postbackd.catalog.documents import find_entry
from postbackd.core.model import Catalog, CatalogEntry
from postbackd.store.base import CatalogMoved

E = TypeVar("E", bound=CatalogEntry)

Limit = Annotated[int, Meta(ge=1, le=MAX_ITEMS, description="Most items of a page.")]
Cursor = Annotated[str | None, Meta(description="The 'next' of the page before.")]


class ListQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which page of a list of entries."""

    search: Annotated[str, Meta(max_length=100, description="Only names that contain this.")] | None = None
    limit: Limit = 100
    cursor: Cursor = None


def find(entries: Sequence[Any], name: str, kind: str) -> Any:
    """The entry that a path names.  Raises ``NoEntry``."""
    word, _, number = name.partition(":")
    if word == "id" and number.isascii() and number.isdigit():
        for entry in entries:
            if entry.id == int(number[:18]):
                return entry
    return find_entry(entries, name, kind)


def page_of(entries: Sequence[Any], query: ListQuery, describe: Callable[[Any], Any]) -> Page[Any]:
    """One page, in the order in which the entries were added."""
    after = 0 if query.cursor is None else read_cursor(query.cursor, tuple[int])[0]
    wanted = (query.search or "").casefold()
    fitting = sorted(
        (entry for entry in entries if entry.id > after and wanted in entry.name.casefold()),
        key=lambda entry: entry.id,
    )
    shown = fitting[: query.limit]
    more = write_cursor(shown[-1].id) if len(fitting) > len(shown) else None
    return Page([describe(entry) for entry in shown], more)


def seal_of(desk: Desk) -> Seal:
    """What seals secrets for this desk.  Raises ``Problem`` where nothing can be sealed."""
    if "seal" not in desk.tools:
        raise Problem(503, "secrets cannot be sealed here; give them with the command line")
    seal: Seal = desk.tools["seal"]
    return seal


def answer(value: Any, generation: int, status: int | None = None) -> Answered:
    """An answer that says which catalog it speaks of."""
    return Answered(value, {"ETag": f'"{generation}"'}, status)


async def load(asked: Asked[Any, Any]) -> tuple[Catalog, int | None]:
    """The catalog, and the generation that a change of it must find.  Raises ``CatalogMoved``."""
    catalog = await asked.desk.store.load_catalog()
    text = asked.request.headers.get("if-match", "*").strip()
    if text == "*":
        return catalog, None
    number = text.removeprefix("W/").strip('"')
    if not (number.isascii() and number.isdigit() and len(number) <= 18):
        raise Problem(
            400, 'If-Match takes the ETag of an earlier answer, such as "17", or *', field="If-Match"
        )
    if int(number) != catalog.generation:
        raise CatalogMoved("the catalog has changed since; look at it again, then change it")
    return catalog, int(number)


async def save(asked: Asked[Any, Any], entry: E, if_generation: int | None) -> tuple[E, Catalog]:
    """Save an entry; returns it as it is stored, and the catalog with it."""
    store = asked.desk.store
    (saved,) = await store.change_catalog([entry], (), asked.desk.now_ms(), if_generation=if_generation)
    return saved, await store.load_catalog()  # type: ignore[return-value]  # the same type as it was given


async def remove(asked: Asked[Any, Any], kind: str) -> Answered:
    """Take an entry out of the catalog."""
    catalog, expected = await load(asked)
    entry = find(getattr(catalog, f"{kind}s"), asked.path["name"], kind)
    store = asked.desk.store
    await store.change_catalog((), [entry], asked.desk.now_ms(), if_generation=expected)
    return answer(None, await store.catalog_generation())


def convert(document: Mapping[str, Any], type_: type[Any], **more: Any) -> Any:
    """A document of ``catalog.documents`` as an answer."""
    return msgspec.convert({**document, **more}, type_)


_CHANGING = (404, 409, 422)


def endpoints_of(
    kind: str,
    topic: str,
    shown: Any,
    new: Any,
    change: Any,
    runs: Mapping[str, Callable[[Any], Any]],
    example: Mapping[str, Any],
) -> tuple[Endpoint, ...]:
    """The five endpoints of a kind.  ``runs``: list, show, create, change."""
    path, one = f"/{kind}s", f"/{kind}s/{{name}}"
    article = "an" if kind[0] == "o" else "a"

    async def removing(asked: Asked[None, None]) -> Answered:
        """What it did stays in the reports."""
        return await remove(asked, kind)

    return (
        Endpoint("GET", path, Scope.READ, topic, f"List {kind}s.", runs["list"], query=ListQuery, answer=Page[shown]),
        Endpoint(
            "POST", path, Scope.CATALOG, topic, f"Add {article} {kind}.", runs["create"],
            body=new, answer=shown, status=201, conditional=True, problems=(409, 422), example=example,
        ),
        Endpoint(
            "GET", one, Scope.READ, topic, f"Show one {kind}.", runs["show"], answer=shown, problems=(404,)
        ),
        Endpoint(
            "PATCH", one, Scope.CATALOG, topic, f"Change {article} {kind}; what is left out stays.", runs["change"],
            body=change, answer=shown, conditional=True, problems=_CHANGING,
        ),
        Endpoint(
            "DELETE", one, Scope.CATALOG, topic, f"Take {article} {kind} out of the catalog.", removing,
            conditional=True, problems=(404, 409),
        ),
    )  # fmt: skip


def replace_query(endpoint: Endpoint, query: type) -> Endpoint:
    """The same endpoint with other query parameters."""
    return msgspec.structs.replace(endpoint, query=query)
