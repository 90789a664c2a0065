"""Presets: what known networks and sources call things, as data."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from postbackd.admin.endpoints import Asked, Endpoint, Scope
from postbackd.admin.problems import not_found
from postbackd.core.outgoing import convert_preset_url, placeholders_left
from postbackd.core.templates import TemplateError
from postbackd.presets import Preset, find_preset, load_presets

Role = Literal["source", "network", "target"]


class PresetQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which presets."""

    role: Annotated[Role | None, Meta(description="Only what can be added as this.")] = None


class PresetLine(Struct, frozen=True):
    """A preset, in short."""

    id: str
    name: str
    kind: str
    roles: list[str]
    grade: str
    """How well it is known."""


class ShownPreset(Struct, frozen=True, kw_only=True):
    """A preset."""

    id: str
    name: str
    kind: str
    roles: list[str]
    grade: str
    fields: dict[str, str]
    """Our field -> its macro."""
    others: dict[str, str]
    """What else can be asked for, in its own words -> its macro; a source's become sub1 to sub10."""
    statuses: dict[str, str]
    answer: str | None
    target_url: str | None
    """Where it takes postbacks from us."""
    target_kind: str | None
    """Kind of target, when it is one."""
    fill: list[str]
    """What has to be filled into that URL: the names of 'fill' when a target is added."""
    notes: str | None
    sources: list[str]


def _line(preset: Preset) -> PresetLine:
    return PresetLine(preset.id, preset.name, preset.kind, [*preset.roles], preset.grade)


async def list_presets(asked: Asked[PresetQuery, None]) -> list[PresetLine]:
    """With how well each is known."""
    role = asked.query.role
    return [_line(preset) for preset in load_presets() if role is None or role in preset.roles]


async def show_preset(asked: Asked[None, None]) -> ShownPreset:
    """One preset, by its id or name."""
    name = asked.path["name"]
    preset = find_preset(None, name)
    if preset is None:
        raise not_found("preset", name, "see /presets")
    return ShownPreset(
        id=preset.id,
        name=preset.name,
        kind=preset.kind,
        roles=[*preset.roles],
        grade=preset.grade,
        fields=preset.fields,
        others=preset.others,
        statuses=preset.statuses,
        answer=preset.answer,
        target_url=preset.target_url,
        target_kind=preset.target.kind if preset.is_target else None,
        fill=_fill(preset),
        notes=preset.notes,
        sources=[*preset.sources],
    )


def _fill(preset: Preset) -> list[str]:
    if preset.target_url is None or not placeholders_left(preset.target_url):
        return []
    try:
        return [*placeholders_left(convert_preset_url(preset.target_url))]
    except TemplateError:
        return []


ENDPOINTS = (
    Endpoint(
        "GET", "/presets", Scope.READ, "Presets", "List what known networks and sources call things.",
        list_presets, query=PresetQuery, answer=list[PresetLine], own_data_only=True,
    ),
    Endpoint(
        "GET", "/presets/{name}", Scope.READ, "Presets", "Show one preset.", show_preset,
        answer=ShownPreset, own_data_only=True,
    ),
)  # fmt: skip
