"""From what happened to what is owed: the source ends up believing what the rule says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from postbackd.core.click_id import first_stamp_at
from postbackd.core.deliveries import DeliveryState, Facts, Happened, Message, Owed, Told
from postbackd.core.model import Campaign, Catalog, How, Network, Offer, Rule, Source, Target, WeightedOffer
from postbackd.core.planning import Planner
from postbackd.core.statuses import Status

NOW = 1_790_000_000_000
HOUR_MS = 3_600_000
CLICK, CONVERSION = first_stamp_at(NOW - 5 * HOUR_MS), first_stamp_at(NOW - 2 * HOUR_MS)
FACTS = Facts("src-1", "own-1", "DE", ("a", None, "c"))
TARGET = Target(id=70, name="T", how=How())
RULE = Rule(id=1, name="R", source=10, target=70)
BOTH_WAYS = replace(RULE, on_change="adjust", on_reversal="retract")


def make_catalog(*rules: Rule, target: Target = TARGET) -> Catalog:
    return Catalog(
        generation=1,
        networks=(Network(id=40, name="Net One", key="k" * 26),),
        sources=(Source(id=10, name="Src"), Source(id=11, name="Other")),
        offers=(Offer(id=30, name="Shoes & Co", network=40, url="https://shop.example/"),),
        removed_offers=(Offer(id=31, name="Hats", network=40, url="https://shop.example/"),),
        campaigns=tuple(
            Campaign(id=id_, name=name, slug=name, source=source, offers=(WeightedOffer(30),))
            for id_, name, source in ((20, "spring", 10), (21, "autumn", 10), (22, "elsewhere", 11))
        ),
        removed_campaigns=(Campaign(id=23, name="old", slug="old", source=10, offers=(WeightedOffer(31),)),),
        targets=(target,),
        rules=rules or (RULE,),
    )


def make_event(number: int = 1, **changed: Any) -> Happened:
    event = Happened(
        event=number,
        request_id=900 + number,
        click_id=CLICK,
        type="sale",
        transaction_id="T1",
        conversion_id=CONVERSION,
        campaign=20,
        offer=30,
        status_from=0,
        status=Status.APPROVED,
        value_micros_from=0,
        value_micros=10_000_000,
        currency="USD",
        first=True,
        facts=FACTS,
    )
    return replace(event, **changed)


def as_told(owed: Owed, state: DeliveryState = DeliveryState.DELIVERED) -> Told:
    return Told(
        owed.conversion_id, owed.rule, owed.message, state, owed.value_micros, owed.facts, owed.target
    )


def messages(owed: Sequence[Owed]) -> list[tuple[str, int]]:
    return [(Message(one.message).word, one.value_micros) for one in owed]


def replies(rule: Rule, first: Happened, second: Happened) -> list[tuple[str, int]]:
    """What the second event makes after the first was delivered."""
    planner = Planner(make_catalog(rule))
    told = [as_told(owed) for owed in planner.plan([first], [], NOW)]
    return messages(planner.plan([second], told, NOW))


# --- one rule ----------------------------------------------------------------------------------------------------


def test_a_conversion_that_a_rule_fires_on_is_owed_to_its_target() -> None:
    assert Planner(make_catalog()).plan([make_event()], [], NOW) == [
        Owed(
            event=1,
            request_id=901,
            click_id=CLICK,
            type="sale",
            transaction_id="T1",
            conversion_id=CONVERSION,
            campaign=20,
            offer=30,
            rule=1,
            target=70,
            message=Message.CONVERSION,
            status=Status.APPROVED,
            value_micros=10_000_000,
            currency="USD",
            facts=FACTS,
            created_ms=NOW,
            due_ms=NOW,
            expires_ms=0,
        )
    ]


@pytest.mark.parametrize("status", [Status.PENDING, Status.REJECTED, Status.REVERSED])
def test_a_conversion_that_is_not_approved_is_owed_to_nobody(status: Status) -> None:
    assert Planner(make_catalog()).plan([make_event(status=status)], [], NOW) == []


def test_what_is_approved_later_is_told_then() -> None:
    approved = make_event(2, status_from=Status.PENDING)
    assert replies(RULE, make_event(status=Status.PENDING), approved) == [("conversion", 10_000_000)]


def test_what_was_told_is_not_told_again() -> None:
    assert replies(BOTH_WAYS, make_event(), make_event(2)) == []


@pytest.mark.parametrize(("on_change", "owed"), [("adjust", [("adjustment", 12_000_000)]), ("ignore", [])])
def test_a_changed_value_is_adjusted_or_ignored(on_change: str, owed: list[tuple[str, int]]) -> None:
    changed = make_event(2, value_micros_from=10_000_000, value_micros=12_000_000)
    assert replies(replace(RULE, on_change=on_change), make_event(), changed) == owed


def test_a_change_that_the_payout_swallows_is_no_change() -> None:
    rule = replace(BOTH_WAYS, payout="fixed 2.50 USD")
    assert replies(rule, make_event(), make_event(2, value_micros=12_000_000)) == []


@pytest.mark.parametrize(
    ("on_reversal", "owed"),
    [("retract", [("retraction", 10_000_000)]), ("adjust", [("adjustment", 0)]), ("ignore", [])],
)
@pytest.mark.parametrize("status", [Status.REJECTED, Status.REVERSED])
def test_a_reversal_is_retracted_adjusted_or_ignored(
    on_reversal: str, owed: list[tuple[str, int]], status: Status
) -> None:
    reversed_ = make_event(2, status_from=Status.APPROVED, status=status, value_micros=0)
    assert replies(replace(RULE, on_reversal=on_reversal), make_event(), reversed_) == owed


def test_a_reversal_of_what_was_never_told_is_told_to_nobody() -> None:
    reversed_ = make_event(2, status_from=Status.PENDING, status=Status.REVERSED)
    assert replies(BOTH_WAYS, make_event(status=Status.PENDING), reversed_) == []


def test_a_value_that_leaves_the_range_of_the_rule_is_retracted() -> None:
    rule = replace(BOTH_WAYS, condition="value >= 10 USD")
    assert replies(rule, make_event(), make_event(2, value_micros=9_000_000)) == [("retraction", 10_000_000)]


def test_what_was_retracted_and_holds_again_is_told_again() -> None:
    planner = Planner(make_catalog(BOTH_WAYS))
    events = [make_event(), make_event(2, status=Status.REJECTED), make_event(3, value_micros=8_000_000)]
    assert messages(planner.plan(events, [], NOW)) == [
        ("conversion", 10_000_000),
        ("retraction", 10_000_000),
        ("conversion", 8_000_000),
    ]


def test_what_was_adjusted_to_nothing_is_adjusted_back_and_only_once() -> None:
    planner = Planner(make_catalog(replace(RULE, on_reversal="adjust")))
    events = [
        make_event(),
        make_event(2, status=Status.REJECTED),
        make_event(3, status=Status.REVERSED),
        make_event(4, value_micros=8_000_000),
        make_event(5, value_micros=9_000_000),
    ]
    owed = planner.plan(events, [], NOW)
    assert [(one.event, *message) for one, message in zip(owed, messages(owed), strict=True)] == [
        (1, "conversion", 10_000_000),
        (2, "adjustment", 0),
        (4, "adjustment", 8_000_000),
    ]


def test_events_are_planned_in_the_order_of_their_numbers() -> None:
    planner = Planner(make_catalog(BOTH_WAYS))
    events = [make_event(3, value_micros=12_000_000), make_event(1), make_event(2, value_micros=11_000_000)]
    assert [one.event for one in planner.plan(events, [], NOW)] == [1, 2, 3]


def test_planning_the_same_event_twice_owes_nothing_more() -> None:
    planner = Planner(make_catalog(BOTH_WAYS))
    event = make_event()
    told = [as_told(owed, DeliveryState.WAITING) for owed in planner.plan([event], [], NOW)]
    assert planner.plan([event], told, NOW) == []


@pytest.mark.parametrize("state", [DeliveryState.DEAD, DeliveryState.CANCELLED])
def test_a_delivery_that_died_has_told_nothing(state: DeliveryState) -> None:
    planner = Planner(make_catalog(BOTH_WAYS))
    told = [as_told(owed, state) for owed in planner.plan([make_event()], [], NOW)]
    changed, reversed_ = make_event(2, value_micros=12_000_000), make_event(2, status=Status.REVERSED)
    assert messages(planner.plan([changed], told, NOW)) == [("conversion", 12_000_000)]
    assert planner.plan([reversed_], told, NOW) == []


def test_an_adjustment_that_waits_for_a_dead_conversion_has_told_nothing() -> None:
    planner = Planner(make_catalog(BOTH_WAYS))
    first, second = planner.plan([make_event(), make_event(2, value_micros=12_000_000)], [], NOW)
    told = [as_told(first, DeliveryState.DEAD), as_told(second, DeliveryState.WAITING)]
    assert messages(planner.plan([make_event(3, value_micros=13_000_000)], told, NOW)) == [
        ("conversion", 13_000_000)
    ]


def test_what_one_rule_has_told_says_nothing_of_another_rule_or_conversion() -> None:
    other = replace(BOTH_WAYS, id=2, name="S")
    planner = Planner(make_catalog(BOTH_WAYS, other))
    told = [as_told(owed) for owed in planner.plan([make_event()], [], NOW) if owed.rule == 1]
    assert [one.rule for one in planner.plan([make_event()], told, NOW)] == [2]
    elsewhere = make_event(conversion_id=CONVERSION + 1)
    assert [one.rule for one in planner.plan([elsewhere], told, NOW)] == [1, 2]


# --- which rules --------------------------------------------------------------------------------------------------


def test_a_campaign_with_rules_of_its_own_follows_these_instead() -> None:
    own = Rule(id=2, name="own", campaign=20, target=70)
    planner = Planner(make_catalog(RULE, own))
    events = [make_event(campaign=campaign, conversion_id=campaign) for campaign in (20, 21, 22, 23)]
    assert [(one.campaign, one.rule) for one in planner.plan(events, [], NOW)] == [(20, 2), (21, 1), (23, 1)]
    assert [planner.delivers(campaign) for campaign in (20, 21, 22, 23)] == [True, True, False, True]


def test_a_campaign_that_is_not_known_may_have_rules() -> None:
    planner = Planner(make_catalog())
    assert (planner.knows(99), planner.delivers(99)) == (False, True)
    assert planner.plan([make_event(campaign=99)], [], NOW) == []
    assert not Planner(replace(make_catalog(), rules=())).delivers(99)


def test_a_condition_sees_the_names_of_offer_network_and_campaign() -> None:
    rule = replace(RULE, condition="offer = Hats and network = 'Net One' and campaign = old and country = DE")
    planner = Planner(make_catalog(rule))
    assert len(planner.plan([make_event(campaign=23, offer=31)], [], NOW)) == 1
    assert planner.plan([make_event(campaign=23)], [], NOW) == []


def test_a_rule_that_cannot_be_read_is_reported_and_the_others_go_on() -> None:
    broken = (
        replace(RULE, id=2, name="b", condition="valu > 3"),
        replace(RULE, id=3, name="c", payout="half"),
        replace(RULE, id=4, name="d", target=71),
    )
    planner = Planner(make_catalog(RULE, *broken))
    assert [problem.split("'")[1] for problem in planner.problems] == ["b", "c", "d"]
    assert [one.rule for one in planner.plan([make_event()], [], NOW)] == [1]


def test_a_campaign_whose_own_rule_cannot_be_read_does_not_fall_back_to_its_source() -> None:
    planner = Planner(make_catalog(RULE, Rule(id=2, name="own", campaign=20, target=70, condition="?")))
    assert planner.plan([make_event()], [], NOW) == []
    assert planner.delivers(20)


# --- times, money, facts ------------------------------------------------------------------------------------------


def test_a_delay_holds_back_the_conversion_and_not_what_follows() -> None:
    planner = Planner(make_catalog(replace(BOTH_WAYS, delay_s=60)))
    events = [make_event(), make_event(2, status=Status.REVERSED)]
    assert [one.due_ms - NOW for one in planner.plan(events, [], NOW)] == [60_000, 0]


def test_the_first_pause_of_a_targets_own_schedule_counts_too() -> None:
    target = replace(TARGET, how=How(schedule_s=(5, 30)))
    planner = Planner(make_catalog(replace(RULE, delay_s=60), target=target))
    assert [one.due_ms - NOW for one in planner.plan([make_event()], [], NOW)] == [65_000]


@pytest.mark.parametrize(("fresh_from", "age_ms"), [("click", 5 * HOUR_MS), ("conversion", 2 * HOUR_MS)])
def test_a_message_expires_by_the_age_of_the_click_or_of_the_conversion(fresh_from: str, age_ms: int) -> None:
    target = replace(TARGET, how=How(fresh_s=86_400, fresh_from=fresh_from))
    planner = Planner(make_catalog(BOTH_WAYS, target=target))
    events = [make_event(), make_event(2, status=Status.REVERSED)]
    assert [one.expires_ms for one in planner.plan(events, [], NOW)] == [NOW - age_ms + 86_400_000] * 2


def test_the_source_is_told_the_value_after_the_payout() -> None:
    planner = Planner(make_catalog(replace(BOTH_WAYS, payout="80%")))
    events = [make_event(), make_event(2, value_micros=5_000_000), make_event(3, status=Status.REVERSED)]
    assert messages(planner.plan(events, [], NOW)) == [
        ("conversion", 8_000_000),
        ("adjustment", 4_000_000),
        ("retraction", 4_000_000),
    ]
    fixed = Planner(make_catalog(replace(RULE, payout="fixed 2.50 EUR"))).plan([make_event()], [], NOW)
    assert [(one.value_micros, one.currency) for one in fixed] == [(2_500_000, "EUR")]


@pytest.mark.parametrize(
    ("macros", "condition", "kept"),
    [
        (set(), "", Facts("src-1")),
        ({"click_id"}, "", Facts("src-1", "own-1")),
        ({"country", "type"}, "", Facts("src-1", None, "DE")),
        (set(), "country = DE", Facts("src-1", None, "DE")),
        ({"sub1"}, "", Facts("src-1", None, None, ("a",))),
        ({"sub2", "sub3"}, "", Facts("src-1", None, None, (None, None, "c"))),
        ({"sub2", "sub9"}, "", Facts("src-1")),
    ],
)
def test_only_the_facts_that_the_target_or_the_rule_needs_are_kept(
    macros: set[str], condition: str, kept: Facts
) -> None:
    planner = Planner(make_catalog(replace(RULE, condition=condition)), {70: frozenset(macros)})
    assert [one.facts for one in planner.plan([make_event()], [], NOW)] == [kept]


def test_after_the_click_was_purged_the_facts_come_from_what_was_told() -> None:
    rule = replace(BOTH_WAYS, condition="country = DE")
    planner = Planner(make_catalog(rule), {70: frozenset({"sub3"})})
    told = [as_told(owed) for owed in planner.plan([make_event()], [], NOW)]
    told.append(
        Told(CONVERSION, 2, Message.CONVERSION, DeliveryState.DEAD, 0, Facts("src-2", subs=("x",)), 1)
    )
    told.append(Told(CONVERSION + 1, 1, Message.CONVERSION, DeliveryState.DELIVERED, 0, Facts("foreign"), 1))
    changed = make_event(2, value_micros=1, facts=None)
    owed = planner.plan([changed], told, NOW)
    assert messages(owed) == [("adjustment", 1)]
    assert owed[0].facts == Facts("src-2", None, "DE", (None, None, "c"))


def test_without_click_and_earlier_deliveries_nothing_is_known_of_the_click() -> None:
    owed = Planner(make_catalog()).plan([make_event(facts=None)], [], NOW)
    assert [one.facts for one in owed] == [Facts()]


# --- in words -----------------------------------------------------------------------------------------------------


def explained(rule: Rule, event: Happened, told: Sequence[Happened] = ()) -> tuple[bool, str]:
    planner = Planner(make_catalog(rule))
    before = [as_told(owed) for owed in planner.plan(told, [], NOW)]
    ((of, fires, why),) = planner.explain(event, before)
    assert of == rule
    assert fires is bool(planner.plan([event], before, NOW))
    return fires, why


def test_a_rule_is_explained_in_words() -> None:
    rejected, changed = make_event(2, status=Status.REJECTED), make_event(2, value_micros=12_000_000)
    first = [make_event()]
    assert explained(RULE, make_event()) == (True, "conversion of 10.00 USD")
    assert explained(replace(RULE, condition="type = lead"), make_event()) == (
        False,
        "type = lead fails: the type is sale",
    )
    assert explained(RULE, make_event(), first) == (False, "the source was told already (10.00 USD)")
    assert explained(RULE, changed, first) == (
        False,
        "the source was told already (10.00 USD), and with on_change = ignore it is not told of 12.00 USD",
    )
    assert explained(BOTH_WAYS, changed, first) == (True, "adjustment of 12.00 USD")
    fires, why = explained(BOTH_WAYS, rejected, first)
    assert fires
    assert why.startswith("retraction of 10.00 USD: status = approved fails: the status is rejected")
    fires, why = explained(RULE, rejected, first)
    assert not fires
    assert "with on_reversal = ignore it is told nothing more: status = approved fails" in why


def test_without_rules_there_is_nothing_to_explain() -> None:
    assert Planner(make_catalog()).explain(make_event(campaign=22), []) == []


# --- the model: what a source believes ----------------------------------------------------------------------------

CONDITIONS: dict[str, Callable[[Happened], bool]] = {
    "": lambda event: event.status == Status.APPROVED,
    "value >= 5 USD": lambda event: event.status == Status.APPROVED and event.value_micros >= 5_000_000,
    "status = pending, approved": lambda event: event.status <= Status.APPROVED,
    "not (value < 2 or value > 6)": lambda event: (
        event.status == Status.APPROVED and 2_000_000 <= event.value_micros <= 6_000_000
    ),
}
states = st.tuples(st.sampled_from(list(Status)), st.sampled_from([0, 2, 4, 6, 8]))


def make_history(sequence: Sequence[tuple[Status, int]]) -> list[Happened]:
    states_ = [(0, 0), *((status, value * 1_000_000) for status, value in sequence)]
    return [
        make_event(n, status_from=old[0], status=new[0], value_micros_from=old[1], value_micros=new[1])
        for n, (old, new) in enumerate(pairwise(states_), 1)
    ]


def believe(belief: int | None, message: int, value_micros: int) -> int | None:
    """What a source knows after one more message: the value of the conversion, or that there is none."""
    if message == Message.CONVERSION:
        assert belief is None, "a conversion that the source has already"
        return value_micros
    assert belief is not None, "a message about a conversion that the source does not have"
    if message == Message.RETRACTION:
        return None
    assert belief != value_micros, "an adjustment that changes nothing"
    return value_micros


@settings(max_examples=300)
@given(st.sampled_from(sorted(CONDITIONS)), st.lists(states, min_size=1, max_size=8), st.data())
def test_the_source_believes_what_the_rule_says_once_everything_is_delivered(
    condition: str, sequence: list[tuple[Status, int]], data: st.DataObject
) -> None:
    """However the events are cut into calls, and whether deliveries arrived before the next call or still wait."""
    planner = Planner(make_catalog(replace(BOTH_WAYS, condition=condition, payout="50%")))
    left, told, belief = make_history(sequence), list[Told](), None
    while left:
        size = data.draw(st.integers(1, len(left)))
        owed = planner.plan(left[:size], told, NOW)
        for one in owed:
            belief = believe(belief, one.message, one.value_micros)
            told.append(
                as_told(one, data.draw(st.sampled_from([DeliveryState.WAITING, DeliveryState.DELIVERED])))
            )
        last = left[size - 1]
        assert belief == (last.value_micros // 2 if CONDITIONS[condition](last) else None)
        left = left[size:]


@settings(max_examples=300)
@given(st.sampled_from(sorted(CONDITIONS)), st.lists(states, min_size=1, max_size=8), st.data())
def test_what_died_is_made_up_for_by_the_next_event_that_is_delivered(
    condition: str, sequence: list[tuple[Status, int]], data: st.DataObject
) -> None:
    planner = Planner(make_catalog(replace(BOTH_WAYS, condition=condition)))
    told, belief = list[Told](), None
    for event in make_history(sequence):
        died = data.draw(st.booleans())
        for one in planner.plan([event], told, NOW):
            told.append(as_told(one, DeliveryState.DEAD if died else DeliveryState.DELIVERED))
            belief = belief if died else believe(belief, one.message, one.value_micros)
        if not died:
            assert belief == (event.value_micros if CONDITIONS[condition](event) else None)


@settings(max_examples=300)
@given(
    st.sampled_from(sorted(CONDITIONS)),
    st.sampled_from(["adjust", "ignore"]),
    st.sampled_from(["retract", "adjust", "ignore"]),
    st.lists(states, min_size=1, max_size=8),
)
def test_a_source_is_only_told_what_its_rule_lets_it_be_told(
    condition: str, on_change: str, on_reversal: str, sequence: list[tuple[Status, int]]
) -> None:
    rule = replace(RULE, condition=condition, on_change=on_change, on_reversal=on_reversal)
    planner = Planner(make_catalog(rule))
    belief = None
    for one in planner.plan(make_history(sequence), [], NOW):
        belief = believe(belief, one.message, one.value_micros)
        assert one.message != Message.RETRACTION or on_reversal == "retract"
        assert one.message != Message.ADJUSTMENT or "adjust" in (on_change, on_reversal)


# --- a rule that took another's place ----------------------------------------------------------------------------


def told_by_the_rule_before() -> list[Told]:
    planner = Planner(make_catalog(replace(RULE, id=5, on_reversal="retract")))
    return [as_told(owed) for owed in planner.plan([make_event()], [], NOW)]


def test_a_rule_that_took_anothers_place_does_not_tell_the_target_twice() -> None:
    own = replace(RULE, id=6, source=None, campaign=20, on_change="adjust")
    planner = Planner(make_catalog(replace(RULE, id=5), own))
    changed = make_event(2, status_from=Status.APPROVED, value_micros=12_000_000)
    owed = planner.plan([changed], told_by_the_rule_before(), NOW)
    assert messages(owed) == [("adjustment", 12_000_000)]
    assert owed[0].rule == 5  # it goes on with what that rule has begun


def test_a_rule_that_took_anothers_place_takes_back_what_that_one_told() -> None:
    planner = Planner(make_catalog(replace(RULE, id=6, on_reversal="retract")))
    reversed_ = make_event(2, status_from=Status.APPROVED, status=Status.REVERSED)
    owed = planner.plan([reversed_], told_by_the_rule_before(), NOW)
    assert messages(owed) == [("retraction", 10_000_000)]


def test_a_rule_to_another_target_inherits_nothing() -> None:
    told = [replace(one, target=99) for one in told_by_the_rule_before()]
    changed = make_event(2, status_from=Status.APPROVED, value_micros=12_000_000)
    assert messages(Planner(make_catalog(replace(RULE, id=6))).plan([changed], told, NOW)) == [
        ("conversion", 12_000_000)
    ]
