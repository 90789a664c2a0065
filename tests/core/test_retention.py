"""The brake: nothing is deleted by a clock that jumped, nor far more than usual."""

from __future__ import annotations

import pytest

from postbackd.core.retention import DAY_MS, USUAL_ROWS, Class, Due, Keep, Seen, brake

NOW_MS = 1_750_000_000_000
HOUR_MS = 3_600_000


def due(rows: int, class_: Class = Class.CLICKS) -> list[Due]:
    return [Due(class_, NOW_MS - DAY_MS, rows, True)]


def seen(ago_ms: int | None = HOUR_MS, largest: int = 0, drift_ms: int = 0) -> Seen:
    return Seen(None if ago_ms is None else NOW_MS - ago_ms, {Class.CLICKS: largest}, drift_ms)


def test_what_is_usual_goes_on_by_itself() -> None:
    assert brake(due(USUAL_ROWS), seen(), NOW_MS) is None
    assert brake(due(3_000_000), seen(largest=1_000_000), NOW_MS) is None
    assert brake([], seen(None), NOW_MS) is None


@pytest.mark.parametrize("days", [3, 31, 366, 3653])
def test_a_clock_that_stands_days_after_the_last_purge_is_not_trusted(days: int) -> None:
    assert "jumped" in str(brake(due(1), seen(days * DAY_MS), NOW_MS))


@pytest.mark.parametrize("hours", [2, 24, 24 * 3653])
def test_a_clock_that_stands_before_the_last_purge_is_not_trusted(hours: int) -> None:
    assert "before the last purge" in str(brake(due(1), seen(-hours * HOUR_MS), NOW_MS))


@pytest.mark.parametrize("drift_ms", [2 * HOUR_MS, -2 * HOUR_MS, 3653 * DAY_MS])
def test_a_clock_that_was_set_while_the_server_ran_is_not_trusted(drift_ms: int) -> None:
    assert "while the server ran" in str(brake(due(1), seen(drift_ms=drift_ms), NOW_MS))


def test_the_first_purge_of_a_database_that_has_something_to_lose_asks_a_person() -> None:
    assert "nothing was ever purged" in str(brake(due(1), seen(None), NOW_MS))
    assert brake(due(0), seen(None), NOW_MS) is None


def test_far_more_than_the_largest_of_the_last_purges_asks_a_person() -> None:
    assert "most that is usual" in str(brake(due(USUAL_ROWS + 1), seen(), NOW_MS))
    assert "most that is usual" in str(brake(due(3_000_001), seen(largest=1_000_000), NOW_MS))


def test_a_purge_that_has_nothing_to_do_is_not_held() -> None:
    assert brake(due(0), seen(3653 * DAY_MS), NOW_MS) is None


def keep(clicks: int, conversions: int) -> Keep:
    return Keep(dict.fromkeys(Class, 30) | {Class.CLICKS: clicks, Class.CONVERSIONS: conversions})


@pytest.mark.parametrize(("clicks", "conversions"), [(90, 89), (0, 760)])
def test_a_conversion_may_not_go_before_its_click(clicks: int, conversions: int) -> None:
    assert "counted again" in str(keep(clicks, conversions).problem())


@pytest.mark.parametrize(("clicks", "conversions"), [(90, 90), (0, 0), (90, 0)])
def test_a_conversion_that_outlives_its_click_is_fine(clicks: int, conversions: int) -> None:
    assert keep(clicks, conversions).problem() is None


def test_nothing_that_is_kept_for_ever_is_due() -> None:
    assert keep(0, 0).before_ms(Class.CLICKS, NOW_MS) is None
    assert keep(90, 0).before_ms(Class.CLICKS, NOW_MS) == NOW_MS - 90 * DAY_MS
