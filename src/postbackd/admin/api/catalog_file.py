"""The catalog as a file: what it is, what another one would change, and making it so."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from postbackd.admin.api import entries
from postbackd.admin.endpoints import Answered, Asked, Endpoint, Scope
from postbackd.admin.problems import Problem
from postbackd.catalog.applying import apply_file, seal_accounts, seal_secrets
from postbackd.catalog.file import (
    CatalogFile,
    FileError,
    read_document,
    read_text,
    write_document,
    write_file,
)
from postbackd.catalog.plan import describe_plan, find_warnings

_PATH = "the file"


class ExportCatalogQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """What of it."""

    keys: Annotated[
        bool,
        Meta(description="With the endpoint keys of networks, which are secret; needs the scope catalog."),
    ] = False


class ExportedCatalog(Struct, frozen=True):
    """The catalog."""

    catalog: dict[str, list[dict[str, Any]]]
    """Kind -> rows."""
    toml: str
    """The same as a file that 'postbackd apply' reads."""


class Apply(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the catalog shall be: as a document, or as the text of a file."""

    catalog: Annotated[
        dict[str, list[dict[str, Any]]] | None, Meta(description="Kind -> rows, as /export answers them.")
    ] = None
    toml: Annotated[str, Meta(max_length=900_000)] | None = None
    accounts: Annotated[
        dict[str, dict[str, str]], Meta(description="Target -> account values, which no file holds.")
    ] = msgspec.field(default_factory=dict)
    secrets: Annotated[
        dict[str, str], Meta(description="Network -> signing secret, which no file holds.")
    ] = msgspec.field(default_factory=dict)
    dry_run: Annotated[bool, Meta(description="Only plan it.")] = True


class PlannedChange(Struct, frozen=True, kw_only=True):
    """One line of the plan."""

    action: str
    kind: str
    name: str
    fields: dict[str, list[Any]] = {}
    """Field -> what it is, and what it becomes."""


class Applied(Struct, frozen=True, kw_only=True):
    """The plan, and whether it was carried out."""

    changes: list[PlannedChange]
    warnings: list[str]
    applied: bool


async def export(asked: Asked[ExportCatalogQuery, None]) -> Answered:
    """Applying it changes nothing. Account values of targets and signing secrets are never in it."""
    with_keys = asked.query.keys
    if with_keys and Scope.CATALOG not in asked.who.scopes:
        raise Problem(403, "keys are shown to whoever has the scope 'catalog'", field="keys")
    catalog = await asked.desk.store.load_catalog()
    answer = ExportedCatalog(
        write_document(catalog, with_keys=with_keys), write_file(catalog, with_keys=with_keys)
    )
    return entries.answer(answer, catalog.generation)


def _read(body: Apply) -> CatalogFile:
    if (body.catalog is None) == (body.toml is None):
        raise Problem(422, "give the catalog as a document or as toml, one of the two", field="catalog")
    try:
        return read_document(body.catalog or {}, _PATH) if body.toml is None else read_text(body.toml, _PATH)
    except FileError as error:
        raise Problem(422, str(error), field="catalog" if body.toml is None else "toml") from error


async def apply(asked: Asked[None, Apply]) -> Answered:
    """What it does not name is removed. All changes happen together or not at all; secrets that are stored stay."""
    body, desk = asked.body, asked.desk
    _, expected = await entries.load(asked)
    file = _read(body)
    seal = None if body.dry_run else entries.seal_of(desk)
    accounts, secrets = seal_accounts(file, body.accounts, seal), seal_secrets(file, body.secrets, seal)
    try:
        plan = await apply_file(
            desk.store, file, desk.now_ms(), accounts, secrets, dry_run=body.dry_run, if_generation=expected
        )
    except FileError as error:
        raise Problem(422, str(error), field="catalog" if body.toml is None else "toml") from error
    answer = Applied(
        changes=msgspec.convert(describe_plan(plan), list[PlannedChange]),
        warnings=find_warnings(plan),
        applied=bool(plan.changes) and not body.dry_run,
    )
    return entries.answer(answer, await desk.store.catalog_generation())


ENDPOINTS = (
    Endpoint(
        "GET", "/export", Scope.READ, "Catalog", "Write the catalog as a file.", export, query=ExportCatalogQuery,
        answer=ExportedCatalog,
    ),
    Endpoint(
        "POST", "/apply", Scope.CATALOG, "Catalog", "Make the catalog match a file, or plan it.", apply, body=Apply,
        answer=Applied, conditional=True, problems=(409, 422), example={"toml": "[[network]]\nname = \"Adnet\"\n"},
    ),
)  # fmt: skip
