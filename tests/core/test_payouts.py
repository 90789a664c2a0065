"""Payouts: what a source is told a conversion is worth, exactly."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postbackd.core.money import MAX_MICROS
from postbackd.core.payouts import Payout, PayoutError, compile_payout


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", (12_345_678, "EUR")),
        ("  ", (12_345_678, "EUR")),
        ("fixed 2.50 USD", (2_500_000, "USD")),
        ("FIXED  2.5usd", (2_500_000, "USD")),
        ("fixed 0 USD", (0, "USD")),
        ("80%", (9_876_542, "EUR")),
        (" 12.5 % ", (1_543_210, "EUR")),
        ("100%", (12_345_678, "EUR")),
        ("1000%", (123_456_780, "EUR")),
        ("0.000001%", (0, "EUR")),
    ],
)
def test_a_payout_is_as_received_fixed_or_a_percentage(text: str, told: tuple[int, str]) -> None:
    assert compile_payout(text).apply(12_345_678, "EUR") == told


@pytest.mark.parametrize(
    "text",
    [
        "2.50 USD",
        "fixed",
        "fixed 2.50",
        "fixed USD 2.50",
        "fixed -1 USD",
        "fixed 1,50 EUR",
        "fixed 2.1234567 USD",
        "fixed 2.50 XYZ",
        "fixed 2.50 DOLLARS",
        "fixed 9999999999999 USD",
        "80",
        "80 percent",
        "-80%",
        "0%",
        "0.0%",
        "1000.000001%",
        "8e1%",
        "٨٠%",
        "80%%",
        "half",
        "80% USD",
        "x" * 10_000,
    ],
)
def test_what_is_no_payout_is_refused_with_the_forms_that_there_are(text: str) -> None:
    with pytest.raises(PayoutError, match="like 'fixed ") as refusal:
        compile_payout(text)
    assert len(str(refusal.value)) < 200


@given(st.integers(0, MAX_MICROS), st.decimals("0.000001", 1000, places=6))
def test_a_percentage_is_exact_and_rounded_half_even(micros: int, percent: Decimal) -> None:
    exact = (Decimal(micros) * percent / 100).quantize(Decimal(1), ROUND_HALF_EVEN)
    assert compile_payout(f"{percent:f}%").apply(micros, "USD") == (min(int(exact), MAX_MICROS), "USD")


def test_halves_are_rounded_to_the_even_neighbour() -> None:
    half = compile_payout("50%")
    assert [half.apply(micros, "USD")[0] for micros in (1, 3, 5, 7)] == [0, 2, 2, 4]


def test_more_than_the_column_holds_is_told_as_the_most_that_it_holds() -> None:
    assert compile_payout("1000%").apply(MAX_MICROS, "USD") == (MAX_MICROS, "USD")


def test_an_empty_payout_changes_nothing() -> None:
    assert compile_payout("") == Payout()
