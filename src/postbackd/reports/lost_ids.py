"""Whether click ids are lost on a landing page or with age: reads what ``core.lost_ids`` decides on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from postbackd.core.diagnosis import Reason
from postbackd.core.hops import read_link
from postbackd.core.lost_ids import (
    FEWEST_CONVERSIONS,
    SETTLED_MS,
    HostClicks,
    find_lost_on_page,
    find_lost_with_age,
    say_lost_on_page,
    say_lost_with_age,
)
from postbackd.core.moments import write_moment
from postbackd.core.zones import QUARTER_MS
from postbackd.reports.explore import explore
from postbackd.reports.period import Period
from postbackd.reports.question import EARLIEST_MS, MOST_ROWS, Question
from postbackd.store.base import Store

_WITHOUT_ID = (Reason.CLICK_ID_MISSING, Reason.CLICK_ID_EMPTY)

USUAL_MS = 30 * 86_400_000
"""How far back is looked, unless told otherwise."""


async def find_lost_ids(store: Store, period: Period, now_ms: int) -> dict[str, Any]:
    """The document: ``found``, each with a ``sentence`` and its figures, and the ``hosts`` that were compared.

    Clicks of the period count that are three days old at least: younger ones may still convert late.
    """
    until_ms = min(now_ms - SETTLED_MS, period.until_ms or now_ms)
    since_ms = period.since_ms if period.since_ms is not None else max(0, until_ms - USUAL_MS)
    settled = Period(min(since_ms, until_ms), until_ms)
    hosts = await _read_hosts(store, settled, now_ms)
    with_age, on_page = find_lost_with_age(hosts), find_lost_on_page(hosts)
    found = [
        {"kind": "age", "sentence": say_lost_with_age(one), **msgspec.to_builtins(one)} for one in with_age
    ]
    found += [
        {"kind": "page", "sentence": say_lost_on_page(one), **msgspec.to_builtins(one)} for one in on_page
    ]
    enough = [host for host in hosts if host.converted >= FEWEST_CONVERSIONS]
    return {
        "since": write_moment(settled.since_ms or 0),
        "until": write_moment(until_ms),
        "found": found,
        "comparable": len(enough) if len(hosts) > 1 else 0,
        "needed": FEWEST_CONVERSIONS,
        "hosts": [
            {"host": host.host, "clicks": host.clicks, "converted": host.converted}
            for host in sorted(hosts, key=lambda host: -host.clicks)
        ],
    }


async def _read_hosts(store: Store, period: Period, now_ms: int) -> list[HostClicks]:
    catalog = await store.load_catalog(removed=True)
    stamps = period.stamps()
    offers = {offer.id: offer for offer in (*catalog.removed_offers, *catalog.offers)}
    host_of = {id_: read_link(offer.name, offer.url).host for id_, offer in offers.items()}
    clicks: Counter[str] = Counter()
    for offer_id, count in (await _count_clicks(store, period, now_ms)).items():
        if offer_id in host_of:
            clicks[host_of[offer_id]] += count
    ages: dict[str, Counter[int]] = {}
    for row in await store.query("converted_by_age", **stamps):
        if row["offer"] in host_of:
            ages.setdefault(host_of[row["offer"]], Counter())[row["rung"]] += row["count"]
    without = await _count_without_id(store, {offer.network for offer in offers.values()}, stamps)
    networks: dict[str, set[int]] = {}
    for id_, offer in offers.items():
        networks.setdefault(host_of[id_], set()).add(offer.network)
    return [
        HostClicks(host, clicks[host], dict(ages.get(host, {})), sum(without[n] for n in networks[host]))
        for host in sorted(clicks.keys() | ages.keys())
    ]


async def _count_clicks(store: Store, period: Period, now_ms: int) -> Mapping[int, int]:
    """By offer: from the roll-ups, to the quarter of an hour, or one by one where the roll-ups do not go so far."""
    since, until = (period.since_ms or 0) // QUARTER_MS, (period.until_ms or now_ms) // QUARTER_MS
    state = {row["name"]: row["value"] for row in await store.query("rollup_state")}
    if state.get("slots_to", 0) < until:
        return {row["key"]: row["count"] for row in await store.query("clicks_by_offer", **period.stamps())}
    question = Question(
        by=("offer",),
        since_ms=max(since * QUARTER_MS, EARLIEST_MS),
        until_ms=until * QUARTER_MS,
        limit=MOST_ROWS,
    )
    table = await explore(store, question, now_ms=now_ms)
    return {int(line.key[0]): line.measures.clicks or 0 for line in table.lines if line.key[0] is not None}


async def _count_without_id(store: Store, networks: set[int], stamps: Mapping[str, int]) -> Mapping[int, int]:
    counts = {}
    for network in networks:
        rows = await store.query("unmatched_of_network", network=network, **stamps)
        counts[network] = sum(row["count"] for row in rows if row["reason"] in _WITHOUT_ID)
    return counts


def format_lost_ids(document: Mapping[str, Any]) -> str:
    """The sentences, or why there are none."""
    if document["found"]:
        return "\n".join(one["sentence"] for one in document["found"])
    if document["comparable"] < 1:
        return f"not enough to compare: two landing hosts are needed, with {document['needed']} converted clicks each"
    return "no sign that click ids are lost on a landing page or with age"
