"""Records of what we owe a traffic source: what happened to a conversion, the deliveries that follow, their attempts.

``Happened`` is one row of the outbox: a conversion was counted or changed.  ``Owed`` is what the rules make of it, a
``Delivery`` is that row as a deliverer has claimed it.  Times are ``*_ms``, money ``*_micros`` (see ``core.model``).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from msgspec import Struct
from msgspec.structs import replace

from postbackd.core.click_id import write_stamp


class Message(IntEnum):
    """What a delivery tells the source.  The number is stored."""

    CONVERSION = 1
    ADJUSTMENT = 2
    RETRACTION = 3

    @property
    def word(self) -> str:
        """What people see."""
        return self.name.lower()


class DeliveryState(IntEnum):
    """Where a delivery is.  The number is stored."""

    WAITING = 1
    """To be sent at its time; also while a deliverer has it."""
    DELIVERED = 2
    DEAD = 3
    """Given up; kept, and can be sent again by hand."""
    CANCELLED = 4
    """Not to be sent: an operator said so, or there is nothing to tell any more."""

    @property
    def word(self) -> str:
        """What people see and what commands take."""
        return self.name.lower()


_STATES = frozenset(DeliveryState)


def state_word(number: int) -> str:
    """What people see of a stored number.  One that a damaged row holds is no state, and takes no report away."""
    return DeliveryState(number).word if number in _STATES else f"unknown ({number})"


class Facts(Struct, frozen=True, gc=False, omit_defaults=True):
    """What a delivery says of its click; kept with it, because the click may be purged before the last message."""

    source_click_id: str | None = None
    own_id: str | None = None
    country: str | None = None
    subs: tuple[str | None, ...] = ()
    refused: bool = False
    """Whether the visitor did not consent: ad platforms are not told."""
    trace: str | None = None
    """Not of the click, but of the postback that a delivery follows from: the trace that it named."""
    consented: bool = False
    """Whether the visitor said a clear yes; some platforms ask."""


class Happened(Struct, frozen=True, gc=False):
    """A conversion was counted, or its status or value changed."""

    event: int
    """Its number in the outbox: of one conversion, the later event has the larger number."""
    request_id: int
    """Stamp of the postback that did it."""
    click_id: int
    type: str
    transaction_id: str
    conversion_id: int
    campaign: int
    offer: int
    status_from: int
    """0: it was counted anew."""
    status: int
    value_micros_from: int
    value_micros: int
    currency: str
    first: bool
    """Whether no earlier conversion of the same click and type was counted."""
    facts: Facts | None
    """Of the click; ``None`` when it is purged."""
    trace: str | None = None
    """The trace that the postback named."""


class Told(Struct, frozen=True, gc=False):
    """An earlier delivery about a conversion."""

    conversion_id: int
    rule: int
    message: int
    state: int
    value_micros: int
    facts: Facts
    target: int


class Owed(Struct, frozen=True, gc=False):
    """A delivery that follows from what happened, before it has an id."""

    event: int
    request_id: int
    click_id: int
    type: str
    transaction_id: str
    conversion_id: int
    campaign: int
    offer: int
    rule: int
    target: int
    message: int
    status: int
    value_micros: int
    """What the source is told: the conversion's value after the rule's payout."""
    currency: str
    facts: Facts
    created_ms: int
    due_ms: int
    """Not to be sent before."""
    expires_ms: int
    """Not to be sent after; 0: never too old."""
    dead: str = ""
    """Why it is given up from the start."""


def put_aside(owed: Owed, reason: str) -> Owed:
    """Of a delivery that cannot be stored, as much as says what it was about; it is dead."""
    bare = replace(owed, type="", transaction_id="", currency="", facts=Facts(), value_micros=0)
    return replace(bare, due_ms=owed.created_ms, expires_ms=0, dead=reason)


def is_put_aside(owed: Owed) -> bool:
    """Whether what it was to say is not known any more: every value has a currency."""
    return not owed.currency


class Delivery(Struct, frozen=True, gc=False):
    """A delivery that a deliverer has claimed."""

    number: int
    """Unique in one database, never used twice."""
    owed: Owed
    attempts: int
    """How many were made before."""
    told: bool
    """Of an adjustment or retraction: whether the source may know of the conversion by this rule.  An attempt that
    failed may have been heard."""
    outdated: bool
    """Of a conversion: whether its retraction by the same rule waits behind it."""
    unsure: bool = False
    """Whether somebody had it and ended without saying what became of it: it may have been sent."""

    @property
    def id(self) -> str:
        """What the source sees: the same in every attempt, different for everything else that is ever sent."""
        return delivery_id(self.owed.request_id, self.number)


def delivery_id(request_id: int, number: int) -> str:
    """The public id of a delivery."""
    return f"{write_stamp(request_id)}-{number}"


class Attempt(Struct, frozen=True, gc=False):
    """One attempt to deliver, as it is kept."""

    attempt: int
    """1 is the first."""
    at_ms: int
    took_ms: int
    http_status: int
    """0: there was no answer."""
    excerpt: str
    """The beginning of the answer, personal data and secrets replaced."""
    error: str
    """What went wrong; of a delivery that succeeded all the same, too (an answer that was cut off)."""


class Settled(Struct, frozen=True, gc=False):
    """What became of a claimed delivery."""

    delivery: Delivery
    state: DeliveryState
    due_ms: int
    """When to try again, while the state is ``WAITING``."""
    reason: str = ""
    """Why it is dead or cancelled."""
    attempt: Attempt | None = None
    """``None``: nothing was sent; the delivery goes back untouched, or is cancelled."""


PAUSED, BROKEN, SLOWED = "paused", "broken", "slowed"


class TargetState(Struct, frozen=True):
    """That a target is not served as usual."""

    target: int
    state: str
    """``paused`` (410, or an operator: until it is resumed), ``broken`` (it cannot be served, or fails and is probed
    again and again), ``slowed`` (it asked for a pause), or empty: all is well again."""
    since_ms: int
    until_ms: int
    """When it is tried again; 0: when an operator resumes it."""
    reason: str
    unless_paused: bool = False
    """A target that is paused stays so: a deliverer may not have heard of it yet."""


class Outgoing(Struct, frozen=True, gc=False):
    """A request as it goes out.  Every text in it is ASCII without control characters."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class Answer(Struct, frozen=True, gc=False):
    """What came back."""

    status: int = 0
    """0: nothing that could be read; ``error`` says why."""
    body: bytes = b""
    """Its beginning, decompressed: as much as was asked for."""
    headers: Mapping[str, str] = {}
    """The headers that matter, names in lower case."""
    error: str = ""
    took_ms: int = 0
