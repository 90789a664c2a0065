"""The story of one sale: when it happens, which postbacks tell of it, and what a right tracker makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random

from msgspec import Struct

from postbackd.core.model import Channel
from postbackd.core.money import write_micros
from postbackd.market.cast import Device, NetworkRole, OfferRole
from postbackd.market.faults import DAY_MS, SESSION_MS, SESSION_TIMEOUT, SILENT, Fault
from postbackd.market.losses import Losses, VisitorsLuck
from postbackd.market.misconfigurations import (
    COOKIE_LOST,
    HTML_ESCAPED,
    MISCONFIGURATIONS,
    Misconfiguration,
    apply,
    understand,
)
from postbackd.market.records import Call, Event, Sale, Spelling, Standing, Visit
from postbackd.market.tracker import Counted, Message, settle

_LATE = 0.03
"""Share of the buyers who think it over for days."""
_LATE_DAYS = (1.0, 12.0)
_SPREAD = 1.3
"""Of the logarithm of the time from click to sale."""
_SHORTEST_S = 20.0
_NEVER_SENT = 0.005
"""Share of the sales of which the network's server tells nothing: only a pixel may."""
_APPROVED, _REJECTED = 0.84, 0.12
"""Shares of what is reviewed; the rest stays pending."""
_PAIRS = tuple(letter + digit for letter in "bcdfghjkmnpqrstvwxyz" for digit in "23456789")


class Story(Struct, frozen=True):
    """Who takes part in a sale."""

    visit: Visit
    offer: OfferRole
    network: NetworkRole
    device: Device
    faults: Mapping[str, Fault]
    """Those that can concern it, by name."""
    losses: Losses | None = None
    """What visitors lose, where that is the same for all networks; ``None``: as the cast says."""


class _Telling(Struct, frozen=True):
    """One postback before it is worded."""

    at_ms: int
    channel: Channel
    status: str = ""
    """As sent; empty: none."""
    time_ms: int = 0


def tell_story(draw: Random, story: Story, number: int) -> Iterator[Event]:
    """The sale and everything that is heard of it, in order of time."""
    at_ms = story.visit.at_ms + _delay_ms(draw, story.offer)
    value_micros = _draw_value(draw, story.offer)
    transaction = f"{story.network.name[:2].upper()}-{make_token(draw, 10)}"
    visitor = None if story.losses is None else story.losses.draw(draw, story.device)
    tellings = [
        telling
        for telling in sorted(_draw_tellings(draw, story, at_ms, visitor), key=lambda telling: telling.at_ms)
        if not _holds(story, SILENT, telling.at_ms)
    ]
    cookie_lost = visitor is not None and visitor.cookie_lost
    yield Sale(
        at_ms,
        number,
        story.visit.number,
        story.visit.campaign,
        story.network.name,
        story.offer.name,
        story.offer.type,
        value_micros,
        story.offer.currency,
        COOKIE_LOST.name if cookie_lost else _lost_by(story, at_ms),
        "" if visitor is None else visitor.no_pixel,
    )
    teller = _Teller(story, number, value_micros, transaction, at_ms, cookie_lost)
    for telling in tellings:
        yield from teller.tell(telling, _draw_took_us(draw))


def make_token(draw: Random, length: int) -> str:
    """Letters and digits in turn, so that no part of it looks like a phone or card number."""
    return "".join([_PAIRS[int(draw.random() * len(_PAIRS))] for _ in range(length // 2)])


def _delay_ms(draw: Random, offer: OfferRole) -> int:
    if draw.random() < _LATE:
        return int(draw.uniform(*_LATE_DAYS) * DAY_MS)
    minutes = offer.after_min * draw.lognormvariate(0.0, _SPREAD)
    return int(max(_SHORTEST_S, minutes * 60) * 1000)


def _draw_value(draw: Random, offer: OfferRole) -> int:
    cents = round(offer.value_micros / 10_000 * max(0.25, 1 + offer.spread * draw.gauss(0, 1)))
    return offer.value_micros if not offer.spread else cents * 10_000


def _draw_took_us(draw: Random) -> int:
    """Most answers take about a millisecond; the slowest of a thousand, a few dozen."""
    return int(850 * draw.lognormvariate(0.0, 0.7))


def _draw_tellings(
    draw: Random, story: Story, sale_ms: int, visitor: VisitorsLuck | None
) -> Iterator[_Telling]:
    network = story.network
    if visitor is not None:
        if not visitor.no_pixel:
            yield _Telling(sale_ms + visitor.pixel_after_ms, Channel.PIXEL)
    elif network.pixel and draw.random() > story.device.blocks:
        yield _Telling(sale_ms + int(draw.uniform(300, 2400)), Channel.PIXEL)
    if draw.random() < _NEVER_SENT:
        return
    at_ms = sale_ms + int(draw.uniform(*network.lag_s) * 1000)
    first = _Telling(at_ms, Channel.S2S, "pending" if network.reviews else "", sale_ms)
    yield first
    if draw.random() < network.repeats:
        yield _Telling(at_ms + int(draw.uniform(5, 600) * 1000), Channel.S2S, first.status, sale_ms)
    if network.reviews:
        at_ms += int(draw.uniform(0.8, 9) * DAY_MS)
        luck = draw.random()
        if luck > _APPROVED + _REJECTED:
            return
        yield _Telling(at_ms, Channel.S2S, "approved" if luck < _APPROVED else "rejected", at_ms)
        if luck > _APPROVED:
            return
    if draw.random() < network.reverses:
        at_ms += int(draw.uniform(2, 14) * DAY_MS)
        yield _Telling(at_ms, Channel.S2S, "reversed", at_ms)


def _holds(story: Story, name: str, at_ms: int) -> bool:
    """Whether a fault is at work."""
    fault = story.faults.get(name)
    return fault is not None and at_ms >= fault.since_ms


def _session_ended(story: Story, sale_ms: int) -> bool:
    return _holds(story, SESSION_TIMEOUT, sale_ms) and sale_ms - story.visit.at_ms > SESSION_MS


def _lost_by(story: Story, sale_ms: int) -> str:
    """The fault that keeps the click id of a sale from us."""
    if _session_ended(story, sale_ms):
        return SESSION_TIMEOUT
    return next(
        (
            name
            for name in story.faults
            if (name == SILENT or (name != SESSION_TIMEOUT and _is_lost(name)))
            and _holds(story, name, sale_ms)
        ),
        "",
    )


def _is_lost(name: str) -> bool:
    one = MISCONFIGURATIONS.get(name)
    return one is not None and one.takes_the_id


class _Teller:
    """Words the postbacks of one sale, and keeps what is counted of it so far."""

    def __init__(
        self,
        story: Story,
        number: int,
        value_micros: int,
        transaction: str,
        sale_ms: int,
        cookie_lost: bool,
    ) -> None:
        self._story = story
        self._number = number
        self._value_micros = value_micros
        self._transaction = transaction
        self._sale_ms = sale_ms
        self._cookie_lost = cookie_lost
        self._counted = Counted()

    def tell(self, telling: _Telling, took_us: int) -> Iterator[Event]:
        """The postback, and if it changes what is counted, that."""
        wrong = self._find_wrong(telling)
        says = understand(wrong, Message(status=telling.status or "approved", given=bool(telling.status)))
        before = self._counted.status
        verdict, reason = self._judge(telling, says)
        yield Call(
            telling.at_ms,
            self._story.network.name,
            telling.channel,
            self._story.visit.number,
            self._write(telling, wrong),
            Spelling.WHOLE if wrong is None else wrong.spelling,
            took_us,
            self._number,
            verdict,
            reason,
            says,
            "" if wrong is None else wrong.name,
        )
        if self._counted.status != before:
            yield Standing(
                telling.at_ms,
                self._number,
                self._counted.status,
                self._value_micros,
                self._story.offer.currency,
            )

    def _find_wrong(self, telling: _Telling) -> Misconfiguration | None:
        """What is misconfigured where this postback comes from."""
        story = self._story
        if self._cookie_lost:
            return COOKIE_LOST
        if _session_ended(story, self._sale_ms):
            return MISCONFIGURATIONS[SESSION_TIMEOUT]
        if telling.channel is not Channel.S2S:
            return None
        planted = (MISCONFIGURATIONS[name] for name in story.faults if _holds(story, name, telling.at_ms))
        return next((one for one in planted if one.kind == "network"), None)

    def _judge(self, telling: _Telling, says: Message) -> tuple[str, str]:
        """Verdict and reason of a postback that a tracker receives when it is sent."""
        network = self._story.network
        if not says.verdict and not self._counted.status and self._is_late(telling):
            return "rejected", "click_after_window"
        holds = network.dedup == "hold" and not network.names_transactions
        self._counted, verdict, reason = settle(self._counted, says, telling.channel, holds_repeats=holds)
        return verdict, reason

    def _is_late(self, telling: _Telling) -> bool:
        seconds = telling.time_ms // 1000 * 1000
        event_ms = seconds if self._story.network.says_time else telling.at_ms
        return event_ms - self._story.visit.at_ms > self._story.offer.window_days * DAY_MS

    def _write(self, telling: _Telling, wrong: Misconfiguration | None) -> str:
        network, offer = self._story.network, self._story.offer
        sent = {
            "cid": "{id}",
            "type": offer.type,
            "payout": write_micros(self._value_micros),
            "cur": offer.currency,
        }
        if network.names_transactions:
            sent["txid"] = self._transaction
        if telling.status:
            sent["status"] = telling.status
        if network.says_time and telling.channel is Channel.S2S:
            sent["time"] = str(telling.time_ms // 1000)
        if wrong is not None:
            sent = apply(wrong, sent, network, self._number)
        separator = "&amp;" if wrong is not None and wrong.name == HTML_ESCAPED else "&"
        return separator.join(f"{name}={text}" for name, text in sent.items())
