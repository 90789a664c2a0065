"""The market at work: visits hour by hour, and what follows from those that buy, all in order of time."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from heapq import heappop, heappush
from itertools import accumulate, count
from random import Random

from postbackd.core.model import Channel, ClickKind
from postbackd.market.cast import (
    CAMPAIGNS,
    DEVICES,
    NETWORKS,
    OFFERS,
    SOURCES,
    CampaignRole,
    Device,
    SourceRole,
)
from postbackd.market.faults import SILENT, Fault, plant_faults
from postbackd.market.losses import Losses
from postbackd.market.records import Call, Event, Refused, Spelling, Visit
from postbackd.market.rhythm import HOUR_MS, HOURS, Rhythm
from postbackd.market.stories import Story, make_token, tell_story
from postbackd.market.tracker import Message

_PROGRAMS = (ClickKind.BOT, ClickKind.BOT, ClickKind.BOT, ClickKind.PREFETCH, ClickKind.HEAD)
_REFUSED = ("not_found", "not_found", "not_found", "malformed")
_REFUSED_AN_HOUR = 2.0
_STRAY_AN_HOUR = 0.02
"""Postbacks a network and hour that are about nobody's visit: tried out, or meant for another tracker."""

_STRAYS = (
    ("cid=test&payout=1.00", "rejected", "test_event"),
    ("payout=2.50&txid={token}", "unmatched", "click_id_missing"),
    (
        "cid=3f2b8c1e-77d0-4a5e-9c41-0e6d2b{hex}&type={type}&payout=4.20&txid={token}",
        "unmatched",
        "click_id_foreign",
    ),
)


class Market:
    """A month that ends at ``until_ms``, and what comes after it.  The same arguments tell the same story."""

    def __init__(
        self,
        seed: int,
        until_ms: int,
        visits: int,
        *,
        hours: int = HOURS,
        faults: Mapping[str, Sequence[Fault]] | None = None,
        losses: Losses | None = None,
    ) -> None:
        """``visits``: about how many the month has, or the ``hours`` that take its place.

        ``faults``: the planted ones by the network or landing host where they are; ``None``: those of the demo.
        ``losses``: what all visitors lose, where every network also has a pixel; ``None``: as the cast says.
        """
        self.from_ms = until_ms // HOUR_MS * HOUR_MS - hours * HOUR_MS
        self.until_ms = until_ms
        self.faults = plant_faults(until_ms)
        self._planted = _by_place(self.faults.values()) if faults is None else faults
        self._losses = losses
        self._seed = seed
        self._rhythm = Rhythm(seed, self.from_ms, CAMPAIGNS, visits, hours)
        self._order = count()
        self._visits = count()
        self._sales = count(1)
        self._later: list[tuple[int, int, Event]] = []
        """What is known to happen, by time."""

    def events(self, last_visit_ms: int | None = None) -> Iterator[Event]:
        """Everything that happens.  To be asked for once.

        Without end; or with what follows of the visits before ``last_visit_ms``, however long that takes.
        """
        for hour in count():
            end_ms = self.from_ms + (hour + 1) * HOUR_MS
            if last_visit_ms is not None and end_ms - HOUR_MS >= last_visit_ms:
                break
            for visit in self._visit(hour):
                if last_visit_ms is not None and visit.at_ms >= last_visit_ms:
                    break
                while self._later and self._later[0][0] <= visit.at_ms:
                    yield heappop(self._later)[2]
                yield visit
                if visit.converts:
                    self._tell(visit)
            while self._later and self._later[0][0] < end_ms:
                yield heappop(self._later)[2]
        while self._later:
            yield heappop(self._later)[2]

    def _visit(self, hour: int) -> list[Visit]:
        """The visits of an hour, and what else knocks; numbered in their order."""
        draw = Random(f"{self._seed}/{hour}")
        begin_ms = self.from_ms + hour * HOUR_MS
        arrivals: list[tuple[int, CampaignRole]] = []
        for role in CAMPAIGNS:
            number = draw_count(draw, self._rhythm.expected(role, hour))
            arrivals += [(begin_ms + int(draw.random() * HOUR_MS), role) for _ in range(number)]
        arrivals.sort(key=lambda arrival: (arrival[0], arrival[1].slug))
        self._knock(draw, begin_ms)
        return [self._make_visit(draw, at_ms, role) for at_ms, role in arrivals]

    def _make_visit(self, draw: Random, at_ms: int, role: CampaignRole) -> Visit:
        source = _SOURCES[role.source]
        offer = _pick(draw, role.offers)
        device = DEVICES[bisect(_DEVICE_EDGES, draw.random() * _DEVICE_EDGES[-1])]
        place = int(source.places * draw.random() ** 2)
        kind = draw.choice(_PROGRAMS) if draw.random() < source.programs else ClickKind.COUNTED
        chance = _OFFERS[offer].rate * device.converts * _quality(source, place)
        cost = int(role.cost_micros * (0.6 + 0.8 * draw.random())) // 10 * 10
        return Visit(
            at_ms,
            next(self._visits),
            role.name,
            offer,
            kind,
            make_token(draw, 18),
            cost,
            _pick(draw, role.countries),
            (f"zone-{place + 1}", f"creative-{int(draw.random() * 4) + 1}", device.name, device.browser),
            kind is ClickKind.COUNTED and draw.random() < chance,
        )

    def _knock(self, draw: Random, begin_ms: int) -> None:
        for _ in range(draw_count(draw, _REFUSED_AN_HOUR)):
            at_ms = begin_ms + int(draw.random() * HOUR_MS)
            self._later_on(Refused(at_ms, draw.choice(_REFUSED)))
        for network in NETWORKS:
            for _ in range(draw_count(draw, _STRAY_AN_HOUR)):
                at_ms = begin_ms + int(draw.random() * HOUR_MS)
                stray = _make_stray(draw, at_ms, network.name)
                if not self._is_silent(network.name, at_ms):
                    self._later_on(stray)

    def _is_silent(self, network: str, at_ms: int) -> bool:
        return any(
            fault.name == SILENT and at_ms >= fault.since_ms for fault in self._planted.get(network, ())
        )

    def _tell(self, visit: Visit) -> None:
        offer = _OFFERS[visit.offer]
        places = (offer.network, offer.host)
        faults = {fault.name: fault for place in places for fault in self._planted.get(place, ())}
        draw = Random(f"{self._seed}/sale/{visit.number}")
        device = _DEVICE_OF[visit.subs[2:4]]
        story = Story(visit, offer, _NETWORKS[offer.network], device, faults, self._losses)
        for event in tell_story(draw, story, next(self._sales)):
            self._later_on(event)

    def _later_on(self, event: Event) -> None:
        heappush(self._later, (event.at_ms, next(self._order), event))


_SOURCES = {source.name: source for source in SOURCES}
_NETWORKS = {network.name: network for network in NETWORKS}
_OFFERS = {offer.name: offer for offer in OFFERS}
_DEVICE_EDGES = tuple(accumulate(device.weight for device in DEVICES))
_DEVICE_OF: dict[tuple[str, ...], Device] = {(device.name, device.browser): device for device in DEVICES}


def _by_place(faults: Iterable[Fault]) -> dict[str, list[Fault]]:
    places: dict[str, list[Fault]] = {}
    for fault in faults:
        places.setdefault(fault.where, []).append(fault)
    return places


def _make_stray(draw: Random, at_ms: int, network: str) -> Call:
    query, verdict, reason = draw.choice(_STRAYS)
    words = {
        "{token}": make_token(draw, 10),
        "{hex}": f"{draw.getrandbits(24):06x}",
        "{type}": next(offer.type for offer in OFFERS if offer.network == network),
    }
    for word, text in words.items():
        query = query.replace(word, text)
    says = Message(verdict=verdict, reason=reason, finds=False)
    return Call(at_ms, network, Channel.S2S, -1, query, Spelling.ABSENT, 900, 0, verdict, reason, says)


def draw_count(draw: Random, expected: float) -> int:
    """A whole number that is ``expected`` on average."""
    whole = int(expected)
    return whole + (draw.random() < expected - whole)


def _pick(draw: Random, weights: Mapping[str, float]) -> str:
    return (
        draw.choices(tuple(weights), tuple(weights.values()))[0] if len(weights) > 1 else next(iter(weights))
    )


@cache
def _quality(source: SourceRole, place: int) -> float:
    """How well the visitors of a placement buy; 1 on average."""
    return 0.55 + 0.9 * Random(f"{source.name}/{place}").random()
