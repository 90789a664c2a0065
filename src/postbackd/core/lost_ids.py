"""Are click ids lost on a landing page, or when the visitor takes long?  What clicks that convert say about it.

Two things are looked for, each by comparing the offers of one host with all others:

- *lost with age*: they convert well soon after the click and almost never later, where others go on.  A session that
  times out does that;
- *lost on the page*: fewer of their clicks convert, and about as many postbacks of the network as are missing
  came without a click id.

Offers differ for good reasons, so a sentence is written only on strong evidence.  The test is that of two proportions
(pooled, one-sided); its bound ``P_BOUND`` is divided by the number of comparisons made (Bonferroni), so that one
deployment in a million that is healthy and looks once would be told something that only chance made.  Chance is not
the only way to be wrong: an offer may just be quick.  So the difference must also be large, and for ages it
must be an edge: conversions shortly before the age, and next to none shortly after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import erfc, sqrt

from msgspec import Struct

_MINUTE, _HOUR = 60_000, 3_600_000

EDGES_MS = (*(n * _MINUTE for n in (15, 20, 30, 60, 120)), *(n * _HOUR for n in (4, 12, 24)))
"""After so long sessions and cookies are made to end."""

AGES_MS = tuple(sorted({age for edge in EDGES_MS for age in (edge * 2 // 3, edge, edge * 4 // 3)}))
"""Ages in which conversions are counted: the edges, and what is shortly before and after each: so near that a quick
offer, which thins out gradually, does not look like an edge."""

SETTLED_MS = 72 * _HOUR
"""Clicks younger than this may still convert late, and are left out."""

P_BOUND = 1e-6

FEWEST_CONVERSIONS = 100
"""Of the host; and of the others."""

FEWEST_EXPECTED = 20
"""Late conversions that the host would have if it were like the others."""

LARGE = 5
"""The share of late conversions is this many times smaller than that of the others."""

EDGE = 0.06
"""Of the conversions shortly before and shortly after an edge, at most so many lie after it ..."""

EDGE_OTHERS = 0.20
"""... while of the others' at least so many do."""

FEWEST_AT_EDGE = 20
"""Conversions of the host shortly before the edge."""

MASS_AT_EDGE = 0.05
"""They are at least this share of all of the host: where a quick offer thins out by itself there is less left."""

PAGE_LARGE = 0.7
"""Clicks of the host convert at most so many times as often as those of the others."""

FEWEST_MISSING = 50
"""Conversions that the host would have had if it were like the others."""

EXPLAINED = (0.5, 1.5)
"""Postbacks without a click id, divided by the conversions that are missing, lie between these."""


class HostClicks(Struct, frozen=True):
    """What became of the clicks of one landing host."""

    host: str
    clicks: int
    by_age: Mapping[int, int]
    """Rung of ``AGES_MS`` -> clicks that first converted at that age."""
    without_id: int = 0
    """Postbacks of the networks of its offers that carried no click id."""

    @property
    def converted(self) -> int:
        return sum(self.by_age.values())

    def after(self, age_ms: int) -> int:
        """Clicks that first converted at this age or later."""
        rung = AGES_MS.index(age_ms)
        return sum(count for at, count in self.by_age.items() if at > rung)

    def between(self, from_ms: int, to_ms: int) -> int:
        return self.after(from_ms) - self.after(to_ms)


class LostWithAge(Struct, frozen=True):
    """Ids are lost when the visitor takes longer than ``age_ms``."""

    host: str
    age_ms: int
    early_rate: float
    """Conversions within that age, of all clicks of the host."""
    late_share: float
    """Of the host's conversions, those that came later."""
    late_share_others: float
    converted: int
    missing: int
    """About so many conversions would have come later."""
    p: float


class LostOnPage(Struct, frozen=True):
    """Ids are lost on the landing page, whatever the age."""

    host: str
    rate: float
    rate_others: float
    clicks: int
    missing: int
    without_id: int
    p: float


def find_lost_with_age(hosts: Sequence[HostClicks]) -> list[LostWithAge]:
    """Hosts whose ids are lost with age, each with the edge that shows most."""
    found = []
    for host in hosts:
        others = _add([other for other in hosts if other is not host])
        candidates = [_look_at_edge(host, others, age_ms, len(hosts) * len(EDGES_MS)) for age_ms in EDGES_MS]
        seen = [one for one in candidates if one is not None]
        if seen:
            found.append(min(seen, key=lambda one: (_edge_share(host, one.age_ms), one.age_ms)))
    return found


def _look_at_edge(host: HostClicks, others: HostClicks, age_ms: int, comparisons: int) -> LostWithAge | None:
    converted, of_others = host.converted, others.converted
    if min(converted, of_others) < FEWEST_CONVERSIONS:
        return None
    late, late_others = host.after(age_ms), others.after(age_ms)
    share_others = late_others / of_others
    expected = share_others * (converted - late) / max(1 - share_others, 1e-9)
    if expected < FEWEST_EXPECTED or late / converted * LARGE > share_others:
        return None
    p = lower_p(late, converted, late_others, of_others)
    if p > P_BOUND / comparisons or not _is_edge(host, others, age_ms):
        return None
    return LostWithAge(
        host=host.host,
        age_ms=age_ms,
        early_rate=(converted - late) / max(host.clicks, 1),
        late_share=late / converted,
        late_share_others=share_others,
        converted=converted,
        missing=round(expected) - late,
        p=p,
    )


def _is_edge(host: HostClicks, others: HostClicks, age_ms: int) -> bool:
    before, _ = _around(age_ms)
    at_edge = host.between(before, age_ms)
    if at_edge < max(FEWEST_AT_EDGE, MASS_AT_EDGE * host.converted):
        return False
    return _edge_share(host, age_ms) <= EDGE and _edge_share(others, age_ms) >= EDGE_OTHERS


def _edge_share(clicks: HostClicks, age_ms: int) -> float:
    before, after = _around(age_ms)
    at_edge = clicks.between(before, after)
    return clicks.between(age_ms, after) / at_edge if at_edge else 1.0


def _around(edge_ms: int) -> tuple[int, int]:
    """The ages that bound what is shortly before and shortly after an edge."""
    return edge_ms * 2 // 3, edge_ms * 4 // 3


def find_lost_on_page(hosts: Sequence[HostClicks]) -> list[LostOnPage]:
    """Hosts that convert less than the others, by about as many as postbacks came without an id."""
    found = []
    for host in hosts:
        others = _add([other for other in hosts if other is not host])
        if others.converted < FEWEST_CONVERSIONS or not host.clicks or not others.clicks:
            continue
        rate, rate_others = host.converted / host.clicks, others.converted / others.clicks
        missing = host.clicks * rate_others - host.converted
        if missing < FEWEST_MISSING or rate > PAGE_LARGE * rate_others:
            continue
        explained = EXPLAINED[0] * missing <= host.without_id <= EXPLAINED[1] * missing
        p = lower_p(host.converted, host.clicks, others.converted, others.clicks)
        if explained and p <= P_BOUND / len(hosts):
            found.append(
                LostOnPage(host.host, rate, rate_others, host.clicks, round(missing), host.without_id, p)
            )
    return found


def _add(hosts: Sequence[HostClicks]) -> HostClicks:
    by_age: dict[int, int] = {}
    for host in hosts:
        for rung, count in host.by_age.items():
            by_age[rung] = by_age.get(rung, 0) + count
    return HostClicks("", sum(host.clicks for host in hosts), by_age)


def lower_p(hits: int, of: int, hits_others: int, of_others: int) -> float:
    """How likely so low a proportion is when both are the same: the pooled z test, one-sided."""
    pooled = (hits + hits_others) / (of + of_others)
    spread = sqrt(pooled * (1 - pooled) * (1 / of + 1 / of_others))
    if not spread:
        return 1.0
    z = (hits / of - hits_others / of_others) / spread
    return erfc(-z / sqrt(2)) / 2


# --- in words ----------------------------------------------------------------------------------------------------


def say_lost_with_age(found: LostWithAge) -> str:
    age = _say_age(found.age_ms)
    later = "never later" if not found.late_share else "almost never later"
    return (
        f"Offers on {found.host} convert at {found.early_rate:.2%} within the first {age} and {later}; other offers "
        f"get {found.late_share_others:.0%} of their conversions after {age}: the click id is probably kept only in a "
        "session or cookie that ends then."
    )


def say_lost_on_page(found: LostOnPage) -> str:
    return (
        f"Offers on {found.host} convert at {found.rate:.2%} of their clicks, others at {found.rate_others:.2%}, and "
        f"{found.without_id:,} postbacks of their network came without a click id, about as many as the "
        f"{found.missing:,} conversions that are missing: the id is probably lost between the landing page and the "
        "network."
    )


def _say_age(age_ms: int) -> str:
    if age_ms < 2 * _HOUR:
        return f"{age_ms // _MINUTE} minutes"
    return f"{age_ms // _HOUR} hours"
