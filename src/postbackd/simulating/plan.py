"""What is simulated: the same plan makes the same market, whenever and wherever it is played."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from postbackd.market.faults import Fault
from postbackd.market.losses import Losses
from postbackd.market.records import Event
from postbackd.market.rhythm import HOUR_MS
from postbackd.market.simulation import Market

START_MS = 1_767_571_200_000
"""Monday, 2026-01-05T00:00Z: when every simulated market opens, so that its hours and weekdays do not depend on now.

It lies in the past on purpose: a network that sends its own time must not send one that is yet to come."""

FEWEST_CLICKS, MOST_CLICKS = 50, 1_000_000
SHORTEST_S, LONGEST_S = 60, 30 * 86_400


class Plan(Struct, frozen=True, kw_only=True):
    """The arguments of a simulated market."""

    seed: int = 1
    clicks: int = 5_000
    """About how many visits there are."""
    duration_s: int = 3 * 86_400
    """In which visitors come; what follows of their visits is told to its end."""
    faults: tuple[Fault, ...] = ()
    losses: Losses = Losses()

    @property
    def last_visit_ms(self) -> int:
        """When the last visitor has come."""
        return START_MS + self.duration_s * 1000


def events_of(plan: Plan) -> Iterator[Event]:
    """Everything that happens in the market of a plan, in order of time."""
    hours = -(-plan.duration_s * 1000 // HOUR_MS)
    places: dict[str, list[Fault]] = {}
    for fault in plan.faults:
        places.setdefault(fault.where, []).append(fault)
    market = Market(
        plan.seed, START_MS + hours * HOUR_MS, plan.clicks, hours=hours, faults=places, losses=plan.losses
    )
    return market.events(plan.last_visit_ms)


def with_blockers(plan: Plan, blockers: float) -> Plan:
    """The same market with another share of blocking browsers."""
    return replace(plan, losses=replace(plan.losses, blockers=blockers))
