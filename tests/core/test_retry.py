"""When a delivery is tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbackd.core.retry import JITTER, SCHEDULE_S, next_attempt

NOW_MS = 1_750_000_000_000
HOUR_MS = 3_600_000
JITTERS = st.floats(0, 1, exclude_max=True)


def test_the_first_attempt_is_made_at_once() -> None:
    assert next_attempt(0, NOW_MS, 0.99) == NOW_MS


def test_the_pauses_are_the_documented_ones() -> None:
    pauses = [(next_attempt(made, 0, 0.0) or 0) // 1000 for made in range(len(SCHEDULE_S))]
    minute, hour = 60, 3600
    hours = [2 * hour, 5 * hour, 10 * hour, 14 * hour, 20 * hour, 24 * hour]
    assert pauses == [0, 5, 30, 5 * minute, 30 * minute, *hours]


def test_after_the_last_attempt_it_is_given_up() -> None:
    assert next_attempt(len(SCHEDULE_S), NOW_MS, 0.0) is None
    assert next_attempt(len(SCHEDULE_S) + 5, NOW_MS, 0.0, retry_after_ms=1000) is None


@given(st.lists(JITTERS, min_size=len(SCHEDULE_S), max_size=len(SCHEDULE_S)))
def test_a_target_is_tried_for_at_least_72_hours(jitters: list[float]) -> None:
    at_ms = 0
    for made, jitter in enumerate(jitters):
        due_ms = next_attempt(made, at_ms, jitter)
        assert due_ms is not None
        at_ms = due_ms
    assert 72 * HOUR_MS <= at_ms <= 96 * HOUR_MS


@given(st.integers(0, len(SCHEDULE_S) - 1), JITTERS, st.integers(0, 48 * HOUR_MS))
def test_no_attempt_is_earlier_than_its_pause_and_than_the_target_asked(
    made: int, jitter: float, wait_ms: int
) -> None:
    due_ms = next_attempt(made, NOW_MS, jitter, retry_after_ms=wait_ms)
    assert due_ms is not None
    longest_ms = max(SCHEDULE_S[made] * 1000, wait_ms)
    assert longest_ms <= due_ms - NOW_MS <= longest_ms * (1 + JITTER)


def test_what_failed_together_comes_back_apart() -> None:
    assert len({next_attempt(2, NOW_MS, n / 10) for n in range(10)}) == 10
    assert len({next_attempt(0, NOW_MS, n / 10, retry_after_ms=60_000) for n in range(10)}) == 10


@pytest.mark.parametrize(("made", "due_ms"), [(0, 1000), (1, 2000), (2, None)])
def test_a_target_may_have_a_schedule_of_its_own(made: int, due_ms: int | None) -> None:
    assert next_attempt(made, 0, 0.0, (1, 2)) == due_ms
