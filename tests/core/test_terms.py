"""Type, value, currency, status, transaction id and time: what is believed, doubted and refused."""

from __future__ import annotations

from itertools import count

import pytest

from postbackd.core.diagnosis import Reason
from postbackd.core.model import Terms
from postbackd.core.params import MAX_LENGTHS, read_json_body
from postbackd.core.statuses import Status
from postbackd.core.terms import (
    OLDEST_TIME_MS,
    TIME_SLACK_MS,
    Refusal,
    read_event_time,
    read_time,
    read_transaction_id,
)
from postbackd.core.verdicts import Verdict
from tests.core.desk import CLICK_ID, MASKER, NOW_MS, judge_query, judge_received, network, words

NET = network()


def terms(
    type_: str | None = None,
    value: str | None = None,
    currency: str | None = None,
    status: str | None = None,
) -> Terms:
    return NET.read_terms(type_, value, currency, status, MASKER)


def test_a_postback_that_says_nothing_is_an_approved_conversion_of_no_value_in_the_networks_currency() -> (
    None
):
    said = network(currency="EUR").read_terms(None, None, None, None, MASKER)
    assert (said.type, said.value_micros, said.currency) == ("conversion", 0, "EUR")
    assert (said.status, said.verdict, said.reason) == (Status.APPROVED, 0, 0)
    assert not said.status_given
    assert not said.value_given


@pytest.mark.parametrize("empty", ["", None])
def test_an_empty_text_says_as_little_as_a_missing_one(empty: str | None) -> None:
    said = terms(empty, empty, empty, empty)
    assert (said.type, said.value_micros, said.currency, said.status) == ("conversion", 0, "USD", 2)
    assert (said.status_given, said.value_given, said.verdict) == (False, False, 0)


# --- type ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "type_"), [("Sale", "sale"), (" lead ", "lead"), ("STRASSE", "strasse"), ("Straße", "strasse"),
                        ("  ", "conversion"), ("x" * 64, "x" * 64)],
)  # fmt: skip
def test_a_type_is_folded_and_stripped(text: str, type_: str) -> None:
    assert (terms(text).type, terms(text).type_text) == (type_, text)


@pytest.mark.parametrize("macro", ["{goal}", "[EVENT]", "${type}", "%7Bgoal%7D", "REPLACE_ME"])
def test_an_unfilled_type_counts_as_missing_with_a_warning(macro: str) -> None:
    said = terms(macro)
    assert (said.type, said.verdict, said.reason) == ("conversion", 0, Reason.MACRO_LITERAL)


def test_a_network_that_names_its_types_may_send_no_other() -> None:
    strict = network(types=("Sale", "LEAD"))
    assert strict.read_terms("sALE", None, None, None, MASKER).verdict == 0
    refused = strict.read_terms("install", None, None, None, MASKER)
    assert (refused.verdict, refused.reason) == (Verdict.REJECTED, Reason.TYPE_NOT_ALLOWED)
    missing = strict.read_terms(None, None, None, None, MASKER)
    assert missing.reason == Reason.TYPE_NOT_ALLOWED


# --- value and currency -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("12.50", 12_500_000),
        ("12,50", 12_500_000),
        ("$12.50", 12_500_000),
        ("0", 0),
        ("12.50 USD", 12_500_000),
    ],
)
def test_a_value_is_millionths_of_a_unit(text: str, micros: int) -> None:
    assert (terms(value=text).value_micros, terms(value=text).value_given) == (micros, True)


@pytest.mark.parametrize(
    "text",
    ["abc", "1e3", "1e999", "NaN", "-3", "9" * 40, "9" * 60, "1,234", "€5", "[1,2]", "true", "0x10", " "],
)
def test_a_value_that_cannot_be_read_without_guessing_refuses_the_postback(text: str) -> None:
    assert (terms(value=text).verdict, terms(value=text).reason) == (Verdict.REJECTED, Reason.VALUE_INVALID)


@pytest.mark.parametrize("text", ["{payout}", "[AMOUNT]", "%7Bpayout%7D", "PAYOUT"])
def test_an_unfilled_value_has_a_reason_of_its_own(text: str) -> None:
    assert terms(value=text).reason == Reason.VALUE_MACRO_LITERAL


@pytest.mark.parametrize(("status", "micros"), [("rejected", 3_000_000), ("refund", 3_000_000)])
def test_a_negative_value_is_its_magnitude_where_money_is_taken_back(status: str, micros: int) -> None:
    assert terms(value="-3", status=status).value_micros == micros


@pytest.mark.parametrize("status", [None, "approved", "pending", "no-such-word"])
def test_a_negative_value_is_refused_everywhere_else(status: str | None) -> None:
    assert terms(value="-3", status=status).reason == Reason.VALUE_INVALID


@pytest.mark.parametrize("text", ["EUR", "eur", " Eur "])
def test_a_currency_is_read_in_any_case(text: str) -> None:
    assert terms(value="5", currency=text).currency == "EUR"


@pytest.mark.parametrize("text", ["Euro", "XXX", "U$D", "{currency}", " "])
def test_an_unknown_currency_holds_the_postback_for_a_decision(text: str) -> None:
    said = terms(value="5", currency=text)
    assert (said.verdict, said.reason) == (Verdict.HELD, Reason.CURRENCY_UNKNOWN)


def test_a_symbol_must_fit_the_currency_of_the_postback() -> None:
    assert terms(value="€5", currency="EUR").value_micros == 5_000_000
    assert terms(value="$5", currency="EUR").reason == Reason.VALUE_INVALID


# --- status -------------------------------------------------------------------------------------------------


def test_a_status_word_of_the_network_wins_over_the_words_of_the_field() -> None:
    own = network(statuses={"Sale": "pending", "7": "reversed"})
    assert own.read_terms(None, None, None, "sale", MASKER).status == Status.PENDING
    assert own.read_terms(None, None, None, "7", MASKER).status == Status.REVERSED
    assert own.read_terms(None, None, None, "paid", MASKER).status == Status.APPROVED


def test_an_unknown_status_counts_as_pending_with_a_warning_and_keeps_the_word() -> None:
    said = terms(status="frobnicated")
    assert (said.status, said.verdict, said.reason) == (Status.PENDING, 0, Reason.STATUS_UNKNOWN)
    assert said.status_text == "frobnicated"


# --- lengths ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index_and_field", list(enumerate(["type", "value", "currency", "status"])))
def test_an_over_long_text_is_refused_and_kept_cut(index_and_field: tuple[int, str]) -> None:
    index, field = index_and_field
    texts: list[str | None] = [None] * 4
    texts[index] = "x" * (MAX_LENGTHS[field] + 1000)
    said = terms(*texts)
    assert (said.verdict, said.reason) == (Verdict.REJECTED, Reason.FIELD_TOO_LONG)
    kept = (said.type_text, said.value_text, said.currency_text, said.status_text)[index]
    assert kept is not None
    assert len(kept) == MAX_LENGTHS[field] + 1


def test_of_two_warnings_the_type_is_told_first() -> None:
    assert terms(type_="{goal}", status="frobnicated").reason == Reason.MACRO_LITERAL


# --- remembered readings ------------------------------------------------------------------------------------


def test_a_reading_is_remembered_by_its_texts_and_forgotten_when_there_are_too_many() -> None:
    rules = network()
    first = rules.read_terms("sale", "1", "EUR", "paid", MASKER)
    assert rules.read_terms("sale", "1", "EUR", "paid", MASKER) is first
    assert rules.read_terms("sale", "1", None, "paid", MASKER) != first
    fresh = count()
    for number in fresh:
        rules.read_terms(f"t{number}", None, None, None, MASKER)
        if rules.read_terms("sale", "1", "EUR", "paid", MASKER) is not first:
            break
        assert number < 20_000, "the memory of a network has no end"
    assert rules.read_terms("sale", "1", "EUR", "paid", MASKER) == first


def test_a_long_reading_is_not_remembered() -> None:
    rules = network()
    long = ("t" * 64, "1", "EUR", "s" * 60)
    assert rules.read_terms(*long, MASKER) is not rules.read_terms(*long, MASKER)


# --- transaction id and time --------------------------------------------------------------------------------


def test_a_transaction_id_is_stripped_and_keeps_its_case() -> None:
    assert read_transaction_id(" aB-1 ") == ("aB-1", 0)
    assert read_transaction_id("   ") == ("", 0)
    assert read_transaction_id("{transaction_id}") == ("", Reason.MACRO_LITERAL)


@pytest.mark.parametrize(("field", "read"), [("transaction_id", read_transaction_id)])
def test_a_transaction_id_over_its_length_is_refused(field: str, read: object) -> None:
    assert read_transaction_id("x" * MAX_LENGTHS[field])[0] == "x" * MAX_LENGTHS[field]
    with pytest.raises(Refusal, match="field_too_long"):
        read_transaction_id("x" * (MAX_LENGTHS[field] + 1))


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1750000000", 1_750_000_000_000),
        ("1750000000123", 1_750_000_000_123),
        (" 1750000000 ", 1_750_000_000_000),
        ("2025-06-15T15:06:40Z", 1_750_000_000_000),
        ("2025-06-15T15:06:40.123+00:00", 1_750_000_000_123),
        ("2025-06-15T17:06:40+02:00", 1_750_000_000_000),
        ("2025-06-15 15:06:40", 1_750_000_000_000),
        ("2025-06-15", 1_749_945_600_000),
        ("17500000001234", None),
        ("yesterday", None),
        ("", None),
        ("-5", None),
        ("1750000000.5", None),
        ("١٧٥٠٠٠٠٠٠٠", None),
    ],
)
def test_a_time_is_seconds_milliseconds_or_iso_8601(text: str, ms: int | None) -> None:
    assert read_time(text) == ms


def test_a_year_before_any_clock_does_not_break_the_reading() -> None:
    assert read_event_time("0001-01-01T00:00:00Z", NOW_MS) == (0, Reason.TIMESTAMP_OUT_OF_RANGE)


@pytest.mark.parametrize(
    ("ms", "believed"),
    [
        (OLDEST_TIME_MS, True),
        (OLDEST_TIME_MS - 1, False),
        (NOW_MS + TIME_SLACK_MS, True),
        (NOW_MS + TIME_SLACK_MS + 1, False),
        (NOW_MS, True),
    ],
)
def test_a_time_is_believed_between_2010_and_a_day_ahead(ms: int, believed: bool) -> None:
    text = str(ms) if ms >= 10**12 else str(ms // 1000)
    expected = (ms, 0) if believed else (0, Reason.TIMESTAMP_OUT_OF_RANGE)
    assert read_event_time(text, NOW_MS) == expected


def test_an_over_long_time_is_refused() -> None:
    with pytest.raises(Refusal):
        read_event_time("1" * 65, NOW_MS)


# --- JSON ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["value", "txid", "type", "status", "currency", "time"])
@pytest.mark.parametrize("large", ["9" * 4301, "-" + "9" * 4301, "[" * 2000 + "]" * 2000])
def test_a_json_value_of_any_length_is_too_long_as_in_a_query(name: str, large: str) -> None:
    rules = network()
    body = read_json_body(f'{{"click_id": "{CLICK_ID}", "{name}": {large}}}'.encode())
    said = judge_received(rules.field_map.read_json("", body), rules)
    assert words(said) == words(judge_query(f"click_id={CLICK_ID}&{name}={large}"))
    assert words(said) == ("rejected", "field_too_long")
