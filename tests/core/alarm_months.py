"""A simulated month of traffic with planted faults, over many seeds: what alarms find, how fast, and what they invent.

Five weeks of history, then a month in which every check looks at every network once a slot.  Networks have rhythms of
hours and weekdays, good and bad days, growth, campaigns that begin and end, batches, and deliver late now and then;
none of that is a fault.  Each network gets at most one fault in the month.

``python -m tests.core.alarm_months [SEEDS]`` prints the figures that the documentation gives.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import cos, exp, pi
from random import Random
from statistics import median
from typing import NamedTuple

from postbackd.core.alarm_counts import Counts
from postbackd.core.alarm_networks import check_networks
from postbackd.core.alarm_words import Memory
from postbackd.core.alarms import Board, Kind, Said, Scope
from postbackd.core.click_id import EPOCH_MS
from postbackd.core.rhythm import HOUR_MS, HourCount

BEGIN_MS = 1_748_822_400_000
"""A Monday, 2025-06-02."""
DAY_MS = 24 * HOUR_MS
HISTORY_DAYS, MONTH_DAYS = 35, 30
LATE_DAYS = 1.5 / 24


class Network(NamedTuple):
    """How one network behaves."""

    name: str
    per_day: float
    weekend: float = 0.8
    peak: int = 20
    """The busiest hour."""
    swing: float = 0.8
    """How much less the quietest hour is, from 0 to 1."""
    noise: float = 0.2
    """Deviation of the logarithm of a day's level."""
    growth: float = 1.0
    """A day."""
    batch: str = ""
    """``daily``: one batch a night; ``hourly``: one an hour."""
    days: tuple[int, int] = (0, 10_000)
    """From when to when its campaign runs."""
    late: bool = False
    """Delivers some hours late once or twice a month."""
    matched: float = 0.97
    duplicates: float = 0.02


NETWORKS = (
    Network("three a day", 3),
    Network("seven a day, office hours", 7, weekend=0.1, peak=13, swing=1.0),
    Network("thirty a day", 30, noise=0.3, late=True),
    Network("a hundred and fifty a day", 150, noise=0.3, late=True, matched=0.94),
    Network("evenings only", 200, peak=21, swing=1.0, duplicates=0.15),
    Network("two thousand a day", 2_000, weekend=1.3, late=True),
    Network("thirty thousand a day", 30_000, noise=0.1, matched=0.93, duplicates=0.05),
    Network("a batch a night", 60, batch="daily"),
    Network("a batch an hour", 500, batch="hourly", duplicates=0.08),
    Network("growing", 15, growth=1.03),
    Network("a campaign that begins", 80, days=(30, 10_000)),
    Network("a campaign that ends", 120, days=(0, 50)),
    Network("promotions", 100, noise=0.6, late=True),
)
_ENDS = next(number for number, network in enumerate(NETWORKS, 1) if network.days[1] < 10_000)


class Fault(NamedTuple):
    """Something that goes wrong with a network."""

    kind: Kind
    network: int
    begin: float
    """Day since the history began."""
    days: float
    strength: float
    """The match rate, or the share of duplicates; of silence nothing."""

    def is_at(self, day: float) -> bool:
        return self.begin <= day < self.begin + self.days


class Slot(NamedTuple):
    """What came of a network in one slot."""

    postbacks: int
    matched: int
    duplicates: int
    clicks: int


class Outcome(NamedTuple):
    """What became of one simulated month."""

    faults: Sequence[tuple[Fault, float | None]]
    """With hours until it was raised; ``None``: it was not found."""
    late: int
    """Alarms of silence while a network delivered 90 minutes late; true, and over by themselves."""
    false: Sequence[tuple[Kind, str]]
    """Alarms without a fault: what, and of which network."""
    notices: int


def poisson(random: Random, rate: float) -> int:
    if rate <= 0:
        return 0
    if rate > 30:
        return max(0, round(random.gauss(rate, rate**0.5)))
    left, count = exp(-rate), 0
    drawn = random.random()
    while drawn > left:
        drawn *= random.random()
        count += 1
    return count


def binomial(random: Random, tries: int, rate: float) -> int:
    if tries <= 30:
        return sum(random.random() < rate for _ in range(tries))
    mean = tries * rate
    return min(tries, max(0, round(random.gauss(mean, (mean * (1 - rate)) ** 0.5))))


def plant(random: Random) -> list[Fault]:
    """One fault for most networks; a small one is given the time that it needs to show anything."""
    faults = []
    kinds = [Kind.SILENCE, Kind.SILENCE, Kind.MATCH_RATE, Kind.MATCH_RATE, Kind.DUPLICATES, None]
    for number, network in enumerate(NETWORKS, 1):
        kind = random.choice(kinds)
        if kind is None or number == _ENDS:
            continue
        if kind is Kind.DUPLICATES and network.per_day < 25:
            kind = Kind.SILENCE
        days = max(3.0, min(12.0, 36 / network.per_day))
        begin = HISTORY_DAYS + 2 + random.random() * (MONTH_DAYS - 4 - days)
        strength = {Kind.MATCH_RATE: random.choice((0.0, 0.4, 0.75)), Kind.DUPLICATES: 0.4}.get(kind, 0.0)
        faults.append(Fault(kind, number, begin, days, strength))
    return faults


def levels(random: Random, network: Network) -> list[float]:
    return [
        network.per_day * network.growth**day * exp(random.gauss(-(network.noise**2) / 2, network.noise))
        for day in range(HISTORY_DAYS + MONTH_DAYS)
    ]


def shares(network: Network) -> list[float]:
    """Hour of the day -> part of the day."""
    raw = [1 + network.swing * cos((hour - network.peak) / 12 * pi) for hour in range(24)]
    if network.swing >= 1:
        raw = [share if share > 0.5 else 0.0 for share in raw]
    return [share / sum(raw) for share in raw]


def lateness(random: Random, network: Network) -> list[float]:
    """Days on which a network begins to deliver late."""
    times = round((HISTORY_DAYS + MONTH_DAYS) / 15) if network.late else 0
    return [random.random() * (HISTORY_DAYS + MONTH_DAYS) for _ in range(times)]


def is_late(late: Sequence[float], day: float, grace: float = 0) -> bool:
    return any(begin <= day < begin + LATE_DAYS + grace for begin in late)


def traffic(
    random: Random, network: Network, fault: Fault | None, late: Sequence[float], slot_h: float
) -> Iterator[Slot]:
    """Every slot of history and month."""
    level, share = levels(random, network), shares(network)
    held = waiting = 0.0
    slots = round(24 / slot_h)
    for number in range((HISTORY_DAYS + MONTH_DAYS) * slots):
        day, hour = number / slots, number % slots * slot_h
        running = network.days[0] <= day < network.days[1]
        visits = level[int(day)] * share[int(hour)] * slot_h * (network.weekend if int(day) % 7 >= 5 else 1.0)
        rate = visits if running else 0.0
        # Conversions come after their clicks: a campaign that has ended goes on for a few hours.
        if not running and network.days[1] <= day < network.days[1] + 0.5:
            rate = visits * exp(-(day - network.days[1]) * 24 / 2)
        came = poisson(random, rate)
        if network.batch:
            waiting += came
            due = (3 <= hour < 3 + slot_h) if network.batch == "daily" else hour % 1 == 0
            came, waiting = (int(waiting), 0.0) if due else (0, waiting)
        if is_late(late, day):
            held += came
            came = 0
        elif held:
            came, held = came + int(held), 0.0
        fails = fault if fault is not None and fault.is_at(day) else None
        if fails is not None and fails.kind is Kind.SILENCE:
            came = 0
        match = fails.strength if fails is not None and fails.kind is Kind.MATCH_RATE else network.matched
        again = fails.strength if fails is not None and fails.kind is Kind.DUPLICATES else network.duplicates
        clicks = poisson(random, visits * 30) if running else 0
        yield Slot(came, binomial(random, came, match), binomial(random, came, again), clicks)


def history(slots: Sequence[Slot], network: int, slot_h: float) -> list[HourCount]:
    """What an earlier keeper would have counted."""
    found: dict[int, dict[str, int]] = {}
    last_ms = 0
    for number, slot in enumerate(slots):
        at_ms = BEGIN_MS + int(number * slot_h * HOUR_MS)
        hour = found.setdefault(at_ms // HOUR_MS, defaultdict(int))
        hour["clicks"] += slot.clicks
        if not slot.postbacks:
            continue
        for name, value in (
            ("postbacks", slot.postbacks),
            ("carried", slot.postbacks),
            ("matched", slot.matched),
        ):
            hour[name] += value
        hour["duplicates"] += slot.duplicates
        if last_ms and at_ms - last_ms > hour["gap_until_ms"] - hour["gap_from_ms"]:
            hour["gap_from_ms"], hour["gap_until_ms"] = last_ms, at_ms
        last_ms = at_ms + int(slot_h * HOUR_MS) - 1
        hour["first_ms"], hour["last_ms"] = hour["first_ms"] or at_ms, last_ms
    return [
        HourCount(scope=str(Scope.NETWORK), subject=network, hour=hour, **counts)
        for hour, counts in found.items()
    ]


def simulate(seed: int, slot_h: float = 0.25) -> Outcome:
    """One month."""
    random = Random(seed)
    faults = {fault.network: fault for fault in plant(random)}
    late = {number: lateness(random, network) for number, network in enumerate(NETWORKS, 1)}
    slots = {
        number: list(traffic(random, network, faults.get(number), late[number], slot_h))
        for number, network in enumerate(NETWORKS, 1)
    }
    begin = round(HISTORY_DAYS * 24 / slot_h)
    counts = Counts(count for n in slots for count in history(slots[n][:begin], n, slot_h))
    board, memory = Board(), Memory()
    names = {("network", number): network.name for number, network in enumerate(NETWORKS, 1)}
    raised: list[tuple[Kind, int, float]] = []
    notices = 0
    for number in range(begin, len(slots[1])):
        at_ms = BEGIN_MS + int(number * slot_h * HOUR_MS)
        now_ms = at_ms + int(slot_h * HOUR_MS) + 15_000
        add(counts, {n: slots[n][number] for n in slots}, now_ms - 75_000)
        sightings = check_networks(counts, memory, slots, {}, names, board.lasting.keys(), now_ms)
        changes = board.decide(sightings, (), now_ms)
        board.keep(change.alarm for change in changes)
        notices += sum(change.tell is not None for change in changes)
        raised += [
            (change.alarm.kind, change.alarm.subject, (now_ms - BEGIN_MS) / DAY_MS)
            for change in changes
            if change.tell is Said.RAISED
        ]
    return judge(faults, late, raised, notices, slot_h)


def add(counts: Counts, slots: Mapping[int, Slot], at_ms: int) -> None:
    counts.add_postbacks(
        {
            "network": number, "campaign": None, "minute": (at_ms - EPOCH_MS) // 60_000, "postbacks": slot.postbacks,
            "carried": slot.postbacks, "matched": slot.matched, "duplicates": slot.duplicates,
        }
        for number, slot in slots.items()
    )  # fmt: skip
    hour = (at_ms - EPOCH_MS) // HOUR_MS
    counts.add_clicks({"network": n, "hour": hour, "clicks": slot.clicks} for n, slot in slots.items())


def judge(
    faults: Mapping[int, Fault],
    late: Mapping[int, Sequence[float]],
    raised: Sequence[tuple[Kind, int, float]],
    notices: int,
    slot_h: float,
) -> Outcome:
    found: dict[int, float] = {}
    false = []
    of_late = 0
    for kind, network, day in raised:
        fault = faults.get(network)
        if fault is not None and fault.kind is kind and fault.begin <= day < fault.begin + fault.days + 1:
            found.setdefault(network, (day - fault.begin) * 24)
        elif network and kind is Kind.SILENCE and is_late(late[network], day, 2 * slot_h / 24):
            of_late += 1
        else:
            false.append((kind, NETWORKS[network - 1].name if network else "all of them"))
    return Outcome([(fault, found.get(fault.network)) for fault in faults.values()], of_late, false, notices)


class Figures(NamedTuple):
    """Over many months."""

    seeds: int
    planted: Mapping[Kind, int]
    found: Mapping[Kind, int]
    hours: Mapping[Kind, float]
    """Until half of those that are found are found."""
    missed: Mapping[tuple[Kind, str], int]
    late: int
    false: Mapping[tuple[Kind, str], int]
    notices: int

    @property
    def false_a_month(self) -> float:
        return sum(self.false.values()) / self.seeds


def sum_up(outcomes: Sequence[Outcome]) -> Figures:
    every = [(fault, hours) for outcome in outcomes for fault, hours in outcome.faults]
    times: dict[Kind, list[float]] = defaultdict(list)
    for fault, hours in every:
        if hours is not None:
            times[fault.kind].append(hours)
    return Figures(
        len(outcomes),
        Counter(fault.kind for fault, _ in every),
        Counter(fault.kind for fault, hours in every if hours is not None),
        {kind: median(found) for kind, found in times.items()},
        Counter((fault.kind, NETWORKS[fault.network - 1].name) for fault, hours in every if hours is None),
        sum(outcome.late for outcome in outcomes),
        Counter(one for outcome in outcomes for one in outcome.false),
        sum(outcome.notices for outcome in outcomes),
    )


def times_by_network(outcomes: Sequence[Outcome], kind: Kind) -> Mapping[str, float]:
    """Median hours until it was found, by network."""
    times: dict[str, list[float]] = defaultdict(list)
    for outcome in outcomes:
        for fault, hours in outcome.faults:
            if fault.kind is kind and hours is not None:
                times[NETWORKS[fault.network - 1].name].append(hours)
    return {name: median(found) for name, found in times.items()}


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    slot_h = float(sys.argv[2]) if len(sys.argv) > 2 else 0.25
    outcomes = [simulate(seed, slot_h) for seed in range(seeds)]
    figures = sum_up(outcomes)
    for kind, planted in figures.planted.items():
        print(f"{kind}: {figures.found[kind]} of {planted} found, half within {figures.hours[kind]:.1f} h")
        for name, hours in sorted(times_by_network(outcomes, kind).items()):
            print(f"    {name}: {hours:.1f} h")
    print("late", figures.late)
    print("missed", dict(figures.missed))
    print("false", dict(figures.false))
    print(f"{figures.false_a_month:.2f} false alarms a month with {len(NETWORKS)} networks; "
          f"{figures.notices / figures.seeds:.1f} notices a month")  # fmt: skip


if __name__ == "__main__":
    main()
