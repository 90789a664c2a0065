"""A conversion, the text that stands for it, and how small it is."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postbackd_client import Client, Conversion, PayloadError
from postbackd_client.payload import FIELDS, LIMITS, MOST_EXTRA, decode, encode

CLICK_ID = "0saqm9ykw0000abcdefghijklm"
KEY = "8tn9e60v24v6xt2vz156tjrycy"


def usual() -> Conversion:
    return Conversion(CLICK_ID, "sale", "12.50", "USD", "A-1001")


def test_the_usual_conversion_is_sent_in_less_than_200_bytes() -> None:
    request = Client(f"https://track.example.com/p/{KEY}")._route.endpoint.request(usual())
    assert len(request.method) + len(request.target) + len(request.body) + 2 < 160


def test_the_usual_conversion_is_less_than_200_bytes_in_a_queue() -> None:
    assert len(encode(usual()).encode()) < 160


def test_one_that_carries_no_id_of_its_own_is_less_than_200_bytes_too() -> None:
    made = Conversion(CLICK_ID, "sale", "12.50", "USD")
    request = Client(f"https://track.example.com/p/{KEY}")._route.endpoint.request(made)
    assert len(request.method) + len(request.target) + len(request.body) + 2 < 200
    assert len(encode(made).encode()) < 200


@pytest.mark.parametrize("value", [12.5, True, float("nan")])
def test_a_value_that_has_no_exact_cents_is_refused_with_what_to_give_instead(value: Any) -> None:
    with pytest.raises(PayloadError, match=r'as text \("12.50"\), Decimal or int'):
        Conversion(CLICK_ID, value=value)


@pytest.mark.parametrize(
    ("value", "text"),
    [("12.50", "12.50"), (Decimal("12.50"), "12.50"), (Decimal("1E+3"), "1000"), (12, "12"), (None, "")],
)
def test_values_are_the_text_that_is_sent(value: Any, text: str) -> None:
    assert Conversion(CLICK_ID, value=value).value == text


@pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("Infinity"), [], b"1"])
def test_what_is_no_amount_is_refused(value: Any) -> None:
    with pytest.raises(PayloadError):
        Conversion(CLICK_ID, value=value)


def test_a_conversion_without_an_id_is_given_one_that_stays() -> None:
    one, other = Conversion(CLICK_ID), Conversion(CLICK_ID)
    assert one.transaction_id != other.transaction_id
    assert decode(encode(one)).transaction_id == one.transaction_id


def test_a_conversion_knows_when_it_happened() -> None:
    before = int(datetime.now(UTC).timestamp())
    assert before <= int(str(Conversion(CLICK_ID).time)) <= before + 5
    moment = datetime(2025, 6, 15, 12, tzinfo=timezone(timedelta(hours=2)))
    assert Conversion(CLICK_ID, time=moment).time == "2025-06-15T10:00:00Z"
    assert Conversion(CLICK_ID, time=1750000000).time == "1750000000"


@pytest.mark.parametrize("time", [datetime(2025, 6, 15), 1.5, True])  # noqa: DTZ001 - that it has no zone is the case
def test_a_time_that_could_mean_two_things_is_refused(time: Any) -> None:
    with pytest.raises(PayloadError, match="time"):
        Conversion(CLICK_ID, time=time)


def test_without_a_click_id_there_is_no_conversion() -> None:
    with pytest.raises(PayloadError, match="click id"):
        Conversion("")


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_what_the_server_would_reject_for_its_length_is_refused_at_once(name: str) -> None:
    fields: dict[str, Any] = {"click_id": CLICK_ID, name: "x" * (LIMITS[name] + 1)}
    with pytest.raises(PayloadError, match=f"{name} has {LIMITS[name] + 1} characters"):
        Conversion(**fields)


def test_the_limits_are_those_of_the_server() -> None:
    from postbackd.core.params import MAX_LENGTHS

    assert dict(LIMITS) == dict(MAX_LENGTHS)


@pytest.mark.parametrize(
    "extra", [{"value": "1"}, {"": "1"}, {"sub1": 1}, {f"s{n}": "x" for n in range(MOST_EXTRA + 1)}]
)
def test_an_extra_parameter_cannot_stand_for_a_field(extra: Any) -> None:
    with pytest.raises(PayloadError, match="extra"):
        Conversion(CLICK_ID, extra=extra)


texts = st.text(max_size=16)


@settings(max_examples=40)
@given(
    st.text(min_size=1, max_size=255),
    st.builds(dict, type=texts, currency=texts, transaction_id=texts, status=texts, value=texts),
    st.dictionaries(texts.filter(lambda name: bool(name) and name not in FIELDS), texts, max_size=3),
)
def test_every_conversion_comes_back_from_its_text(
    click_id: str, fields: dict[str, str], extra: dict[str, str]
) -> None:
    made = Conversion(click_id, **fields, extra=extra)
    assert decode(encode(made)) == made
    assert "\n" not in encode(made)
    assert pickle.loads(pickle.dumps(made)) == made


def test_a_text_of_another_language_may_have_numbers_and_nulls() -> None:
    made = decode(
        '{"click_id":"a","value":12.50,"transaction_id":7,"time":1750000000,"status":null,"sub1":3}'
    )
    assert (made.value, made.transaction_id, made.time) == ("12.50", "7", "1750000000")
    assert (made.status, dict(made.extra)) == ("", {"sub1": "3"})


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"type":"sale"}', '{"click_id":["a"]}', '{"click_id":{}}', "[" * 100_000]
)
def test_a_text_that_is_no_conversion_says_so(text: str) -> None:
    with pytest.raises(PayloadError):
        decode(text)


def test_texts_between_brackets_are_a_batch() -> None:
    request = Client("https://track.example.com/p/KEY")._route.endpoint.batch(
        [encode(usual()), encode(usual())]
    )
    assert [one["transaction_id"] for one in json.loads(request.body)] == ["A-1001", "A-1001"]
