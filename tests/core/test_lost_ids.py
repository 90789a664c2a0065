"""Lost ids: said on planted losses, and never on healthy traffic."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable

import pytest

from postbackd.core.lost_ids import (
    AGES_MS,
    HostClicks,
    find_lost_on_page,
    find_lost_with_age,
    lower_p,
    say_lost_on_page,
    say_lost_with_age,
)

MINUTE = 60_000
SEEDS = range(20)


def host(
    chance: random.Random,
    name: str,
    clicks: int,
    rate: float,
    *,
    median_min: float = 15.0,
    spread: float = 1.2,
    kept: Callable[[float], bool] = lambda _age_ms: True,
    without_id: int = 0,
) -> HostClicks:
    """Clicks that convert at ages of a log-normal distribution; ``kept``: whether an id survives to that age."""
    by_age: Counter[int] = Counter()
    for _ in range(round(clicks * rate)):
        age_ms = chance.lognormvariate(0, spread) * median_min * MINUTE
        if kept(age_ms):
            by_age[bisect_right(AGES_MS, age_ms)] += 1
    return HostClicks(name, clicks, dict(by_age), without_id)


def healthy(chance: random.Random) -> list[HostClicks]:
    """Offers as different as they are in life: slow and quick ones, good and bad ones, large and small ones."""
    return [
        host(
            chance,
            f"h{number}.example",
            chance.choice((3_000, 30_000, 300_000)),
            chance.uniform(0.002, 0.03),
            median_min=chance.choice((2.0, 8.0, 15.0, 40.0, 180.0, 900.0)),
            spread=chance.uniform(0.6, 1.8),
            without_id=chance.choice((0, 0, 3, 20)),
        )
        for number in range(chance.randint(2, 8))
    ]


@pytest.mark.parametrize("age_min", [20, 30, 60])
def test_a_session_that_times_out_is_found_at_its_age_and_at_no_other_host(age_min: int) -> None:
    for seed in SEEDS:
        chance = random.Random(seed)
        hosts = [host(chance, f"h{n}.example", 30_000, 0.02, median_min=25.0) for n in range(4)]
        hosts.append(
            host(
                chance, "shop.example", 60_000, 0.02, median_min=25.0, kept=lambda age: age < age_min * MINUTE
            )
        )
        (found,) = find_lost_with_age(hosts)
        assert (found.host, found.age_ms) == ("shop.example", age_min * MINUTE), seed
        assert found.missing == pytest.approx(1200 - hosts[-1].converted, rel=0.25)
    sentence = say_lost_with_age(found)
    assert f"within the first {age_min} minutes and never later" in sentence
    assert "shop.example" in sentence


def test_a_session_that_a_few_outlive_is_found_all_the_same() -> None:
    chance = random.Random(1)
    hosts = [host(chance, "a.example", 60_000, 0.02), host(chance, "b.example", 60_000, 0.02)]
    lossy = host(
        chance,
        "shop.example",
        60_000,
        0.02,
        kept=lambda age: age < 30 * MINUTE or chance.random() < 0.02,
    )
    (found,) = find_lost_with_age([*hosts, lossy])
    assert found.late_share > 0
    assert "almost never later" in say_lost_with_age(found)


def test_healthy_offers_however_different_bring_no_sentence() -> None:
    for seed in SEEDS:
        hosts = healthy(random.Random(seed))
        assert find_lost_with_age(hosts) == [], seed
        assert find_lost_on_page(hosts) == [], seed


def test_too_few_conversions_bring_no_sentence() -> None:
    chance = random.Random(2)
    few = host(chance, "shop.example", 4_000, 0.02, kept=lambda age: age < 30 * MINUTE)
    assert few.converted < 100
    assert find_lost_with_age([few, host(chance, "a.example", 60_000, 0.02)]) == []
    assert find_lost_with_age([host(chance, "alone.example", 60_000, 0.02)]) == []
    assert not find_lost_with_age([])
    assert not find_lost_on_page([])


def test_ids_that_are_lost_on_the_page_are_said_when_as_many_postbacks_came_without_one() -> None:
    chance = random.Random(3)
    others = [host(chance, f"h{n}.example", 50_000, 0.02) for n in range(3)]
    lossy = host(chance, "shop.example", 50_000, 0.02, kept=lambda _: chance.random() < 0.5, without_id=480)
    (found,) = find_lost_on_page([*others, lossy])
    assert found.host == "shop.example"
    assert "480 postbacks of their network came without a click id" in say_lost_on_page(found)
    merely_worse = host(chance, "worse.example", 50_000, 0.01)
    assert find_lost_on_page([*others, merely_worse]) == []


def test_the_test_of_two_proportions_agrees_with_a_known_value() -> None:
    # 15 of 100 against 30 of 100: z = -2.54, one-sided p = 0.0055.
    assert lower_p(15, 100, 30, 100) == pytest.approx(0.0055, abs=0.0002)
    assert lower_p(0, 10, 0, 10) == 1.0
