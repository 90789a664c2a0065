"""Which names of unmapped parameters are noted: few, twice seen, and none that may be a person's."""

from __future__ import annotations

import pytest

from postbackd.core.params import MAX_PARAMETERS, POSTBACK_NAMES, FieldMap
from postbackd.core.privacy import Masker
from postbackd.core.unmapped import MOST_NAMES, Unmapped, is_name

MASKER = Masker(b"key")


def made(**own: list[str]) -> tuple[FieldMap, Unmapped]:
    unmapped = Unmapped()
    return FieldMap(POSTBACK_NAMES, own, unmapped), unmapped


def test_a_name_that_came_twice_is_told_once_and_nothing_of_what_is_mapped() -> None:
    fields, unmapped = made(value=["Reward"])
    for number in range(3):
        fields.read_query(f"click_id={number}&aff_sub5=secret{number}&REWARD=1&%73tatus=x&payout=2")
        assert unmapped.take(9) == (["aff_sub5", "payout"] if number == 1 else [])


def test_a_name_in_json_is_noted_too() -> None:
    fields, unmapped = made()
    for _ in range(2):
        fields.read_json("zone=1", {"Click_Id": "x", "Extra": {"a": 1}})
    assert unmapped.take(9) == ["Extra", "zone"]


def test_a_value_that_stands_where_a_name_belongs_is_not_taken_for_one() -> None:
    fields, unmapped = made()
    for number in range(600):
        fields.read_query(f"johnsmith&name{number}=1&txid=2")
    assert unmapped.take(999) == []


def test_names_are_bounded_and_what_is_read_stays_the_same() -> None:
    fields, unmapped = made()
    plain = FieldMap(POSTBACK_NAMES)
    query = "&".join(["click_id=c", *(f"n{n}=1" for n in range(MOST_NAMES + 9)), "txid=t"])
    for _ in range(3):
        read = fields.read_query(query)
        assert (read.values, read.parameters) == (plain.read_query(query).values, MOST_NAMES + 11)
    assert read.parameters > MAX_PARAMETERS
    assert len(unmapped.take(5)) == 5
    assert len(unmapped.take(999)) == MOST_NAMES - 5
    unmapped.forget()
    for _ in range(2):
        fields.read_query("later=1")
    assert unmapped.take(9) == ["later"]


@pytest.mark.parametrize("text", ["aff_sub5", "adv1", "user[email]", "goal.id", "X-Source", "s2s", "a"])
def test_ordinary_names_are_kept(text: str) -> None:
    assert is_name(text, MASKER)


@pytest.mark.parametrize(
    "text",
    ["anna@shop.example", "anna%40shop.example", "+442079460958", "4111111111111111", "198.51.100.7", "id4471205538",
     "x" * 41, "two words", "f7c3bc1d808e04732adf679965ccc34c", "am9obi5zbWl0aEBzaG9wLmV4YW1wbGU", "", "{clickid}"],
)  # fmt: skip
def test_what_may_be_personal_or_is_no_name_is_not(text: str) -> None:
    assert not is_name(text, MASKER)
