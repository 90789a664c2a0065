"""What becomes of a postback: judging, the attribution window, repeats in every mode, and no personal data."""

from __future__ import annotations

from itertools import permutations
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from postbackd.core.diagnosis import Reason
from postbackd.core.model import Channel, Dedup, Offer, Postback
from postbackd.core.params import POSTBACK_NAMES
from postbackd.core.rules import Conversion, Repeat, check_window, judge_again, moves_status, repeat, unusable
from postbackd.core.statuses import Status
from postbackd.core.verdicts import Verdict
from tests.core.desk import (
    CAMPAIGN,
    CLICK,
    CLICK_ID,
    KEYS,
    MASKER,
    NOW_MS,
    REQUEST,
    SECOND,
    judge_query,
    judge_received,
    network,
    request,
    stamp_at,
    words,
)

PERSONAL = {
    "an e-mail address": "ann.marker@shop.example",
    "a phone number": "+44 20 7946 0958",
    "a payment card number": "4111 1111 1111 1111",
    "an IPv4 address": "203.0.113.77",
    "an IPv6 address": "2001:db8:1:2::77",
}


# --- judging ------------------------------------------------------------------------------------------------


def test_a_whole_postback_is_left_to_the_database_with_everything_it_said() -> None:
    said = judge_query(
        f"cid={CLICK_ID}&type=Sale&value=12.50&currency=eur&txid=T-1&status=paid&time=1749999990"
    )
    assert words(said) == ("", "")
    assert (said.click.click_id, said.click.campaign, said.click_text) == (CLICK, CAMPAIGN, None)
    assert (said.terms.type, said.terms.value_micros, said.terms.currency) == ("sale", 12_500_000, "EUR")
    assert (said.terms.status, said.transaction_id, said.time_ms) == (
        Status.APPROVED,
        "T-1",
        1_749_999_990_000,
    )
    assert (said.parameters, said.request.body_bytes, said.replay) == (7, 100, False)


@pytest.mark.parametrize(
    ("query", "verdict", "reason"),
    [
        ("value=1", "unmatched", "click_id_missing"),
        ("", "unmatched", "click_id_missing"),
        ("cid=&value=1", "unmatched", "click_id_empty"),
        ("cid={clickid}", "unmatched", "macro_literal"),
        ("cid=%257Bclickid%257D", "unmatched", "macro_literal"),
        ("cid=REPLACE_ME", "unmatched", "macro_literal"),
        (f"cid={'é' * 200}", "unmatched", "click_id_foreign"),
        ("cid=test", "rejected", "test_event"),
        ("cid=testclick123&value=abc", "rejected", "test_event"),
        (f"cid={CLICK_ID}&value=abc", "rejected", "value_invalid"),
        (f"cid={CLICK_ID}&value={{payout}}", "rejected", "value_macro_literal"),
        (f"cid={CLICK_ID}&currency=EURO", "held", "currency_unknown"),
        (f"cid={CLICK_ID}&txid={'t' * 129}", "rejected", "field_too_long"),
        (f"cid={CLICK_ID}&time={'1' * 65}", "rejected", "field_too_long"),
        (f"cid={CLICK_ID}&time=0&txid={'t' * 129}", "rejected", "field_too_long"),
        ("cid=somebodys-own&value=abc", "rejected", "value_invalid"),
    ],
)
def test_what_cannot_be_used_is_settled_with_a_reason(query: str, verdict: str, reason: str) -> None:
    said = judge_query(query)
    assert Verdict(said.verdict).word == verdict
    assert Reason(said.reason).word == reason


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (f"cid={CLICK_ID}&txid={{tid}}", "macro_literal"),
        (f"cid={CLICK_ID}&type={{goal}}", "macro_literal"),
        (f"cid={CLICK_ID}&status=frobnicated", "status_unknown"),
        (f"cid={CLICK_ID}&time=tomorrow", "timestamp_out_of_range"),
        (f"cid={CLICK_ID}&time=1", "timestamp_out_of_range"),
        (f"cid=%22{CLICK_ID}%22", "click_id_double_encoded"),
        (f"x={CLICK_ID}&cid=1", "click_id_in_other_field"),
        (f"x={CLICK_ID}", "click_id_in_other_field"),
        (f"cid={CLICK_ID}&txid={{tid}}&time=1&status=frobnicated", "status_unknown"),
    ],
)
def test_what_is_doubtful_is_counted_with_a_warning(query: str, reason: str) -> None:
    said = judge_query(query)
    assert words(said) == ("", reason)
    assert said.click.click_id == CLICK
    assert said.transaction_id == ""
    assert said.time_ms == 0


def test_a_transaction_id_that_is_the_click_id_is_not_a_transaction_id_too() -> None:
    said = judge_query(f"transaction_id={CLICK_ID}&value=3")
    assert words(said) == ("", "")
    assert (said.click.click_id, said.transaction_id, said.transaction_text) == (CLICK, "", None)


def test_with_a_click_id_of_its_own_a_transaction_id_may_look_like_one_of_ours() -> None:
    other = KEYS.write(CLICK + 1, CAMPAIGN)
    said = judge_query(f"cid={CLICK_ID}&txid={other}")
    assert (said.click.click_id, said.transaction_id) == (CLICK, other)


@pytest.mark.parametrize("spelling", [CLICK_ID.upper(), f"{CLICK_ID[:10]}-{CLICK_ID[10:]}"])
def test_an_id_in_another_spelling_is_the_same_click(spelling: str) -> None:
    assert judge_query(f"cid={spelling}").click.click_id == CLICK


def test_a_callers_own_id_waits_for_the_database_with_its_text() -> None:
    said = judge_query("cid=order-77&txid=T")
    assert (said.verdict, said.click.own_id, said.click_text) == (0, "order-77", "order-77")


def test_more_than_32_parameters_are_rejected_when_the_click_is_known() -> None:
    many = "&".join(f"x{n}=1" for n in range(32))
    assert words(judge_query(f"cid={CLICK_ID}&{many}")) == ("rejected", "too_many_parameters")
    assert words(judge_query(f"{many}&cid={CLICK_ID}")) == ("rejected", "too_many_parameters")
    assert words(judge_query(f"cid={CLICK_ID}&{many[5:]}"))[0] == ""


def test_a_request_that_cannot_be_read_is_rejected_and_has_a_row_all_the_same() -> None:
    said = unusable(request(), Reason.BODY_MALFORMED, 3)
    assert (said.verdict, said.reason, said.parameters) == (Verdict.REJECTED, Reason.BODY_MALFORMED, 3)
    assert said.click_text is said.transaction_text is said.time_text is said.terms.type_text is None


# --- no personal data ---------------------------------------------------------------------------------------


def kept_texts(said: Postback) -> list[str]:
    """Every text of a judged postback: what may reach the disk or the log."""
    terms, click = said.terms, said.click
    texts = [
        said.click_text, said.transaction_text, said.time_text, said.transaction_id, click.own_id, click.found_in,
        terms.type_text, terms.value_text, terms.currency_text, terms.status_text, terms.type, terms.currency,
    ]  # fmt: skip
    return [text for text in texts if text]


@pytest.mark.parametrize("personal", PERSONAL.values(), ids=PERSONAL)
@pytest.mark.parametrize("field", POSTBACK_NAMES)
@pytest.mark.parametrize("with_click", [True, False])
def test_personal_data_in_any_field_is_kept_as_a_hash_only(
    personal: str, field: str, with_click: bool
) -> None:
    name = POSTBACK_NAMES[field][0]
    before = f"cid={CLICK_ID}&" if with_click and field != "click_id" else ""
    for written in (personal, f"x{personal}"[1:].upper(), quote(personal)):
        texts = kept_texts(judge_query(f"{before}{name}={quote(written)}"))
        assert not [text for text in texts if personal.casefold() in text.casefold()]
        assert any(text.startswith("hashed:") for text in texts)


@pytest.mark.parametrize("personal", PERSONAL.values(), ids=PERSONAL)
def test_personal_data_in_a_parameter_that_nobody_mapped_is_forgotten(personal: str) -> None:
    texts = kept_texts(judge_query(f"cid={CLICK_ID}&email={quote(personal)}&{quote(personal)}=1"))
    assert texts == ["conversion", "USD"]


def test_personal_data_behind_the_limit_of_a_field_is_masked_before_it_is_cut() -> None:
    for name, length in (("cid", 250), ("txid", 120), ("type", 55), ("status", 55), ("time", 55)):
        padding = "a " * (length // 2)
        texts = kept_texts(judge_query(f"{name}={quote(padding + 'ann.marker@shop.example')}"))
        assert not [text for text in texts if "ann" in text]


def test_personal_data_in_a_nested_value_is_masked_before_it_is_cut() -> None:
    rules = network()
    for length in range(150, 200):
        body = {"click_id": {"pad": "x" * length, "email": "ann.marker@shop.example"}}
        texts = kept_texts(judge_received(rules.field_map.read_json("", body), rules))
        assert not [text for text in texts if "ann" in text]


# --- texts that are no plain text --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["txid", "cid", "type"])
@pytest.mark.parametrize(
    ("one", "other"), [("ord%E9r", "ord%E8r"), ("a%01b", "a%00b"), ("a%0D%0Ab", "a%0A%0Db")]
)
def test_texts_that_differ_in_one_byte_are_two_keys_and_stay_so_when_replayed(
    name: str, one: str, other: str
) -> None:
    rules = network()
    keys = set()
    for text in (one, other, one, other):
        fields = {"cid": "own", "txid": "T", name: text}
        said = judge_query("&".join(f"{field}={value}" for field, value in fields.items()), rules)
        again = judge_again(said, rules, KEYS, MASKER)
        key = (said.click.own_id, said.terms.type, said.transaction_id)
        assert key == (again.click.own_id, again.terms.type, again.transaction_id)
        assert all(part is not None and part.isprintable() for part in key)
        keys.add(key)
    assert len(keys) == 2


def test_addresses_that_are_not_utf_8_are_two_hashes() -> None:
    one, other = (
        judge_query(f"cid=own&txid=jos%{byte}@shop.example").transaction_id for byte in ("E9", "E8")
    )
    assert one.startswith("hashed:")
    assert other.startswith("hashed:")
    assert one != other


@pytest.mark.parametrize("nested", [[1], {"a": 1}, [True], [None], ["x"], [], {}])
def test_a_nested_value_is_not_an_unfilled_macro(nested: object) -> None:
    rules = network()

    def said(**fields: object) -> tuple[str, str]:
        return words(judge_received(rules.field_map.read_json("", fields), rules))

    assert said(click_id=CLICK_ID, value=nested) == ("rejected", "value_invalid")
    assert said(click_id=nested) == ("", "click_id_foreign")
    assert said(click_id=CLICK_ID, txid=nested) == ("", "")
    assert said(click_id=["{clickid}"]) == ("unmatched", "macro_literal")


def test_nested_transaction_ids_that_differ_are_two_keys() -> None:
    rules = network()
    read = (rules.field_map.read_json("", {"cid": CLICK_ID, "txid": [text]}) for text in "AB")
    assert len({judge_received(received, rules).transaction_id for received in read}) == 2


# --- hostile input ------------------------------------------------------------------------------------------


hostile = st.sampled_from(
    ["", "\x00", "\ud800", "{x}", "null", CLICK_ID, "9" * 5000, "1e999", "é" * 300, "a@b.example", "[" * 500, "%00"]
) | st.text(max_size=30)  # fmt: skip


@given(st.dictionaries(st.sampled_from([n for names in POSTBACK_NAMES.values() for n in names]), hostile))
@settings(max_examples=150)
def test_nothing_a_sender_can_send_makes_judging_raise(fields: dict[str, str]) -> None:
    rules = network()
    said = judge_received(rules.field_map.read_json("", dict(fields)), rules)
    assert said.verdict == 0 or Verdict(said.verdict).word
    assert all(text.encode("utf-8") and len(text) <= 256 for text in kept_texts(said))
    query = "&".join(
        f"{name}={quote(text, errors='surrogatepass', safe='')}" for name, text in fields.items()
    )
    from_query = judge_query(query)
    assert from_query.click.click_id == said.click.click_id


@given(st.dictionaries(st.sampled_from([n[0] for n in POSTBACK_NAMES.values()]), hostile))
@settings(max_examples=100)
def test_judging_a_stored_postback_again_by_the_same_settings_says_the_same(fields: dict[str, str]) -> None:
    rules = network()
    said = judge_received(rules.field_map.read_json("", dict(fields)), rules)
    again = judge_again(said, rules, KEYS, MASKER)
    assert again.replay
    assert (again.click.click_id, again.terms.type, again.terms.value_micros) == (
        said.click.click_id, said.terms.type, said.terms.value_micros,
    )  # fmt: skip
    assert again.transaction_id == said.transaction_id
    assert bool(again.verdict) == bool(said.verdict)


# --- the attribution window ---------------------------------------------------------------------------------


WINDOW = Offer(id=1, name="o", network=1, url="u", window_min_s=10, window_max_s=3600)


@pytest.mark.parametrize(
    ("age_s", "reason"),
    [(0, "click_before_window"), (9, "click_before_window"), (10, ""), (3600, ""), (3601, "click_after_window")],
)  # fmt: skip
def test_a_conversion_counts_between_the_ages_of_the_offer(age_s: int, reason: str) -> None:
    found = check_window(WINDOW, CLICK, CLICK + age_s * SECOND, 0)
    assert (Reason(found).word if found else "") == reason


def test_a_click_that_was_registered_after_its_postback_has_no_age() -> None:
    assert check_window(WINDOW, CLICK, CLICK - SECOND, 0) == 0


def test_the_senders_time_counts_when_it_lies_between_click_and_receipt() -> None:
    click_ms, late = NOW_MS - 60_000, CLICK + 9999 * SECOND
    assert check_window(WINDOW, CLICK, late, click_ms + 20_000) == 0
    assert check_window(WINDOW, CLICK, late, click_ms - 1) == Reason.CLICK_AFTER_WINDOW
    assert check_window(WINDOW, CLICK, late, click_ms + 10_000_000) == Reason.CLICK_AFTER_WINDOW
    early = CLICK + 100 * SECOND
    assert check_window(WINDOW, CLICK, early, click_ms + 5_000) == Reason.CLICK_BEFORE_WINDOW


# --- repeats ------------------------------------------------------------------------------------------------


COUNTED = Conversion(REQUEST, Status.APPROVED, 5_000_000, "USD", Channel.S2S, 0)


def again(query: str, dedup: Dedup, current: Conversion = COUNTED, channel: Channel = Channel.S2S) -> Repeat:
    return repeat(current, judge_query(f"cid={CLICK_ID}&{query}", channel=channel), dedup)


@pytest.mark.parametrize("dedup", Dedup)
@pytest.mark.parametrize("query", ["value=5&txid=T", "value=5&status=approved&txid=T", "txid=T"])
def test_the_same_again_is_a_duplicate_in_every_mode(dedup: Dedup, query: str) -> None:
    assert again(query, dedup) == Repeat(Verdict.DUPLICATE, COUNTED)


@pytest.mark.parametrize("dedup", Dedup)
def test_a_status_that_the_sender_wrote_moves_on_in_every_mode(dedup: Dedup) -> None:
    decided = again("status=reversed&value=5", dedup)
    assert (decided.verdict, decided.conversion.status) == (Verdict.UPDATED, Status.REVERSED)
    assert decided.conversion.value_micros == 5_000_000


@pytest.mark.parametrize("dedup", [Dedup.IGNORE, Dedup.ADD])
def test_another_value_changes_nothing_but_in_update_mode(dedup: Dedup) -> None:
    assert again("value=9&txid=T", dedup) == Repeat(Verdict.DUPLICATE, COUNTED)
    assert again("value=9", dedup).verdict is Verdict.DUPLICATE


@pytest.mark.parametrize("query", ["value=9", "value=9&txid=T", "value=9&status=approved"])
def test_update_mode_takes_the_new_value_and_currency(query: str) -> None:
    decided = again(f"{query}&currency=EUR", Dedup.UPDATE)
    assert (decided.verdict, decided.conversion.value_micros, decided.conversion.currency) == (
        Verdict.UPDATED,
        9_000_000,
        "EUR",
    )


def test_a_late_message_changes_neither_status_nor_value() -> None:
    decided = again("value=9&status=pending", Dedup.UPDATE)
    assert decided == Repeat(Verdict.DUPLICATE, COUNTED)


def test_update_mode_without_a_value_keeps_the_value() -> None:
    assert again("", Dedup.UPDATE) == Repeat(Verdict.DUPLICATE, COUNTED)


def test_hold_mode_holds_a_repeat_without_transaction_id_and_says_why() -> None:
    held = again("value=5", Dedup.HOLD)
    assert (held.verdict, held.reason) == (Verdict.HELD, Reason.REPEAT_WITHOUT_TRANSACTION_ID)
    assert held.conversion == COUNTED
    assert again("value=5&txid=T", Dedup.HOLD).verdict is Verdict.DUPLICATE


def test_the_other_channel_joins_the_conversion_and_is_not_held() -> None:
    decided = again("value=5", Dedup.HOLD, channel=Channel.PIXEL)
    assert decided.verdict is Verdict.DUPLICATE
    assert decided.conversion.channels == Channel.S2S | Channel.PIXEL


@pytest.mark.parametrize("dedup", Dedup)
def test_the_pixel_changes_nothing_of_what_s2s_has_seen(dedup: Dedup) -> None:
    decided = again("status=reversed&value=900&txid=T", dedup, channel=Channel.PIXEL)
    assert decided == Repeat(Verdict.DUPLICATE, replace(COUNTED, channels=3))


@pytest.mark.parametrize("dedup", Dedup)
def test_s2s_replaces_what_only_the_pixel_has_seen(dedup: Dedup) -> None:
    pixel = replace(COUNTED, channels=Channel.PIXEL, status=Status.REVERSED, currency="EUR")
    decided = again("status=pending&value=7&time=1749999990&txid=T", dedup, pixel)
    assert decided.verdict is Verdict.UPDATED
    assert decided.conversion == Conversion(REQUEST, Status.PENDING, 7_000_000, "EUR", 3, 1_749_999_990_000)
    confirmed = replace(pixel, channels=3, status=Status.APPROVED)
    assert again("txid=T", dedup, pixel) == Repeat(Verdict.UPDATED, confirmed)


@pytest.mark.parametrize("dedup", Dedup)
def test_a_status_message_that_comes_late_fills_a_value_that_was_never_given(dedup: Dedup) -> None:
    pending = replace(COUNTED, status=Status.PENDING, value_micros=0)
    approved = judge_query(f"cid={CLICK_ID}&status=approved&value=12.50&txid=T")
    decided = repeat(pending, msgspec.structs.replace(approved, replay=True), dedup)
    assert (decided.verdict, decided.conversion.value_micros) == (Verdict.UPDATED, 12_500_000)


def test_a_value_with_a_time_does_not_make_a_reversal_weaker() -> None:
    reversed_ = replace(COUNTED, status=Status.REVERSED)
    valued = again("value=7&time=1749999990&txid=T", Dedup.UPDATE, reversed_).conversion
    assert (valued.value_micros, valued.status_time_ms) == (7_000_000, 0)
    assert again("status=approved&time=1749999995&txid=T", Dedup.UPDATE, valued).conversion == valued


def test_a_message_without_a_status_moves_no_status_on() -> None:
    for query, moves in (("value=9", False), ("status=approved", False), ("status=reversed", True)):
        assert moves_status(COUNTED, judge_query(f"cid={CLICK_ID}&{query}")) is moves


def test_a_later_time_of_the_same_status_is_remembered_and_is_a_duplicate() -> None:
    decided = again("status=approved&time=1749999990&txid=T", Dedup.IGNORE)
    assert (decided.verdict, decided.conversion.status_time_ms) == (Verdict.DUPLICATE, 1_749_999_990_000)


MESSAGES = st.lists(
    st.tuples(
        st.sampled_from(["pending", "approved", "rejected", "reversed"]),
        st.sampled_from(["", "1749999990", "1749999991"]),
    ),
    min_size=2,
    max_size=4,
)  # fmt: skip


@given(MESSAGES, st.sampled_from(Dedup))
@settings(max_examples=60)
def test_messages_with_a_status_end_the_same_in_any_order_and_mode(
    messages: list[tuple[str, str]], dedup: Dedup
) -> None:
    ends = set()
    for order in permutations(messages):
        current: Conversion | None = None
        for status, time in order:
            said = judge_query(f"cid={CLICK_ID}&txid=T&status={status}&time={time}")
            if current is None:
                current = Conversion(REQUEST, said.terms.status, 0, "USD", Channel.S2S, said.time_ms)
            else:
                current = repeat(current, said, dedup).conversion
        assert current is not None
        ends.add((current.status, current.status_time_ms))
    assert len(ends) == 1


def test_stamps_of_the_desk_are_what_they_say() -> None:
    assert stamp_at(NOW_MS) - stamp_at(NOW_MS - 1000) == SECOND
