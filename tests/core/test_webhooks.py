"""Signed webhooks: what the specification publishes, and what a receiver sees."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from postbackd.core.click_id import write_stamp
from postbackd.core.deliveries import Delivery, Facts, Message, Outgoing, Owed
from postbackd.core.model import How
from postbackd.core.outgoing import delivery_values
from postbackd.core.webhooks import (
    OLD_SECRET,
    SECRET,
    SignatureInvalid,
    make_webhook,
    read_secret,
    sign,
    signing_secrets,
    verify,
    write_payload,
    write_secret,
)
from tests.core.desk import CLICK, NOW_MS, REQUEST

_FILE = Path(__file__).parents[2] / "spec/vectors/webhooks.json"
VECTORS: dict[str, list[dict[str, Any]]] = json.loads(_FILE.read_text("utf-8"))
PUBLISHED = VECTORS["sign"][0]

NEW, OLD = bytes(range(24)), bytes(range(64))
OWED = Owed(
    event=1,
    request_id=REQUEST,
    click_id=CLICK,
    type="sale",
    transaction_id="T1",
    conversion_id=REQUEST,
    campaign=7,
    offer=3,
    rule=1,
    target=1,
    message=Message.CONVERSION,
    status=2,
    value_micros=12_500_000,
    currency="USD",
    facts=Facts(source_click_id="src", country="DE", subs=("a", None, "\ud800")),
    created_ms=NOW_MS,
    due_ms=NOW_MS,
    expires_ms=0,
)
DELIVERY = Delivery(number=9, owed=OWED, attempts=0, told=False, outdated=False)
VALUES = delivery_values(DELIVERY, How(), {"campaign": "Spring", "click_id": "cid"})
BASE = Outgoing(
    "GET", "https://hooks.example/in", (("X-Key", "k"), ("Webhook-Id", "forged"), ("Content-Type", "a/b"))
)


def ids(case: dict[str, Any]) -> str:
    return ascii(case.get("note") or case.get("text") or case.get("id"))


@pytest.mark.parametrize("case", VECTORS["sign"], ids=ids)
def test_a_signature_is_the_published_one(case: dict[str, Any]) -> None:
    secrets = [read_secret(text) for text in case["secrets"]]
    assert sign(secrets, case["id"], case["timestamp"], case["body"].encode()) == case["signature"]


@pytest.mark.parametrize("case", VECTORS["verify"], ids=ids)
def test_a_receiver_trusts_only_what_was_signed(case: dict[str, Any]) -> None:
    headers = {
        "webhook-id": PUBLISHED["id"],
        "webhook-timestamp": str(PUBLISHED["timestamp"]),
        "webhook-signature": PUBLISHED["signature"],
        **case.get("headers", {}),
    }
    secrets = [read_secret(text) for text in case.get("secrets", PUBLISHED["secrets"])]
    body = case.get("body", PUBLISHED["body"]).encode()
    now_s = case.get("now", PUBLISHED["timestamp"])
    if case["reason"] is None:
        assert verify(headers, body, secrets, now_s) == PUBLISHED["id"]
        return
    with pytest.raises(SignatureInvalid, match=case["reason"]):
        verify(headers, body, secrets, now_s)


@pytest.mark.parametrize("case", VECTORS["secrets"], ids=ids)
def test_a_secret_is_whsec_and_24_to_64_bytes(case: dict[str, Any]) -> None:
    if case["bytes"] is not None:
        secret = read_secret(case["text"])
        assert len(secret) == case["bytes"]
        assert write_secret(secret) == case["text"]
        return
    with pytest.raises(ValueError, match="a webhook secret is whsec_") as refusal:
        read_secret(case["text"])
    assert len(case["text"]) < 7 or case["text"] not in str(refusal.value)


@pytest.mark.parametrize("length", [0, 23, 65])
def test_a_secret_of_another_length_is_not_written(length: int) -> None:
    with pytest.raises(ValueError, match="24 to 64 bytes"):
        write_secret(bytes(length))


def test_during_a_rotation_either_secret_verifies() -> None:
    accounts = {SECRET: write_secret(NEW), OLD_SECRET: write_secret(OLD), "OTHER": "x"}
    sent = make_webhook(BASE, DELIVERY, VALUES, signing_secrets(accounts), NOW_MS)
    assert dict(sent.headers)["webhook-signature"].count("v1,") == 2
    for secret in (NEW, OLD):
        assert verify(dict(sent.headers), sent.body, [secret], NOW_MS / 1000) == DELIVERY.id
    with pytest.raises(SignatureInvalid):
        verify(dict(sent.headers), sent.body, [bytes(30)], NOW_MS / 1000)


def test_one_secret_makes_one_signature() -> None:
    assert signing_secrets({SECRET: write_secret(NEW), OLD_SECRET: ""}) == (NEW,)


def test_a_target_without_a_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the account value SECRET"):
        signing_secrets({OLD_SECRET: write_secret(OLD)})


def test_a_webhook_is_a_post_with_the_targets_own_headers_but_no_forged_ones() -> None:
    sent = make_webhook(BASE, DELIVERY, VALUES, [NEW], NOW_MS)
    assert (sent.method, sent.url) == ("POST", "https://hooks.example/in")
    assert [name for name, _ in sent.headers] == [
        "X-Key",
        "Content-Type",
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    ]
    assert dict(sent.headers)["webhook-id"] == DELIVERY.id
    assert dict(sent.headers)["webhook-timestamp"] == "1750000000"


def test_every_attempt_has_the_same_id_and_body_and_a_signature_of_its_own() -> None:
    first = make_webhook(BASE, DELIVERY, VALUES, [NEW], NOW_MS)
    second = make_webhook(BASE, DELIVERY, VALUES, [NEW], NOW_MS + 60_000)
    assert first.body == second.body
    assert dict(first.headers)["webhook-id"] == dict(second.headers)["webhook-id"]
    assert dict(first.headers)["webhook-signature"] != dict(second.headers)["webhook-signature"]


def test_the_payload_says_what_happened_and_leaves_out_what_is_not_known() -> None:
    assert json.loads(write_payload(DELIVERY, VALUES)) == {
        "type": "conversion.created",
        "timestamp": "2025-06-15T15:06:40.000Z",
        "data": {
            "conversion_id": write_stamp(REQUEST),
            "click_id": "cid",
            "source_click_id": "src",
            "type": "sale",
            "goal": "sale",
            "status": "approved",
            "value": "12.50",
            "currency": "USD",
            "transaction_id": "T1",
            "time": "2025-06-15T15:06:40.000Z",
            "campaign": "Spring",
            "country": "DE",
            "subs": {"sub1": "a", "sub3": "?"},
            "delivery_id": DELIVERY.id,
        },
    }


def test_a_payload_without_subs_has_none() -> None:
    payload = json.loads(write_payload(DELIVERY, {"value": "0.00"}))
    assert payload["data"] == {"value": "0.00", "delivery_id": DELIVERY.id}


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (Message.CONVERSION, "conversion.created"),
        (Message.ADJUSTMENT, "conversion.adjusted"),
        (Message.RETRACTION, "conversion.retracted"),
    ],
)
def test_the_type_of_a_payload_is_that_of_the_message(message: Message, kind: str) -> None:
    owed = msgspec.structs.replace(OWED, message=message)
    delivery = msgspec.structs.replace(DELIVERY, owed=owed)
    assert json.loads(write_payload(delivery, VALUES))["type"] == kind


@given(st.text(), st.binary(), st.binary(min_size=24, max_size=64), st.integers(0, 10**10))
def test_what_is_signed_verifies_and_nothing_else(
    webhook_id: str, body: bytes, secret: bytes, at_s: int
) -> None:
    headers = {
        "Webhook-Id": webhook_id or "x",
        "Webhook-Timestamp": str(at_s),
        "Webhook-Signature": sign([secret], webhook_id or "x", at_s, body),
    }
    assert verify(headers, body, [secret], at_s) == (webhook_id or "x")
    with pytest.raises(SignatureInvalid):
        verify(headers, body + b"x", [secret], at_s)


# --- the reference library ------------------------------------------------------------------------------------


@pytest.mark.parametrize("secrets", [(NEW,), (OLD,), (NEW, OLD)])
def test_the_reference_library_verifies_what_we_sign(secrets: tuple[bytes, ...]) -> None:
    now_s = int(time())
    request = make_webhook(Outgoing("POST", "https://hook.example/"), DELIVERY, VALUES, secrets, now_s * 1000)
    for secret in secrets:
        read = Webhook(write_secret(secret)).verify(request.body, dict(request.headers))
        assert read["data"]["delivery_id"] == DELIVERY.id
    with pytest.raises(WebhookVerificationError):
        Webhook(write_secret(bytes(32))).verify(request.body, dict(request.headers))


@given(st.from_regex(r"[!-~]+", fullmatch=True), st.text(), st.binary(min_size=24, max_size=64))
def test_we_verify_what_the_reference_library_signs(webhook_id: str, body: str, secret: bytes) -> None:
    at = datetime(2026, 11, 26, 12, tzinfo=UTC)
    signature = Webhook(write_secret(secret)).sign(webhook_id, at, body)
    headers = {
        "webhook-id": webhook_id, "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature,
    }  # fmt: skip
    assert verify(headers, body.encode(), [secret], at.timestamp() + 1) == webhook_id
    with pytest.raises(SignatureInvalid):
        verify(headers, body.encode() + b" ", [secret], at.timestamp() + 1)
