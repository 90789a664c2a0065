"""Money: whatever is written is read back, and nothing else changes it."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbackd.core.money import CURRENCIES, MAX_MICROS, read_micros, write_micros

amounts = st.integers(-MAX_MICROS, MAX_MICROS)


@given(amounts)
def test_what_was_written_is_read_back(micros: int) -> None:
    assert read_micros(write_micros(micros), "USD") == micros


@given(amounts, st.sampled_from(sorted(CURRENCIES)))
def test_a_currency_code_changes_nothing(micros: int, currency: str) -> None:
    text = write_micros(micros)
    assert read_micros(f"{text} {currency}", currency) == micros
    assert read_micros(f"{currency} {text}", currency) == micros


@given(st.decimals(-(10**12), 10**12, allow_nan=False, places=18))
def test_up_to_18_decimals_are_rounded_half_even(amount: Decimal) -> None:
    exact = amount.quantize(Decimal("0.000001"), ROUND_HALF_EVEN)
    assert read_micros(f"{amount:f}", "USD") == int(exact.scaleb(6))


@given(st.floats(0.0001, 10**6))
def test_printed_floats_are_read_to_the_nearest_millionth(value: float) -> None:
    text = repr(value)
    decimals = len(text.partition(".")[2])
    read = read_micros(text, "USD")
    assert (read is None) == ("e" in text or decimals > 18)
    assert read is None or abs(Decimal(text).scaleb(6) - read) <= Decimal("0.5")


@given(st.integers(1_000_000, 10**12 - 1))
def test_thousands_commas_change_nothing(units: int) -> None:
    assert read_micros(f"{units:,}", "USD") == units * 10**6
    assert read_micros(f"{units:,}.25", "USD") == units * 10**6 + 250_000


@given(st.integers(1, 999), st.integers(0, 999))
def test_one_comma_before_three_digits_is_never_guessed(left: int, right: int) -> None:
    assert read_micros(f"{left},{right:03d}", "USD") is None


@given(st.text())
def test_no_text_makes_reading_raise(text: str) -> None:
    micros = read_micros(text, "USD")
    assert micros is None or abs(micros) <= MAX_MICROS


@given(st.text(alphabet="0123456789.,+-$€ USDeE", max_size=24))
def test_no_text_that_looks_like_money_makes_reading_raise(text: str) -> None:
    micros = read_micros(text, "USD")
    assert micros is None or abs(micros) <= MAX_MICROS


@pytest.mark.parametrize("text", ["9" * 65536, "1," * 32768, " " * 65536, "-" * 65536, "USD" * 20000])
def test_long_hostile_text_is_refused_at_once(text: str) -> None:
    assert read_micros(text, "USD") is None


def test_written_money_has_at_least_two_decimals() -> None:
    assert [write_micros(m) for m in (0, 5_000_000, 5_100_000, 5_120_000, 5_123_000)] == [
        "0.00",
        "5.00",
        "5.10",
        "5.12",
        "5.123",
    ]
