"""What follows from a truth file always holds what is true, however little of it is known."""

from __future__ import annotations

from collections import Counter
from itertools import count
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from postbackd.core.model import Channel
from postbackd.market.records import Call, Sale, Visit
from postbackd.market.tracker import Counted, settle
from postbackd.simulating.ledger import Ledger, Range
from postbackd.simulating.plan import Plan, events_of
from postbackd.simulating.planting import read_faults
from postbackd.simulating.truth_file import (
    Began,
    Click,
    ClickEnd,
    Line,
    Postback,
    PostbackEnd,
)
from postbackd.simulating.truth_file import Sale as SaleLine

_PLAN = Plan(
    clicks=250, duration_s=6 * 3600, seed=4, faults=read_faults(["unknown_status@Bluepeak", "id_empty@Fjord"])
)
_EVENTS = list(events_of(_PLAN))


class Server:
    """A tracker that is right, on a line that is not: some requests do not arrive, some answers do not come back."""

    def __init__(self, seed: int, losses: float) -> None:
        self.draw, self.losses = Random(seed), losses
        self.counted: dict[int, Counted] = {}
        self.rows: Counter[str] = Counter()
        self.clicks = 0
        self.late: dict[int, list[Call]] = {}
        """Sale -> what has arrived and is not settled yet."""
        self.lines: list[Line] = [Began(plan=_PLAN, server="http://127.0.0.1:1", at_ms=1, version="0")]
        self.numbers = count(1)

    def lost(self) -> bool:
        return self.draw.random() < self.losses

    def visit(self, visit: Visit) -> None:
        kind = visit.kind.name.lower()
        self.lines.append(Click(visit=visit.number, at_ms=2, market_ms=3, campaign=visit.campaign, kind=kind))
        answered = visit.converts or not self.lost()
        if kind == "counted" and (answered or self.draw.random() < 0.5):
            self.clicks += 1
        if answered:
            self.lines.append(ClickEnd(visit=visit.number, status=302, click_id="x"))
        elif self.draw.random() < 0.5:
            self.lines.append(ClickEnd(visit=visit.number, error="no answer within 10 s"))

    def sale(self, sale: Sale) -> None:
        self.lines.append(
            SaleLine(
                sale=sale.number, visit=sale.visit, market_ms=4, network=sale.network, campaign=sale.campaign,
                type=sale.type, value_micros=sale.value_micros, currency=sale.currency,
            )
        )  # fmt: skip

    def call(self, call: Call) -> None:
        number = next(self.numbers)
        for turn in (1, 2, 3):
            self.lines.append(
                Postback(
                    postback=number, turn=turn, at_ms=5, market_ms=6, network=call.network, channel=call.channel,
                    sale=call.sale, query=call.query, spelling=call.spelling, says=call.says,
                )
            )  # fmt: skip
            for waiting in self.late.pop(call.sale, []) if self.draw.random() < 0.5 else []:
                self.take(waiting)
            if not self.lost():
                verdict, reason = self.take(call)
                self.lines.append(
                    PostbackEnd(postback=number, turn=turn, status=200, verdict=verdict, reason=reason)
                )
                return
            sent = self.draw.random() < 0.7
            if sent and self.draw.random() < 0.7:
                self.late.setdefault(call.sale, []).append(call)
            self.lines.append(
                PostbackEnd(postback=number, turn=turn, sent=sent, error="no answer within 5 s")
            )

    def take(self, call: Call) -> tuple[str, str]:
        before = self.counted.get(call.sale, Counted())
        after, verdict, reason = settle(before, call.says, Channel(call.channel), holds_repeats=False)
        if call.sale:
            self.counted[call.sale] = after
        self.rows[verdict] += 1
        return verdict, reason

    def play(self) -> Ledger:
        for event in _EVENTS:
            if isinstance(event, Visit):
                self.visit(event)
            elif isinstance(event, Sale):
                self.sale(event)
            elif isinstance(event, Call):
                self.call(event)
        for waiting in [call for calls in self.late.values() for call in calls]:
            self.take(waiting)
        return Ledger(self.lines)


def within(truth: Range, value: int) -> bool:
    return truth.low <= value <= truth.high


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), losses=st.sampled_from([0.0, 0.1, 0.5, 0.9]))
def test_whatever_is_lost_the_truth_lies_within_the_bounds(seed: int, losses: float) -> None:
    server = Server(seed, losses)
    ledger = server.play()
    assert ledger.unlike == []
    assert within(ledger.all.clicks, server.clicks)
    assert within(ledger.all.postbacks, server.rows.total())
    for verdict in {*server.rows, *ledger.all.verdicts}:
        assert within(ledger.all.verdicts[verdict], server.rows[verdict])
    counted = Counter(one.status for one in server.counted.values() if one.status)
    assert within(ledger.all.conversions, counted.total())
    for status in {*counted, *ledger.all.statuses}:
        assert within(ledger.all.statuses[status], counted[status])
    for number, state in ledger.sales.items():
        assert server.counted.get(number, Counted()) in state.possible()
    if not losses:
        assert ledger.unknown == 0
        assert ledger.all.conversions == Range(counted.total(), counted.total())


@pytest.mark.parametrize("said", ["duplicate", "rejected", "unmatched"])
def test_an_answer_that_cannot_be_is_named(said: str) -> None:
    server = Server(1, 0.0)
    server.play()
    place = next(
        number
        for number, line in enumerate(server.lines)
        if isinstance(line, PostbackEnd) and line.verdict == "accepted"
    )
    line = server.lines[place]
    assert isinstance(line, PostbackEnd)
    server.lines[place] = PostbackEnd(postback=line.postback, turn=1, status=200, verdict=said)
    (unlike,) = Ledger(server.lines).unlike
    assert (unlike.postback, unlike.said) == (line.postback, said)
    assert "accepted" in unlike.expected


def test_of_two_sent_at_the_same_moment_either_may_be_the_one_that_is_counted() -> None:
    server = Server(1, 0.0)
    server.play()
    lines: list[Line] = []
    for line in server.lines:
        lines.append(line)
        if isinstance(line, Postback):
            lines.append(replace(line, twin=1))
        elif isinstance(line, PostbackEnd):
            first, second = line, replace(line, twin=1)
            if line.verdict == "accepted":
                first = replace(line, verdict="duplicate")
            elif line.verdict == "updated":
                second = replace(second, verdict="duplicate")
            lines[-1:] = [first, second]
    ledger = Ledger(lines)
    assert ledger.unlike == []
    assert ledger.all.conversions.low == sum(1 for one in server.counted.values() if one.status)
