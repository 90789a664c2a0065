"""The form of an export, and how its amounts and times are written: found in the file, said when it is open."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postbackd.core.click_id import KeyRing
from postbackd.core.export_values import (
    DAY_MS,
    AmountEvidence,
    DateEvidence,
    TimeReader,
    read_amount,
    read_zone,
    write_day,
)
from postbackd.core.exports import ExportError, Given, find_header, guess_delimiter, guess_encoding
from postbackd.core.model import SigningKey
from postbackd.core.reconciling import Shift, Side, compare, cover, find_shift
from postbackd.core.statuses import Status

KEYS = KeyRing([SigningKey(id=1, secret=b"s" * 32, active_from_ms=0)])
NO_NAMES: dict[str, tuple[str, ...]] = {}
NOON = 20_000 * DAY_MS + DAY_MS // 2


def test_amounts_are_read_as_their_column_writes_them() -> None:
    for texts, sign, read in (
        (["12,50", "1.234,56"], ",", [12_500_000, 1_234_560_000]),
        (["12.50", "1,234.56", "1,234"], ".", [12_500_000, 1_234_560_000, 1_234_000_000]),
        (["1 234,50", "1'234,50", "12,5"], ",", [1_234_500_000, 1_234_500_000, 12_500_000]),
        (["(12.50)", "-12.50", "12.50-", "\u221212.50"], ".", [-12_500_000] * 4),
        (["$12.50", "12.50 USD", "USD 12.50"], ".", [12_500_000] * 3),
        (["1.234.567", "0,5"], ",", [1_234_567_000_000, 500_000]),
        (["10", "7"], ".", [10_000_000, 7_000_000]),
    ):
        evidence = AmountEvidence()
        for text in texts:
            evidence.add(text)
        assert evidence.decide() == (sign, ""), texts
        assert [read_amount(text, sign, "USD").micros for text in texts] == read
        assert not any(read_amount(text, sign, "USD").problem for text in texts)


def test_an_amount_that_may_be_a_thousand_times_another_is_not_guessed() -> None:
    evidence = AmountEvidence()
    for text in ("1,234", "5,678", "100"):
        evidence.add(text)
    sign, note = evidence.decide()
    assert (sign, "--decimal" in note) == ("", True)
    assert read_amount("1,234", sign, "USD").problem == "ambiguous"
    assert read_amount("100", sign, "USD").micros == 100_000_000
    for text in (
        "12,50",
        "1,23,456.00",
        "12.3.4",
        "10 20",
        "2026-11-23",
        "12 EURO",
        "abc",
        "--",
        "1e5",
        "١٢",
    ):
        assert read_amount(text, ".", "USD").problem == "unreadable", text
    assert read_amount("12.50 EUR", ".", "USD").currency == "EUR"


def test_dates_are_read_in_the_order_that_the_column_shows() -> None:
    for texts, order, days in (
        (["2026-11-03 10:00:00", "2026-11-04T10:00:00Z"], "ymd", ["2026-11-03", "2026-11-04"]),
        (["03.11.2026 10:00", "4.11.26"], "dmy", ["2026-11-03", "2026-11-04"]),
        (["03/11/2026", "25/11/2026"], "dmy", ["2026-11-03", "2026-11-25"]),
        (["11/03/2026 1:05 PM", "11/25/2026 12:05 am"], "mdy", ["2026-11-03", "2026-11-25"]),
        (
            ["3 Nov 2026", "Nov 4, 2026 10:00", "05-Nov-2026"],
            "ymd",
            ["2026-11-03", "2026-11-04", "2026-11-05"],
        ),
        (["1793700000", "1793700000123"], "epoch", ["2026-11-03", "2026-11-03"]),
        (["20261103", "2026/11/04"], "ymd", ["2026-11-03", "2026-11-04"]),
    ):
        evidence = DateEvidence()
        for text in texts:
            evidence.add(text)
        assert evidence.decide() == (order, ""), texts
        reader = TimeReader(order)
        moments = [reader.read(text) for text in texts]
        assert [m and _day(m.day) for m in moments] == days, texts


def _day(day: int) -> str:
    return write_day(day)


def test_a_date_that_is_open_is_read_as_the_shorter_period_and_said() -> None:
    evidence = DateEvidence()
    for day in range(1, 8):
        evidence.add(f"11/{day:02d}/2026")
    order, note = evidence.decide()
    assert order == "mdy"
    assert "--dates dmy" in note


def test_times_of_day_zones_and_nonsense() -> None:
    reader = TimeReader("ymd")
    for text, clock in (
        ("2026-11-03 01:02:03.456", "01:02:03.456"), ("2026-11-03T03:02:03.456+02:00", "01:02:03.456"),
        ("2026-11-03 01:02:03,456 UTC", "01:02:03.456"), ("2026-11-02 20:02:03.456-0500", "01:02:03.456"),
    ):  # fmt: skip
        moment = reader.read(text)
        assert moment is not None
        assert moment.ms % DAY_MS == 3_723_456, (text, clock)
    for text in (
        "",
        "soon",
        "2026-13-01",
        "2026-02-30 10:00:00",
        "2026-11-03 25:00:00",
        "0000-00-00",
        "12345",
    ):
        assert reader.read(text) is None, text
    assert [read_zone(text) for text in ("UTC", "+02:00", "-5", "GMT+5:30", "", "soon", "+99")] == [
        0, 120, -300, 330, None, None, None,
    ]  # fmt: skip


def test_delimiter_header_and_columns_are_found_behind_a_preamble() -> None:
    lines = [
        "Report;;\n",
        "\n",
        "Bestellnummer;Provision (EUR);Datum\n",
        "A1;12,50;01.11.2026\n",
        "A2;7,00;02.11.2026\n",
    ]
    assert guess_delimiter(lines) == ";"
    records = [line.rstrip("\n").split(";") for line in lines if line.strip()]
    header = find_header(records, NO_NAMES, KEYS, Given())
    assert header.record == 1
    assert header.columns == {"transaction_id": 0, "value": 1, "time": 2}
    assert header.currency == "EUR"
    assert guess_delimiter(["sep=|\n", "a|b\n"]) == "|"


def test_a_column_with_click_ids_of_ours_is_known_by_them_and_names_can_be_given() -> None:
    ours = KEYS.write(1 << 60, 7)
    records = [["Ref", "Aff info", "Order", "Amount"], ["r1", ours, "o1", "5"], ["r2", ours, "o2", "6"]]
    header = find_header(records, NO_NAMES, KEYS, Given())
    assert (header.columns["click_id"], header.by_content) == (1, True)
    named = find_header(
        records, NO_NAMES, KEYS, Given(columns={"transaction_id": "ref", "value": "#4", "click_id": ""})
    )
    assert named.columns == {"transaction_id": 0, "value": 3}
    own = find_header(records, {"transaction_id": ("ref",)}, KEYS, Given())
    assert own.columns["transaction_id"] == 0
    with pytest.raises(ExportError, match="no column 'Nope'"):
        find_header(records, NO_NAMES, KEYS, Given(columns={"value": "Nope"}))


def test_encodings_are_told_by_the_first_bytes() -> None:
    assert guess_encoding("\ufeffa;b".encode()) == ("utf-8", 3)
    assert guess_encoding("\ufeffa;b".encode("utf-16-le")) == ("utf-16-le", 2)
    assert guess_encoding("order;payout\n1;2\n".encode("utf-16-le")) == ("utf-16-le", 0)
    assert guess_encoding("order;payout\n1;2\n".encode("utf-16-be")) == ("utf-16-be", 0)
    with pytest.raises(ExportError, match="gzip"):
        guess_encoding(b"\x1f\x8b\x08")


def test_a_shift_is_found_through_delays_and_a_change_of_clocks() -> None:
    pairs = [(NOON + n * 3_600_000 + 7_200_000, NOON + n * 3_600_000 + n % 9 * 20_000) for n in range(50)]
    found = find_shift(pairs, True)
    assert found is not None
    assert (found.minutes, found.later) == (120, None)
    changed = [(theirs - (3_600_000 if n >= 20 else 0), ours) for n, (theirs, ours) in enumerate(pairs)]
    found = find_shift(changed, True)
    assert found is not None
    assert (found.minutes, found.later, found.switch_ms) == (120, 60, pairs[20][1])
    assert found.to_utc(changed[30][0]) == NOON + 30 * 3_600_000
    days = [((ours - 5 * 3_600_000) // DAY_MS * DAY_MS, ours) for _, ours in pairs]
    found = find_shift(days, False)
    assert found is not None
    assert found.minutes == -300
    scattered = [(NOON, NOON + n * 47 * 60_000) for n in range(40)]
    assert find_shift(scattered, True) is None
    assert find_shift(pairs[:2], True) is None


def test_values_agree_to_the_precision_of_the_file_and_nothing_is_left_to_differ_when_both_took_it_back() -> (
    None
):
    ours = Side(1_235_000, "USD", Status.APPROVED)
    assert compare(Side(1_240_000, "USD", None), ours, 2).word == "agrees"
    assert compare(Side(1_230_000, "USD", None), ours, 2).word == "agrees"
    assert compare(Side(1_250_000, "USD", None), ours, 2).word == "value_differs"
    assert compare(Side(1_240_000, "USD", None), ours, 3).word == "value_differs"
    assert compare(Side(1_000_000, "EUR", None), Side(1_000_000, "USD", 2), 2).word == "value_differs"
    back = Side(5_000_000, "USD", Status.REVERSED)
    assert compare(Side(0, "USD", Status.REVERSED), back, 2).word == "agrees"
    assert compare(Side(None, "", Status.PENDING), ours, 2).word == "status_differs"


def test_a_file_covers_whole_days_of_its_own_clock_but_nothing_that_it_cannot_know() -> None:
    period = cover(NOON, NOON + DAY_MS, Shift(120), NOON + 9 * DAY_MS)
    assert (period.since_ms, period.until_ms) == (
        NOON - DAY_MS // 2 - 7_200_000,
        NOON + 3 * DAY_MS // 2 - 7_200_000,
    )
    today = cover(NOON, NOON + 60_000, Shift(), NOON + 120_000)
    assert today.until_ms == NOON + 60_001


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=40), st.sampled_from([".", ",", ""]), st.sampled_from(["ymd", "dmy", "mdy", "epoch"]))
def test_no_text_makes_a_reader_of_values_fail(text: str, decimal: str, order: str) -> None:
    amounts, dates = AmountEvidence(), DateEvidence()
    amounts.add(text)
    dates.add(text)
    amounts.decide()
    dates.decide()
    assert abs(read_amount(text, decimal, "USD").micros) <= 10**18
    TimeReader(order).read(text)
    read_zone(text)
