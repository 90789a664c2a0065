"""Lint: what is wrong with a URL before it is pasted anywhere."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from postbackd.admin.endpoints import Asked, Endpoint, Scope
from postbackd.catalog.linting import Linter, Whose, describe_linted
from postbackd.core.linting import Kind, Severity

_Name = Annotated[str, Meta(min_length=1, max_length=200)]


class Lint(Struct, frozen=True, forbid_unknown_fields=True):
    """URLs, and what they are for.  At most one of network, source and preset."""

    urls: Annotated[
        list[Annotated[str, Meta(max_length=8192)]],
        Meta(min_length=1, max_length=20, description="As they are pasted, macros and all."),
    ]
    network: _Name | None = None
    """Its name, or a preset of one."""
    source: _Name | None = None
    """Its name, or a preset of one."""
    preset: _Name | None = None
    kind: Kind | None = None
    """What they are for; found from their shape otherwise."""


class ShownFlaw(Struct, frozen=True):
    """One thing that is wrong with a URL."""

    check: str
    severity: Severity
    start: int
    """The first character of the place, counted from 0."""
    end: int
    text: str
    """What stands there."""
    cause: str
    fix: str
    mended: bool
    """Whether it is right in the mended URL; what cannot be mended safely is only named."""


class LintedUrl(Struct, frozen=True):
    """A URL, looked at."""

    url: str
    kind: Kind
    why: str
    """Why it is taken for that."""
    whose: str | None
    """The network or source that it was looked at for."""
    ok: bool
    """Whether no error was found."""
    flaws: list[ShownFlaw]
    more: int
    """Flaws that are not listed."""
    mended: str | None
    """The URL with everything mended that can mean nothing else; none: nothing can be."""


async def lint(asked: Asked[None, Lint]) -> list[LintedUrl]:
    """Nothing is stored or called."""
    body = asked.body
    catalog = await asked.desk.store.load_catalog()
    linter = Linter(catalog, [asked.desk.base_url], Whose(body.network, body.source, body.preset), body.kind)
    documents = await asyncio.to_thread(lambda: [describe_linted(linter.lint(url)) for url in body.urls])
    return msgspec.convert(documents, list[LintedUrl])


ENDPOINTS = (
    Endpoint(
        "POST", "/lint", Scope.READ, "Lint", "Find what is wrong with URLs, and mend what can mean nothing else.",
        lint, body=Lint, answer=list[LintedUrl], problems=(422,), noted=False,
        example={"urls": ["https://track.example/p/KEY?click_id=[aff_sub]"], "preset": "tune"},
    ),
)  # fmt: skip
