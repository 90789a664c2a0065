"""What the postback of a server saves over the pixel of a browser: the sales that each counts, the money it loses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from postbackd.core.model import Channel
from postbackd.core.money import write_micros
from postbackd.market.records import Call, Sale
from postbackd.simulating.ledger import Ledger
from postbackd.simulating.plan import Plan, events_of, with_blockers

SWEEP = (0.0, 0.1, 0.2, 0.3, 0.4)
"""Shares of browsers that block pixels."""

_WAYS = {"S2S": Channel.S2S, "pixel": Channel.PIXEL}


class Savings(Struct, frozen=True):
    """What really happened, and what one way of counting knows of it."""

    way: str
    """``truth``, ``S2S``, ``pixel``."""
    sales: int
    micros: Mapping[str, int]
    """Currency -> money, of what is known."""


def count_savings(ledger: Ledger) -> list[Savings]:
    """Of a run, by what every postback was answered; what is unknown counts as lost."""
    truth, micros = 0, Counter[str]()
    known: Counter[str] = Counter()
    money: dict[str, Counter[str]] = {way: Counter() for way in _WAYS}
    for state in ledger.sales.values():
        sale, possible = state.sale, state.possible()
        truth += 1
        micros[sale.currency] += sale.value_micros
        for way, bit in _WAYS.items():
            if all(one.channels & bit for one in possible):
                known[way] += 1
                money[way][sale.currency] += sale.value_micros
    return [Savings("truth", truth, micros), *(Savings(way, known[way], money[way]) for way in _WAYS)]


def foresee_savings(plan: Plan) -> list[Savings]:
    """The same of a plan that nobody plays, if every postback that is sent is received."""
    sales: dict[int, Sale] = {}
    heard: dict[str, set[int]] = {way: set() for way in _WAYS}
    for event in events_of(plan):
        if isinstance(event, Sale):
            sales[event.number] = event
        elif isinstance(event, Call) and event.sale and not event.says.verdict:
            heard[next(way for way, bit in _WAYS.items() if event.channel == bit)].add(event.sale)
    return [
        Savings("truth", len(sales), _add_up(sales.values())),
        *(Savings(way, len(heard[way]), _add_up(sales[number] for number in heard[way])) for way in _WAYS),
    ]


def _add_up(sales: Iterable[Sale]) -> Counter[str]:
    micros: Counter[str] = Counter()
    for sale in sales:
        micros[sale.currency] += sale.value_micros
    return micros


def sweep(plan: Plan) -> list[tuple[float, list[Savings]]]:
    """What would be known at other rates of blockers: the same visitors, nothing sent."""
    return [(rate, foresee_savings(with_blockers(plan, rate))) for rate in SWEEP]


def write_lost(truth: Savings, known: Savings) -> dict[str, str]:
    """Currency -> the money that a way of counting does not know of."""
    return {
        currency: write_micros(micros - known.micros.get(currency, 0))
        for currency, micros in sorted(truth.micros.items())
    }


def share_lost(truth: Savings, known: Savings) -> float:
    """Of the sales."""
    return (truth.sales - known.sales) / truth.sales if truth.sales else 0.0


def describe_savings(savings: Sequence[Savings]) -> list[dict[str, object]]:
    """As a document."""
    truth = savings[0]
    return [
        {
            "way": one.way,
            "sales": one.sales,
            "share_lost": round(share_lost(truth, one), 6),
            "value": {currency: write_micros(micros) for currency, micros in sorted(one.micros.items())},
            "value_lost": write_lost(truth, one),
        }
        for one in savings
    ]
