"""Spans of time as people write them."""

from __future__ import annotations

import pytest

from postbackd.core.moments import write_moment
from postbackd.reports.period import Period, read_duration, read_moment, write_duration

NOW_MS = 1_800_000_000_000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("90s", 90), ("15m", 900), ("12H", 43_200), (" 30d ", 2_592_000), ("2w", 1_209_600)],
)
def test_durations_are_read(text: str, seconds: int) -> None:
    assert read_duration(text) == seconds


@pytest.mark.parametrize("seconds", [0, 1, 59, 60, 3600, 5400, 86_400, 90_000, 2_592_000])
def test_a_duration_is_read_back_as_it_was_written(seconds: int) -> None:
    assert read_duration(write_duration(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1.5h", "1y", "9999999999s"])
def test_no_duration_says_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="such as 30d"):
        read_duration(text)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("2026-11-23", "2026-11-23T00:00:00.000Z"),
        ("2026-11-23T14:00", "2026-11-23T14:00:00.000Z"),
        ("2026-11-23 14:00:01.5", "2026-11-23T14:00:01.500Z"),
        ("2026-11-23T14:00+02:00", "2026-11-23T12:00:00.000Z"),
        ("0001-01-01", "1970-01-01T00:00:00.000Z"),
    ],
)
def test_a_moment_is_utc_unless_it_names_a_zone(text: str, written: str) -> None:
    assert write_moment(read_moment(text, NOW_MS)) == written


def test_a_duration_is_that_long_ago() -> None:
    assert read_moment("24h", NOW_MS) == NOW_MS - 86_400_000


@pytest.mark.parametrize("text", ["yesterday", "23.11.2026", "2026-13-01", ""])
def test_no_moment_says_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="such as 7d"):
        read_moment(text, NOW_MS)


def test_a_period_without_bounds_is_all_of_time() -> None:
    assert Period().stamps()["since"] == 0
    assert Period(10**15, None).stamps()["since"] <= Period().stamps()["until"]
