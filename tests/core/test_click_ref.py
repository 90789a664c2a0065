"""Which click a postback speaks of: repaired, found elsewhere, somebody's own id, or none."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from postbackd.core.click_ref import MAX_OWN_ID, find_click
from postbackd.core.diagnosis import Reason
from postbackd.core.model import ClickRef
from postbackd.core.params import POSTBACK_NAMES, FieldMap
from tests.core.desk import CAMPAIGN, CLICK, CLICK_ID, KEYS, MASKER, NOW_MS

FIELDS = FieldMap(POSTBACK_NAMES)
OURS = (CLICK, CAMPAIGN)


def find(query: str) -> ClickRef:
    return find_click(FIELDS.read_query(query), KEYS, MASKER, NOW_MS)


@pytest.mark.parametrize(
    "sent", [f'"{CLICK_ID}"', f" {CLICK_ID}", quote(f'"{CLICK_ID}"'), quote(quote(f"'{CLICK_ID}'"))]
)
def test_encoding_and_quotes_are_taken_off_and_told(sent: str) -> None:
    found = find(f"cid={quote(sent)}")
    assert (found.click_id, found.campaign, found.reason) == (*OURS, Reason.CLICK_ID_DOUBLE_ENCODED)


def test_a_transaction_id_that_is_an_id_of_ours_is_the_click_id_when_there_is_no_other() -> None:
    for query in (f"transaction_id={CLICK_ID}", f"cid=&txid={CLICK_ID.upper()}"):
        assert find(query) == ClickRef(*OURS)


def test_a_click_id_in_another_field_is_used_and_the_parameter_is_named() -> None:
    found = find(f"cid=12345&utm_term={CLICK_ID}")
    assert (found.click_id, found.campaign) == OURS
    assert (found.reason, found.found_in) == (Reason.CLICK_ID_IN_OTHER_FIELD, "utm_term")


def test_a_click_id_in_any_json_field_is_found_with_its_dashes_and_spaces() -> None:
    dashed = f" {CLICK_ID[:8]}-{CLICK_ID[8:]} "
    received = FIELDS.read_json("", {"nested": {"a": 1}, "extra": dashed})
    found = find_click(received, KEYS, MASKER, NOW_MS)
    assert (found.click_id, found.found_in) == (CLICK, "extra")


def test_the_name_of_the_parameter_is_cut_and_holds_no_personal_data() -> None:
    assert find(f"{'n' * 100}={CLICK_ID}").found_in == "n" * 64
    masked = find(f"{quote('ann@shop.example')}={CLICK_ID}").found_in
    assert masked is not None
    assert masked.startswith("hashed:")


def test_cutting_the_name_of_a_parameter_does_not_hide_personal_data_from_the_mask() -> None:
    name = "ann.example.of.a.very.long.local.part.that.fills.the.kept.part@shop.example"
    found_in = find(f"{quote(name)}={CLICK_ID}").found_in
    assert found_in is not None
    assert "ann" not in found_in


@pytest.mark.parametrize("text", ["550e8400-e29b-41d4-a716-446655440000", "order-77", "x" * MAX_OWN_ID])
def test_what_is_no_id_of_ours_may_be_a_callers_own(text: str) -> None:
    found = find(f"cid={text}")
    assert (found.click_id, found.own_id, found.reason) == (None, text, Reason.CLICK_ID_FOREIGN)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("value=1", Reason.CLICK_ID_MISSING),
        ("cid=", Reason.CLICK_ID_EMPTY),
        ("cid=null", Reason.CLICK_ID_EMPTY),
        ("cid=%7Bclickid%7D", Reason.MACRO_LITERAL),
        ("cid=test", Reason.TEST_EVENT),
        (f"cid={'x' * (MAX_OWN_ID + 1)}", Reason.CLICK_ID_FOREIGN),
    ],
)
def test_nothing_macros_test_words_and_over_long_texts_are_nobodys_id(query: str, reason: Reason) -> None:
    assert find(query) == ClickRef(None, None, None, reason)


def test_a_truncated_or_altered_id_is_never_repaired_by_guessing() -> None:
    assert find(f"cid={CLICK_ID[:20]}").click_id is None
    assert find(f"cid={CLICK_ID[:20]}").reason == Reason.CLICK_ID_TRUNCATED
    other = "0" if CLICK_ID[-1] != "0" else "1"
    assert find(f"cid={CLICK_ID[:-1]}{other}").reason == Reason.CLICK_ID_ALTERED


def test_a_callers_own_id_that_is_personal_data_is_kept_as_its_hash() -> None:
    assert find("cid=ann@shop.example").own_id == MASKER.mask("ann@shop.example")
