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

from postbackd.core.senders import Scheme

Kind = Literal["source", "network", "mmp", "tracker", "rtb"]
Role = Literal["source", "network", "target"]


class Receiving(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How it takes what we send; only what is known of it."""

    kind: str = "postback"
    """Kind of target: ``postback``, or a platform with an API of its own."""
    url: str | None = None
    """Where it takes postbacks, when that is not the preset's ``postback_url``."""
    statuses: dict[str, str] = {}
    """Our status -> its word."""
    success: tuple[str, ...] = ()
    """Regular expressions, one of which is found in the body of a success."""
    failure: tuple[str, ...] = ()
    """Regular expressions, found in the body of a failure that is answered 2xx."""
    final: tuple[int, ...] = ()
    """HTTP statuses after which trying again is useless."""
    fresh_s: int = 0
    """Older than this is not taken; 0: not known."""
    fresh_from: Literal["conversion", "click"] = "conversion"
    reversal: Literal["retract", "adjust", "cannot"] = "cannot"
    """What its postback URL can be told of a reversal; ``cannot`` when unknown."""


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
    in_cents: tuple[str, ...] = ()
    """Macros for money that count hundredths of a unit; never put into a URL."""
    statuses: dict[str, str] = {}
    """Status words of the network -> pending, approved, rejected or reversed."""
    answer: str | None = None
    """What the network wants to hear, when it is not our JSON."""
    postback_url: str | None = None
    """Where it takes postbacks from us (a source), or its own example (a network)."""
    target: Receiving = Receiving()
    method: str
    notes: str | None = None
    grade: str
    sources: tuple[str, ...]

    @property
    def roles(self) -> tuple[Role, ...]:
        """What a catalog entry with this preset can be."""
        if self.kind == "rtb":
            return ()
        receiving: tuple[Role, ...] = ("target",) if self.is_target else ()
        if self.kind in ("network", "mmp"):
            return ("network", *receiving)
        if self.kind == "source":
            return ("source", *receiving)
        fields: tuple[tuple[Role, str], ...] = (("source", "source_click_id"), ("network", "click_id"))
        return (*(role for role, field in fields if field in self.fields), *receiving)

    @property
    def is_target(self) -> bool:
        """Whether it is known how it takes what we send."""
        return self.target_url is not None or self.target.kind != "postback"

    @property
    def target_url(self) -> str | None:
        """Where it takes postbacks from us, with ``<PLACEHOLDERS>``; ``None``: not known, or an API instead."""
        if self.target.kind != "postback":
            return None
        return self.target.url or (self.postback_url if self.kind == "source" else None)

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


class Signing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one sender signs."""

    id: str
    """What people name it by; that of the network preset where there is one."""
    name: str
    scheme: Scheme
    asks: dict[str, str] = {}
    """What its postback URL needs beside our fields: parameter -> macro."""
    notes: str
    sources: tuple[str, ...]


class _SigningFile(Struct):
    about: str
    checked: str
    signatures: tuple[Signing, ...]


@cache
def load_signings() -> tuple[Signing, ...]:
    """All known ways of signing, our own first."""
    content = files(__name__).joinpath("signatures.json").read_bytes()
    return msgspec.json.decode(content, type=_SigningFile).signatures


def find_signing(id_: str) -> Signing | None:
    """The way of signing of this id, in any case."""
    return next((one for one in load_signings() if one.id == id_.strip().casefold()), None)
