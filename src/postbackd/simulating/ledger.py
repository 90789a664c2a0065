"""What follows from a truth file: what should be counted, exactly where that is known and within bounds where not.

A request without an answer may have been counted, at once or later, or not at all.  So a sale is followed through every
state that it can be in; an answer leaves the states that fit it.  An answer that fits none is a difference.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct, field

from postbackd.core.model import Channel
from postbackd.market.tracker import Counted, Message, settle
from postbackd.simulating.truth_file import (
    BadTruth,
    Began,
    Click,
    ClickEnd,
    Ended,
    GivenUp,
    Line,
    Postback,
    PostbackEnd,
    Sale,
)

_SLACK_MS = 15_000
"""After the last line of a run that was killed: longer than anybody waits for an answer."""

_WITHOUT_CLICK_ID = ("click_id_missing", "click_id_empty", "test_event")
"""What carried no id says nothing about matching."""


class Range(Struct):
    """A number that lies between two, both included."""

    low: int = 0
    high: int = 0

    def add(self, low: int, high: int) -> None:
        self.low += low
        self.high += high


class Books(Struct):
    """The figures of one network or campaign, or of all."""

    clicks: Range
    postbacks: Range
    verdicts: defaultdict[str, Range]
    reasons: defaultdict[str, Range]
    findings: defaultdict[tuple[str, str], Range]
    """(verdict, reason) of what was not counted."""
    matched: Range
    carried: Range
    conversions: Range
    statuses: defaultdict[str, Range]
    money: defaultdict[tuple[str, str], Range]
    """(currency, status) -> millionths."""
    channels: defaultdict[str, Range]
    """``s2s``, ``pixel`` and ``only_s2s``."""


def open_books() -> Books:
    return Books(
        Range(), Range(), defaultdict(Range), defaultdict(Range), defaultdict(Range), Range(), Range(), Range(),
        defaultdict(Range), defaultdict(Range), defaultdict(Range),
    )  # fmt: skip


class SaleState(Struct):
    """One sale and every state in which it can be at the server."""

    sale: Sale
    click_id: str
    states: frozenset[Counted] = frozenset({Counted()})
    pending: frozenset[tuple[Message, int, bool]] = frozenset()
    """(message, channel, holds repeats) of what may have arrived, or may still."""
    ever: frozenset[Counted] = frozenset({Counted()})
    """Every state that it can have been in."""

    def possible(self) -> frozenset[Counted]:
        """The states, whatever of the pending has arrived by now."""
        found = set(self.states)
        fresh = list(found)
        while fresh:
            state = fresh.pop()
            for message, channel, holds in self.pending:
                after, _, _ = settle(state, message, Channel(channel), holds_repeats=holds)
                if after not in found:
                    found.add(after)
                    fresh.append(after)
        return frozenset(found)


class Unlike(Struct, frozen=True):
    """An answer that a tracker that is right cannot give."""

    postback: int
    network: str
    sale: int
    expected: tuple[str, ...]
    said: str


class FaultFigures(Struct):
    """What became of the postbacks that show one fault."""

    answered: int = 0
    as_expected: int = 0
    otherwise: Counter[str] = field(default_factory=Counter)


class Ledger:
    """The figures of a run."""

    def __init__(self, lines: Iterable[Line]) -> None:
        """``lines``: of one run, in their order.  Raises ``BadTruth`` when they do not belong together."""
        lines = iter(lines)
        began = next(lines, None)
        if not isinstance(began, Began):
            raise BadTruth(
                "the truth does not begin with the line 'began': the run wrote nothing, or it was cut"
            )
        self.began = began
        self.ended: Ended | None = None
        self.last_ms = began.at_ms
        self.all = open_books()
        self.networks: defaultdict[str, Books] = defaultdict(open_books)
        self.campaigns: defaultdict[str, Books] = defaultdict(open_books)
        self.sales: dict[int, SaleState] = {}
        self.visits: Counter[str] = Counter()
        """By kind; and ``lost``, ``astray`` (sent to a page that is not the offer's)."""
        self.unlike: list[Unlike] = []
        self.unknown = 0
        """Requests of which nobody knows whether they were stored."""
        self.not_stored = self.given_up = 0
        self.switched_off: list[str] = []
        self.faults: defaultdict[tuple[str, str], FaultFigures] = defaultdict(FaultFigures)
        """(fault, network)."""
        self.took_us: list[int] = []
        self._clicks: dict[int, Click] = {}
        self._click_ids: dict[int, str] = {}
        self._open: dict[tuple[int, int, int], Postback] = {}
        self._twins: dict[tuple[int, int], tuple[Postback, PostbackEnd]] = {}
        self._unsettled: list[Postback] = []
        for line in lines:
            try:
                self._take(line)
            except KeyError as error:
                raise BadTruth(f"the truth has lost a line: {line} follows from none before it") from error
        self._close()

    @property
    def until_ms(self) -> int:
        """When the run was over, by this machine's clock."""
        return self.ended.at_ms + 1 if self.ended is not None else self.last_ms + _SLACK_MS

    def _take(self, line: Line) -> None:
        if isinstance(line, Postback):
            self.last_ms = line.at_ms
            self._open[line.postback, line.turn, line.twin] = line
        elif isinstance(line, PostbackEnd):
            self._hear(self._open.pop((line.postback, line.turn, line.twin)), line)
        elif isinstance(line, Click):
            self.last_ms = line.at_ms
            self._clicks[line.visit] = line
            self.visits[line.kind] += 1
        elif isinstance(line, ClickEnd):
            self._land(self._clicks.pop(line.visit), line)
        elif isinstance(line, Sale):
            self.sales[line.sale] = SaleState(line, self._click_ids[line.visit])
        elif isinstance(line, GivenUp):
            self.given_up += 1
            if line.switched_off:
                self.switched_off.append(line.network)
        elif isinstance(line, Ended):
            self.ended = line

    # --- clicks --------------------------------------------------------------------------------------------------

    def _land(self, click: Click, end: ClickEnd) -> None:
        if end.click_id:
            self._click_ids[end.visit] = end.click_id
        else:
            self.visits["lost"] += 1
        if end.status == 302:
            self.visits["astray"] += not end.click_id
            self.took_us.append(end.took_us)
            self._count_click(click, 1, 1)
        elif _may_be_stored(end.status, end.sent):
            self._count_click(click, 0, 1)
        else:
            self.not_stored += 1

    def _count_click(self, click: Click, low: int, high: int) -> None:
        self.unknown += low != high
        if click.kind == "counted":
            for books in (self.all, self.campaigns[click.campaign]):
                books.clicks.add(low, high)

    # --- postbacks -----------------------------------------------------------------------------------------------

    def _hear(self, postback: Postback, end: PostbackEnd) -> None:
        """Of two that were sent at the same moment the one that was counted goes first, whoever heard first."""
        key = (postback.postback, postback.turn)
        other = self._twins.pop(key, None)
        is_twin = postback.twin or (*key, 1) in self._open
        if other is None and is_twin:
            self._twins[key] = (postback, end)
            return
        pair = [(postback, end)] if other is None else [other, (postback, end)]
        for one, ended in sorted(
            pair, key=lambda pair: (pair[1].verdict == "duplicate", pair[1].status != 0)
        ):
            self._settle(one, ended)

    def _settle(self, postback: Postback, end: PostbackEnd) -> None:
        if end.verdict and 200 <= end.status < 500:
            self.took_us.append(end.took_us)
            self._check_answer(postback, end)
        elif _may_be_stored(end.status, end.sent):
            self._leave_open(postback)
        else:
            self.not_stored += 1

    def _check_answer(self, postback: Postback, end: PostbackEnd) -> None:
        """An answer leaves the states that fit it.  One that says ``queued`` fits all: the request is kept, and what
        becomes of it is settled in its turn."""
        state = self.sales.get(postback.sale)
        before = frozenset({Counted()}) if state is None else state.possible()
        fates = {
            (after, (verdict, reason))
            for after, verdict, reason in (_settle_from(one, postback) for one in before)
        }
        said = (end.verdict, end.reason)
        expected = {words for _, words in fates}
        fitting = frozenset(after for after, words in fates if words == said)
        if not fitting and end.verdict != "queued":
            words = tuple(sorted(_join(*one) for one in expected))
            self.unlike.append(
                Unlike(postback.postback, postback.network, postback.sale, words, _join(*said))
            )
        if state is not None:
            state.states = fitting or frozenset(after for after, _ in fates)
            state.ever |= state.possible()
        verdict, reason = said if said in expected else min(expected)
        self._count_row(postback, verdict, reason, 1, 1)
        self._note_fault(postback, end)

    def _note_fault(self, postback: Postback, end: PostbackEnd) -> None:
        if not postback.fault:
            return
        figures = self.faults[postback.fault, postback.network]
        figures.answered += 1
        if end.reason == postback.says.reason or end.reason == "repeat_without_transaction_id":
            figures.as_expected += 1
        else:
            figures.otherwise[end.reason or end.verdict] += 1

    def _leave_open(self, postback: Postback) -> None:
        """It may be stored: what follows from it is known only when everything is."""
        self.unknown += 1
        self._unsettled.append(postback)
        state = self.sales.get(postback.sale)
        if state is not None:
            state.pending |= {(postback.says, postback.channel, postback.holds_repeats)}
            state.ever |= state.possible()

    def _count_row(self, postback: Postback, verdict: str, reason: str, low: int, high: int) -> None:
        says = postback.says
        for books in (self.all, self.networks[postback.network]):
            books.verdicts[verdict].add(low, high)
            if reason:
                books.reasons[reason].add(low, high)
            if verdict in ("held", "unmatched", "rejected"):
                books.findings[verdict, reason].add(low, high)
            if low:
                books.postbacks.add(1, 1)
                if says.finds or reason not in _WITHOUT_CLICK_ID:
                    books.carried.add(1, 1)
                if says.finds and verdict != "unmatched":
                    books.matched.add(1, 1)

    # --- the end -------------------------------------------------------------------------------------------------

    def _close(self) -> None:
        """What has no second line is unknown."""
        for click in self._clicks.values():
            self._count_click(click, 0, 1)
        for postback in self._open.values():
            self._leave_open(postback)
        for postback, end in self._twins.values():
            self._settle(postback, end)
        for postback in self._unsettled:
            self._bound_row(postback)
        for state in self.sales.values():
            self._count_sale(state)

    def _bound_row(self, postback: Postback) -> None:
        state = self.sales.get(postback.sale)
        before = frozenset({Counted()}) if state is None else state.ever
        says = postback.says
        for verdict, reason in {_settle_from(one, postback)[1:] for one in before}:
            self._count_row(postback, verdict, reason, 0, 1)
        for books in (self.all, self.networks[postback.network]):
            books.postbacks.add(0, 1)
            books.carried.add(0, int(says.finds or says.reason not in _WITHOUT_CLICK_ID))
            books.matched.add(0, int(says.finds and says.verdict != "unmatched"))

    def _count_sale(self, state: SaleState) -> None:
        possible, sale = state.possible(), state.sale
        counted = [one for one in possible if one.status]
        sure = int(len(counted) == len(possible))
        for books in (self.all, self.networks[sale.network], self.campaigns[sale.campaign]):
            books.conversions.add(sure, int(bool(counted)))
            for status in {one.status for one in counted}:
                certain = int(all(one.status == status for one in possible))
                books.statuses[status].add(certain, 1)
                books.money[sale.currency, status].add(certain * sale.value_micros, sale.value_micros)
            for name, heard in _HEARD.items():
                seen = [heard(one.channels) for one in possible]
                books.channels[name].add(int(all(seen)), int(any(seen)))


_HEARD: Mapping[str, Callable[[int], bool]] = {
    "s2s": lambda channels: bool(channels & Channel.S2S),
    "pixel": lambda channels: bool(channels & Channel.PIXEL),
    "only_s2s": lambda channels: channels == Channel.S2S,
}


def _settle_from(state: Counted, postback: Postback) -> tuple[Counted, str, str]:
    return settle(state, postback.says, Channel(postback.channel), holds_repeats=postback.holds_repeats)


def _may_be_stored(status: int, sent: bool) -> bool:
    """Without an answer whatever was sent may be; an answer of 5xx says that nobody knows."""
    return sent if status == 0 else status >= 500


def _join(verdict: str, reason: str) -> str:
    return f"{verdict} ({reason})" if reason else verdict
