"""Conditions of rules: what they hold for, how a mistake is shown, and what can never hold."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from postbackd.core.condition_parts import (
    Among,
    Amount,
    Boxes,
    Either,
    Every,
    FirstOnly,
    Not,
    Part,
    Subject,
    make_test,
    write_part,
)
from postbackd.core.conditions import MAX_DEPTH, MAX_LENGTH, ConditionError, compile_condition
from postbackd.core.statuses import Status

Case = dict[str, Any]
VECTORS = json.loads((Path(__file__).parents[2] / "spec" / "vectors" / "conditions.json").read_text("utf-8"))


def cases(section: str) -> pytest.MarkDecorator:
    found = VECTORS[section]
    return pytest.mark.parametrize(
        "case", found, ids=[f"{n}:{ascii(c['condition'])[:40]}" for n, c in enumerate(found)]
    )


def subject(**changed: Any) -> Subject:
    said = VECTORS["subject"] | changed
    return Subject(
        type=said["type"],
        status=Status[said["status"].upper()],
        value_micros=int(said["value"]),
        currency=said["currency"],
        offer=said["offer"],
        network=said["network"],
        country=said["country"],
        first=said["first"],
        campaign=said["campaign"],
    )


SUBJECT = subject()


@cases("holds")
def test_a_condition_holds_for_the_conversions_that_it_names(case: Case) -> None:
    if case["holds"] == "refused":
        with pytest.raises(ConditionError):
            compile_condition(case["condition"])
        return
    condition = compile_condition(case["condition"])
    tried = subject(**case["subject"])
    assert condition.holds(tried) is case["holds"]
    assert (condition.why_not(tried) == "") is case["holds"]


@cases("refuse")
def test_a_mistake_is_refused_with_its_place_and_the_next_step(case: Case) -> None:
    with pytest.raises(ConditionError) as refusal:
        compile_condition(case["condition"])
    assert refusal.value.position == case["position"]
    assert case["message"] in refusal.value.problem
    assert str(refusal.value).startswith(f"position {case['position']}: ")


@cases("warn")
def test_a_condition_that_never_or_always_holds_is_warned_of(case: Case) -> None:
    condition = compile_condition(case["condition"])
    found = condition.warnings(case["offers"], case.get("networks"), case.get("campaigns"))
    assert len(found) == len(case["warnings"])
    assert all(text in warning for text, warning in zip(case["warnings"], found, strict=True))


def test_the_place_of_a_mistake_is_marked_under_the_text() -> None:
    with pytest.raises(ConditionError) as refusal:
        compile_condition("type = sale and valu > 3")
    _, shown, mark = str(refusal.value).split("\n")
    assert shown == "  type = sale and valu > 3"
    assert mark.index("^") == shown.index("valu")


def test_of_a_long_text_only_the_surroundings_are_shown() -> None:
    text = " or ".join(["first"] * 100)
    with pytest.raises(ConditionError) as refusal:
        compile_condition(f"{text} or \x1bvalu > 3 or\n{text}")
    _, shown, mark = str(refusal.value).split("\n")
    assert len(shown) < 70
    assert shown.isprintable()
    assert shown[mark.index("^")] == "?"


def test_a_condition_says_what_it_names() -> None:
    condition = compile_condition("offer = A, B and (not (offer != C) or network = N) and value > 1")
    assert condition.offers == {"A", "B", "C"}
    assert condition.names("network") == {"N"}
    assert condition.fields == {"offer", "network", "value"}


def test_the_first_test_that_fails_is_said_in_words() -> None:
    condition = compile_condition("type = sale and value >= 20 USD and first")
    assert condition.why_not(SUBJECT) == "value >= 20.00 USD fails: the value is 12.50 USD"
    assert condition.why_not(replace(SUBJECT, type="lead")) == "type = sale fails: the type is lead"
    repeated = replace(SUBJECT, value_micros=20_000_000, first=False)
    assert condition.why_not(repeated) == (
        "first fails: a conversion of this type was counted for the click before"
    )
    assert condition.why_not(replace(SUBJECT, status=Status.PENDING)) == (
        "status = approved fails: the status is pending; "
        "a condition that names no status is for approved conversions"
    )


def test_of_alternatives_each_one_is_said_to_fail() -> None:
    condition = compile_condition('country = FR or offer = "The Hats" or not (type = sale)')
    assert condition.why_not(replace(SUBJECT, country=None)) == (
        "country = FR fails: the country is not known; "
        'and offer = "The Hats" fails: the offer is "Shoes & Co"; '
        "and not (type = sale) fails, for type = sale holds"
    )


def test_long_and_deep_texts_are_refused() -> None:
    assert compile_condition("(" * MAX_DEPTH + "first" + ")" * MAX_DEPTH).holds(SUBJECT)
    for text in ("(" * 51 + "first" + ")" * 51, "not " * 51 + "first", "(" * 2000, "not " * 1000):
        with pytest.raises(ConditionError, match="inside each other"):
            compile_condition(text)
    longest = "first or ".ljust(MAX_LENGTH - 5) + "first"
    assert compile_condition(longest).holds(SUBJECT)
    with pytest.raises(ConditionError, match="at most 4000 characters"):
        compile_condition(longest + " ")


def test_many_tests_in_a_row_are_no_depth() -> None:
    assert compile_condition(" and ".join(["first"] * 400)).holds(SUBJECT)
    assert not compile_condition(" or ".join(["not first"] * 250)).holds(SUBJECT)


def test_a_condition_too_large_to_look_through_is_looked_at_for_names_only() -> None:
    text = " and ".join(f"(type = a{n} or country = DE or value > {n} or offer = o{n})" for n in range(60))
    found = compile_condition(text).warnings(["o1"])
    assert len(found) == 59
    assert all(warning.startswith("there is no offer") for warning in found)


@given(st.text(alphabet="typefirsvalu andort()=!<>,\"'10. USD", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(ConditionError):
        condition = compile_condition(text)
        condition.holds(SUBJECT)
        condition.warnings([])


# A small world in which every conversion can be tried: three values around the amounts that conditions name.
OFFERS = ("A", "B b")
WORLD = [
    Subject(*fields)
    for fields in product(
        ("sale", "lead", "other"),
        (Status.PENDING, Status.APPROVED),
        (0, 1_000_000, 1_500_000, 2_000_000, 3_000_000),
        ("USD", "EUR", "GBP"),
        OFFERS,
        ("n",),
        ("DE", None, "FR"),
        (True, False),
    )
]
names = {
    "type": ("sale", "lead"),
    "status": ("pending", "approved", "rejected", "reversed"),
    "offer": OFFERS,
    "country": ("DE", ""),
    "currency": ("USD", "EUR"),
}
among = st.sampled_from(sorted(names)).flatmap(
    lambda field: st.builds(
        Among,
        st.just(field),
        st.lists(st.sampled_from(names[field]), min_size=1, max_size=3, unique=True).map(tuple),
        st.booleans(),
    )
)
amounts = st.builds(
    Amount,
    st.sampled_from([">=", ">", "<=", "<", "="]),
    st.sampled_from([1_000_000, 2_000_000]),
    st.sampled_from(["", "USD", "EUR"]),
)
parts: st.SearchStrategy[Part] = st.recursive(
    among | amounts | st.just(FirstOnly()),
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(Every, st.lists(inner, min_size=2, max_size=3).map(tuple))
        | st.builds(Either, st.lists(inner, min_size=2, max_size=3).map(tuple))
    ),
    max_leaves=8,
)
# Taken-back conversions complete the world of statuses; they differ from the others in nothing else.
EVERYTHING = WORLD + [
    replace(one, status=status) for one in WORLD if one.status == Status.PENDING for status in (3, 4)
]


@settings(max_examples=150)
@given(parts)
def test_a_condition_is_said_to_be_impossible_exactly_when_no_conversion_passes(part: Part) -> None:
    holds = make_test(part)
    passed = [holds(one) for one in EVERYTHING]
    assert bool(Boxes({"offer": OFFERS}).of(part)) is any(passed)
    assert bool(Boxes({"offer": OFFERS}).of(part, negated=True)) is not all(passed)


@settings(max_examples=150)
@given(parts)
def test_a_condition_that_is_written_down_reads_back_as_the_same(part: Part) -> None:
    again = compile_condition(f"({write_part(part)}) and status = pending, approved, rejected, reversed")
    holds = make_test(part)
    assert all(again.holds(one) is holds(one) for one in EVERYTHING)
    assert all(bool(again.why_not(one)) is not holds(one) for one in EVERYTHING[::17])
