"""What the catalog families share: find an entry by name, say what it is, print a list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from postbackd.catalog.documents import Describer, find_entry
from postbackd.cli.session import Session, print_json, visit
from postbackd.core.model import Catalog, CatalogEntry
from postbackd.reports.table import format_table
from postbackd.settings import Settings


def read_pairs(texts: Sequence[str], option: str, form: str) -> dict[str, str]:
    """Arguments with an equals sign as a dictionary; ``form`` says how to write one, such as ``NAME=VALUE``."""
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise click.UsageError(f"{option} {text!r} is not usable; write it as {form}")
        pairs[name.strip()] = value.strip()
    return pairs


def change_fields(fields: Mapping[str, tuple[str, ...]], texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """``FIELD=NAME,NAME`` arguments put into a mapping; ``FIELD=`` takes the field out, so that its defaults hold."""
    changed = dict(fields)
    for field, names in read_pairs(texts, "--field", "FIELD=NAME").items():
        changed.pop(field, None)
        if names:
            changed[field] = tuple(name.strip() for name in names.split(","))
    return changed


# --- printing ----------------------------------------------------------------------------------------------------


def print_entry(document: Mapping[str, Any], json_wanted: bool) -> None:
    """One entry: a field a line, or JSON."""
    if json_wanted:
        print_json(document)
        return
    width = max(len(name) for name in document)
    for name, value in document.items():
        click.echo(f"{name.ljust(width)}  {_cell(value)}")


def print_entries(
    documents: Sequence[Mapping[str, Any]], columns: Sequence[str], kind: str, json_wanted: bool
) -> None:
    """A list: a table of some columns, or an array of whole documents."""
    if json_wanted:
        print_json(documents)
    elif documents:
        click.echo(format_table(columns, [[_cell(row[column]) for column in columns] for row in documents]))
    else:
        click.echo(f"no {kind} yet; add one with 'postbackd {kind} add'", err=True)


def print_warnings(warnings: Iterable[str]) -> None:
    """On standard error, a line each."""
    for warning in warnings:
        stop = "" if warning.endswith("?") else "."
        click.echo(f"postbackd: warning: {warning}{stop}", err=True)


def _cell(value: Any) -> str:
    """A value of a document on one line."""
    if value is None or value in ({}, [], (), ""):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return " ".join(f"{name}={_cell(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ",".join(_cell(inner) for inner in value)
    return str(value)


# --- the verbs that are the same for every kind ------------------------------------------------------------------


def load_or_empty(settings: Settings) -> Catalog:
    """The catalog; before the first start an empty one, as nothing is set up yet."""
    return Catalog(generation=0) if is_fresh(settings) else visit(settings, lambda session: session.load())


def is_fresh(settings: Settings) -> bool:
    """Whether the data directory is not there, or holds nothing of a database; if unsure it is not fresh."""
    if settings.store is not None:
        return False
    try:
        return not any(path.name.startswith("postbackd.db") for path in Path(settings.data).iterdir())
    except FileNotFoundError:
        return True
    except OSError:
        return False


def list_entries(settings: Settings, base: str, kind: str, columns: Sequence[str], json_wanted: bool) -> None:
    """``KIND list``."""
    catalog = load_or_empty(settings)
    describer = Describer(catalog, base)
    entries: Sequence[CatalogEntry] = getattr(catalog, f"{kind}s")
    print_entries([describer.describe(entry) for entry in entries], columns, kind, json_wanted)


def show_entry(settings: Settings, base: str, kind: str, name: str, json_wanted: bool) -> None:
    """``KIND show NAME``."""
    catalog = visit(settings, lambda session: session.load())
    entry: CatalogEntry = find_entry(getattr(catalog, f"{kind}s"), name, kind)
    print_entry(Describer(catalog, base).describe(entry), json_wanted)


def remove_entry(settings: Settings, kind: str, name: str, json_wanted: bool) -> None:
    """``KIND remove NAME``."""

    async def work(session: Session) -> str:
        catalog = await session.load()
        entry: CatalogEntry = find_entry(getattr(catalog, f"{kind}s"), name, kind)
        await session.change(removals=[entry])
        return entry.name

    removed = visit(settings, work)
    if json_wanted:
        print_json({"removed": removed})
    else:
        click.echo(f"{kind} {removed!r} removed; what it did stays in the reports")
