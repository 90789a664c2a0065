"""What the product promises of clicks and postbacks, said a second time with plain dicts (T11).

Nothing of the product is imported: words, orders and rules are written down here again, from the documented rules.
Two rules concern a batch as a whole: its clicks come first, then the postbacks that waited for them (oldest
first), then its own postbacks; and of all of those, first every new key is counted, then the others are decided
in their order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

ACCEPTED, DUPLICATE, UPDATED, HELD, UNMATCHED, REJECTED = [
    "accepted",
    "duplicate",
    "updated",
    "held",
    "unmatched",
    "rejected",
]
PIXEL, S2S = 2, 1
RANKS = {"pending": 1, "approved": 2, "rejected": 3, "reversed": 4}
WORDS = {
    "pending": "pending",
    "Hold": "pending",
    "approved": "approved",
    "PAID": "approved",
    "declined": "rejected",
    "refunded": "reversed",
    "no such word": "pending",
}
"""Words that senders use -> what they mean; an unknown one counts as pending."""

MICROS = {"12.50": 12_500_000, "7": 7_000_000, "0.000001": 1, "-3": -3_000_000, "abc": None, "1e3": None}
"""Values as text -> millionths; ``None`` is unreadable."""

CURRENCIES = ("USD", "EUR", "XXX")
"""The last one is none."""

Key = tuple[int, str, str]


@dataclass(frozen=True)
class Terms:
    """What a network and an offer ask for."""

    dedup: str
    window_min_s: int
    window_max_s: int


@dataclass(frozen=True)
class Visit:
    """A click that arrives."""

    stamp: int
    made_ms: int
    offer: int
    own_id: str | None = None


@dataclass(frozen=True)
class Message:
    """A postback that arrives.  ``click`` is a stamp, or an own id when it is text."""

    request_id: int
    received_ms: int
    network: int
    channel: int
    click: int | str
    type: str | None
    transaction_id: str | None
    value: str | None
    currency: str | None
    status: str | None
    time_ms: int | None
    matched_late: bool = False
    """It waited for its click, so that nobody knows what was said in between."""

    @property
    def kind(self) -> str:
        return self.type.lower() if self.type else "conversion"

    @property
    def reference(self) -> str:
        return (self.transaction_id or "").strip()


@dataclass(frozen=True)
class Counted:
    """A conversion."""

    conversion_id: int
    status: int
    micros: int
    currency: str
    channels: int
    status_time_ms: int


def _strength(counted: Counted) -> tuple[int, int, int]:
    """Which status wins: those with a sender's time beat those without, except money taken back without one."""
    if counted.status_time_ms:
        return 2, counted.status_time_ms, counted.status
    return (3 if counted.status >= RANKS["rejected"] else 1), 0, counted.status


@dataclass(frozen=True)
class Answer:
    verdict: str
    reason: str = ""
    """Only where nothing was counted."""
    conversion_id: int | None = None


@dataclass
class DictModel:
    """The whole state, and the messages that change it."""

    dedup: dict[int, str]
    windows: dict[int, tuple[int, int]]
    """offer -> (minimum, maximum) age in milliseconds"""
    fold_transaction_ids: bool = False
    """A deliberate mistake for the control: transaction ids compared without case."""
    forget_waiting: bool = False
    """Another one: a postback that came before its click is never matched."""
    believe_old_values: bool = False
    """A third one: in ``update`` mode the last value wins, however old its message is."""
    clicks: dict[int, Visit] = field(default_factory=dict)
    own_ids: dict[str, int] = field(default_factory=dict)
    conversions: dict[Key, Counted] = field(default_factory=dict)
    from_pixel: set[tuple[int, str]] = field(default_factory=set)
    """(click, type) of what the pixel brought without a transaction id and S2S has not confirmed."""
    waiting: dict[int | str, list[Message]] = field(default_factory=dict)
    log: dict[int, Answer] = field(default_factory=dict)
    log_ms: dict[int, int] = field(default_factory=dict)
    purged: set[int] = field(default_factory=set)
    history: set[int] = field(default_factory=set)
    horizon_ms: int = 0

    def arrive(self, visits: Iterable[Visit], messages: Iterable[Message]) -> tuple[list[int], list[Answer]]:
        """One batch; returns where each click is stored and the answer to each postback."""
        visits, messages = list(visits), list(messages)
        stored = [self._store(visit) for visit in visits]
        late: list[Message] = []
        for visit in visits:
            late += self.waiting.pop(visit.own_id or visit.stamp, [])
        if self.forget_waiting:
            late.clear()
        late.sort(key=lambda message: message.request_id)
        self._settle([*(replace(message, matched_late=True) for message in late), *messages])
        for message in messages:
            self.log_ms[message.request_id] = message.received_ms
        return stored, [self.log[message.request_id] for message in messages]

    def purge(self, before_ms: int, limit: int) -> None:
        """Clicks and log rows older than ``before_ms`` go, at most ``limit`` of each; conversions stay."""
        self.horizon_ms = max(self.horizon_ms, before_ms)
        old = sorted(stamp for stamp, visit in self.clicks.items() if visit.made_ms < before_ms)
        self.purged.update(old[:limit])
        for stamp in old[:limit]:
            own_id = self.clicks.pop(stamp).own_id
            if own_id is not None:
                del self.own_ids[own_id]
        rows = sorted(request_id for request_id, ms in self.log_ms.items() if ms < before_ms)
        gone = set(rows[:limit])
        for request_id in gone:
            del self.log[request_id], self.log_ms[request_id]
        for click, messages in list(self.waiting.items()):
            self.waiting[click] = [message for message in messages if message.request_id not in gone]

    def alone(self, messages: Iterable[Message]) -> bool:
        """Whether a message must be sent in a batch of its own: the pixel's, and what the pixel may concern."""
        return any(m.channel == PIXEL or (self._stamp_of(m), m.kind) in self.from_pixel for m in messages)

    # --- clicks ---------------------------------------------------------------------------------------

    def _store(self, visit: Visit) -> int:
        if visit.own_id is not None:
            holder = self.own_ids.setdefault(visit.own_id, visit.stamp)
            if holder != visit.stamp:
                return holder
        self.clicks[visit.stamp] = visit
        return visit.stamp

    def _stamp_of(self, message: Message) -> int | None:
        if isinstance(message.click, str):
            return self.own_ids.get(message.click)
        return message.click

    def _find(self, message: Message) -> Visit | None:
        stamp = self._stamp_of(message)
        return self.clicks.get(stamp) if stamp is not None else None

    # --- postbacks ------------------------------------------------------------------------------------

    def _settle(self, messages: list[Message]) -> None:
        again: list[tuple[Message, Key, Answer | None]] = []
        for message in messages:
            unusable = self._unusable(message)
            visit = self._find(message)
            if unusable is not None:
                self.log[message.request_id] = unusable
            elif visit is None:
                key = self._key(message, self._stamp_of(message) or 0)
                again.append((message, key, self._unmatched(message)))
            else:
                key, outside = self._key(message, visit.stamp), self._outside(message, visit)
                if outside:
                    self._join(message, key)
                    again.append((message, key, Answer(REJECTED, outside)))
                elif not self._count(message, key):
                    again.append((message, key, None))
        for message, key, otherwise in again:
            self.log[message.request_id] = self._repeat(message, key, otherwise)

    def _unusable(self, message: Message) -> Answer | None:
        if message.currency == "XXX":
            return Answer(HELD, "currency_unknown")
        if message.value is None:
            return None
        micros = MICROS[message.value]
        taken_back = RANKS[WORDS[message.status]] >= RANKS["rejected"] if message.status else False
        if micros is None or (micros < 0 and not taken_back):
            return Answer(REJECTED, "value_invalid")
        return None

    def _unmatched(self, message: Message) -> Answer:
        if isinstance(message.click, str):
            return Answer(UNMATCHED, "click_id_foreign")
        purged = message.click >> 22 < self._horizon()
        return Answer(UNMATCHED, "click_purged" if purged else "click_not_yet_seen")

    def _horizon(self) -> int:
        """The time before which everything was purged, counted as stamps count it."""
        return max(0, self.horizon_ms - 1_577_836_800_000)

    def _outside(self, message: Message, visit: Visit) -> str:
        age_ms = (message.request_id - visit.stamp) >> 22
        if age_ms < 0:
            return ""  # registered after its postback: no age to judge
        if message.time_ms is not None and visit.made_ms <= message.time_ms <= message.received_ms:
            age_ms = message.time_ms - visit.made_ms
        shortest_ms, longest_ms = self.windows[visit.offer]
        if age_ms > longest_ms:
            return "click_after_window"
        return "click_before_window" if age_ms < shortest_ms else ""

    def _key(self, message: Message, stamp: int) -> Key:
        reference = message.reference.lower() if self.fold_transaction_ids else message.reference
        return stamp, message.kind, reference

    def _new(self, message: Message) -> Counted:
        micros = abs(MICROS[message.value] or 0) if message.value is not None else 0
        status = RANKS[WORDS[message.status]] if message.status else RANKS["approved"]
        currency = message.currency or "USD"
        return Counted(message.request_id, status, micros, currency, message.channel, message.time_ms or 0)

    def _count(self, message: Message, key: Key) -> bool:
        """Count the message if it is a new conversion."""
        pair = key[:2]
        if message.channel == PIXEL and not key[2]:
            if any(other[:2] == pair for other in self.conversions):
                return False
            self.from_pixel.add(pair)
        self._join(message, key)
        if key in self.conversions:
            return False
        self._accept(message, key)
        return True

    def _join(self, message: Message, key: Key) -> None:
        """S2S speaks of the sale that the pixel brought without a name."""
        pair = key[:2]
        if message.channel != S2S or pair not in self.from_pixel:
            return
        if key not in self.conversions:  # now it has a name
            self.conversions[key] = self.conversions.pop((*pair, ""))
            self.from_pixel.discard(pair)
        elif not key[2]:
            self.from_pixel.discard(pair)

    def _accept(self, message: Message, key: Key) -> None:
        self.conversions[key] = self._new(message)
        self.log[message.request_id] = Answer(ACCEPTED, conversion_id=message.request_id)

    def _repeat(self, message: Message, key: Key, otherwise: Answer | None) -> Answer:
        """Decide a message that counted nothing new; ``otherwise`` when it may not, and nothing is under its key."""
        if message.channel == PIXEL and not key[2] and otherwise is None:
            key = min((k for k in self.conversions if k[:2] == key[:2]), key=self._age)
        if key not in self.conversions:
            assert otherwise is not None
            if otherwise.verdict == UNMATCHED and otherwise.reason != "click_purged":
                self.waiting.setdefault(message.click, []).append(message)
            return otherwise
        dedup = self.dedup[message.network]
        if dedup == "add" and otherwise is None and self._is_another(message, key):
            self._accept(message, (key[0], key[1], f"#{message.request_id}"))
            return self.log[message.request_id]
        before = self.conversions[key]
        after = self._after(message, before, dedup)
        self.conversions[key] = after
        if (after.status, after.micros, after.currency) != (before.status, before.micros, before.currency):
            self.history.add(message.request_id)
            return Answer(UPDATED, conversion_id=before.conversion_id)
        said_before = before.channels in (message.channel, PIXEL | S2S)
        if dedup == "hold" and not message.reference and said_before and not _only_echoes(message, before):
            return Answer(HELD, conversion_id=before.conversion_id)
        return Answer(DUPLICATE, conversion_id=before.conversion_id)

    def _age(self, key: Key) -> int:
        return self.conversions[key].conversion_id

    def _is_another(self, message: Message, key: Key) -> bool:
        """Whether an ``add`` network counts this repeat: not another channel's view, and no news of the first."""
        there = self.conversions[key]
        if message.reference or key[2] or not there.channels & message.channel:
            return False
        return not message.status or self._winner(message, there).status == there.status

    def _winner(self, message: Message, there: Counted) -> Counted:
        """Which of the two says the status; the one that is there, when neither is stronger."""
        return max(there, self._new(message), key=_strength)

    def _after(self, message: Message, before: Counted, dedup: str) -> Counted:
        """What the message makes of a conversion."""
        seen = replace(before, channels=before.channels | message.channel)
        if _only_echoes(message, before):
            return seen
        if message.channel == S2S and before.channels == PIXEL:
            return self._confirmed(message, seen)
        winner = self._winner(message, before) if message.status else before
        after = replace(seen, status=winner.status, status_time_ms=winner.status_time_ms)
        if message.value is None:
            return after
        if after.status != before.status and before.micros == 0:
            return self._with_value(message, after)
        overtaken = message.status is not None and winner.status != self._new(message).status
        if dedup != "update" or overtaken or (self._is_old(message, before) and not self.believe_old_values):
            return after
        if not message.status and _strength(before)[0] < 3:
            after = replace(after, status_time_ms=max(before.status_time_ms, message.time_ms or 0))
        return self._with_value(message, after)

    def _confirmed(self, message: Message, after: Counted) -> Counted:
        """S2S speaks of what only the pixel has said: what it says replaces that, the status even if it names none."""
        said = self._new(message)
        after = replace(after, status=said.status, status_time_ms=said.status_time_ms)
        return self._with_value(message, after) if message.value is not None else after

    def _with_value(self, message: Message, after: Counted) -> Counted:
        return replace(after, micros=self._new(message).micros, currency=message.currency or after.currency)

    def _is_old(self, message: Message, there: Counted) -> bool:
        if message.time_ms is None:
            return message.matched_late
        return message.time_ms < there.status_time_ms


def _only_echoes(message: Message, there: Counted) -> bool:
    """Whether it is the pixel, which anybody can call, after S2S has spoken: that changes nothing."""
    return message.channel == PIXEL and bool(there.channels & S2S)
