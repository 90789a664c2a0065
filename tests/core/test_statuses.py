"""The life of a conversion: any order of arrival ends at the same status."""

from __future__ import annotations

from functools import reduce
from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbackd.core.statuses import TRANSITIONS, Status, read_status, settle

State = tuple[Status, int]
states = st.tuples(st.sampled_from(Status), st.integers(0, 3))


def final(messages: list[State]) -> State:
    return reduce(lambda state, message: settle(*state, *message), messages)


@given(st.lists(states, min_size=1, max_size=5))
def test_every_order_of_arrival_ends_the_same(messages: list[State]) -> None:
    ends = {final(list(order)) for order in permutations(messages)}
    assert len(ends) == 1


@given(st.lists(states, min_size=1, max_size=6), st.data())
def test_repeats_change_nothing(messages: list[State], data: st.DataObject) -> None:
    repeats = data.draw(st.lists(st.sampled_from(messages), max_size=6))
    assert final(data.draw(st.permutations(messages + repeats))) == final(messages)


@given(states, states)
def test_one_of_two_messages_wins(old: State, new: State) -> None:
    assert settle(*old, *new) in (old, new)


@pytest.mark.parametrize(("old", "new"), list(product(Status, Status)))
def test_the_transition_table_is_the_order_of_ranks(old: Status, new: Status) -> None:
    assert (new in TRANSITIONS[old]) == (new > old)
    assert settle(old, 0, new, 0)[0] == max(old, new)


def test_a_later_time_may_go_anywhere() -> None:
    assert all(settle(old, 1, new, 2) == (new, 2) for old, new in product(Status, Status))


@pytest.mark.parametrize("taken_back", [Status.REJECTED, Status.REVERSED])
def test_money_taken_back_without_a_time_wins_over_an_approval_with_one(taken_back: Status) -> None:
    assert settle(Status.APPROVED, 9, taken_back, 0) == (taken_back, 0)
    assert settle(taken_back, 0, Status.APPROVED, 9) == (taken_back, 0)


def test_the_life_of_a_conversion_without_times_goes_one_way() -> None:
    life = [(Status.PENDING, 0), (Status.APPROVED, 0), (Status.REVERSED, 0)]
    assert {final(list(order)) for order in permutations(life)} == {(Status.REVERSED, 0)}


@given(st.text(), st.dictionaries(st.text(), st.sampled_from(["approved", "reversed", "nonsense"])))
def test_no_word_makes_reading_raise(text: str, own_words: dict[str, str]) -> None:
    read_status(text, own_words)


@pytest.mark.parametrize("status", Status)
def test_the_word_of_a_status_means_that_status(status: Status) -> None:
    assert read_status(status.word, {}) is status
    assert read_status(status.word.upper(), {"something": "rejected"}) is status


def test_a_networks_own_word_wins_over_the_words_of_the_field() -> None:
    assert read_status("Lead", {}) is Status.PENDING
    assert read_status("Lead", {"LEAD": "approved"}) is Status.APPROVED
