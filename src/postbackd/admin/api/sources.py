"""Traffic sources: who sends visitors, and what they call things."""

from __future__ import annotations

from msgspec import Struct

from postbackd.admin.api import entries
from postbackd.admin.endpoints import Answered, Asked
from postbackd.admin.pages import Page
from postbackd.catalog.changes import Name, SourceChange, change_source
from postbackd.catalog.documents import Describer
from postbackd.core.model import Catalog, Source


class NewSource(SourceChange, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A traffic source that is to be added."""

    name: Name


class ShownSource(Struct, frozen=True, kw_only=True):
    """A traffic source."""

    id: int
    name: str
    preset: str | None
    fields: dict[str, list[str]]
    """Our field -> names of its parameters, where they are not the default ones."""
    parameters: dict[str, list[str]]
    """Our field -> all names that are accepted."""


def show(source: Source) -> ShownSource:
    """As an answer."""
    document = Describer(Catalog(generation=0), "").describe(source)
    shown: ShownSource = entries.convert(document, ShownSource, id=source.id)
    return shown


async def list_sources(asked: Asked[entries.ListQuery, None]) -> Page[ShownSource]:
    """In the order in which they were added."""
    return entries.page_of((await asked.desk.store.load_catalog()).sources, asked.query, show)


async def show_source(asked: Asked[None, None]) -> Answered:
    """With the parameters of its clicks, and what sub1 to sub10 hold."""
    catalog = await asked.desk.store.load_catalog()
    return entries.answer(
        show(entries.find(catalog.sources, asked.path["name"], "source")), catalog.generation
    )


async def create_source(asked: Asked[None, NewSource]) -> Answered:
    """A preset brings its words for sub1 to sub10."""
    _, expected = await entries.load(asked)
    saved, catalog = await entries.save(asked, change_source(Source(id=0, name=""), asked.body), expected)
    return entries.answer(show(saved), catalog.generation)


async def change(asked: Asked[None, SourceChange]) -> Answered:
    """Another preset replaces its parameter names."""
    catalog, expected = await entries.load(asked)
    found = entries.find(catalog.sources, asked.path["name"], "source")
    saved, catalog = await entries.save(asked, change_source(found, asked.body), expected)
    return entries.answer(show(saved), catalog.generation)


ENDPOINTS = entries.endpoints_of(
    "source", "Sources", ShownSource, NewSource, SourceChange,
    {"list": list_sources, "show": show_source, "create": create_source, "change": change},
    {"name": "PropellerAds", "preset": "propellerads"},
)  # fmt: skip
