"""What really happened in the market, and what a tracker that is right makes of it: to check reports and findings by.

``counted`` figures are what a right tracker counts from the postbacks that were sent; ``sales`` are what was really
sold, also where a fault keeps us from hearing of it (``lost_by``).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import msgspec

from postbackd.core.model import ClickKind
from postbackd.core.money import write_micros
from postbackd.market.faults import Fault
from postbackd.market.records import Call, Event, Refused, Sale, Standing, Visit


class _Figures:
    """Of one campaign or network."""

    def __init__(self) -> None:
        self.visits: Counter[str] = Counter()
        self.cost_micros = 0
        self.sales = 0
        self.lost_by: Counter[str] = Counter()
        self.postbacks = 0
        self.verdicts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.standing: Counter[str] = Counter()
        self.money: Counter[tuple[str, str]] = Counter()

    def write(self) -> dict[str, Any]:
        value: dict[str, dict[str, str]] = {}
        for (currency, status), micros in sorted(self.money.items()):
            if micros:
                value.setdefault(currency, {})[status] = write_micros(micros)
        return {
            "clicks": self.visits[ClickKind.COUNTED.name],
            "other_visits": self.visits.total() - self.visits[ClickKind.COUNTED.name],
            "cost": write_micros(self.cost_micros),
            "sales": self.sales,
            "lost_by": dict(sorted(self.lost_by.items())),
            "postbacks": self.postbacks,
            "by_verdict": dict(sorted(self.verdicts.items())),
            "by_reason": dict(sorted(self.reasons.items())),
            "counted": {
                "count": self.standing.total(),
                "by_status": {status: count for status, count in sorted(self.standing.items()) if count},
                "value": value,
            },
        }


class Truth:
    """Hears every event once, in order."""

    def __init__(self, faults: Mapping[str, Fault]) -> None:
        self._faults = faults
        self._campaigns: defaultdict[str, _Figures] = defaultdict(_Figures)
        self._networks: defaultdict[str, _Figures] = defaultdict(_Figures)
        self._all = _Figures()
        self._refused: Counter[str] = Counter()
        self._sales: dict[int, Sale] = {}
        self._standing: dict[int, Standing] = {}

    def note(self, event: Event) -> None:
        """One more thing that happened."""
        if isinstance(event, Visit):
            for figures in (self._all, self._campaign(event.campaign)):
                figures.visits[event.kind.name] += 1
                figures.cost_micros += event.cost_micros if event.kind is ClickKind.COUNTED else 0
        elif isinstance(event, Call):
            self._note_call(event)
        elif isinstance(event, Sale):
            self._sales[event.number] = event
            for figures in self._of(event):
                figures.sales += 1
                if event.lost_by:
                    figures.lost_by[event.lost_by] += 1
        elif isinstance(event, Standing):
            self._note_standing(event)
        else:
            assert isinstance(event, Refused)
            self._refused[event.kind] += 1

    def _note_call(self, call: Call) -> None:
        for figures in (self._all, self._network(call.network)):
            figures.postbacks += 1
            figures.verdicts[call.verdict] += 1
            if call.reason:
                figures.reasons[call.reason] += 1

    def _note_standing(self, now: Standing) -> None:
        before = self._standing.get(now.sale)
        self._standing[now.sale] = now
        for figures in self._of(self._sales[now.sale]):
            if before is not None:
                figures.standing[before.status] -= 1
                figures.money[before.currency, before.status] -= before.value_micros
            figures.standing[now.status] += 1
            figures.money[now.currency, now.status] += now.value_micros

    def _of(self, sale: Sale) -> tuple[_Figures, ...]:
        return self._all, self._campaign(sale.campaign), self._network(sale.network)

    def _campaign(self, name: str) -> _Figures:
        return self._campaigns[name]

    def _network(self, name: str) -> _Figures:
        return self._networks[name]

    def write(self) -> dict[str, Any]:
        """Everything so far, as a document."""
        return {
            "all": self._all.write(),
            "campaigns": {name: figures.write() for name, figures in sorted(self._campaigns.items())},
            "networks": {name: figures.write() for name, figures in sorted(self._networks.items())},
            "refusals": dict(sorted(self._refused.items())),
            "faults": [msgspec.to_builtins(fault) for fault in self._faults.values()],
        }
