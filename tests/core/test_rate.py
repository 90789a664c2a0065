"""Limits: how many may pass, when the next one may, and that nobody gets a new bucket by filling the memory."""

from __future__ import annotations

import pytest

from postbackd.core.rate import RateLimit, limit_prefix


def passed(limit: RateLimit, key: str, now: float, tries: int) -> int:
    return sum(limit.take(key, now) == 0 for _ in range(tries))


def test_four_seconds_worth_may_come_at_once_and_then_the_rate_holds() -> None:
    limit = RateLimit(10)
    assert passed(limit, "a", 100.0, 200) == 40
    assert passed(limit, "a", 101.0, 200) == 10
    assert passed(limit, "a", 200.0, 200) == 40


def test_whoever_is_refused_is_told_when_to_come_again_and_may_then_pass() -> None:
    limit = RateLimit(10)
    passed(limit, "a", 0.0, 40)
    wait_s = limit.take("a", 0.0)
    assert 0 < wait_s <= 0.1 + 1e-9
    assert limit.take("a", wait_s + 1e-6) == 0


def test_a_refused_request_costs_nothing() -> None:
    limit = RateLimit(1)
    passed(limit, "a", 0.0, 1000)
    assert limit.take("a", 1.01) == 0


def test_what_turns_out_to_be_many_is_paid_by_whoever_comes_next() -> None:
    limit = RateLimit(10)
    assert limit.take("a", 0.0) == 0
    limit.charge("a", 0.0, 999)
    assert limit.take("a", 0.0) == pytest.approx((1000 - 40 + 1) / 10)
    assert limit.take("a", 96.0) > 0
    assert limit.take("a", 96.2) == 0
    assert limit.take("b", 0.0) == 0


def test_what_passed_on_a_shared_bucket_is_charged_to_it() -> None:
    limit = RateLimit(10, capacity=1)
    limit.take("early", 0.0)
    assert limit.take("late", 0.0) == 0
    limit.charge("late", 0.0, 999)
    assert limit.take("late", 0.0) > 90
    assert len(limit) == 1


def test_one_does_not_use_up_what_another_may() -> None:
    limit = RateLimit(10)
    passed(limit, "a", 0.0, 1000)
    assert passed(limit, "b", 0.0, 100) == 40


def test_a_rate_below_one_lets_one_pass() -> None:
    assert passed(RateLimit(0.1), "a", 0.0, 5) == 1


def test_filling_the_memory_gives_nobody_a_new_bucket() -> None:
    limit = RateLimit(10, capacity=1000)
    assert passed(limit, "attacker", 0.0, 100) == 40
    for number in range(50_000):
        limit.take(f"other {number}", 0.0)
    assert len(limit) == 1000
    assert passed(limit, "attacker", 0.0, 100) == 0


def test_newcomers_share_what_is_left_and_get_their_own_when_there_is_room_again() -> None:
    limit = RateLimit(10, capacity=100)
    for number in range(100):
        passed(limit, f"early {number}", 0.0, 40)
    assert 0 < passed(limit, "late", 0.0, 100) <= 40
    assert passed(limit, "late", 10.0, 100) == 40
    assert len(limit) == 1


@pytest.mark.parametrize(
    ("address", "prefix"),
    [
        ("203.0.113.9", "203.0.113"),
        ("203.0.113.200", "203.0.113"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::9", "2001:db8:1:2::"),
        ("", ""),
        ("x" * 500, "x" * 64),
    ],
)
def test_neighbours_count_as_one(address: str, prefix: str) -> None:
    assert limit_prefix(address) == prefix
