"""A genuine request that somebody adds to is not genuine any more, whatever its scheme signs."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from postbackd.core.diagnosis import Reason
from postbackd.core.one_reading import is_read_as_signed
from postbackd.core.params import POSTBACK_NAMES, FieldMap
from postbackd.core.sender_rules import Sender, SenderRules
from postbackd.core.senders import Scheme, Secret, Senders
from postbackd.core.signature import Signed, sign

SECRET = "s3cr3t"
FIELDS = Scheme(kind="fields", hash="md5", keyed=False, template="{click_id}{txid}{payout}{secret}")
QUERY = Scheme(kind="query")
URL = Scheme(kind="url", base="https://track.example")

GENUINE = "click_id=ABC&txid=1&payout=10"


@dataclass(frozen=True)
class Sent:
    """What arrives: the genuine query and its signature, and what was added."""

    before: str = ""
    after: str = ""
    body: bytes = b""
    content_type: bytes = b""


def judge(scheme: Scheme, sent: Sent) -> int:
    signature = sign(scheme, Signed("GET", "/p/k", GENUINE), SECRET)
    query = f"{sent.before}{GENUINE}&sig={signature}{sent.after}"
    method = "POST" if sent.body else "GET"
    names = FieldMap(POSTBACK_NAMES, {"value": ("value", "payout")}).names
    rules = SenderRules(
        Senders(signature_mode="enforce", scheme=scheme, secrets=(Secret(SECRET),)), str, names
    )
    signed = Signed(method, "/p/k", query, sent.body, {}, sent.content_type)
    return rules.check(Sender(signed, "192.0.2.1"), 0).refused


@pytest.mark.parametrize("scheme", [FIELDS, QUERY, URL], ids=["fields", "query", "url"])
def test_the_request_as_it_was_signed_passes(scheme: Scheme) -> None:
    assert judge(scheme, Sent()) == 0


ADDED = {
    "another name of the field": Sent(after="&value=1000"),
    "the name in capitals": Sent(before="PAYOUT=1000&"),
    "the name encoded": Sent(before="p%61yout=1000&"),
    "the name twice": Sent(before="payout=1000&"),
    "a form body": Sent(body=b"payout=1000"),
    "a form body that names it otherwise": Sent(body=b"value=1000"),
    "a JSON body": Sent(body=b'{"payout": "1000"}'),
    "a JSON body behind a byte order mark": Sent(body=b'\xef\xbb\xbf{"value": "1000"}'),
    "a batch": Sent(body=b'[{"click_id": "ABC", "txid": "2", "value": "1000"}]'),
    "lines": Sent(body=b'{"txid": "2", "value": "1000"}\n{"txid": "3", "value": "1000"}'),
    "a line that says it is one": Sent(body=b'{"txid": "2"}', content_type=b"application/x-ndjson"),
    "a number for the text that is signed": Sent(body=b'{"txid": 2}'),
}


@pytest.mark.parametrize("name", ADDED)
@pytest.mark.parametrize("scheme", [FIELDS, QUERY, URL], ids=["fields", "query", "url"])
def test_what_is_added_to_a_genuine_request_makes_it_a_forged_one(scheme: Scheme, name: str) -> None:
    assert judge(scheme, ADDED[name]) == Reason.SIGNATURE_INVALID


def test_what_the_scheme_does_not_sign_and_means_nothing_else_may_stand_beside() -> None:
    assert judge(FIELDS, Sent(after="&sub1=x&value=")) == 0
    assert judge(FIELDS, Sent(body=b"note=x")) == 0


def test_our_own_scheme_signs_all_that_is_read() -> None:
    assert is_read_as_signed(Scheme(), Signed("POST", "/p/k", "a=1&a=2", b"[1]"), {})


@pytest.mark.parametrize("query", ["payout=1&payout=1000", "payout=1&PAYOUT=1000", "payout=1&p%61yout=1000"])
def test_what_a_change_of_order_would_change_is_not_genuine(query: str) -> None:
    names = FieldMap(POSTBACK_NAMES, {"value": ("value", "payout")}).names
    assert not is_read_as_signed(Scheme(), Signed("GET", "/p/k", query), names)
    assert is_read_as_signed(Scheme(), Signed("GET", "/p/k", "payout=1&value=1000&a=1&a=2"), names)
