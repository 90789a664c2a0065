"""Postbacks as requests: macros, parameters, JSON, signatures; and URLs as they may be shown."""

from __future__ import annotations

import pytest

from postbackd.core.became import judge
from postbackd.core.exchange import Exchange
from postbackd.core.senders import Scheme
from postbackd.core.signature import HEADER, Signed, verify
from postbackd.exchanges.postback import (
    Endpoint,
    OddPostback,
    Postback,
    Signing,
    mark_as_test,
    show_url,
    write_postback,
)

FULL = Postback(click_id="a b&c", type="sale", value="12.50", transaction_id="A/1", extra={"x": "ü"})


def test_a_url_without_macros_gets_the_usual_parameters() -> None:
    made = write_postback(Endpoint(url="https://t.example/p?k=1"), FULL, 0)
    assert made.url == "https://t.example/p?k=1&click_id=a%20b%26c&type=sale&value=12.50&txid=A%2F1&x=%C3%BC"
    assert made.body == b""


def test_macros_are_filled_in_place_and_a_parameter_without_a_value_is_left_out() -> None:
    url = "https://t.example/{type}/pb?cid={click_id}&cur={currency}&sum={value}&tx={txid}&keep="
    made = write_postback(Endpoint(url=url), FULL, 0)
    assert made.url == "https://t.example/sale/pb?cid=a%20b%26c&sum=12.50&tx=A%2F1&keep=&x=%C3%BC"


def test_a_value_that_the_url_has_no_place_for_is_named_and_not_dropped() -> None:
    with pytest.raises(OddPostback, match=r"no place for the type; write \{type\}"):
        write_postback(Endpoint(url="https://t.example/?cid={click_id}&v={value}&t={txid}"), FULL, 0)


def test_a_post_says_in_json_what_the_url_does_not() -> None:
    made = write_postback(Endpoint(url="https://t.example/?cid={click_id}", method="POST"), FULL, 0)
    assert made.url == "https://t.example/?cid=a%20b%26c"
    assert made.body.decode() == '{"type":"sale","value":"12.50","txid":"A/1","x":"ü"}'


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_signed_postback_verifies_and_one_that_was_changed_does_not(method: str) -> None:
    signing = Signing(Scheme(), "whsec")
    endpoint = Endpoint(
        url="https://t.example/p/key", method="GET" if method == "GET" else "POST", signing=signing
    )
    made = write_postback(endpoint, FULL, 1_750_000_000_000)
    path, _, query = made.url.removeprefix("https://t.example").partition("?")
    headers = {name.lower().encode(): value.encode() for name, value in made.headers}
    assert HEADER.encode() in headers
    right = Signed(made.method, path, query, made.body, headers)
    wrong = Signed(made.method, path, f"{query}&value=99", made.body, headers)
    assert verify(Scheme(), ("whsec",), right, 1_750_000_000_000).reason == 0
    assert verify(Scheme(), ("whsec",), wrong, 1_750_000_000_000).reason != 0


def test_a_test_has_a_test_word_for_a_click_id_and_keeps_a_transaction_id_that_was_given() -> None:
    assert mark_as_test(FULL).click_id == "test_click"
    assert mark_as_test(FULL).transaction_id == "A/1"
    assert mark_as_test(Postback()).transaction_id.startswith("test-")


def test_a_shown_url_holds_no_key_and_no_value() -> None:
    shown = show_url("https://u:pw@t.example/p/34mazknz7gj0v7v6wxjhy54xks?token=secret&cid={click_id}")
    assert shown == "https://t.example/p/…?token=…&cid=…"


@pytest.mark.parametrize(
    ("status", "body", "word", "settled", "good"),
    [
        (200, b'{"verdict":"accepted"}', "accepted", True, True),
        (200, b'{"verdict":"rejected","reason":"value_invalid"}', "rejected", True, False),
        (200, b'{"verdict":"rejected","reason":"test_event"}', "test", True, True),
        (200, b"fine", "refused", True, False),
        (200, b"OK: taken", "delivered", True, True),
        (200, b"OK but ERROR 7", "refused", True, False),
        (302, b"", "HTTP 302", False, False),
        (503, b"", "HTTP 503", False, False),
    ],
)
def test_what_became_of_a_postback_is_judged_by_its_answer(
    status: int, body: bytes, word: str, settled: bool, good: bool
) -> None:
    made = judge(Exchange(status=status, body=body, sent=True), ("^OK",), ("ERROR",))
    assert (made.word, made.settled, made.good) == (word, settled, good)
    assert bool(made.reason) is not made.good
