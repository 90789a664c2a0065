"""``postbackd source``: who sends visitors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from postbackd.catalog.changes import SourceChange, change_source
from postbackd.catalog.documents import Describer, find_entry
from postbackd.cli.catalog import (
    change_fields,
    list_entries,
    print_entry,
    remove_entry,
    show_entry,
)
from postbackd.cli.main import Family
from postbackd.cli.options import as_json, takes_data
from postbackd.cli.session import Session, visit
from postbackd.core.model import Catalog, Source
from postbackd.settings import Settings

_preset = click.option(
    "--preset", metavar="P", help="What the source calls things; see 'postbackd presets list'."
)
_fields = click.option(
    "--field",
    "fields",
    multiple=True,
    metavar="FIELD=NAME,NAME",
    help="Parameter names of a field, such as sub1=zone,zoneid; FIELD= for the default.",
)


@click.group(cls=Family)
def source() -> None:
    """Traffic sources: who sends visitors."""


@source.command("add")
@click.argument("name")
@_preset
@_fields
@as_json
@takes_data
def add_source(
    name: str, preset: str | None, fields: Sequence[str], settings: Settings, json_wanted: bool
) -> None:
    """Add a traffic source."""
    entry = _change(Source(id=0, name=""), name, preset, fields)
    _save(settings, entry, json_wanted)


@source.command("list")
@as_json
@takes_data
def list_sources(settings: Settings, json_wanted: bool) -> None:
    """All traffic sources."""
    list_entries(settings, "", "source", ("name", "preset"), json_wanted)


@source.command("show")
@click.argument("name")
@as_json
@takes_data
def show_source(name: str, settings: Settings, json_wanted: bool) -> None:
    """One traffic source, with the parameters of its clicks and what sub1 to sub10 hold."""
    show_entry(settings, "", "source", name, json_wanted)


@source.command("set")
@click.argument("name")
@click.option("--name", "new_name", metavar="NAME", help="A new name.")
@_preset
@_fields
@as_json
@takes_data
def set_source(
    name: str,
    new_name: str | None,
    preset: str | None,
    fields: Sequence[str],
    settings: Settings,
    json_wanted: bool,
) -> None:
    """Change a traffic source; what is not named stays."""

    async def work(session: Session) -> Source:
        entry = find_entry((await session.load()).sources, name, "source")
        (saved,) = await session.change([_change(entry, new_name, preset, fields)])
        assert isinstance(saved, Source)
        return saved

    print_entry(Describer(Catalog(generation=0), "").describe(visit(settings, work)), json_wanted)


@source.command("remove")
@click.argument("name")
@as_json
@takes_data
def remove_source(name: str, settings: Settings, json_wanted: bool) -> None:
    """Take a traffic source out of the catalog; its rows stay."""
    remove_entry(settings, "source", name, json_wanted)


def _save(settings: Settings, entry: Source, json_wanted: bool) -> None:
    async def work(session: Session) -> None:
        await session.change([entry])

    visit(settings, work, create=True)
    print_entry(Describer(Catalog(generation=0), "").describe(entry), json_wanted)


def _change(entry: Source, name: str | None, preset: str | None, fields: Sequence[str]) -> Source:
    """The source with the given options applied, checked."""
    given: dict[str, Any] = {"name": name, "preset": preset}
    entry = change_source(
        entry, SourceChange(**{field: text for field, text in given.items() if text is not None})
    )
    names = {field: [*names] for field, names in change_fields(entry.fields, fields).items()}
    return change_source(entry, SourceChange(fields=names)) if fields else entry
