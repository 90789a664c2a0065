"""The edge of the histogram that no report asks for."""

from __future__ import annotations

from postbackd.core.histogram import percentile_us, upper_us


def test_a_share_beyond_all_times_is_the_largest_of_them() -> None:
    assert percentile_us({3: 1, 9: 2}, 1.0) == upper_us(9)
    assert percentile_us({3: 1, 9: 2}, 1.5) == upper_us(9)
