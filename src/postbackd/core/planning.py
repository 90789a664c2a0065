"""From what happened to a conversion to the messages that we owe its source.

Each rule is looked at alone.  Two things decide: whether its condition holds for the conversion as it is now, and what
the source believes, which is what the deliveries before this one have told it or are about to:

    the source        now it holds                      now it does not hold
    knows nothing     CONVERSION                        nothing
    was told          value differs, ``on_change``:     ``on_reversal``:
                      ADJUSTMENT, or nothing            RETRACTION, ADJUSTMENT to 0, or nothing

A retraction carries the value that it takes back; after it the source knows nothing.  An adjustment to 0 is taken
back by another one when the condition holds again, whatever ``on_change`` says.  A delivery that died or was cancelled
has told nothing: the next thing that happens to the conversion makes up for it.

What the source was told is asked, and not what the conversion was before, so that a planning that is done
twice, a changed or replaced rule and a lost delivery all end in the source believing what the rule says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from postbackd.core.click_id import stamp_ms
from postbackd.core.condition_parts import Subject
from postbackd.core.conditions import Condition, ConditionError, compile_condition
from postbackd.core.consent import TRACKING_ONLY
from postbackd.core.deliveries import DeliveryState, Facts, Happened, Message, Owed, Told
from postbackd.core.model import Campaign, Catalog, Rule, Target
from postbackd.core.money import write_micros
from postbackd.core.payouts import Payout, PayoutError, compile_payout

MACROS_OF_FACTS = frozenset({"click_id", "country", *(f"sub{n}" for n in range(1, 11))})
"""The macros that are filled from ``Facts``, beside ``source_click_id``, which is always kept."""


class Explained(NamedTuple):
    """What a rule makes of a conversion."""

    rule: Rule
    fires: bool
    """Whether a message to the source follows."""
    why: str


class _Said(Struct, frozen=True, gc=False):
    """A message about a conversion, and the value in it."""

    message: Message
    value_micros: int


_Beliefs = dict[tuple[int, int], _Said]
"""(rule, conversion) -> the last message, which is what the source knows; none: not told, or told and retracted."""


class _Keeping(Struct, frozen=True):
    """Which facts a delivery takes along: those that a later message can need, and no others."""

    click_id: bool
    country: bool
    subs: tuple[bool, ...]
    consent: bool

    def trim(self, facts: Facts) -> Facts:
        subs = [sub if kept else None for sub, kept in zip(facts.subs, self.subs, strict=False)]
        while subs and subs[-1] is None:
            subs.pop()
        return Facts(
            facts.source_click_id,
            facts.own_id if self.click_id else None,
            facts.country if self.country else None,
            tuple(subs),
            facts.refused,
            consented=facts.consented and self.consent,
        )


class _Line(Struct, frozen=True):
    """A rule, ready to be asked."""

    rule: Rule
    condition: Condition
    payout: Payout
    target: Target
    keeping: _Keeping
    needs_consent: bool
    """Whether its target must not be told of a click whose visitor did not consent."""


class Planner:
    """All rules of one catalog snapshot, read once.  Does not change."""

    __slots__ = ("_campaigns", "_of_campaign", "_of_source", "_offers", "problems")

    def __init__(self, catalog: Catalog, macros: Mapping[int, frozenset[str]] | None = None) -> None:
        """``catalog``: its rules and targets are those in force.

        ``macros``: target -> names of the macros that its requests can use; facts that no macro needs are
        not kept.  All are kept for a target that is not named.
        """
        macros = macros or {}
        targets = {target.id: target for target in catalog.targets}
        self._campaigns: dict[int, Campaign] = {
            campaign.id: campaign for campaign in (*catalog.removed_campaigns, *catalog.campaigns)
        }
        networks = {network.id: network.name for network in catalog.networks}
        self._offers = {
            offer.id: (offer.name, networks.get(offer.network, ""))
            for offer in (*catalog.removed_offers, *catalog.offers)
        }
        self._of_campaign: dict[int, list[_Line]] = {}
        self._of_source: dict[int, list[_Line]] = {}
        problems = []
        for rule in catalog.rules:
            if rule.campaign is not None:
                lines = self._of_campaign.setdefault(rule.campaign, [])
            else:
                lines = self._of_source.setdefault(rule.source or 0, [])
            try:
                lines.append(_make_line(rule, targets, macros.get(rule.target, MACROS_OF_FACTS)))
            except (ConditionError, PayoutError, LookupError) as error:
                problems.append(f"rule {rule.name!r} cannot be followed: {str(error).splitlines()[0]}")
        self.problems: tuple[str, ...] = tuple(problems)
        """Rules that are left out, in words: an older version wrote what this one cannot read."""

    def knows(self, campaign_id: int) -> bool:
        """Whether the catalog has the campaign.  If not, the catalog is older than what happened: load it again."""
        return campaign_id in self._campaigns

    def delivers(self, campaign_id: int) -> bool:
        """Whether any rule can concern this campaign; for one that is not known, whether there are rules at all."""
        campaign = self._campaigns.get(campaign_id)
        if campaign is None:
            return bool(self._of_campaign or self._of_source)
        return campaign_id in self._of_campaign or campaign.source in self._of_source

    def plan(self, happened: Sequence[Happened], told: Sequence[Told], now_ms: int) -> list[Owed]:
        """The messages that follow, in the order in which the source must get them.

        ``told``: all earlier deliveries about these conversions, oldest first.  Several events of a conversion are
        planned in the order of their numbers, each after what the ones before it made.
        """
        beliefs = _read_beliefs(told)
        known = _Known(told)
        owed: list[Owed] = []
        for event in sorted(happened, key=_number):
            lines = self._lines(event.campaign)
            if not lines:
                continue
            facts = known.facts(event)
            subject = self._subject(event, facts)
            for line in lines:
                if facts.refused and line.needs_consent:
                    continue
                key = _heir(line, lines, event.conversion_id, told, beliefs)
                belief = beliefs.get(key)
                value, currency = line.payout.apply(event.value_micros, event.currency)
                due = _decide(line.rule, belief, value, holds=line.condition.holds(subject))
                if due is None:
                    continue
                if due.message == Message.RETRACTION:
                    del beliefs[key]
                else:
                    beliefs[key] = due
                owed.append(_owe(event, line, key[0], due, currency, facts, now_ms))
        return owed

    def explain(self, happened: Happened, told: Sequence[Told]) -> list[Explained]:
        """What each rule of the conversion's campaign, or of its source, makes of it; empty: there is no rule."""
        facts = _Known(told).facts(happened)
        subject = self._subject(happened, facts)
        beliefs = _read_beliefs(told)
        lines = self._lines(happened.campaign)
        return [
            Explained(line.rule, fires=False, why="the visitor did not consent, and this target needs it")
            if facts.refused and line.needs_consent
            else _explain(
                line, subject, beliefs.get(_heir(line, lines, happened.conversion_id, told, beliefs))
            )
            for line in lines
        ]

    def _lines(self, campaign_id: int) -> Sequence[_Line]:
        """The rules of the campaign, or if it has none, of its source."""
        lines = self._of_campaign.get(campaign_id)
        if lines is not None:
            return lines
        campaign = self._campaigns.get(campaign_id)
        return self._of_source.get(campaign.source, ()) if campaign is not None else ()

    def _subject(self, event: Happened, facts: Facts) -> Subject:
        offer, network = self._offers.get(event.offer, ("", ""))
        campaign = self._campaigns.get(event.campaign)
        return Subject(
            event.type,
            event.status,
            event.value_micros,
            event.currency,
            offer,
            network,
            facts.country,
            event.first,
            campaign.name if campaign is not None else "",
        )


_number = attrgetter("event")


def _make_line(rule: Rule, targets: Mapping[int, Target], macros: frozenset[str]) -> _Line:
    target = targets.get(rule.target)
    if target is None:
        raise LookupError("its target is not in the catalog")
    condition = compile_condition(rule.condition)
    needs_consent = target.how.kind not in TRACKING_ONLY
    keeping = _Keeping(
        click_id="click_id" in macros,
        country="country" in macros or "country" in condition.fields,
        subs=tuple(f"sub{n}" in macros for n in range(1, 11)),
        consent=needs_consent,
    )
    return _Line(rule, condition, compile_payout(rule.payout), target, keeping, needs_consent)


def _read_beliefs(told: Sequence[Told]) -> _Beliefs:
    """What the sources know once everything that is still on its way has arrived."""
    beliefs: _Beliefs = {}
    for delivery in told:
        if delivery.state not in _TELLS:
            continue
        key = delivery.rule, delivery.conversion_id
        if delivery.message == Message.RETRACTION:
            beliefs.pop(key, None)
        elif (
            delivery.message == Message.CONVERSION
            or key in beliefs
            or delivery.state == DeliveryState.DELIVERED
        ):
            # An adjustment that waits for a conversion that died will not be sent.
            beliefs[key] = _Said(Message(delivery.message), delivery.value_micros)
    return beliefs


def _heir(
    line: _Line, lines: Sequence[_Line], conversion: int, told: Sequence[Told], beliefs: _Beliefs
) -> tuple[int, int]:
    """Under which rule's id a rule tells its target of a conversion: its own, or that of a rule which it has replaced.

    What a rule that is not followed any more has told the same target is what the target knows; whoever took its place
    goes on with that, or the target would be told twice, and never that the conversion was taken back.
    """
    own = line.rule.id, conversion
    if not told or own in beliefs:
        return own
    followed = {other.rule.id for other in lines}
    for earlier in told:
        key = earlier.rule, conversion
        if earlier.target == line.target.id and earlier.rule not in followed and key in beliefs:
            return key
    return own


_TELLS = frozenset({DeliveryState.WAITING, DeliveryState.DELIVERED})


class _Known:
    """The facts of clicks; those of a purged one from the deliveries that took them along."""

    __slots__ = ("_kept", "_told")

    def __init__(self, told: Sequence[Told]) -> None:
        self._told = told
        self._kept: dict[int, Facts] | None = None
        """Conversion -> facts; made when it is needed, which is rarely."""

    def facts(self, event: Happened) -> Facts:
        if event.facts is not None:
            return event.facts
        if self._kept is None:
            self._kept = {}
            for delivery in self._told:
                older = self._kept.get(delivery.conversion_id, _NO_FACTS)
                self._kept[delivery.conversion_id] = _join(older, delivery.facts)
        return self._kept.get(event.conversion_id, _NO_FACTS)


_NO_FACTS = Facts()


def _join(old: Facts, new: Facts) -> Facts:
    """What both say together: each delivery keeps only what its own target needs."""
    longer, shorter = (new.subs, old.subs) if len(new.subs) > len(old.subs) else (old.subs, new.subs)
    subs = [*longer]
    for n, sub in enumerate(shorter):
        subs[n] = sub if sub is not None else subs[n]
    return Facts(
        new.source_click_id or old.source_click_id,
        new.own_id or old.own_id,
        new.country or old.country,
        tuple(subs),
        new.refused or old.refused,
        consented=new.consented or old.consented,
    )


def _decide(rule: Rule, belief: _Said | None, value_micros: int, *, holds: bool) -> _Said | None:
    """What makes the source believe what the rule says; ``value_micros`` is after the payout."""
    if belief is None:
        return _Said(Message.CONVERSION, value_micros) if holds else None
    if holds:
        adjusts = rule.on_change == "adjust" or _was_zeroed(rule, belief)
        return (
            _Said(Message.ADJUSTMENT, value_micros)
            if adjusts and belief.value_micros != value_micros
            else None
        )
    if rule.on_reversal == "retract":
        return _Said(Message.RETRACTION, belief.value_micros)
    return _Said(Message.ADJUSTMENT, 0) if rule.on_reversal == "adjust" and belief.value_micros else None


def _was_zeroed(rule: Rule, belief: _Said) -> bool:
    return rule.on_reversal == "adjust" and belief.message == Message.ADJUSTMENT and not belief.value_micros


def _owe(
    event: Happened, line: _Line, rule: int, due: _Said, currency: str, facts: Facts, now_ms: int
) -> Owed:
    how = line.target.how
    wait_s = how.schedule_s[0] if how.schedule_s else 0
    if due.message == Message.CONVERSION:
        wait_s += line.rule.delay_s
    expires_ms = 0
    if how.fresh_s:
        born = event.click_id if how.fresh_from == "click" else event.conversion_id
        expires_ms = stamp_ms(born) + how.fresh_s * 1000
    kept = line.keeping.trim(facts)
    return Owed(
        event.event,
        event.request_id,
        event.click_id,
        event.type,
        event.transaction_id,
        event.conversion_id,
        event.campaign,
        event.offer,
        rule,
        line.target.id,
        due.message,
        event.status,
        due.value_micros,
        currency,
        kept if event.trace is None else replace(kept, trace=event.trace),
        now_ms,
        now_ms + wait_s * 1000,
        expires_ms,
    )


# --- in words --------------------------------------------------------------------------------------------------


def _explain(line: _Line, subject: Subject, belief: _Said | None) -> Explained:
    rule = line.rule
    value, currency = line.payout.apply(subject.value_micros, subject.currency)
    why_not = line.condition.why_not(subject)
    due = _decide(rule, belief, value, holds=not why_not)
    if due is not None:
        said = f"{due.message.word} of {write_micros(due.value_micros)} {currency}"
        return Explained(rule, fires=True, why=f"{said}: {why_not}" if why_not else said)
    if belief is None:
        return Explained(rule, fires=False, why=why_not)
    told = f"the source was told already ({write_micros(belief.value_micros)} {currency})"
    if why_not:
        ignored = f", and with on_reversal = {rule.on_reversal} it is told nothing more: {why_not}"
        return Explained(rule, fires=False, why=told + ignored)
    if belief.value_micros != value:
        told += f", and with on_change = {rule.on_change} it is not told of {write_micros(value)} {currency}"
    return Explained(rule, fires=False, why=told)
