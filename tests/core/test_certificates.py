"""When a certificate is renewed, and whom it is for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbackd.core.certificates import (
    LONGEST_LOOK_MS,
    SHORTEST_LOOK_MS,
    Term,
    Window,
    clock_is_wrong,
    is_due,
    look_again_ms,
    matches,
    missing_names,
    renew_at_ms,
)

DAY = 86_400_000
TERM = Term(("a.example",), 100 * DAY, 190 * DAY)
DRAWS = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("name", "host", "fits"),
    [
        ("a.example", "A.Example.", True),
        ("a.example", "b.a.example", False),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "b.a.example.com", False),
        ("*.com", "com", False),
    ],
)
def test_a_name_is_the_hosts_or_stands_for_one_label(name: str, host: str, fits: bool) -> None:
    assert matches(name, host) is fits


def test_the_names_that_a_certificate_lacks_are_told() -> None:
    assert missing_names(["a.example", "*.b.example"], ["a.example", "x.b.example", "c.example"]) == [
        "c.example"
    ]


@given(DRAWS)
def test_without_a_suggestion_two_thirds_of_the_life_are_used_or_a_little_less(draw: float) -> None:
    at = renew_at_ms(TERM, None, draw)
    assert 157 * DAY - 1 <= at <= 160 * DAY


@given(DRAWS)
def test_a_suggestion_is_followed_within_its_window_but_never_to_the_end(draw: float) -> None:
    assert 120 * DAY <= renew_at_ms(TERM, Window(120 * DAY, 125 * DAY), draw) < 125 * DAY
    assert renew_at_ms(TERM, Window(300 * DAY, 400 * DAY), draw) == 182 * DAY + DAY // 2


def test_a_window_that_ends_before_it_begins_is_no_suggestion() -> None:
    assert renew_at_ms(TERM, Window(125 * DAY, 120 * DAY), 0) == renew_at_ms(TERM, None, 0)


def test_a_suggestion_in_the_past_means_now() -> None:
    """RFC 9773 section 4.2: this is how an authority asks for a renewal before it revokes."""
    window = Window(1 * DAY, 2 * DAY)
    assert is_due(TERM, ["a.example"], window, 0.5, 101 * DAY)
    assert not is_due(TERM, ["a.example"], None, 0.5, 101 * DAY)


def test_it_is_due_when_there_is_none_or_a_name_is_missing() -> None:
    assert is_due(None, ["a.example"], None, 0, 0)
    assert is_due(TERM, ["a.example", "b.example"], None, 0, 101 * DAY)


@given(st.integers(0, 10**12))
def test_the_authority_is_asked_neither_all_the_time_nor_never(wanted: int) -> None:
    assert SHORTEST_LOOK_MS <= look_again_ms(wanted) <= LONGEST_LOOK_MS


@pytest.mark.parametrize(("now", "wrong"), [(100 * DAY, False), (99 * DAY, True), (180 * DAY, True)])
def test_a_new_certificate_that_is_not_good_or_old_by_our_clock_shows_that_the_clock_is_wrong(
    now: int, wrong: bool
) -> None:
    assert clock_is_wrong(TERM, now) is wrong


def test_certificates_of_six_days_and_of_forty_five_are_renewed_in_time_too() -> None:
    for days in (6, 45, 90):
        term = Term((), 0, days * DAY)
        assert days * DAY * 0.6 < renew_at_ms(term, None, 0.99) <= days * DAY * 0.6667
