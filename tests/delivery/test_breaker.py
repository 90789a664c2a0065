"""Breaker and pace: plain logic with times passed in."""

from __future__ import annotations

import pytest

from postbackd.delivery.breaker import (
    FIRST_PAUSE_MS,
    LONGEST_PAUSE_MS,
    PROBE_PATIENCE_MS,
    THRESHOLD,
    Breaker,
    BreakerChange,
    BreakerState,
    Pace,
)


def opened(at_ms: int = 0) -> Breaker:
    breaker = Breaker()
    for _ in range(THRESHOLD):
        breaker.failed(at_ms, "connection refused")
    return breaker


def test_it_opens_after_so_many_failures_in_a_row_and_says_so_once() -> None:
    breaker = Breaker()
    changes = [breaker.failed(1000, "connection refused") for _ in range(THRESHOLD + 2)]
    assert changes == [
        *[None] * (THRESHOLD - 1),
        BreakerChange(BreakerState.OPEN, 1000, 1000 + FIRST_PAUSE_MS, "connection refused", THRESHOLD),
        None,
        None,
    ]
    assert not breaker.allows(1000 + FIRST_PAUSE_MS - 1)
    assert breaker.allows(1000 + FIRST_PAUSE_MS)


def test_a_success_between_failures_starts_the_count_again() -> None:
    breaker = Breaker()
    for _ in range(10):
        for _ in range(THRESHOLD - 1):
            assert breaker.failed(0, "500") is None
        assert breaker.succeeded(0) is None
    assert breaker.state is BreakerState.CLOSED


def test_after_the_pause_one_request_probes_and_no_other_goes_beside_it() -> None:
    breaker = opened()
    assert breaker.allows(FIRST_PAUSE_MS)
    change = breaker.start(FIRST_PAUSE_MS)
    assert change is not None
    assert (change.state, change.reason) == (BreakerState.HALF_OPEN, "connection refused")
    assert not breaker.allows(FIRST_PAUSE_MS + 1)
    closing = breaker.succeeded(FIRST_PAUSE_MS + 2)
    assert closing == BreakerChange(BreakerState.CLOSED, FIRST_PAUSE_MS + 2)
    assert breaker.allows(FIRST_PAUSE_MS + 2)
    assert breaker.start(FIRST_PAUSE_MS + 2) is None


def test_pauses_double_up_to_a_limit_and_begin_small_again_after_a_success() -> None:
    breaker, now = opened(), 0
    pauses: list[int] = []
    while len(pauses) < 9:
        pauses.append(breaker.until_ms - now)
        now = breaker.until_ms
        breaker.start(now)
        breaker.failed(now, "no answer within 5 s")
    assert pauses == [5_000, 10_000, 20_000, 40_000, 80_000, 160_000, *[LONGEST_PAUSE_MS] * 3]
    breaker.start(breaker.until_ms)
    breaker.succeeded(now)
    for _ in range(THRESHOLD):
        breaker.failed(now, "again")
    assert breaker.until_ms == now + FIRST_PAUSE_MS


def test_a_probe_of_which_nothing_is_heard_is_repeated() -> None:
    breaker = opened()
    breaker.start(FIRST_PAUSE_MS)
    later = FIRST_PAUSE_MS + PROBE_PATIENCE_MS
    assert not breaker.allows(later - 1)
    assert breaker.allows(later)
    assert breaker.start(later) is None
    assert not breaker.allows(later)


def test_a_late_answer_closes_an_open_breaker_and_a_late_failure_does_not_lengthen_it() -> None:
    breaker = opened()
    assert breaker.failed(4_000, "late") is None
    assert (breaker.until_ms, breaker.reason) == (FIRST_PAUSE_MS, "connection refused")
    change = breaker.succeeded(4_500)
    assert change is not None
    assert change.state is BreakerState.CLOSED


@pytest.mark.parametrize("state", [BreakerState.OPEN, BreakerState.HALF_OPEN])
def test_a_restored_breaker_goes_on_with_its_pauses(state: BreakerState) -> None:
    breaker = Breaker()
    breaker.restore(BreakerChange(state, 1_000, 41_000, "502", 8))
    assert not breaker.allows(40_999)
    assert breaker.allows(41_000)
    breaker.start(41_000)
    change = breaker.failed(42_000, "502")
    assert change == BreakerChange(BreakerState.OPEN, 42_000, 42_000 + 80_000, "502", 9)


def test_a_pace_is_halved_once_for_all_that_were_on_their_way() -> None:
    pace = Pace(32)
    assert [pace.slow_down(1_000 + n) for n in range(32)] == [True, *[False] * 31]
    assert pace.at_once == 16
    assert pace.slow_down(2_100)
    assert pace.at_once == 8


def test_a_pace_never_stops_and_says_when_nothing_changed() -> None:
    pace = Pace(2)
    assert [pace.slow_down(now) for now in (0, 1_000, 2_000)] == [True, False, False]
    assert pace.at_once == 1


def test_a_pace_recovers_by_one_for_every_round_of_answers_and_not_beyond_the_limit() -> None:
    pace = Pace(8)
    pace.slow_down(0)
    sizes = []
    while pace.slowed:
        rounds = pace.at_once
        for _ in range(rounds + 1):
            pace.went_well()
        sizes.append(pace.at_once)
    assert sizes == sorted(sizes)
    assert 4 <= len(sizes) <= 8
    pace.went_well()
    assert pace.at_once == 8


def test_a_new_limit_of_the_target_counts_at_once_unless_it_is_slowed() -> None:
    pace = Pace(8)
    pace.set_most(32)
    assert pace.at_once == 32
    pace.slow_down(0)
    pace.set_most(64)
    assert pace.at_once == 16
    pace.set_most(4)
    assert pace.at_once == 4
