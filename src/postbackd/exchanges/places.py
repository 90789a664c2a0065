"""What probes of several machines found, put together: one table and one map by place for each endpoint.

A result is a document that ``postbackd probe --json`` wrote; it holds no key of a URL.  Nothing is averaged over
places: their percentiles stand side by side, each with its number of tries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from postbackd.core.exchange import PHASE_WORDS, PHASES, Phase
from postbackd.core.percentiles import Spread, write_ms
from postbackd.exchanges.probing import Probed, Series

HOPS: tuple[Phase, ...] = tuple(phase for phase in PHASES if phase != "total")
LETTERS: Mapping[str, str] = {"dns": "d", "connect": "c", "tls": "t", "first_byte": "#"}
"""A phase in the bar of a map."""

ADVICE: Mapping[str, str] = {
    "dns": "the name server is far or slow: a longer TTL keeps answers nearer",
    "connect": "one round trip: the machine is far away, or its queue of connections is full",
    "tls": "one or two round trips and a signature: kept connections save it, TLS 1.3 halves it",
    "first_byte": "one round trip and the endpoint's own work",
}
_BAR = 48


class PlacesError(Exception):
    """A file cannot be used; the message names it and says what to do."""


class Result(Struct, frozen=True, kw_only=True):
    """What one machine found."""

    postbackd_probe: int
    """The version of the form."""
    place: str
    at: str
    endpoints: Sequence[Probed]


def read_results(paths: Sequence[Path]) -> list[Result]:
    """The results of files, at least one.  Raises ``PlacesError``."""
    results: list[Result] = []
    for path in paths:
        try:
            result = msgspec.json.decode(path.read_bytes(), type=Result)
        except OSError as error:
            raise PlacesError(f"{path}: {error.strerror}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise PlacesError(f"{path}: not written by 'postbackd probe --json': {error}") from error
        if result.postbackd_probe != 1:
            raise PlacesError(f"{path}: written by a later version ({result.postbackd_probe}); use that one")
        if not 0 < len(result.place) <= 60 or not result.place.isprintable():
            raise PlacesError(f"{path}: its place must have 1 to 60 printable characters")
        double = next((one for one in results if one.place == result.place), None)
        if double is not None:
            raise PlacesError(f"{path}: {result.place!r} is there already; give each machine its own --place")
        results.append(result)
    return results


class Row(Struct, frozen=True, kw_only=True):
    """One endpoint from one place: its cold tries over one kind of address."""

    place: str
    series: Series

    def median(self, phase: str) -> float | None:
        found = self.series.phases.get(phase)
        return found.p50 if found else None


class Merged(Struct, frozen=True, kw_only=True):
    """One endpoint from all places."""

    url: str
    rows: Sequence[Row]
    unseen: Sequence[str]
    """Places from which nothing was answered, with the reason."""


def merge_results(results: Sequence[Result]) -> list[Merged]:
    """Each endpoint with its rows, the fastest place first."""
    order = list(dict.fromkeys(probed.print for result in results for probed in result.endpoints))
    return [_merge(print_of, results) for print_of in order]


def _merge(print_of: str, results: Sequence[Result]) -> Merged:
    rows, unseen, url = [], [], ""
    for result in results:
        for probed in result.endpoints:
            if probed.print != print_of:
                continue
            url = probed.url
            cold = [one for one in probed.series if one.name == "cold"]
            good = [one for one in cold if one.answered]
            rows += [Row(place=result.place, series=one) for one in good]
            if not good:
                why = probed.dns_error or (cold[0].example if cold else "") or "no answer"
                unseen.append(f"{result.place}: {why}")
    rows.sort(key=lambda row: row.median("total") or (row.series.phases.get("total") or Spread()).most or 0.0)
    return Merged(url=url, rows=rows, unseen=unseen)


# --- words and pictures -------------------------------------------------------------------------------------------


def slowest_hop(series: Series) -> str:
    """Which phase takes most of a cold try at the median, in words; empty where too few tries were made."""
    medians = {
        phase: found.p50 for phase in HOPS if (found := series.phases.get(phase)) and found.p50 is not None
    }
    if not medians:
        return ""
    phase = max(medians, key=lambda one: medians[one])
    whole = sum(medians.values())
    share = f" ({medians[phase] / whole:.0%})" if whole else ""
    return (
        f"the slowest hop is {PHASE_WORDS[phase]}: {write_ms(medians[phase])} ms of {write_ms(whole)} ms"
        f"{share} at the median of {series.tries} tries; {ADVICE[phase]}"
    )


def compare_places(merged: Merged) -> str:
    """Which place is the slowest and which hop makes it so, in a sentence; empty with fewer than two places."""
    timed = [row for row in merged.rows if row.median("total") is not None]
    if len({row.place for row in timed}) < 2:
        return ""
    fast, slow = timed[0], timed[-1]
    gaps = {phase: (slow.median(phase) or 0.0) - (fast.median(phase) or 0.0) for phase in HOPS}
    phase = max(gaps, key=lambda one: gaps[one])
    return (
        f"slowest from {slow.place} ({write_ms(slow.median('total'))} ms), fastest from {fast.place} "
        f"({write_ms(fast.median('total'))} ms); most of the difference is {PHASE_WORDS[phase]} "
        f"({write_ms(fast.median(phase) or 0.0)} ms there, {write_ms(slow.median(phase) or 0.0)} ms here)"
    )


def write_bar(row: Row, longest: float) -> str:
    """The phases of a row at their medians, one after the other, to the scale of the longest row."""
    bar = ""
    reached = 0.0
    for phase in HOPS:
        reached += row.median(phase) or 0.0
        bar += LETTERS[phase] * (round(reached / longest * _BAR) - len(bar) if longest else 0)
    return bar


def length_of(row: Row) -> float:
    """The phases of a row together."""
    return sum(row.median(phase) or 0.0 for phase in HOPS)


def document_of(merged: Merged) -> dict[str, Any]:
    """One endpoint for scripts."""
    return {
        "url": merged.url,
        "places": [
            {
                "place": row.place,
                "family": row.series.family,
                "tries": row.series.tries,
                "answered": row.series.answered,
                "errors": dict(row.series.errors),
                "phases": msgspec.to_builtins(row.series.phases),
                "slowest_hop": slowest_hop(row.series) or None,
            }
            for row in merged.rows
        ],
        "unseen": list(merged.unseen),
        "in_words": compare_places(merged) or None,
    }
