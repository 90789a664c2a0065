"""All checks of networks and campaigns, over what has been counted and met."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

from postbackd.core.alarm_counts import Counts
from postbackd.core.alarm_rates import (
    check_duplicates,
    check_match_rate,
    check_silence,
    gather_silence,
)
from postbackd.core.alarm_words import Memory, name_of
from postbackd.core.alarms import Judgement, Key, Scope, Sighting
from postbackd.core.rhythm import attendance

Names = Mapping[tuple[str, int], str]


def check_networks(
    counts: Counts,
    memory: Memory,
    networks: Collection[int],
    campaigns: Mapping[int, Collection[int]],
    names: Names,
    lasting: Collection[Key],
    now_ms: int,
) -> Sequence[Sighting]:
    """``networks``, ``campaigns``: those of the catalog, the latter with the networks of their offers.

    ``lasting``: the alarms that last.
    """
    silence: list[Sighting] = []
    found: list[Sighting] = []
    judged = 0
    low: set[int] = set()
    for network in sorted(networks):
        name = name_of(names, Scope.NETWORK, network)
        sent, visited, usual = counts.learned(network, now_ms)
        hours = counts.of(Scope.NETWORK, network)
        presence = partial(attendance, visited, hours, now_ms)
        judged += sent.is_known
        silence.append(check_silence(network, name, sent, counts.last_ms(network), presence, now_ms))
        match = check_match_rate(Scope.NETWORK, network, name, hours, now_ms)
        if match.judgement is Judgement.BAD:
            low.add(network)
        found += [match, check_duplicates(network, name, hours, usual, now_ms)]
        found += memory.check(network, name, lasting, now_ms)
    for campaign in sorted(campaigns):
        if low.isdisjoint(campaigns[campaign]):  # a network that is low explains its campaigns
            name = name_of(names, Scope.CAMPAIGN, campaign)
            hours = counts.of(Scope.CAMPAIGN, campaign)
            found.append(check_match_rate(Scope.CAMPAIGN, campaign, name, hours, now_ms))
    return [*gather_silence(silence, judged), *found]
