"""Checks of what networks send: silence, the match rate, duplicates.  Each takes counts by hour and gives a sighting.

Rates are judged over windows, the shortest that says enough first, so that a large network is judged by its last hour
and a small one by its last week, and so that what was mended is seen as mended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import erfc, exp, lgamma, log, sqrt
from typing import NamedTuple

from postbackd.core.alarms import Judgement, Key, Kind, Scope, Sighting
from postbackd.core.rhythm import HOUR_MS, SHORTEST_MS, HourCount, Rhythm
from postbackd.core.rollups import HEALTHY_MATCH_RATE

MATCH_LINE = HEALTHY_MATCH_RATE
"""Below it, with enough postbacks to mean it, something is said."""

WINDOWS_H = (1, 6, 24, 72, 168)
"""Hours before the one that is running, whose counts are added to it."""

SURE = 1e-5
"""Chance at which a rate on the right side of its line would look so bad.  There are some thousand looks at
independent counts a month, over all windows."""

LEAST_RECENT = 10
"""Postbacks of a shorter window that may say that older ones speak of a fault that was mended."""

LEAST_DOUBT = 3
"""Postbacks that make a longer window's good rate doubtful: it may have been good before the fault."""

CLEARLY_LOW, SURE_GOOD = 0.80, 0.01
"""An alarm may end when a match rate as low as this would look so good with no more than this chance."""

LEAST_GOOD = 30
"""Postbacks by which duplicates are judged."""

DUPLICATE_WINDOWS_H = (1, 6, 24)

LEAST_DUPLICATES = 20
"""Fewer are one nervous queue."""

DUPLICATE_MARGIN = 0.10
"""Share of all postbacks by which duplicates have to exceed what is usual."""

BASELINE_DAYS = 28
"""Days before the last one that say what is usual for duplicates."""

LEAST_BASELINE = 100
"""Postbacks in them, at least."""

HIGH_DAYS = 3
"""Which of the days with the most duplicates is still called usual."""

LEAST_OF_DAY = 20
"""Postbacks of a day whose rate says anything."""


class Together(NamedTuple):
    """Counts added up."""

    postbacks: int
    carried: int
    matched: int
    duplicates: int


def add_up(hours: Mapping[int, HourCount], begin: int, end: int, to: Together | None = None) -> Together:
    """From hour ``begin`` to before ``end``, added to what is there already."""
    postbacks, carried, matched, duplicates = to or (0, 0, 0, 0)
    for hour in range(begin, end):
        count = hours.get(hour)
        if count is not None:
            postbacks += count.postbacks
            carried += count.carried
            matched += count.matched
            duplicates += count.duplicates
    return Together(postbacks, carried, matched, duplicates)


# --- silence -----------------------------------------------------------------------------------------------------


def check_silence(
    network: int, name: str, rhythm: Rhythm, last_ms: int, presence: Callable[[], float], now_ms: int
) -> Sighting:
    """``presence``: the part of the usual visitors that came (``rhythm.attendance``)."""
    key = Key(Kind.SILENCE, Scope.NETWORK, network)
    if not rhythm.is_known or not last_ms:
        return Sighting(key, Judgement.UNCLEAR)
    missing = rhythm.expected(last_ms, now_ms)
    if missing >= rhythm.line:
        missing *= presence()
    if missing < rhythm.line or now_ms - last_ms < SHORTEST_MS:
        # Visitors that stay away explain a silence, but do not end one.
        is_back = rhythm.expected(last_ms, now_ms) < rhythm.line / 2
        return Sighting(key, Judgement.GOOD if is_back else Judgement.UNCLEAR)
    day_ms = 24 * HOUR_MS
    usual = rhythm.expected(now_ms - 7 * day_ms, now_ms) / 7
    return Sighting(
        key,
        Judgement.BAD,
        seen=f"{name} has sent nothing for {span(now_ms - last_ms)}, and visitors were sent to it as usual",
        normal=f"by its own rhythm of hours and weekdays about {missing:,.0f} postbacks should have come "
        f"since; a day usually brings {usual:,.0f}"
        if usual >= 10
        else f"by its own rhythm of hours and weekdays about {missing:.0f} postbacks should have come since; "
        f"a day usually brings {usual:.1f}",
        todo="send a test conversion from the network; check that its postback URL is still set and its offers run, "
        "and ask it for its log of postbacks since then",
        urgent=True,
    )


def gather_silence(sightings: Sequence[Sighting], judged: int) -> Sequence[Sighting]:
    """Where all networks are silent at once, the reason is on our side, and one alarm says so.

    ``judged``: of how many networks the rhythm is known.
    """
    silent = [one for one in sightings if one.judgement is Judgement.BAD]
    key = Key(Kind.SILENCE, Scope.SERVER, 0)
    if len(silent) < _ALL or len(silent) < judged:
        return [*sightings, Sighting(key, Judgement.GOOD)]
    spared = [
        Sighting(one.key, Judgement.UNCLEAR) if one.judgement is Judgement.BAD else one for one in sightings
    ]
    everything = Sighting(
        key,
        Judgement.BAD,
        seen=f"all {len(silent)} networks whose rhythm is known have stopped sending",
        normal=silent[0].normal,
        todo="look at our own side first: 'postbackd doctor --endpoint https://…' asks the endpoint from outside; "
        "check the name, the certificate, the proxy and the firewall",
        urgent=True,
    )
    return [*spared, everything]


_ALL = 3
"""Two may stop at the same time by chance."""


# --- match rate --------------------------------------------------------------------------------------------------


def check_match_rate(
    scope: Scope, subject: int, name: str, hours: Mapping[int, HourCount], now_ms: int
) -> Sighting:
    """Bad when it is surely below the line, good when it is above it."""
    key, hour = Key(Kind.MATCH_RATE, scope, subject), now_ms // HOUR_MS
    is_mended = doubt = False
    before, sums, end = 0, Together(0, 0, 0, 0), hour + 1
    for window in WINDOWS_H:
        sums = add_up(hours, hour - window, end, sums)
        end = hour - window
        if sums.carried == before:
            continue
        before = sums.carried
        rate = sums.matched / sums.carried
        low = rate < MATCH_LINE
        is_mended |= not low and sums.carried >= LEAST_RECENT
        if low and not is_mended and chance_below(sums.matched, sums.carried, MATCH_LINE) < SURE:
            return _sight_match_rate(key, name, sums, window)
        doubt |= low and sums.carried >= LEAST_DOUBT
        lost = sums.carried - sums.matched
        if not (low or doubt) and chance_below(lost, sums.carried, 1 - CLEARLY_LOW) < SURE_GOOD:
            return Sighting(key, Judgement.GOOD)
    return Sighting(key, Judgement.UNCLEAR)


def _sight_match_rate(key: Key, name: str, sums: Together, window: int) -> Sighting:
    lost = sums.carried - sums.matched
    which = f"--network '{name}' " if key.scope is Scope.NETWORK else ""
    return Sighting(
        key,
        Judgement.BAD,
        seen=f"of {sums.carried:,} postbacks with a click id for {key.scope} {name} in the last "
        f"{span(window * HOUR_MS)}, {lost:,} found no click: a match rate of {sums.matched / sums.carried:.1%}",
        normal=f"at least {MATCH_LINE:.0%} find theirs where the set-up is sound",
        todo=f"'postbackd report --by reason' says why they do not match and what to change, and "
        f"'postbackd log {which}--verdict unmatched' shows them",
        urgent=True,
    )


# --- duplicates --------------------------------------------------------------------------------------------------


def check_duplicates(
    network: int, name: str, hours: Mapping[int, HourCount], known: tuple[float, float] | None, now_ms: int
) -> Sighting:
    """Bad when duplicates are surely more than this network ever sent before; fewer than usual hurt nobody.

    ``known``: see ``usual_duplicates``.
    """
    key, hour = Key(Kind.DUPLICATES, Scope.NETWORK, network), now_ms // HOUR_MS
    if known is None:
        return Sighting(key, Judgement.UNCLEAR)
    usual, limit = known
    for window in DUPLICATE_WINDOWS_H:
        sums = add_up(hours, hour - window, hour + 1)
        if sums.postbacks < LEAST_GOOD:
            continue
        rate = sums.duplicates / sums.postbacks
        many = sums.duplicates >= LEAST_DUPLICATES and rate > limit
        if many and chance_below(sums.postbacks - sums.duplicates, sums.postbacks, 1 - limit) < SURE:
            return Sighting(
                key,
                Judgement.BAD,
                seen=f"{sums.duplicates:,} of {sums.postbacks:,} postbacks of {name} in the last "
                f"{span(window * HOUR_MS)} repeat what was counted already ({rate:.1%})",
                normal=f"{usual:.1%} over the last {BASELINE_DAYS} days; they are counted once all the same",
                todo="ask the network whether it sends again what we have answered (it may want another answer: "
                "'postbackd network set NAME --answer ok'), or whether several sales have one transaction id",
            )
        if rate <= (usual + limit) / 2:
            return Sighting(key, Judgement.GOOD)
    return Sighting(key, Judgement.UNCLEAR)


def usual_duplicates(hours: Mapping[int, HourCount], hour: int) -> tuple[float, float] | None:
    """The share of duplicates that is usual, and the one above which it is not; ``None``: too little is known."""
    sent, repeated = [0] * BASELINE_DAYS, [0] * BASELINE_DAYS
    for count in hours.values():
        day = (hour - count.hour - 1) // 24 - 1
        if 0 <= day < BASELINE_DAYS:
            sent[day] += count.postbacks
            repeated[day] += count.duplicates
    total = sum(sent)
    if total < LEAST_BASELINE:
        return None
    rates = sorted(
        (again / count for count, again in zip(sent, repeated, strict=True) if count >= LEAST_OF_DAY),
        reverse=True,
    )
    high = rates[HIGH_DAYS - 1] if len(rates) >= HIGH_DAYS else 0.0
    usual = sum(repeated) / total
    return usual, min(0.95, max(usual + DUPLICATE_MARGIN, 2 * usual, 1.25 * high + DUPLICATE_MARGIN / 2))


# --- chance ------------------------------------------------------------------------------------------------------


def chance_below(successes: int, tries: int, rate: float) -> float:
    """The chance of so few successes or fewer, when each try succeeds with ``rate``.

    Exact for few tries; the normal distribution, with the continuity correction, for many.
    """
    if tries > _MANY:
        deviation = (successes + 0.5 - tries * rate) / sqrt(tries * rate * (1 - rate))
        return 0.5 * erfc(-deviation / sqrt(2))
    if successes >= tries:
        return 1.0
    first = lgamma(tries + 1) - lgamma(successes + 1) - lgamma(tries - successes + 1)
    term = exp(first + successes * log(rate) + (tries - successes) * log(1 - rate))
    total, odds = term, (1 - rate) / rate
    for count in range(successes, 0, -1):
        term *= count / (tries - count + 1) * odds
        total += term
        if term < total * 1e-9:
            break
    return min(1.0, total)


_MANY = 400


def span(ms: int) -> str:
    """A time in words."""
    minutes = ms // 60_000
    if minutes < 120:
        return f"{minutes} minutes" if minutes != 60 else "hour"
    hours = minutes / 60
    return f"{hours:.0f} hours" if hours < 72 else f"{hours / 24:.0f} days"
