"""Faults as people write them: ``macro_literal@Bluepeak``, ``session_timeout@go.brightpath.example+6h``."""

from __future__ import annotations

from collections.abc import Iterable

from postbackd.market.cast import NETWORKS, OFFERS
from postbackd.market.faults import Fault
from postbackd.market.habits import HABITS
from postbackd.market.misconfigurations import MISCONFIGURATIONS
from postbackd.reports.period import read_duration
from postbackd.simulating.plan import START_MS

_PLACES = {
    "network": tuple(role.name for role in NETWORKS),
    "landing_host": tuple(dict.fromkeys(role.host for role in OFFERS)),
}


class NotPlantable(ValueError):
    """The fault cannot be planted as it is written; says what to write."""


def read_faults(texts: Iterable[str]) -> tuple[Fault, ...]:
    """The faults, one a place.  Raises ``NotPlantable``."""
    faults: dict[str, Fault] = {}
    for text in texts:
        fault = _read_fault(text)
        if fault.where in faults:
            raise NotPlantable(
                f"{fault.where} has {faults[fault.where].name} already: plant one fault a place, or nobody could tell "
                "which of them was found"
            )
        faults[fault.where] = fault
    return tuple(faults.values())


def _read_fault(text: str) -> Fault:
    name, at, place = text.strip().partition("@")
    place, plus, after = place.partition("+")
    one = MISCONFIGURATIONS.get(name.strip().lower())
    if one is None or not at:
        raise NotPlantable(
            f"{text!r} is no fault; write NAME@PLACE or NAME@PLACE+6h, and see 'postbackd simulate --list-faults'"
        )
    try:
        after_ms = read_duration(after) * 1000 if plus else 0
    except ValueError as error:
        raise NotPlantable(f"{text!r}: {error}") from error
    return Fault(one.name, one.kind, _find_place(one.kind, place, text), START_MS + after_ms, one.what)


def _find_place(kind: str, place: str, text: str) -> str:
    """The one that is named, or begins so, in any case."""
    wanted = place.strip().casefold().replace("-", " ")
    found = [known for known in _PLACES[kind] if known.casefold().replace("-", " ").startswith(wanted)]
    if not wanted or len(found) != 1:
        kinds = {"network": "network", "landing_host": "landing page"}
        raise NotPlantable(f"{text!r}: name one {kinds[kind]} behind the @: {', '.join(_PLACES[kind])}")
    return found[0]


def format_faults() -> str:
    """All that can be planted, and where."""
    width = max(map(len, MISCONFIGURATIONS))
    lines = []
    for one in MISCONFIGURATIONS.values():
        found = f"  [{one.reason}]" if one.reason else ""
        lines.append(f"{one.name.ljust(width)}  {one.what}{found}")
    names = max(map(len, _PLACES["network"]))
    return "\n".join(
        [
            *lines,
            "",
            "--fault NAME@PLACE, from the beginning; NAME@PLACE+6h, from six simulated hours on.",
            "In brackets: the reason under which the server has to name it.",
            "",
            "Networks, and how they try again:",
            *(f"  {role.name.ljust(names)}  {HABITS[role.habit].source}" for role in NETWORKS),
            "Landing pages, for session_timeout:",
            *(f"  {host}" for host in _PLACES["landing_host"]),
        ]
    )
