"""Buckets of response times."""

from __future__ import annotations

import pytest

from postbackd.core.histogram import LAST_BUCKET, bucket_of, percentile_us, upper_us


def test_a_time_is_below_the_upper_edge_of_its_bucket_and_not_below_the_one_before() -> None:
    for us in [*range(5000), 10**4, 123_456, 10**6, 5_000_000, 59_999_999]:
        bucket = bucket_of(us)
        assert us < upper_us(bucket)
        assert bucket == 0 or us >= upper_us(bucket - 1)


def test_an_edge_is_at_most_an_eighth_above_the_times_in_its_bucket() -> None:
    for us in [16, 17, 31, 32, 1000, 65_537, 10**6, 60_000_000]:
        assert upper_us(bucket_of(us)) <= us * 9 / 8 + 2


@pytest.mark.parametrize(
    ("us", "bucket"), [(-5, 0), (0, 0), (15, 0), (16, 1), (10**9, LAST_BUCKET), (10**30, LAST_BUCKET)]
)
def test_times_out_of_range_fall_into_the_first_and_last_bucket(us: int, bucket: int) -> None:
    assert bucket_of(us) == bucket


def test_a_percentile_is_the_edge_of_the_bucket_that_holds_it() -> None:
    counts = {bucket_of(100): 98, bucket_of(5_000): 1, bucket_of(90_000): 1}
    assert percentile_us(counts, 0.5) == upper_us(bucket_of(100))
    assert percentile_us(counts, 0.98) == upper_us(bucket_of(100))
    assert percentile_us(counts, 0.99) == upper_us(bucket_of(5_000))
    assert percentile_us(counts, 1.0) == upper_us(bucket_of(90_000))


def test_a_percentile_of_nothing_is_nothing() -> None:
    assert percentile_us({}, 0.5) is None
