"""Presets: what each traffic source and network calls things, as data (``presets.json``), with grade and sources.

A preset gives the macros that fill our canonical fields, so that a URL is ready to paste.  It never asks a network for
personal data or secrets.  Adding one is one entry of data; nothing here knows any sender by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Literal

import msgspec
from msgspec import Struct

Kind = Literal["source", "network", "mmp", "tracker", "rtb"]
Role = Literal["source", "network"]


class Preset(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One sender or receiver: its macros by our canonical fields, and how well that is known."""

    id: str
    """Stable, lower case: what the catalog stores."""
    kind: Kind
    name: str
    fields: dict[str, str]
    """Canonical field of a click (sources) or of a postback (networks) -> the macro that fills it."""
    others: dict[str, str] = {}
    """What else can be asked for, in its own words -> the macro.  A source's become sub1 to sub10, in order."""
    click_id_parameter: str | None = None
    """The parameter that the source appends by itself and that carries its click id."""
    parameters: dict[str, str] = {}
    """A tracker's own postback parameters and what they mean."""
    left_out: tuple[str, ...] = ()
    """Macros that carry personal data or secrets; never put into a URL."""
    statuses: dict[str, str] = {}
    """Status words of the network -> pending, approved, rejected or reversed."""
    answer: str | None = None
    """What the network wants to hear, when it is not our JSON."""
    postback_url: str | None = None
    """Where it takes postbacks from us (a source), or its own example (a network)."""
    method: str
    notes: str | None = None
    grade: str
    sources: tuple[str, ...]

    @property
    def roles(self) -> tuple[Role, ...]:
        """What a catalog entry with this preset can be."""
        if self.kind == "rtb":
            return ()
        if self.kind in ("network", "mmp"):
            return ("network",)
        if self.kind == "source":
            return ("source",)
        fields: tuple[tuple[Role, str], ...] = (("source", "source_click_id"), ("network", "click_id"))
        return tuple(role for role, field in fields if field in self.fields)

    def click_parameters(self) -> Mapping[str, str]:
        """Canonical click field -> macro, in the order of a click URL; the first ten others are sub1 to sub10."""
        wanted = ("source_click_id", "cost", "country")
        named = {field: self.fields[field] for field in wanted if field in self.fields}
        subs = {f"sub{n}": macro for n, macro in enumerate(list(self.others.values())[:10], 1)}
        return {**named, **subs}

    def click_names(self) -> dict[str, tuple[str, ...]]:
        """Canonical click field -> parameter names accepted for it, where they differ from the default names.

        A sub accepts its number and the source's own word for it (``sub1`` or ``zone_id``).
        """
        names: dict[str, tuple[str, ...]] = {
            f"sub{n}": (f"sub{n}", word) for n, word in enumerate(list(self.others)[:10], 1)
        }
        if self.click_id_parameter:
            names["source_click_id"] = ("source_click_id", self.click_id_parameter)
        return names


class _File(Struct):
    checked: str
    about: str
    presets: tuple[Preset, ...]


@cache
def _load_file() -> _File:
    return msgspec.json.decode(files(__name__).joinpath("presets.json").read_bytes(), type=_File)


def load_presets() -> tuple[Preset, ...]:
    """All presets, in the order of the file."""
    return _load_file().presets


def checked_on() -> str:
    """The date (ISO 8601) on which the presets were last compared with their sources."""
    return _load_file().checked


def find_preset(role: Role | None, id_or_name: str) -> Preset | None:
    """The preset of this id or name, in any case, that can play the role; ``None`` when there is none."""
    wanted = id_or_name.strip().casefold()
    for preset in load_presets():
        if wanted in (preset.id, preset.name.casefold()) and (role is None or role in preset.roles):
            return preset
    return None
